"""OpenAI-style chat completions: logged exchanges of request and response, supervised lines of messages.

{"id", "request": {"model", "messages", "metadata"}, "response": {"model", "choices", "usage", "created"},
 "verdict": {"value", "judge", "judge_version", "score", "threshold"}, "review": {"reviewer", "correction"}}
{"messages": [..., {"role": "assistant", "content": ...}], "metadata": {...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import NOT_APPLICABLE, TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values

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
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("chat_completions", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A line with messages, at its top or inside its request."""
        if isinstance(record.get("messages"), list):
            return "'messages' at its top"
        request = record.get("request")
        is_exchange = isinstance(request, Mapping) and isinstance(request.get("messages"), list)
        return "'request' with 'messages'" if is_exchange else None

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
    request, response = values.object_in(record, "request"), values.object_in(record, "response")
    verdict, review = values.object_in(record, "verdict"), values.object_in(record, "review")
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Unreadable("no_choice", "the response has no 'choices', expected at least one")
    choice = choices[0]
    answer = values.object_in(choice, "message")
    model = values.text(response.get("model")) or UNSTATED
    metadata, usage = values.object_in(request, "metadata"), values.object_in(response, "usage")
    value = _verdict(verdict.get("value"), corrected=review.get("correction") is not None)
    name, _, version = model.partition("@")
    return {
        "trace_key": values.text(record.get("id")) or values.text(response.get("id")) or UNSTATED,
        "happened_at": values.moment(response.get("created")),
        "model_requested": values.text(request.get("model")) or UNSTATED,
        "model_answered": model,
        "messages": values.messages(request.get("messages")),
        "response": values.content(answer.get("content")),
        "response_tool_calls": values.json_text(answer.get("tool_calls")),
        "finish_reason": values.text(choice.get("finish_reason")),
        "verdict": value,
        "correction": values.text(review.get("correction")),
        "input_tokens": values.count(usage.get("prompt_tokens")),
        "output_tokens": values.count(usage.get("completion_tokens")),
        "extra": values.json_text(
            _rest_parts(record, request, response, choices, answer, metadata, usage, verdict, review) or None
        ),
        "prompt_name": values.text(metadata.get("prompt_name")),
        "prompt_version": values.text(metadata.get("prompt_version")),
        "generator": name,
        "generator_revision": version or UNSTATED,
        "scorer": values.text(verdict.get("judge")),
        "scorer_revision": values.text(verdict.get("judge_version")),
        "score": values.number(verdict.get("score")),
        "threshold": values.number(verdict.get("threshold")),
        "review": "overridden" if review.get("correction") is not None else "none",
        "reviewer": values.text(review.get("reviewer")) or (UNSTATED if review else NOT_APPLICABLE),
    }


def _supervised(record: Mapping[str, Any]) -> dict[str, Any]:
    messages = values.messages(record["messages"])
    if not messages or messages[-1]["role"] != "assistant":
        raise Unreadable("no_answer", "the last message is not the assistant's, expected an answer to learn")
    metadata = values.object_in(record, "metadata")
    rest = {key: value for key, value in record.items() if key not in _READ}
    if unread := {key: value for key, value in metadata.items() if key not in _METADATA}:
        rest["metadata"] = unread
    return {
        "trace_key": values.text(record.get("id")) or UNSTATED,
        "model_requested": NOT_APPLICABLE,
        "model_answered": NOT_APPLICABLE,
        "messages": messages[:-1],
        "response": messages[-1]["content"],
        "response_tool_calls": messages[-1]["tool_calls"],
        "verdict": UNSTATED,
        "extra": values.json_text(rest or None),
        **{name: values.text(metadata.get(name)) for name in _METADATA - {"score", "threshold"}},
        "score": values.number(metadata.get("score")),
        "threshold": values.number(metadata.get("threshold")),
    }


def _rest_parts(
    record: Mapping[str, Any],
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    choices: list[Any],
    answer: Mapping[str, Any],
    metadata: Mapping[str, Any],
    usage: Mapping[str, Any],
    verdict: Mapping[str, Any],
    review: Mapping[str, Any],
) -> dict[str, Any]:
    """What has no column: kept, so that nothing of the source is lost."""
    parts = {
        "record": values.without(record, _READ),
        "request": values.without(request, {"model", "messages", "metadata"}),
        "metadata": values.without(metadata, {"prompt_name", "prompt_version"}),
        "response": values.without(response, {"id", "model", "choices", "created", "usage"}),
        "choice": values.without(choices[0], {"index", "message", "finish_reason"}),
        "message": values.without(answer, {"role", "content", "tool_calls"}),
        "other_choices": choices[1:],
        "usage": values.without(usage, {"prompt_tokens", "completion_tokens", "total_tokens"}),
        "verdict": values.without(verdict, {"value", "judge", "judge_version", "score", "threshold"}),
        "review": values.without(review, {"reviewer", "correction"}),
    }
    return {name: value for name, value in parts.items() if value}


def _verdict(value: Any, *, corrected: bool) -> str:
    """Pass or fail; a correction says that the answer was wrong. Raises Unreadable for any other word."""
    word = "" if value is None else str(value).strip().lower()
    if word in _PASS | _FAIL:
        return "pass" if word in _PASS and not corrected else "fail"
    if word not in ("", UNSTATED):
        raise Unreadable("unknown_verdict", f"verdict {word[:40]!r}, expected pass or fail")
    return "fail" if corrected else UNSTATED
