"""A session file as lines, and its lines as a tree: which paths lead to a model's last answers.

root ── user ── answer ── result ── answer      a branch: ends in an answer that no answer follows
          │        └───── user                  aside: hangs off a branch, no answer follows
          └──── user ── answer                  another branch; it has the root in common with the first
root ── user                                    barren: a tree without an answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.readers import Part, Unreadable
from pipelines.readers.json_lines import decode_json_object

_DEEPEST = 100  # levels of JSON in a line; what is kept of it goes through recursive code


@dataclass(frozen=True)
class Line:
    """A line that is a JSON object, and where it stands; `end` without the line's end."""

    first: int
    end: int
    value: dict[str, Any]


@dataclass(frozen=True)
class Node:
    """One line, or the several lines of one answer, in the order of the file."""

    lines: tuple[Line, ...]
    parent: int | None
    """Place of the node that it follows, always a smaller one than its own."""

    is_answer: bool = False


@dataclass(frozen=True)
class Branch:
    """Places of nodes: from a root to an answer, and what hangs off that path and leads to no answer."""

    path: tuple[int, ...]
    aside: tuple[int, ...]


def lines_of(content: bytes) -> tuple[list[Line], list[Part]]:
    """The lines that are JSON objects, and an unreadable part for each other that is not blank."""
    lines: list[Line] = []
    unreadable: list[Part] = []
    first = 0
    for line in content.split(b"\n"):
        end = first + len(line)
        if line.strip():
            try:
                lines.append(Line(first, end, _object(line)))
            except Unreadable as error:
                unreadable.append(Part(first, end, unreadable=error))
        first = end + 1
    return lines, unreadable


def branches_of(nodes: Sequence[Node]) -> tuple[list[Branch], list[list[int]]]:
    """The branches in the order of their answers, and the barren trees.

    What hangs off a stretch that several branches share is told once, with the first of them.
    """
    followed = [False] * len(nodes)  # by an answer
    for place in range(len(nodes) - 1, -1, -1):
        parent = nodes[place].parent
        if parent is not None and (nodes[place].is_answer or followed[place]):
            followed[parent] = True
    paths = [
        _path(nodes, place) for place, node in enumerate(nodes) if node.is_answer and not followed[place]
    ]
    owner: dict[int, int] = {}
    for number, path in enumerate(paths):
        for place in path:
            owner.setdefault(place, number)
    asides: list[list[int]] = [[] for _ in paths]
    barren: dict[int, list[int]] = {}
    tree: dict[int, int] = {}  # barren node to its tree's root
    for place, node in enumerate(nodes):
        if place in owner:
            continue
        if node.parent is not None and node.parent in owner:
            owner[place] = owner[node.parent]
            asides[owner[place]].append(place)
        else:
            tree[place] = place if node.parent is None else tree[node.parent]
            barren.setdefault(tree[place], []).append(place)
    branches = [Branch(tuple(path), tuple(aside)) for path, aside in zip(paths, asides, strict=True)]
    return branches, list(barren.values())


def span_of(lines: Sequence[Line]) -> tuple[int, int]:
    """From the first byte of the first line to the end of the last."""
    return min(line.first for line in lines), max(line.end for line in lines)


def _path(nodes: Sequence[Node], place: int) -> list[int]:
    path = [place]
    while (parent := nodes[path[-1]].parent) is not None:
        path.append(parent)
    return path[::-1]


def _object(line: bytes) -> dict[str, Any]:
    value = decode_json_object(line)
    if line.count(b"[") + line.count(b"{") > _DEEPEST and _is_deeper(value, _DEEPEST):
        raise Unreadable("too_deep", f"more than {_DEEPEST} levels of JSON in each other")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    while level and levels >= 0:
        nested = [each.values() if isinstance(each, dict) else each for each in level]
        level = [item for items in nested for item in items if isinstance(item, dict | list)]
        levels -= 1
    return bool(level)
