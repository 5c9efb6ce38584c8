"""OpenAI-style chat completions: logged exchanges of request and response, supervised lines of messages.

{"id", "request": {"model", "messages", "metadata"}, "response": {"model", "choices", "usage", "created"},
 "verdict": {"value", "judge", "judge_version", "score", "threshold"}, "review": {"reviewer", "correction"}}
    "response" may be a list of chat.completion.chunk, as streamed; so may "chunks" in its place
{"object": "chat.completion", "model", "choices", ...}     a response alone: nobody logged the request
{"messages": [..., {"role": "assistant", "content": ..., "weight"}], "tools", "functions", "metadata": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from infra.redaction import without_secrets
from lineage.rows import Fingerprint
from lineage.schemas import NOT_APPLICABLE, TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers import _exchange_columns as by_columns
from pipelines.readers._answers import Answer, chat
from pipelines.readers._exchange_fields import KNOWN
from pipelines.readers._streams import completion

_PASS = {"pass", "passed", "correct", "right", "true", "yes", "1", "1.0"}
_FAIL = {"fail", "failed", "incorrect", "wrong", "false", "no", "0", "0.0"}
_METADATA = {"prompt_name", "prompt_version"} | {"generator", "generator_revision"}
_METADATA |= {"scorer", "scorer_revision", "score", "threshold"}


@dataclass(frozen=True)
class ChatCompletions:
    """Reads these shapes; which one a line has is seen from its keys."""

    writes: ClassVar[TableSpec] = TRACE
    rows_per_record: ClassVar[int] = 1

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("chat_completions", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A line with messages, at its top or inside its request, or with an answer of this kind alone."""
        if isinstance(record.get("messages"), list):
            return "'messages' at its top"
        request = record.get("request")
        if isinstance(request, Mapping) and isinstance(request.get("messages"), list):
            return "'request' with 'messages'"
        if _is_stream(record.get("response")) or _is_stream(record.get("chunks")):
            return "chunks of a chat.completion"
        is_answer = record.get("object") == "chat.completion" and isinstance(record.get("choices"), list)
        return "a chat.completion alone" if is_answer else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row."""
        with values.readable():
            return [_supervised(record) if isinstance(record.get("messages"), list) else _logged(record)]

    def read_columns(self, lines: Sequence[bytes], *, keep_extra: bool) -> tuple[pa.Table, np.ndarray]:
        """The rows of plain exchanges at once, and for each the number of its line."""
        return by_columns.exchanges(lines, verdict=_said_verdict, keep_rest=keep_extra)


def _said_verdict(value: Any) -> str:
    return _verdict(value, corrected=False)


def _logged(record: Mapping[str, Any]) -> dict[str, Any]:
    streamed, kept = record.get("response"), record
    if streamed is None and isinstance(record.get("chunks"), list):
        streamed, kept = record["chunks"], values.without(record, {"chunks"})
    if isinstance(streamed, list):
        if not all(isinstance(chunk, Mapping) for chunk in streamed):
            raise Unreadable("bad_stream", "a chunk is no object, expected chat.completion.chunk")
        row = _exchange({**kept, "response": completion(streamed)})
        extra = json.loads(row["extra"] or "{}")
        return row | {"extra": values.extra_of(**extra, shortened=[f"chunks: {len(streamed)} put together"])}
    if isinstance(record.get("request"), Mapping):
        return _exchange(record)
    if "choices" in record:
        return _exchange({"response": record})
    raise Unreadable(
        "not_a_chat_completion", f"found keys {sorted(record)[:8]}, expected 'messages' or 'request'"
    )


def _is_stream(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and first.get("object") == "chat.completion.chunk"


def _exchange(record: Mapping[str, Any]) -> dict[str, Any]:
    request, response = values.object_in(record, "request"), values.object_in(record, "response")
    verdict, review = values.object_in(record, "verdict"), values.object_in(record, "review")
    answer = chat(response)
    metadata = values.object_in(request, "metadata")
    value, reviewed = _judged(verdict, review)
    score, threshold = (values.number_in(verdict.get(name)) for name in ("score", "threshold"))
    unread = _unread(verdict, score, threshold)
    name, _, version = (answer.model or UNSTATED).partition("@")
    return {
        **answer.columns(),
        "trace_key": values.text(record.get("id")) or answer.key or UNSTATED,
        "model_requested": values.text(request.get("model")) or UNSTATED,
        "messages": values.messages(request.get("messages")) if "request" in record else [],
        "verdict": value,
        "correction": values.text(review.get("correction")),
        "extra": _rest(record, request, answer, metadata, verdict, review, unread),
        "prompt_name": values.text(metadata.get("prompt_name")),
        "prompt_version": values.text(metadata.get("prompt_version")),
        "generator": name,
        "generator_revision": version or UNSTATED,
        "scorer": values.text(verdict.get("judge")),
        "scorer_revision": values.text(verdict.get("judge_version")),
        "score": score,
        "threshold": threshold,
        "review": reviewed,
        "reviewer": values.text(review.get("reviewer")) or (UNSTATED if review else NOT_APPLICABLE),
    }


def _supervised(record: Mapping[str, Any]) -> dict[str, Any]:
    messages = values.messages(record["messages"])
    if not messages or messages[-1]["role"] != "assistant":
        raise Unreadable("no_answer", "the last message is not the assistant's, expected an answer to learn")
    metadata = values.object_in(record, "metadata")
    rest = values.without(record, {"id", "messages", "metadata"})
    if unread := {key: value for key, value in metadata.items() if key not in _METADATA}:
        rest["metadata"] = unread
    score, threshold = (values.number_in(metadata.get(name)) for name in ("score", "threshold"))
    if odd := _unread(metadata, score, threshold):
        rest["unread"] = odd
    if messages[-1]["extra"]:  # a weight, a refusal, a function call of the older kind
        rest["message"] = json.loads(messages[-1]["extra"])
    return {
        "trace_key": values.text(record.get("id")) or UNSTATED,
        "model_requested": NOT_APPLICABLE,
        "model_answered": NOT_APPLICABLE,
        "messages": messages[:-1],
        "response": messages[-1]["content"],
        "response_tool_calls": messages[-1]["tool_calls"],
        "verdict": UNSTATED,
        "extra": values.json_text(without_secrets(rest) or None),
        **{name: values.text(metadata.get(name)) for name in _METADATA - {"score", "threshold"}},
        "score": score,
        "threshold": threshold,
    }


def _rest(
    record: Mapping[str, Any],
    request: Mapping[str, Any],
    answer: Answer,
    metadata: Mapping[str, Any],
    verdict: Mapping[str, Any],
    review: Mapping[str, Any],
    unread: Mapping[str, Any],
) -> str | None:
    """What has no column: kept, so that nothing of the source is lost."""
    parts = {
        **answer.rest,
        "record": values.without(record, KNOWN["record"]),
        "request": values.without(request, KNOWN["request"]),
        "metadata": values.without(metadata, KNOWN["metadata"]),
        "verdict": values.without(verdict, KNOWN["verdict"]),
        "review": values.without(review, KNOWN["review"]),
        "unread": {**answer.rest.get("unread", {}), **unread},
    }
    return values.json_text(without_secrets({name: part for name, part in parts.items() if part}) or None)


def _unread(said: Mapping[str, Any], score: float | None, threshold: float | None) -> dict[str, Any]:
    return values.unread(score=(said.get("score"), score), threshold=(said.get("threshold"), threshold))


def _judged(verdict: Mapping[str, Any], review: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict, and what a person made of it: who corrects or judges otherwise beats the machine."""
    corrected = review.get("correction") is not None
    said = _verdict(verdict.get("value"), corrected=corrected)
    word = _verdict(review.get("verdict"), corrected=False)
    if corrected or word == UNSTATED:
        return said, "overridden" if corrected else "none"
    if said not in (word, UNSTATED):
        return word, "overridden"
    return word, "approved" if word == "pass" else "rejected"


def _verdict(value: Any, *, corrected: bool) -> str:
    """Pass or fail; a correction says that the answer was wrong. Raises Unreadable for any other word."""
    word = "" if value is None else str(value).strip().lower()
    if word in _PASS | _FAIL:
        return "pass" if word in _PASS and not corrected else "fail"
    if word not in ("", UNSTATED):
        raise Unreadable("unknown_verdict", f"verdict {word[:40]!r}, expected pass or fail")
    return "fail" if corrected else UNSTATED
