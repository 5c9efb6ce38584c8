"""OpenAI-style chat completions: logged exchanges of request and response, supervised lines of messages.

{"id", "request": {"model", "messages", "metadata"}, "response": {"model", "choices", "usage", "created"},
 "verdict": {"value", "judge", "judge_version", "score", "threshold"}, "review": {"reviewer", "correction"}}
    "response" may be a list of chat.completion.chunk, as streamed; so may "chunks" in its place
    "response" may be another provider's (_answers.py), and the request with it
    "response": null | {"error": ...}, or "error" beside it: a row without an answer
{"object": "chat.completion", "model", "choices", ...}     a response alone: nobody logged the request
{"messages": [..., {"role": "assistant", "content": ..., "weight"}], "tools", "functions", "metadata": {...}}
    the last answer is the one to learn; what follows it answers nothing and goes to extra
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lineage.rows import Fingerprint
from lineage.schemas import NOT_APPLICABLE, TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers import _exchange_columns as by_columns
from pipelines.readers._answers import Answer, answer, chat
from pipelines.readers._exchange_fields import KNOWN, kept
from pipelines.readers._last_answer import beside, split_at_last_answer
from pipelines.readers._requests import Asked, asked
from pipelines.readers._streams import body_of

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
    streamed, around = record.get("response"), record
    if streamed is None and isinstance(record.get("chunks"), list):
        streamed, around = record["chunks"], values.without(record, {"chunks"})
    if isinstance(streamed, list):
        if not all(isinstance(chunk, Mapping) for chunk in streamed):
            raise Unreadable("bad_stream", "a chunk is no object, expected chat.completion.chunk")
        row = _exchange({**around, "response": body_of(streamed)})
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
    question = _asked(request, response) if "request" in record else Asked(None, [], {}, is_input=False)
    answered = _answered(record, response)
    metadata = values.object_in(request, "metadata")
    value, reviewed = _judged(verdict, review)
    score, threshold = (values.number_in(verdict.get(name)) for name in ("score", "threshold"))
    unread = _unread(verdict, score, threshold)
    name, _, version = (answered.model or UNSTATED).partition("@")
    return {
        **answered.columns(),
        "trace_key": values.text(record.get("id")) or answered.key or UNSTATED,
        "model_requested": question.model or UNSTATED,
        "messages": question.messages,
        "verdict": value,
        "correction": values.text(review.get("correction")),
        "extra": _rest(record, question, answered, metadata, verdict, review, unread),
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


def _asked(request: Mapping[str, Any], response: Mapping[str, Any]) -> Asked:
    """The question in OpenAI's shape; where another provider answered, in that one's. Raises Unreadable."""
    is_openai = "choices" in response or not response.keys() - {"error"}
    found = None if is_openai else asked(request, "")
    if found is None:
        messages, model = values.messages(request.get("messages")), values.text(request.get("model"))
        found = Asked(model, messages, request, is_input=False)
    return replace(found, rest=values.without(found.rest, KNOWN["request"]))


def _answered(record: Mapping[str, Any], response: Mapping[str, Any]) -> Answer:
    """What came back; nothing, or an error in its place, is no answer. Raises Unreadable for all else."""
    if (found := answer(response)) is not None:
        return found
    if error := response.get("error") or record.get("error"):
        rest = {"error": error, "response": values.without(response, {"error"})}
        return Answer(finish_reason="error", rest=rest)
    if "response" in record and record["response"] is None:
        return Answer()
    return chat(response)


def _supervised(record: Mapping[str, Any]) -> dict[str, Any]:
    before, said, after = split_at_last_answer(values.messages(record["messages"]))
    if said is None:
        raise Unreadable("no_answer", "no message is the assistant's, expected an answer to learn")
    metadata = values.object_in(record, "metadata")
    rest = values.without(record, {"id", "messages", "metadata"})
    if unread := {key: value for key, value in metadata.items() if key not in _METADATA}:
        rest["metadata"] = unread
    score, threshold = (values.number_in(metadata.get(name)) for name in ("score", "threshold"))
    if odd := _unread(metadata, score, threshold):
        rest["unread"] = odd
    if more := beside(said):  # a weight, a refusal, a function call of the older kind
        rest["message"] = more
    if after:
        rest["after_the_answer"] = record["messages"][-len(after) :]
    return {
        "trace_key": values.text(record.get("id")) or UNSTATED,
        "model_requested": NOT_APPLICABLE,
        "model_answered": NOT_APPLICABLE,
        "messages": before,
        "response": said["content"],
        "response_tool_calls": said["tool_calls"],
        "verdict": UNSTATED,
        "extra": values.json_text(kept(rest) or None),
        **{name: values.text(metadata.get(name)) for name in _METADATA - {"score", "threshold"}},
        "score": score,
        "threshold": threshold,
    }


def _rest(
    record: Mapping[str, Any],
    question: Asked,
    answered: Answer,
    metadata: Mapping[str, Any],
    verdict: Mapping[str, Any],
    review: Mapping[str, Any],
    unread: Mapping[str, Any],
) -> str | None:
    """What has no column: kept, so that nothing of the source is lost."""
    error = answered.rest.get("error")
    is_told = error is not None and error is record.get("error")
    parts = {
        **answered.rest,
        "record": values.without(record, KNOWN["record"] | ({"error"} if is_told else set())),
        "request": question.rest,
        "metadata": values.without(metadata, KNOWN["metadata"]),
        "verdict": values.without(verdict, KNOWN["verdict"]),
        "review": values.without(review, KNOWN["review"]),
        "unread": {**answered.rest.get("unread", {}), **unread},
    }
    return values.json_text(kept({name: part for name, part in parts.items() if part}) or None)


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
    said = values.verdict_in(value)
    word = "" if value is None else str(value).strip().lower()
    if said is None and word not in ("", UNSTATED):
        raise Unreadable("unknown_verdict", f"verdict {word[:40]!r}, expected pass or fail")
    return "fail" if corrected else said or UNSTATED
