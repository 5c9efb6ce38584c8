"""Trajectories of SWE-agent (.traj): a row per attempt at an issue, with the patch it ended in.

{"history": [{"role", "content", "agent", "thought", "action", "tool_calls", "tool_call_ids"}, ...],
 "trajectory": [{"response", "thought", "action", "observation", "state", "execution_time"}, ...],
 "info": {"exit_status", "submission", "model_stats": {"tokens_sent", "tokens_received", ...}},
 "replay_config": {"agent": {"model": {"name"}}, "problem_statement": {"id"}, "env"}, "environment"}

`history` is what the model was sent, `trajectory` the same by steps; the last step may be there alone.
A submitted patch is no verdict. The configured model was asked for; which one answered, if any did (a
replay calls none), the file does not say. Its counts of tokens are of the whole attempt and stay in `extra`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers._last_answer import beside, split_at_last_answer
from pipelines.readers.json_lines import parse_json_line

_SENT_AGAIN = {"messages", "query"}  # of a step: the history up to it, once more


@dataclass(frozen=True)
class SweAgent:
    """Reads a trajectory file, or a demonstration, which has a history alone."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("swe_agent", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """Steps with actions and observations, or a history whose messages name their agent."""
        history, steps = record.get("history"), record.get("trajectory")
        if not isinstance(history, list) or not history or not isinstance(history[0], Mapping):
            return None
        if isinstance(steps, list) and steps and isinstance(steps[0], Mapping):
            return (
                "'trajectory' of actions"
                if {"action", "observation", "response"} <= steps[0].keys()
                else None
            )
        return "'history' of an agent" if {"role", "content", "agent"} <= history[0].keys() else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; none for an attempt in which the model never answered."""
        with values.readable():
            return _rows(record)


def _rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    history, steps = record.get("history"), record.get("trajectory")
    if not isinstance(history, list):
        raise Unreadable("no_history", f"'history' is {type(history).__name__}, expected a list of messages")
    if steps is not None and not isinstance(steps, list):
        raise Unreadable("bad_shape", f"'trajectory' is {type(steps).__name__}, expected a list of steps")
    messages = [_message(each) for each in history]
    turns = [place for place, each in enumerate(history) if _is_turn(each)]
    before, answer, after = split_at_last_answer(messages)
    if final := _final_step(steps or [], turns):
        before, answer, after = messages, values.said("assistant", values.text(final["response"])), []
    if answer is None:
        return []
    config = _config(record)
    agent = values.inner(config, "agent")
    row = {
        "trace_key": values.text(values.inner(config, "problem_statement").get("id")) or UNSTATED,
        "model_requested": values.text(values.inner(agent, "model").get("name")) or UNSTATED,
        "model_answered": UNSTATED,
        "messages": before,
        "response": answer["content"],
        "response_tool_calls": answer["tool_calls"],
        "verdict": UNSTATED,
        "extra": values.extra_of(
            record=values.by_reference(values.without(record, {"history", "trajectory"})),
            answer=beside(answer),
            after=after,
            steps=values.by_reference(_steps(history, turns, steps or [])),
            shortened=_sent_again(steps or []),
        ),
    }
    return [row]


def _message(value: Any) -> dict[str, Any]:
    """A message of the history; the id of its call, where it is the result of exactly one."""
    message = values.message(values.by_reference(value) if isinstance(value, Mapping) else value)
    ids = value.get("tool_call_ids")
    if message["tool_call_id"] is None and isinstance(ids, list) and len(ids) == 1:
        message["tool_call_id"] = values.text(ids[0])
    return message


def _is_turn(value: Any) -> bool:
    """Whether a message is an answer of this attempt, not of the demonstration that it was shown."""
    return isinstance(value, Mapping) and value.get("role") == "assistant" and not value.get("is_demo")


def _final_step(steps: Sequence[Any], turns: Sequence[int]) -> Mapping[str, Any] | None:
    """The last step, where its answer did not come into the history. One that has no words is no answer."""
    if len(steps) <= len(turns) or not isinstance(steps[-1], Mapping):
        return None
    response = steps[-1].get("response")
    return steps[-1] if isinstance(response, str) and response.strip() else None


def _steps(history: Sequence[Any], turns: Sequence[int], steps: Sequence[Any]) -> list[Any]:
    """What the steps say beyond the history."""
    told: list[Any] = []
    for number, step in enumerate(steps):
        if not isinstance(step, Mapping):
            told.append(step)
            continue
        place = turns[number] if number < len(turns) else None
        turn = history[place] if place is not None else {}
        then = history[place + 1] if place is not None and place + 1 < len(history) else {}
        said = {"response": turn.get("content"), "thought": turn.get("thought"), "action": turn.get("action")}
        rest = {
            key: value
            for key, value in step.items()
            if key not in _SENT_AGAIN and not (isinstance(value, str) and value == said.get(key))
        }
        seen, shown = step.get("observation"), then.get("content") if isinstance(then, Mapping) else None
        if isinstance(seen, str) and isinstance(shown, str) and seen in shown:
            del rest["observation"]
        told.append(rest)
    return told if any(told) else []


def _sent_again(steps: Sequence[Any]) -> list[str]:
    found = {key for step in steps if isinstance(step, Mapping) for key in _SENT_AGAIN & step.keys()}
    return [f"trajectory[].{key}" for key in sorted(found)]


def _config(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the attempt; some versions write it as JSON text."""
    config = record.get("replay_config")
    if isinstance(config, str):
        return parse_json_line(config.encode("utf-8", "replace")) or {}
    return config if isinstance(config, Mapping) else {}
