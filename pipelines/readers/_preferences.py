"""Of two answers to one question the preferred passed; the other failed, and the preferred corrects it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lineage.schemas import UNSTATED

_ASKED = {"trace_key": UNSTATED, "model_requested": UNSTATED, "model_answered": UNSTATED}


def unjudged(said: Mapping[str, Any], **columns: Any) -> dict[str, Any]:
    """A row of a format that names no model; `said` is the answer. Its extra is left to the caller."""
    answer = {"response": said["content"], "response_tool_calls": said["tool_calls"]}
    return {**_ASKED, "verdict": UNSTATED, **answer, **columns}


def preferred_and_other(preferred: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Both rows judged; an answer of tool calls alone has no text that could be a correction."""
    right = preferred["response"]
    return [preferred | {"verdict": "pass"}, other | {"verdict": "fail", "correction": right}]
