"""Runs of tau-bench, an agent that serves a simulated customer: a row per run, its reward as the verdict.

{"task_id", "trial", "reward": 0.0 or 1.0, "info": {"task": {...}, "user_cost", "reward_info": {...}},
 "traj": [OpenAI-style messages, the system's first]}
{"messages_display": "user: ...\\nassistant: ...\\ntool: ..."}    an example; "None" where a tool is called

The record says neither which model answered nor who computed the reward.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers._last_answer import beside, split_at_last_answer

_SPEAKER = re.compile(r"^(system|user|assistant|tool): ", re.MULTILINE)


@dataclass(frozen=True)
class TauBench:
    """Reads results of runs, and the dialogues that are shown as examples."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("tau_bench", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A run's 'traj' with its task and reward, or a dialogue for display."""
        if isinstance(record.get("traj"), list) and {"task_id", "reward"} <= record.keys():
            return "'traj' with 'task_id' and 'reward'"
        return "'messages_display'" if isinstance(record.get("messages_display"), str) else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; none for a run in which nothing was answered."""
        with values.readable():
            if "messages_display" in record:
                return _row(record, _displayed(record["messages_display"]), read={"messages_display"})
            return _row(record, values.messages(record.get("traj")), read={"traj"})


def _row(
    record: Mapping[str, Any], messages: list[dict[str, Any]], *, read: set[str]
) -> list[dict[str, Any]]:
    before, answer, after = split_at_last_answer(messages)
    if answer is None:
        return []
    reward = values.number(record.get("reward"))
    task, trial = values.text(record.get("task_id")), values.text(record.get("trial"))
    row = {
        "trace_key": UNSTATED if task is None else task if trial is None else f"{task}/{trial}",
        "model_requested": UNSTATED,
        "model_answered": UNSTATED,
        "messages": before,
        "response": answer["content"],
        "response_tool_calls": answer["tool_calls"],
        "verdict": {1.0: "pass", 0.0: "fail"}.get(reward, UNSTATED) if reward is not None else UNSTATED,
        "score": reward,
        "extra": values.extra_of(
            record=values.by_reference(
                values.without(record, read | ({"reward"} if reward is not None else set()))
            ),
            answer=beside(answer),
            after=after,
        ),
    }
    return [row]


def _displayed(dialogue: Any) -> list[dict[str, Any]]:
    """The messages of a dialogue; a call of a tool, of which it displays "None", has no words."""
    if not isinstance(dialogue, str) or not _SPEAKER.match(dialogue):
        raise Unreadable("no_dialogue", "'messages_display' does not begin with a speaker, expected 'user: '")
    pieces = _SPEAKER.split(dialogue)[1:]
    told = []
    for role, words in zip(pieces[::2], pieces[1::2], strict=True):
        words = words.removesuffix("\n")
        is_call = role == "assistant" and words == "None"
        told.append(
            values.said(role, None if is_call else words, extra={"displayed": words} if is_call else None)
        )
    return told
