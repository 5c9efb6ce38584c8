"""The output of OpenAI's batches: answers by custom_id, without the requests, which another file holds.

{"id", "custom_id", "response": {"status_code", "request_id", "body": {"choices", ...}}, "error": null}
{"id", "custom_id", "response": null | {"status_code": 4xx, "body": {"error"}}, "error": {"code", "message"}}

A body may be of any endpoint that answers in words; one of embeddings gives no row. A line that failed is a
row without a response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers._answers import Answer, answer


@dataclass(frozen=True)
class OpenAIBatches:
    """Reads an answer each."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("openai_batch", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A custom_id, answered or in error."""
        response = record.get("response")
        is_answered = isinstance(response, Mapping) and "status_code" in response
        is_failed = response is None and isinstance(record.get("error"), Mapping)
        is_line = isinstance(record.get("custom_id"), str) and (is_answered or is_failed)
        return "'custom_id' with a 'response' or an 'error'" if is_line else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; its key is the custom_id, by which the request is found."""
        with values.readable():
            return _read(record)


def _read(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    if record.get("custom_id") is None:
        raise Unreadable("no_custom_id", f"found keys {sorted(record)[:8]}, expected 'custom_id'")
    response = values.object_in(record, "response")
    body = values.object_in(response, "body")
    status = values.count(response.get("status_code")) or 0
    if record.get("error") or status >= 400 or not body:
        found = Answer(finish_reason="error", rest={"error": record.get("error"), "body": body})
    else:
        found = answer(body)
    if found is None:
        if isinstance(body.get("data"), list):  # embeddings
            return []
        raise Unreadable("unknown_answer", f"the body has {sorted(body)[:8]}, as no endpoint answers")
    rest = {
        **found.rest,
        "batch": values.without(record, {"custom_id", "response", "error"}),
        "http": values.without(response, {"body"}),
    }
    return [
        {
            **found.columns(),
            "trace_key": values.text(record["custom_id"]),
            "model_requested": UNSTATED,
            "messages": [],
            "verdict": UNSTATED,
            "extra": values.extra_of(**rest, answer_id=found.key),
        }
    ]
