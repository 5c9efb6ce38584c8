"""What the lines of a Claude Code session say, as messages: of the user, of tools, of the model.

user's line      -> a "tool" message per tool result, a "user" message for the rest
answer's lines   -> one "assistant" message; thinking, usage and what lines say beside it in its `extra`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.readers import values
from pipelines.readers._session_tree import Line

# Facts that a session's lines repeat: told once per branch, and where a line differs, with its message.
FACTS = (
    "sessionId",
    "cwd",
    "gitBranch",
    "version",
    "userType",
    "entrypoint",
    "slug",
    "isSidechain",
    "agentId",
)
_ON_LINE = {"type", "message", "parentUuid", *FACTS}
_IN_ANSWER = {"type", "role", "content", "model"}


def answer_of(lines: Sequence[Line], first: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An answer from all of its lines: as a message, and what is said about it."""
    parts: list[Any] = []
    for line in lines:
        content = line.value["message"].get("content")
        parts += content if isinstance(content, list) else [{"type": "text", "text": content}]
    last = values.without(lines[-1].value["message"], _IN_ANSWER)
    about = {key: item for key, item in last.items() if item is not None}
    about |= _beside(parts, {"tool_use"})
    about["lines"] = [_line_rest(line.value, first) | _earlier(line.value["message"], last) for line in lines]
    calls = [
        values.tool_call(values.text(part.get("id")), values.text(part.get("name")), part.get("input"))
        for part in parts
        if isinstance(part, Mapping) and part.get("type") == "tool_use"
    ]
    model = lines[-1].value["message"].get("model")
    said = values.said(
        "assistant",
        values.content(parts) or None,
        tool_calls=calls or None,
        extra=about | ({"model": model} if model is not None else {}),
    )
    return said, about


def messages_of(value: Mapping[str, Any], first: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a user's line says: a message per tool result, and one for the rest. None for any other line."""
    message = value.get("message")
    if value.get("type") != "user" or not isinstance(message, Mapping):
        return []
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [content]
    rest = _line_rest(value, first) | values.by_reference(values.without(message, {"role", "content"}))
    results = [part for part in parts if isinstance(part, Mapping) and part.get("type") == "tool_result"]
    others = [part for part in parts if not (isinstance(part, Mapping) and part.get("type") == "tool_result")]
    said = []
    for part in results:
        told = part.get("content")
        extra = values.without(part, {"type", "tool_use_id", "content"})
        if isinstance(told, list):
            extra |= _beside(told, set())
        said.append(
            values.said(
                "tool",
                values.content(told),
                tool_call_id=values.text(part.get("tool_use_id")),
                extra=rest | values.by_reference(extra),
            )
        )
        rest = {}  # with the first of a line's messages
    if others or not results:
        words = values.content(others) if others else None
        said.append(values.said("user", words, extra=rest | _beside(others, set())))
    return said


def _earlier(message: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says of the answer and its last line says otherwise, such as the tokens until then."""
    rest = values.without(message, _IN_ANSWER)
    rest = {key: item for key, item in rest.items() if item is not None and item != last.get(key)}
    return {"message": rest} if rest else {}


def _line_rest(value: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a line that are no part of its message, and facts that differ from the branch's."""
    rest = {key: item for key, item in value.items() if key not in _ON_LINE and item is not None}
    rest |= {key: value[key] for key in FACTS if key in value and value[key] != first.get(key)}
    return values.by_reference(rest)


def _beside(parts: Sequence[Any], elsewhere: set[str]) -> dict[str, Any]:
    """Parts that are more than text, in order: thinking with its signature whole, others by reference."""
    thinking, others = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str) or (isinstance(kind, str) and kind in elsewhere):
            continue
        if kind in ("thinking", "redacted_thinking"):
            thinking.append(part)
        elif kind != "text" or any(part[key] is not None for key in part.keys() - {"type", "text"}):
            others.append(values.by_reference(part))
    return {name: kept for name, kept in (("thinking", thinking), ("parts", others)) if kept}


def calls_of(lines: Sequence[Line]) -> list[str]:
    """Ids of an answer's tool calls."""
    contents = [line.value["message"].get("content") for line in lines]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [
        part["id"]
        for part in parts
        if isinstance(part, Mapping) and part.get("type") == "tool_use" and isinstance(part.get("id"), str)
    ]


def results_in(value: Mapping[str, Any]) -> list[str]:
    """Ids of the tool calls of which a user's line holds the results."""
    message = value.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    return [
        part["tool_use_id"]
        for part in (content if isinstance(content, list) else ())
        if isinstance(part, Mapping)
        and part.get("type") == "tool_result"
        and isinstance(part.get("tool_use_id"), str)
    ]
