"""Sessions of the coding agent Claude Code: one row per branch of the conversation, not per line.

{"type": "user", "uuid", "parentUuid", "sessionId", "timestamp", "cwd", "gitBranch", "version", "isSidechain",
 "message": {"role": "user", "content": text or [{"type": "tool_result", "tool_use_id", "content"}, ...]},
 "toolUseResult"}
{"type": "assistant", "uuid", "parentUuid", ..., "requestId",
 "message": {"id", "model", "stop_reason", "usage", "content": [{"type": "text" | "thinking" | "tool_use"}]}}
{"type": "system", "subtype": "compact_boundary", "uuid", "parentUuid": null, "logicalParentUuid"}
{"type": "user", "isCompactSummary": true, ...}
{"type": "summary", "summary", "leafUuid"}, {"type": "ai-title"}, {"type": "file-history-snapshot"}, ...

Lines form a tree by uuid and parentUuid. A branch begins with the session, with a side chain (a subagent),
after a compaction, or where a parent is missing; it ends in an answer that no answer follows. Several lines
with one message id are one answer. A row tells all of a branch: one per answer would grow with the square of
a session. Tokens are those of the row's own answer alone, as the source counts them: without the cache's.
The format holds neither the system prompt nor the model that was asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Part, values
from pipelines.readers._claude_code_messages import FACTS, answer_of, calls_of, messages_of, results_in
from pipelines.readers._session_tree import Branch, Line, Node, branches_of, lines_of, span_of

# Lines that say something of the session; of several of a type the last one stands.
_TITLES = {
    "ai-title",
    "custom-title",
    "agent-name",
    "pr-link",
    "last-prompt",
    "mode",
    "permission-mode",
    "tag",
}


@dataclass(frozen=True)
class ClaudeCode:
    """Reads a whole session file."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("claude_code", 1, {})

    def recognises_document(self, name: str, content: bytes) -> str | None:
        """A line with 'parentUuid' and 'sessionId', or a summary of another session's leaf."""
        for line in lines_of(content)[0]:
            if {"uuid", "parentUuid", "sessionId", "type"} <= line.value.keys():
                return "a line with 'parentUuid' and 'sessionId'"
            if line.value.get("type") == "summary" and "leafUuid" in line.value:
                return "a 'summary' with 'leafUuid'"
        return None

    def read_document(self, name: str, content: bytes) -> list[Part]:
        """A part per branch; one without rows per tree without an answer, or for a session without a tree."""
        lines, parts = lines_of(content)
        nodes, others = _nodes(lines)
        branches, barren = branches_of(nodes)
        results = _results(nodes)
        for branch, outside in zip(branches, _outside(nodes, others, branches), strict=True):
            strays = _strays(nodes, branch, results)
            used = {*branch.path, *branch.aside, *strays.values()}
            span = span_of([line for place in used for line in nodes[place].lines])
            parts.append(Part(*span, rows=[_row(nodes, branch, strays, outside)]))
        for places in barren:
            parts.append(Part(*span_of([line for place in places for line in nodes[place].lines])))
        if lines and not nodes:
            parts.append(Part(*span_of(lines)))
        return sorted(parts, key=lambda part: (part.end, part.first))


def _nodes(lines: Sequence[Line]) -> tuple[list[Node], list[Line]]:
    """The tree's nodes, and the lines outside it: without a uuid, or with one that was there before."""
    gathered: list[list[Line]] = []
    parents: list[int | None] = []
    place_of: dict[str, int] = {}  # uuid to node
    answers: dict[str, int] = {}  # message id to node
    others: list[Line] = []
    for line in lines:
        uuid = line.value.get("uuid")
        if not isinstance(uuid, str) or uuid in place_of:
            others.append(line)
            continue
        answer = _answer_id(line.value)
        if answer is not None and answer in answers:
            place_of[uuid] = answers[answer]
            gathered[answers[answer]].append(line)
            continue
        parent = line.value.get("parentUuid")
        place = place_of.get(parent) if isinstance(parent, str) else None
        if place is not None and _begins(line.value, after=gathered[place][-1].value):
            place = None
        place_of[uuid] = len(gathered)
        if answer is not None:
            answers[answer] = len(gathered)
        gathered.append([line])
        parents.append(place)
    nodes = [
        Node(tuple(each), parent, _is_answer(each[0].value))
        for each, parent in zip(gathered, parents, strict=True)
    ]
    return nodes, others


def _begins(value: Mapping[str, Any], *, after: Mapping[str, Any]) -> bool:
    """Whether a line begins a branch although it names a parent: a compaction or a side chain."""
    if _is_boundary(value) or (value.get("isCompactSummary") is True and not _is_boundary(after)):
        return True
    if value.get("isSidechain") is not True:
        return False
    return after.get("isSidechain") is not True or value.get("agentId") != after.get("agentId")


def _is_boundary(value: Mapping[str, Any]) -> bool:
    return value.get("type") == "system" and value.get("subtype") == "compact_boundary"


def _is_answer(value: Mapping[str, Any]) -> bool:
    """Whether a model wrote it; the agent's own words about a failed call have the type of an answer, too."""
    message = value.get("message")
    if value.get("type") != "assistant" or not isinstance(message, Mapping):
        return False
    return message.get("model") != "<synthetic>" and value.get("isApiErrorMessage") is not True


def _answer_id(value: Mapping[str, Any]) -> str | None:
    """What the lines of one answer have in common, within one chain."""
    message = value.get("message")
    if not _is_answer(value) or not isinstance(message, Mapping) or not isinstance(message.get("id"), str):
        return None
    return json.dumps([message["id"], value.get("isSidechain"), value.get("agentId")], sort_keys=True)


