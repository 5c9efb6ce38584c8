"""OpenAI-style chat completions: logged exchanges of request and response, supervised lines of messages.

{"id", "request": {"model", "messages", "metadata"}, "response": {"model", "choices", "usage", "created"},
 "verdict": {"value", "judge", "judge_version", "score", "threshold"}, "review": {"reviewer", "correction"}}
{"messages": [..., {"role": "assistant", "content": ...}], "metadata": {...}}
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import NOT_APPLICABLE, TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable

_PASS = {"pass", "passed", "correct", "right", "true", "yes", "1", "1.0"}
_FAIL = {"fail", "failed", "incorrect", "wrong", "false", "no", "0", "0.0"}
_READ = {"id", "request", "response", "verdict", "review", "messages", "metadata"}
_METADATA = {"prompt_name", "prompt_version"} | {"generator", "generator_revision"}
_METADATA |= {"scorer", "scorer_revision", "score", "threshold"}


@dataclass(frozen=True)
class ChatCompletions:
    """Reads both shapes; which one a line has is seen from its keys."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def rows_per_record(self) -> int:
        """One line, one exchange."""
        return 1

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("chat_completions", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> bool:
        """A line with messages, at its top or inside its request."""
        request = record.get("request")
        return isinstance(record.get("messages"), list) or (
            isinstance(request, Mapping) and isinstance(request.get("messages"), list)
        )

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row."""
        if isinstance(record.get("messages"), list):
            return [_supervised(record)]
        if isinstance(record.get("request"), Mapping):
            return [_exchange(record)]
        raise Unreadable(
            "not_a_chat_completion", f"found keys {sorted(record)[:8]}, expected 'messages' or 'request'"
        )


def _exchange(record: Mapping[str, Any]) -> dict[str, Any]:
    request, response = _object(record, "request"), _object(record, "response")
    verdict, review = _object(record, "verdict"), _object(record, "review")
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Unreadable("no_choice", "the response has no 'choices', expected at least one")
    choice = choices[0]
    answer = _object(choice, "message")
    model = _text(response.get("model")) or UNSTATED
    metadata, usage = _object(request, "metadata"), _object(response, "usage")
    value = _verdict(verdict.get("value"), corrected=review.get("correction") is not None)
    name, _, version = model.partition("@")
    return {
        "trace_key": _text(record.get("id")) or _text(response.get("id")) or UNSTATED,
        "happened_at": _time(response.get("created")),
        "model_requested": _text(request.get("model")) or UNSTATED,
        "model_answered": model,
        "messages": _messages(request.get("messages")),
        "response": _content(answer.get("content")),
        "response_tool_calls": _json(answer.get("tool_calls")),
        "finish_reason": _text(choice.get("finish_reason")),
        "verdict": value,
        "correction": _text(review.get("correction")),
        "input_tokens": _count(usage.get("prompt_tokens")),
        "output_tokens": _count(usage.get("completion_tokens")),
        "extra": _rest(record, request, response, choices, answer, metadata, usage, verdict, review),
        "prompt_name": _text(metadata.get("prompt_name")),
        "prompt_version": _text(metadata.get("prompt_version")),
        "generator": name,
        "generator_revision": version or UNSTATED,
        "scorer": _text(verdict.get("judge")),
        "scorer_revision": _text(verdict.get("judge_version")),
        "score": _number(verdict.get("score")),
        "threshold": _number(verdict.get("threshold")),
        "review": "overridden" if review.get("correction") is not None else "none",
        "reviewer": _text(review.get("reviewer")) or (UNSTATED if review else NOT_APPLICABLE),
    }


def _supervised(record: Mapping[str, Any]) -> dict[str, Any]:
    messages = _messages(record["messages"])
    if not messages or messages[-1]["role"] != "assistant":
        raise Unreadable("no_answer", "the last message is not the assistant's, expected an answer to learn")
    metadata = _object(record, "metadata")
    rest = {key: value for key, value in record.items() if key not in _READ}
    if unread := {key: value for key, value in metadata.items() if key not in _METADATA}:
        rest["metadata"] = unread
    return {
        "trace_key": _text(record.get("id")) or UNSTATED,
        "model_requested": NOT_APPLICABLE,
        "model_answered": NOT_APPLICABLE,
        "messages": messages[:-1],
        "response": messages[-1]["content"],
        "response_tool_calls": messages[-1]["tool_calls"],
        "verdict": UNSTATED,
        "extra": _json(rest or None),
        **{name: _text(metadata.get(name)) for name in _METADATA - {"score", "threshold"}},
        "score": _number(metadata.get("score")),
        "threshold": _number(metadata.get("threshold")),
    }


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Unreadable("no_messages", f"'messages' is {type(value).__name__}, expected a list")
    return [_message(message) for message in value]


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise Unreadable("bad_message", "a message without a role, expected {'role', 'content'}")
    parts = value.get("content")
    known = {"role", "content", "name", "tool_calls", "tool_call_id"}
    extra = {key: item for key, item in value.items() if key not in known and item is not None}
    if isinstance(parts, list) and any(_text_of_part(part) is None for part in parts):
        extra["content"] = parts  # images and the like: kept whole beside the text
    return {
        "role": value["role"],
        "content": _content(parts),
        "name": _text(value.get("name")),
        "tool_calls": _json(value.get("tool_calls")),
        "tool_call_id": _text(value.get("tool_call_id")),
        "extra": _json(extra or None),
    }


def _content(value: Any) -> str | None:
    if isinstance(value, list):
        return "".join(text for part in value if (text := _text_of_part(part)) is not None)
    return _text(value)


def _text_of_part(part: Any) -> str | None:
    if isinstance(part, Mapping) and part.get("type") in ("text", "output_text"):
        return _text(part.get("text"))
    return part if isinstance(part, str) else None


def _rest(
    record: Mapping[str, Any],
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    choices: list[Any],
    answer: Mapping[str, Any],
    metadata: Mapping[str, Any],
    usage: Mapping[str, Any],
    verdict: Mapping[str, Any],
    review: Mapping[str, Any],
) -> str | None:
    """What has no column: kept, so that nothing of the source is lost."""
    parts = {
        "record": _without(record, _READ),
        "request": _without(request, {"model", "messages", "metadata"}),
        "metadata": _without(metadata, {"prompt_name", "prompt_version"}),
        "response": _without(response, {"id", "model", "choices", "created", "usage"}),
        "choice": _without(choices[0], {"index", "message", "finish_reason"}),
        "message": _without(answer, {"role", "content", "tool_calls"}),
        "other_choices": choices[1:],
        "usage": _without(usage, {"prompt_tokens", "completion_tokens", "total_tokens"}),
        "verdict": _without(verdict, {"value", "judge", "judge_version", "score", "threshold"}),
        "review": _without(review, {"reviewer", "correction"}),
    }
    return _json({name: value for name, value in parts.items() if value} or None)


def _without(value: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in keys}


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Unreadable("bad_shape", f"'{key}' is {type(value).__name__}, expected an object")
    return value


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _verdict(value: Any, *, corrected: bool) -> str:
    """Pass or fail; a correction says that the answer was wrong. Raises Unreadable for any other word."""
    word = "" if value is None else str(value).strip().lower()
    if word in _PASS | _FAIL:
        return "pass" if word in _PASS and not corrected else "fail"
    if word not in ("", UNSTATED):
        raise Unreadable("unknown_verdict", f"verdict {word[:40]!r}, expected pass or fail")
    return "fail" if corrected else UNSTATED


def _time(value: Any) -> dt.datetime | None:
    """Unix time in seconds, milli- or microseconds, or ISO 8601."""
    if isinstance(value, str):
        try:
            read = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
        return read.replace(tzinfo=dt.UTC) if read.tzinfo is None else read.astimezone(dt.UTC)
    number = _number(value)
    if number is None:
        return None
    scale = next((s for s in (1, 1e3, 1e6) if abs(number) < 1e11 * s), 1e9)  # 1e11 seconds: the year 5138
    return dt.datetime.fromtimestamp(number / scale, dt.UTC)
