"""Sessions of the coding agent pi: one row per branch of the conversation, as for other agents' sessions.

{"type": "session", "id", "timestamp", "cwd", "provider", "modelId", "thinkingLevel"}          the first line
{"type": "message", "timestamp", "message": {"role": "user" | "assistant" | "toolResult", "content": [parts],
  "provider", "model", "usage": {"input", "output", ...}, "stopReason", "toolCallId", "toolName", "isError"}}
{"type": "model_change", "timestamp", "provider", "modelId"}, {"type": "thinking_level_change"}, ...
parts: {"type": "text"} | {"type": "thinking"} | {"type": "toolCall", "id", "name", "arguments"} | images

Without ids a line follows the one before it, which makes one branch; newer lines name themselves and their
parent (id, parentId). An answer that was aborted before its first word is none. A compaction does not cut a
branch. The model asked for is the one that was set last. The format does not hold the system prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Part, Unreadable, values
from pipelines.readers._last_answer import beside
from pipelines.readers._session_tree import Branch, Line, Node, branches_of, lines_of, span_of

_READ = {"role", "content", "toolCallId", "toolName"}


@dataclass(frozen=True)
class PiSession:
    """Reads a whole session file."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("pi_session", 1, {})

    def recognises_document(self, name: str, content: bytes) -> str | None:
        """A first line of type 'session' with a folder."""
        lines, _ = lines_of(content)
        return "a 'session' line with 'cwd'" if lines and _is_head(lines[0].value) else None

    def read_document(self, name: str, content: bytes) -> list[Part]:
        """A part per branch, and one without rows for what leads to no answer. Raises Unreadable."""
        lines, parts = lines_of(content)
        head = next((line for line in lines if _is_head(line.value)), None)
        if head is None:
            raise Unreadable("no_session", "no line of type 'session' with 'cwd', expected one at the top")
        nodes = _nodes([line for line in lines if line is not head])
        branches, barren = branches_of(nodes)
        for branch in branches:
            used = [nodes[place].lines[0] for place in branch.path + branch.aside]
            parts.append(Part(*span_of(used), rows=[_row(head.value, nodes, branch)]))
        for places in barren:
            parts.append(Part(*span_of([nodes[place].lines[0] for place in places])))
        if not nodes:
            parts.append(Part(head.first, head.end))
        return sorted(parts, key=lambda part: (part.end, part.first))


def _is_head(value: Mapping[str, Any]) -> bool:
    return value.get("type") == "session" and isinstance(value.get("cwd"), str) and "id" in value


def _nodes(lines: Sequence[Line]) -> list[Node]:
    nodes: list[Node] = []
    place_of: dict[str, int] = {}
    for line in lines:
        own, parent = line.value.get("id"), line.value.get("parentId")
        if "parentId" in line.value:
            place = place_of.get(parent) if isinstance(parent, str) else None
        else:
            place = len(nodes) - 1 if nodes else None
        if isinstance(own, str):
            place_of.setdefault(own, len(nodes))
        nodes.append(Node((line,), place, _is_answer(line.value)))
    return nodes


def _said(value: Mapping[str, Any]) -> Mapping[str, Any]:
    message = value.get("message")
    return message if value.get("type") == "message" and isinstance(message, Mapping) else {}


def _is_answer(value: Mapping[str, Any]) -> bool:
    said = _said(value)
    return said.get("role") == "assistant" and bool(said.get("content"))


def _row(head: Mapping[str, Any], nodes: Sequence[Node], branch: Branch) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    between: list[dict[str, Any]] = []
    requested = head.get("modelId")
    for place in branch.path[:-1]:
        value = nodes[place].lines[0].value
        if value.get("type") == "model_change":
            requested = value.get("modelId")
        if message := _message(value):
            messages.append(message)
        else:
            between.append({"before_message": len(messages), "line": values.by_reference(value)})
    last = nodes[branch.path[-1]].lines[0].value
    said, answer = _said(last), _message(last)
    assert answer is not None  # the last of a path is an answer
    usage = values.inner(said, "usage")
    model, key = values.text(said.get("model")), values.text(last.get("id") or last.get("timestamp"))
    asides = [nodes[place].lines[0].value for place in branch.aside]
    return {
        "trace_key": f"{values.text(head['id'])}/{key or UNSTATED}",
        "happened_at": values.moment(last.get("timestamp")),
        "model_requested": values.text(requested) or UNSTATED,
        "model_answered": model or UNSTATED,
        "messages": messages,
        "response": answer["content"],
        "response_tool_calls": answer["tool_calls"],
        "finish_reason": values.text(said.get("stopReason")),
        "verdict": UNSTATED,
        "input_tokens": values.count(usage.get("input")),
        "output_tokens": values.count(usage.get("output")),
        "extra": values.extra_of(
            session=values.by_reference(dict(head)),
            answer=beside(answer),
            between=between,
            unanswered=[message for value in asides if (message := _message(value))],
            aside=[values.by_reference(value) for value in asides if not _message(value)],
        ),
        "generator": model,
    }


def _message(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """A line as a message; None where it is none, or an answer without a word."""
    said = _said(value)
    role, content = said.get("role"), said.get("content")
    if not isinstance(role, str) or (role == "assistant" and not content):
        return None
    parts = content if isinstance(content, list) else [content]
    calls = [part for part in parts if isinstance(part, Mapping) and part.get("type") == "toolCall"]
    others = [
        part for part in parts if isinstance(part, Mapping) and part.get("type") not in ("toolCall", "text")
    ]
    extra: dict[str, Any] = {
        "line": values.without(value, {"type", "message"}),
        "message": values.by_reference(values.without(said, _READ)),
    }
    if any(part.keys() - {"type", "id", "name", "arguments"} for part in calls):
        others += calls  # such as a call that was cut off, with the JSON that had come
    if others:
        extra["parts"] = [
            part if part.get("type") == "thinking" else values.by_reference(part) for part in others
        ]
    return values.said(
        "tool" if role == "toolResult" else role,
        values.content(content) or None if role == "assistant" else values.content(content),
        name=values.text(said.get("toolName")),
        tool_calls=[
            values.tool_call(values.text(part.get("id")), part.get("name"), part.get("arguments"))
            for part in calls
        ]
        or None,
        tool_call_id=values.text(said.get("toolCallId")),
        extra={name: kept for name, kept in extra.items() if kept},
    )