def _row(
    nodes: Sequence[Node], branch: Branch, strays: Mapping[str, int], outside: Mapping[str, Any]
) -> dict[str, Any]:
    first, lines = nodes[branch.path[0]].lines[0].value, nodes[branch.path[-1]].lines
    last = lines[-1].value
    messages, between, unanswered = _told(nodes, branch, first, strays)
    answer, about = answer_of(lines, first)
    message: Mapping[str, Any] = last["message"]
    usage = values.inner(message, "usage")
    model = values.text(message.get("model"))
    return {
        "trace_key": f"{values.text(last.get('sessionId')) or UNSTATED}/{last['uuid']}",
        "happened_at": values.moment(last.get("timestamp")),
        "model_requested": UNSTATED,
        "model_answered": model or UNSTATED,
        "messages": messages,
        "response": answer["content"],
        "response_tool_calls": answer["tool_calls"],
        "finish_reason": values.text(message.get("stop_reason")),
        "verdict": UNSTATED,
        "input_tokens": values.count(usage.get("input_tokens")),
        "output_tokens": values.count(usage.get("output_tokens")),
        "extra": values.extra_of(
            branch=_beginning(first),
            answer=about,
            between=between,
            unanswered=unanswered,
            aside=_aside(nodes, branch),
            session={key: first[key] for key in FACTS if first.get(key) is not None} | dict(outside),
            shortened=["session.other_lines"] if "other_lines" in outside else None,
        ),
        "generator": model,
    }


def _told(
    nodes: Sequence[Node], branch: Branch, first: Mapping[str, Any], strays: Mapping[str, int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Messages before the answer; lines among them that are none; messages that no answer follows."""
    messages: list[dict[str, Any]] = []
    between: list[dict[str, Any]] = []
    for place in branch.path[:-1]:
        node = nodes[place]
        if node.is_answer:
            messages.append(answer_of(node.lines, first)[0])
            for call in calls_of(node.lines):
                said = messages_of(nodes[strays[call]].lines[0].value, first) if call in strays else []
                messages += [message for message in said if message["tool_call_id"] == call]
        elif said := messages_of(node.lines[0].value, first):
            messages += said
        else:
            between.append({"before_message": len(messages), "line": _whole(node.lines[0])})
    unanswered = [
        message
        for place in branch.aside
        for message in messages_of(nodes[place].lines[0].value, first)
        if strays.get(message["tool_call_id"]) != place
    ]
    return messages, between, unanswered


def _results(nodes: Sequence[Node]) -> dict[str, int]:
    """The first result of each tool call: its place."""
    found: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for call in () if node.is_answer else results_in(node.lines[0].value):
            found.setdefault(call, place)
    return found


def _strays(nodes: Sequence[Node], branch: Branch, results: Mapping[str, int]) -> dict[str, int]:
    """Results of the path's tool calls that are not on it: each of an answer's calls may go on by itself."""
    path = branch.path[:-1]
    on_path = {
        call
        for place in path
        if not nodes[place].is_answer
        for call in results_in(nodes[place].lines[0].value)
    }
    asked = [call for place in path if nodes[place].is_answer for call in calls_of(nodes[place].lines)]
    return {call: results[call] for call in asked if call in results and call not in on_path}


def _aside(nodes: Sequence[Node], branch: Branch) -> list[dict[str, Any]]:
    """Lines off the path that are no messages, such as the agent's word of a failed call."""
    lines = [nodes[place].lines[0] for place in branch.aside]
    return [_whole(line) for line in lines if line.value.get("type") not in ("user", "progress")]


def _whole(line: Line) -> dict[str, Any]:
    return values.by_reference({key: item for key, item in line.value.items() if key not in FACTS})


def _outside(
    nodes: Sequence[Node], others: Sequence[Line], branches: Sequence[Branch]
) -> list[dict[str, Any]]:
    """Per branch: what the session says outside of its messages; lines that are not kept, by type.

    A summary is told with the branch of its leaf, one of another session's leaf with the first branch.
    """
    branch_of: dict[str, int] = {}
    for number in range(len(branches) - 1, -1, -1):
        branch_of |= {line.value["uuid"]: number for at in branches[number].path for line in nodes[at].lines}
    summaries: list[list[dict[str, Any]]] = [[] for _ in branches]
    titles: dict[str, Any] = {}
    unkept: Counter[str] = Counter(
        "progress"
        for branch in branches
        for place in branch.aside
        if nodes[place].lines[0].value.get("type") == "progress"
    )
    for line in others:
        kind, leaf = values.text(line.value.get("type")) or UNSTATED, line.value.get("leafUuid")
        if kind == "summary" and "summary" in line.value and branches:
            home = branch_of.get(leaf, 0) if isinstance(leaf, str) else 0
            summaries[home].append(values.without(line.value, {"type"}))
        elif kind in _TITLES and "uuid" not in line.value:
            unkept[kind] += kind in titles  # the last one stands
            titles[kind] = values.by_reference(values.without(line.value, {"type", "sessionId"}))
        else:
            unkept[kind] += 1
    told = {"titles": titles, "other_lines": {kind: n for kind, n in sorted(unkept.items()) if n}}
    told = {name: value for name, value in told.items() if value}
    return [told | ({"summaries": each} if each else {}) for each in summaries]


def _beginning(first: Mapping[str, Any]) -> dict[str, Any]:
    """Where a branch begins, and what it follows on."""
    parent = first.get("logicalParentUuid") or first.get("parentUuid")
    if _is_boundary(first) or first.get("isCompactSummary") is True:
        begins = "compaction"
    elif first.get("isSidechain") is True:
        begins = "side_chain"
    else:
        begins = "session" if parent is None else "missing_parent"
    return {"begins": begins, "root": first["uuid"]} | ({"follows": parent} if parent is not None else {})
