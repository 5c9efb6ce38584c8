"""The fields of a logged chat exchange that have columns, by where they stand; the others go to `extra`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.redaction import without_secrets
from pipelines.readers import values

PLACES: Mapping[str, tuple[tuple[str | int, ...], frozenset[str]]] = {
    "record": ((), frozenset({"id", "request", "response", "verdict", "review"})),
    "request": (("request",), frozenset({"model", "messages", "metadata"})),
    "metadata": (("request", "metadata"), frozenset({"prompt_name", "prompt_version"})),
    "response": (("response",), frozenset({"id", "model", "choices", "created", "usage"})),
    "choice": (("response", "choices", 0), frozenset({"index", "message", "finish_reason"})),
    "message": (("response", "choices", 0, "message"), frozenset({"role", "content", "tool_calls"})),
    "usage": (("response", "usage"), frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})),
    "verdict": (("verdict",), frozenset({"value", "judge", "judge_version", "score", "threshold"})),
    "review": (("review",), frozenset({"reviewer", "correction", "verdict"})),
}
"""Part of `extra` -> path in the record, and the fields there that have columns."""

KNOWN: Mapping[str, frozenset[str]] = {part: known for part, (_, known) in PLACES.items()}


def kept(rest: Mapping[str, Any]) -> dict[str, Any]:
    """What has no column as `extra` holds it: without secrets, long base64 by reference."""
    return without_secrets(values.by_reference(rest))


def rest_in(record: Mapping[str, Any], parts: Mapping[str, Any] = PLACES) -> dict[str, Any]:
    """What of an exchange with one choice has no column, at these places; parts without any are left out."""
    found = {}
    for part, (path, known) in parts.items():
        here: Any = record
        for step in path:
            here = here[step] if isinstance(step, int) else here.get(step)
            if not here:
                break
        if here and (left := {key: item for key, item in here.items() if key not in known}):
            found[part] = left
    return found
