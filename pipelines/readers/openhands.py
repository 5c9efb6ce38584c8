"""What OpenHands keeps of its agents' work: results with a history of events, and files of events alone.

{"history": [event, ...], "instruction", "success", "comment_success", "result_explanation", "git_patch",
 "issue": {"owner", "repo", "number"}, "metrics", "error"}                               a resolver's result
{"history": [...], "instance_id", "metadata": {"llm_config": {"model"}}, "test_result"}  an evaluation's
[event, ...]                                                                             a trajectory file
event: {"id", "timestamp", "source", "action", "args",
        "tool_call_metadata": {"tool_call_id", "model_response": a chat completion}}
       {"id", "timestamp", "source", "observation", "content", "extras", "cause", "tool_call_metadata"}

A row per trajectory: the last answer, and all before it. Times are those of the model's reply: an event's own
does not name its time zone. Who judged `success` the record does not say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Part, Unreadable, values
from pipelines.readers._last_answer import beside, split_at_last_answer
from pipelines.readers._openhands_events import choice_of, turns_of
from pipelines.readers.json_lines import decode_json


@dataclass(frozen=True)
class OpenHands:
    """Reads results: objects with a history of events."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("openhands", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A history whose first event is an action or an observation."""
        history = record.get("history")
        return "'history' of events" if isinstance(history, list) and _begins_with_event(history) else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; none for a trajectory in which no model answered."""
        history = record.get("history")
        if not isinstance(history, list):
            raise Unreadable(
                "no_history", f"'history' is {type(history).__name__}, expected a list of events"
            )
        with values.readable():
            rows = _rows(_flat(history), values.without(record, {"history", "success"}))
        success = record.get("success")
        model = values.inner(values.inner(record, "metadata"), "llm_config").get("model")
        for row in rows:
            row["trace_key"] = _key(record) or row["trace_key"]
            row["model_requested"] = values.text(model) or UNSTATED
            if isinstance(success, bool):
                row["verdict"] = "pass" if success else "fail"
        return rows


@dataclass(frozen=True)
class OpenHandsEvents:
    """Reads a file that is one array of events: one trajectory."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("openhands_events", 1, {})

    def recognises_document(self, name: str, content: bytes) -> str | None:
        """An array whose first element is an event with a source and a time."""
        text = content.decode("utf-8-sig", "ignore").lstrip()
        if not text.startswith("["):
            return None
        try:
            first, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
        except (ValueError, RecursionError):
            return None
        is_event = _begins_with_event([first]) and {"id", "source", "timestamp"} <= first.keys()
        return "an array of events with 'source' and 'timestamp'" if is_event else None

    def read_document(self, name: str, content: bytes) -> list[Part]:
        """The whole document as one part."""
        events = decode_json(content)
        if not isinstance(events, list):
            raise Unreadable("not_an_array", f"a JSON {type(events).__name__}, expected an array of events")
        with values.readable():
            return [Part(0, len(content), _rows(events, {}))]


def _rows(events: Sequence[Any], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns, others = turns_of(events)
    before, answer, after = split_at_last_answer([turn.message for turn in turns])
    if answer is None:
        return []
    reply = turns[len(before)].reply
    usage, model = values.inner(reply, "usage"), values.text(reply.get("model"))
    row = {
        "trace_key": values.text(reply.get("id")) or UNSTATED,
        "happened_at": values.moment(reply.get("created")),
        "model_requested": UNSTATED,
        "model_answered": model or UNSTATED,
        "messages": before,
        "response": answer["content"],
        "response_tool_calls": answer["tool_calls"],
        "finish_reason": values.text(choice_of(reply).get("finish_reason")),
        "verdict": UNSTATED,
        "input_tokens": values.count(usage.get("prompt_tokens")),
        "output_tokens": values.count(usage.get("completion_tokens")),
        "extra": values.extra_of(
            record=values.by_reference(about), answer=beside(answer), after=after, other_events=others
        ),
        "generator": model,
    }
    return [row]


def _flat(history: Sequence[Any]) -> list[Any]:
    """The events; older versions wrote pairs of action and observation."""
    return [event for each in history for event in (each if isinstance(each, list) else [each])]


def _begins_with_event(events: Sequence[Any]) -> bool:
    first = next(iter(_flat(events[:1])), None)
    if not isinstance(first, Mapping) or "role" in first:
        return False
    return isinstance(first.get("action"), str) or isinstance(first.get("observation"), str)


def _key(record: Mapping[str, Any]) -> str | None:
    """The instance of an evaluation, or the issue that was to be resolved: owner/repo#number."""
    if record.get("instance_id") is not None:
        return values.text(record["instance_id"])
    issue = values.inner(record, "issue")
    if issue.get("number") is None:
        return None
    return (
        f"{values.text(issue.get('owner'))}/{values.text(issue.get('repo'))}#{values.text(issue['number'])}"
    )
