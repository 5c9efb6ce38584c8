"""Chat messages in the shapes that tracing platforms keep them, turned into those of our columns.

A platform stores whatever its client library sent: one trace holds OpenAI's messages, the next LangChain's.
What is read here, of messages and of their parts:

    {"role", "content": text | [parts], "tool_calls", "tool_call_id"}      OpenAI, Anthropic, Vercel AI SDK
    {"role", "parts": [...]}                                               OpenTelemetry GenAI, Gemini
    {"lc": 1, "id": [..., "HumanMessage"], "kwargs": {...}}                LangChain, serialised
    {"type": "human", "content" | "data": {...}}                           LangChain, as a dict
    {"type": "function_call" | "function_call_output" | "message", ...}    OpenAI Responses, items
    {"message": {...}}                                                    a choice around any of these

A message that holds the results of several tools becomes one message per result, as OpenAI writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.readers import values

_ROLES = {"human": "user", "HumanMessage": "user", "HumanMessageChunk": "user", "Human": "user"}
_ROLES |= {"ai": "assistant", "model": "assistant", "AIMessage": "assistant", "AIMessageChunk": "assistant"}
_ROLES |= {"SystemMessage": "system", "ToolMessage": "tool", "FunctionMessage": "function"}
# Tuples, not sets: a record may hold a list where a type is expected, and that has no hash.
_LANGCHAIN_TYPES = ("human", "ai", "system", "tool", "function", "developer", "AIMessageChunk")
_ITEMS = ("function_call", "function_call_output", "reasoning", "message")
_IN_COLUMNS = {"role", "content", "parts", "name", "tool_calls", "tool_call_id", "toolCallId", "tool_call"}


@dataclass(frozen=True)
class Said:
    """One message before it is a row's: tool calls as a list, what has no column as a mapping."""

    role: str
    words: str | None
    calls: Sequence[Any] = ()
    name: str | None = None
    call_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_column(self) -> dict[str, Any]:
        """The message as the column `messages` holds it."""
        return values.said(
            self.role,
            self.words,
            name=self.name,
            tool_calls=list(self.calls) or None,
            tool_call_id=self.call_id,
            extra=values.by_reference(self.extra),
        )


def is_message(value: Any) -> bool:
    """Is it a message in one of the shapes above?"""
    if not isinstance(value, Mapping):
        return False
    if isinstance(value.get("role"), str):
        return "content" in value or "parts" in value or "tool_calls" in value or "toolCalls" in value
    if isinstance(value.get("kwargs"), Mapping) and isinstance(value.get("id"), list):
        return True
    if value.get("type") in _LANGCHAIN_TYPES:
        return "content" in value or isinstance(value.get("data"), Mapping)
    return value.get("type") in _ITEMS or is_message(value.get("message"))


def said(value: Any) -> list[Said]:
    """The messages of one value; anything that has no shape of a message is a user's words."""
    if not isinstance(value, Mapping):
        return [Said("user", values.text(value))]
    if is_message(value.get("message")):
        around = values.without(value, {"message"})
        return [_with(each, around) for each in said(value["message"])]
    if isinstance(value.get("kwargs"), Mapping) and isinstance(value.get("id"), list):
        kind = value["id"][-1] if value["id"] else None
        return _langchain(kind, value["kwargs"])
    if value.get("type") in ("function_call", "function_call_output", "reasoning"):
        return [_item(value)]
    if not isinstance(value.get("role"), str) and value.get("type") in _LANGCHAIN_TYPES:
        inner = value.get("data")
        return _langchain(value["type"], inner if isinstance(inner, Mapping) else value)
    if not is_message(value):
        return [Said("user", values.text(value))]
    role = value.get("role")
    return _spoken(role if isinstance(role, str) else "user", value)


def tool_calls(value: Any) -> list[Any]:
    """Tool calls in OpenAI's shape, from OpenAI's, LangChain's {name, args, id} or Vercel's."""
    return [_call(each) for each in value] if isinstance(value, list) else []


def _langchain(kind: Any, kwargs: Mapping[str, Any]) -> list[Said]:
    """LangChain's messages: tool calls stand in `tool_calls`, and once more in `additional_kwargs`."""
    role = _ROLES.get(kind, kind) if isinstance(kind, str) else "user"
    said_role = kwargs.get("role")
    if kind in ("ChatMessage", "ChatMessageChunk") and isinstance(said_role, str):
        role = said_role
    return _spoken(role, values.without(kwargs, {"type", "role"}))


