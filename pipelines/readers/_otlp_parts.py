"""Messages of OpenTelemetry and of OpenAI as messages of a row, with what a row has no place for beside them.

{"role", "parts": [{"type": "text", "content"}, {"type": "tool_call", "id", "name", "arguments"}, ...]}
{"role": "tool", "parts": [{"type": "tool_call_response", "id", "response" or "result"}]}
{"role", "content": text or parts, "tool_calls": [{"id", "function": {"name", "arguments"}}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lineage.schemas import UNSTATED
from pipelines.readers import values
from pipelines.readers._otlp_attributes import parsed


@dataclass(frozen=True)
class Message:
    """A message before it is written: tool calls in OpenAI's shape, all that is no text in `extra`."""

    role: str
    content: str | None
    name: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    tool_call_id: str | None = None
    finish_reason: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def column(self) -> dict[str, Any]:
        """As the column `messages` holds it."""
        reason = {"finish_reason": self.finish_reason} if self.finish_reason else {}
        return values.said(
            self.role,
            self.content,
            name=self.name,
            tool_calls=self.tool_calls or None,
            tool_call_id=self.tool_call_id,
            extra=reason | self.extra,
        )


def messages_in(value: Any, role: str | None = None) -> list[Message]:
    """The messages of a list, or of its JSON text. `role`: of those that state none."""
    value = parsed(value)
    if value is None:
        return []
    listed = value if isinstance(value, list) else [value]
    return [message for each in listed for message in _messages(each, role or UNSTATED)]


def of_openai(value: Mapping[str, Any], role: str) -> Message:
    """A message with `content` and `tool_calls`; `role` where it states none."""
    rest = dict(value)
    words, calls = rest.pop("content", None), parsed(rest.pop("tool_calls", None))
    parts = _parts(words) if isinstance(words, list) else None
    called = [_tool_call(each) for each in calls] if isinstance(calls, list) else []
    if calls and not isinstance(calls, list):
        rest["tool_calls"] = calls
    return Message(
        _taken(rest, "role") or role,
        parts.text if parts else values.text(words),
        _taken(rest, "name"),
        called + (parts.tool_calls if parts else []),
        _taken(rest, "tool_call_id"),
        _taken(rest, "finish_reason"),
        _stated({**rest, "parts": parts.others if parts else None}),
    )


def _messages(value: Any, role: str) -> list[Message]:
    if not isinstance(value, Mapping):
        return [Message(role, values.text(value))]
    if not isinstance(value.get("parts"), list):
        return [of_openai(value, role)]
    parts = _parts(value["parts"])
    rest = values.without(value, {"parts"})
    message = of_openai({**rest, "content": None}, role)
    if parts.responses and parts.text is None and not parts.tool_calls and not parts.others:
        return parts.responses
    extra = _stated({**message.extra, "content": rest.get("content"), "parts": parts.others})
    calls = parts.tool_calls + message.tool_calls
    words = Message(message.role, parts.text, message.name, calls, None, message.finish_reason, extra)
    return [*parts.responses, words]


@dataclass(frozen=True)
class _Parts:
    text: str | None
    tool_calls: list[dict[str, Any]]
    responses: list[Message]
    others: dict[str, Any]
    """By their places: what is neither, and what text and tool calls say beyond themselves."""


def _parts(listed: list[Any]) -> _Parts:
    texts, calls, responses, others = [], [], [], {}
    for place, part in enumerate(listed):
        rest = dict(part) if isinstance(part, Mapping) else {}
        kind = rest.pop("type", None)
        if isinstance(part, str):
            texts.append(part)
        elif kind in ("text", "output_text", "input_text"):
            words = rest.pop("content", None) if rest.get("content") is not None else rest.pop("text", None)
            texts.append(values.text(words) or "")
        elif kind == "tool_call":
            named = {key: rest.pop(key, None) for key in ("id", "name", "arguments")}
            calls.append(_tool_call(named))
        elif kind == "tool_call_response":
            responses.append(_response(rest))
            rest = {}
        else:
            rest = {"": part}
        if rest := _stated(rest):
            others[str(place)] = values.by_reference(part if "" in rest else {"type": kind, **rest})
    return _Parts("".join(texts) if texts else None, calls, responses, others)


def _response(rest: dict[str, Any]) -> Message:
    """What a tool returned: the conventions' schema calls it `response`, their examples `result`."""
    key = "response" if rest.get("response") is not None else "result"
    words, called = rest.pop(key, None), rest.pop("id", None)
    return Message(
        "tool", values.text(words), _taken(rest, "name"), [], values.text(called), None, _stated(rest)
    )


def _tool_call(value: Any) -> dict[str, Any]:
    """In OpenAI's shape: from that shape itself, from {id, name, arguments}, from {id, name, args}."""
    if not isinstance(value, Mapping):
        return values.tool_call(None, None, value)
    function = value.get("function")
    inner = function if isinstance(function, Mapping) else value
    arguments = inner.get("arguments") if inner.get("arguments") is not None else inner.get("args")
    found = values.tool_call(values.text(value.get("id")), values.text(inner.get("name")), arguments)
    rest = values.without(value, {"id", "type", "function", "name", "arguments", "args"})
    return {**rest, **found}


def _taken(rest: dict[str, Any], key: str) -> str | None:
    """A text, taken out of the fields; what is none stays among them."""
    return rest.pop(key) if isinstance(rest.get(key), str) else None


def _stated(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in rest.items() if value not in (None, [], {})}
