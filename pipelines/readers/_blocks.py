"""A turn of blocks as messages and answers hold it: what providers call content blocks, parts or items.

Anthropic   {"type": "text" | "tool_use" | "tool_result" | "thinking" | "image", ...}
Bedrock     {"text"}, {"toolUse": {"toolUseId", "name", "input"}}, {"toolResult": {...}}, {"guardContent"}
Google      {"text", "thought"}, {"functionCall": {"name", "args"}}, {"functionResponse"}, {"inlineData"}
Responses   {"type": "input_text" | "output_text", "text"}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.readers import values

_TEXTS = ("text", "input_text", "output_text", "summary_text", None)


@dataclass
class Pieces:
    """What a turn consists of."""

    texts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    """Messages of role tool: a result each."""
    rest: list[Any] = field(default_factory=list)
    """Blocks without a column, and what else a block said than its column holds; long base64 by reference."""

    @property
    def text(self) -> str | None:
        """The texts joined; None where the turn has none."""
        return "".join(self.texts) if self.texts else None

    @property
    def tool_calls(self) -> str | None:
        """The calls as JSON text."""
        return values.json_text(self.calls or None)


def pieces(content: Any) -> Pieces:
    """A turn's content: a text, a block, or a list of them."""
    found = Pieces()
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, str):
            found.texts.append(block)
        elif isinstance(block, Mapping):
            _add(block, found)
        elif block is not None:
            found.rest.append(block)
    return found


def said_also(value: Mapping[str, Any], read: Collection[Any]) -> dict[str, Any]:
    """The fields that no column holds and that say something."""
    return {key: v for key, v in value.items() if key not in read and v not in (None, {}, [], "")}


def turn(role: str, content: Any, *, extra: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The messages of one turn: tool results first, each a message of role tool, then what was said."""
    found = pieces(content)
    rest = dict(extra or {}) | ({"content": found.rest} if found.rest else {})
    if not found.results or found.texts or found.calls or rest:
        found.results.append(values.said(role, found.text, tool_calls=found.calls or None, extra=rest))
    return found.results


def _add(block: Mapping[str, Any], to: Pieces) -> None:
    kind = block.get("type")
    if isinstance(text := block.get("text"), str) and _is_text(kind) and not block.get("thought"):
        to.texts.append(text)
        _rest_of(block, {"type", "text"}, to)
    elif kind == "tool_use":
        to.calls.append(values.tool_call(values.text(block.get("id")), block.get("name"), block.get("input")))
        _rest_of(block, {"type", "id", "name", "input"}, to)
    elif isinstance(use := block.get("toolUse"), Mapping):
        to.calls.append(
            values.tool_call(values.text(use.get("toolUseId")), use.get("name"), use.get("input"))
        )
        _rest_of({**block, "toolUse": values.without(use, {"toolUseId", "name", "input"})}, set(), to)
    elif isinstance(call := block.get("functionCall"), Mapping):
        to.calls.append(values.tool_call(values.text(call.get("id")), call.get("name"), call.get("args")))
        _rest_of({**block, "functionCall": values.without(call, {"id", "name", "args"})}, set(), to)
    elif kind == "tool_result":
        to.results.append(_result(block, "tool_use_id", "content", without={"type"}))
    elif isinstance(result := block.get("toolResult"), Mapping):
        to.results.append(_result(result, "toolUseId", "content"))
        _rest_of(block, {"toolResult"}, to)
    elif isinstance(result := block.get("functionResponse"), Mapping):
        to.results.append(_result(result, "id", "response"))
        _rest_of(block, {"functionResponse"}, to)
    else:
        to.rest.append(values.by_reference(block))
        if isinstance(guarded := block.get("guardContent"), Mapping):
            text = guarded.get("text")
            to.texts.extend([text["text"]] if isinstance(text, Mapping) and _is_worded(text) else [])


def _result(
    block: Mapping[str, Any], call_id: str, said: str, *, without: set[str] | None = None
) -> dict[str, Any]:
    """A tool's result: its text, or its structure as JSON text; what is no text stays in `extra`."""
    content = block.get(said)
    is_blocks = isinstance(content, list) and all(isinstance(item, Mapping) for item in content)
    found = pieces(content) if is_blocks or isinstance(content, str) else Pieces()
    words = found.text if found.texts else values.text(content)
    rest = values.without(block, {call_id, said, "name", *(without or ())})
    if found.texts and (found.rest or found.calls or found.results):
        rest["content"] = values.by_reference(content)
    return values.said(
        "tool",
        words,
        name=values.text(block.get("name")),
        tool_call_id=values.text(block.get(call_id)),
        extra=rest,
    )


def _rest_of(block: Mapping[str, Any], read: set[str], to: Pieces) -> None:
    if rest := said_also(block, read):
        to.rest.append(values.by_reference(rest))


def _is_text(kind: Any) -> bool:
    return kind is None or (isinstance(kind, str) and kind in _TEXTS)


def _is_worded(text: Mapping[str, Any]) -> bool:
    return isinstance(text.get("text"), str)