def _spoken(role: str, value: Mapping[str, Any]) -> list[Said]:
    """A message with content or parts, taken apart; results of tools become messages of their own."""
    role = _ROLES.get(role, role)
    extra = values.without(value, _IN_COLUMNS | {"toolCalls"})
    calls = tool_calls(value.get("tool_calls")) or tool_calls(value.get("toolCalls"))
    additional = extra.get("additional_kwargs")
    if isinstance(additional, Mapping):  # LangChain says OpenAI's calls here, and later versions in both
        inside = tool_calls(additional.get("tool_calls"))
        calls = calls or inside
        if all(_is_among(call, calls) for call in inside):
            extra["additional_kwargs"] = values.without(additional, {"tool_calls"})
    calls_id = values.text(value.get("tool_call_id") or value.get("toolCallId"))
    name = values.text(value.get("name"))
    parts = value.get("content") if value.get("content") is not None else value.get("parts")
    if not isinstance(parts, list):
        if isinstance(parts, Mapping):  # kept as it was beside its JSON text
            return [Said(role, _text_of(parts) or values.text(parts), calls, name, calls_id, _full(extra))]
        return [Said(role, values.text(parts), calls, name, calls_id, _full(extra))]
    words = [text for part in parts if (text := _text_of(part)) is not None]
    results = [result for part in parts if (result := _result(part)) is not None]
    inline = [call for part in parts if (call := _part_call(part)) is not None]
    calls += [call for call in inline if not _is_among(call, calls)]  # LangChain says Anthropic's twice
    if any(_is_kept(part) for part in parts):
        extra["content"] = parts
    others = len(parts) - len(results)
    if not results:
        text = "".join(words) if words or not parts else None
        return [Said(role, text, calls, name, calls_id, _full(extra))]
    if not others and not calls:
        return [_with(results[0], _full(values.without(extra, {"content"}))), *results[1:]]
    return [*results, Said(role, "".join(words) or None, calls, name, calls_id, _full(extra))]


def _full(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in extra.items() if item not in (None, {}, [])}


def _with(one: Said, around: Mapping[str, Any]) -> Said:
    return Said(one.role, one.words, one.calls, one.name, one.call_id, {**_full(around), **one.extra})


def _item(value: Mapping[str, Any]) -> Said:
    """An item of OpenAI's Responses."""
    rest = _full(values.without(value, {"type", "call_id", "name", "arguments", "output"}))
    call_id = values.text(value.get("call_id"))
    if value["type"] == "function_call":
        call = values.tool_call(call_id, value.get("name"), value.get("arguments"))
        return Said("assistant", None, [call], extra=rest)
    if value["type"] == "function_call_output":
        return Said("tool", values.content(value.get("output")), call_id=call_id, extra=rest)
    return Said("assistant", None, extra={"reasoning": values.without(value, {"type"})})


def _call(value: Any) -> Any:
    if not isinstance(value, Mapping) or isinstance(value.get("function"), Mapping):
        return value
    arguments = next((value[key] for key in ("args", "arguments", "input") if key in value), None)
    name = value.get("name", value.get("toolName"))
    return values.tool_call(values.text(value.get("id", value.get("toolCallId"))), name, arguments)


def _is_among(call: Any, calls: Sequence[Any]) -> bool:
    """By id: calls without one are all their own."""
    found = call.get("id") if isinstance(call, Mapping) else None
    return found is not None and any(isinstance(each, Mapping) and each.get("id") == found for each in calls)


def _text_of(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return None
    kind = part.get("type")
    if kind in ("text", "output_text", "input_text") or (kind is None and isinstance(part.get("text"), str)):
        return values.text(part.get("text", part.get("content")))
    return None


def _part_call(part: Any) -> dict[str, Any] | None:
    if not isinstance(part, Mapping):
        return None
    if part.get("type") in ("tool_use", "tool_call", "tool-call"):
        return _call(values.without(part, {"function"}))
    called = part.get("function_call", part.get("functionCall"))  # Gemini
    if isinstance(called, Mapping):
        return values.tool_call(values.text(called.get("id")), called.get("name"), called.get("args"))
    return None


def _result(part: Any) -> Said | None:
    """The result of a tool among the parts of a message."""
    if not isinstance(part, Mapping):
        return None
    answered = part.get("function_response", part.get("functionResponse"))
    if isinstance(answered, Mapping):
        words = values.text(answered.get("response"))
        name, call_id = values.text(answered.get("name")), values.text(answered.get("id"))
        return Said("tool", words, name=name, call_id=call_id)
    if part.get("type") not in ("tool_result", "tool_call_response", "tool-result"):
        return None
    call_id = next((part[key] for key in ("tool_use_id", "toolCallId", "id") if key in part), None)
    key = next((key for key in ("response", "result", "output", "content") if key in part), "content")
    result = part.get(key)
    is_text = result is None or isinstance(result, str)
    is_texts = isinstance(result, list) and all(_text_of(each) is not None for each in result)
    rest = values.without(part, {"type", "tool_use_id", "toolCallId", "id", "name", "toolName", key})
    if not is_text and not is_texts:
        rest["result"] = result
    words = values.content(result) if is_text or is_texts else values.text(result)
    name = values.text(part.get("name", part.get("toolName")))
    return Said("tool", words, name=name, call_id=values.text(call_id), extra=_full(rest))


def _is_kept(part: Any) -> bool:
    """Is there more to a part than its text, its call or its result?"""
    if isinstance(part, str) or _part_call(part) is not None or _result(part) is not None:
        return False
    if _text_of(part) is None:
        return True
    return bool(_full(values.without(part, {"type", "text", "content"})))
