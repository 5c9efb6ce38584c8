"""The facts of a row's pedigree: what it comes from, what became of it, and which models ate it.

Arranged by level, few places at each; what is not shown is counted. lineage.registry draws the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pyroaring import BitMap64

from infra.settings import Settings
from lineage.ancestry import ancestors_of, derived_from, rejections
from lineage.bans import banned, banned_numbers, recalls
from lineage.consumption import bitmaps
from lineage.models import aliases, versions
from lineage.registry import RowPedigree
from lineage.schemas import TableSpec

_LISTED = 8  # places at one level
_FOLLOWED = 2_000  # descendants that are arranged by level; of more, the first


def of_row(settings: Settings, spec: TableSpec, row: Mapping[str, Any]) -> RowPedigree:
    """A row, what it comes from and what became of it, as a tree of few places; the others are counted."""
    gone = banned(settings)
    tree = _Tree()
    tree.add(0, _of_row(spec.name, row), recalled=row["row_no"] in gone)
    _grow_down(settings, tree, row, gone)
    made = derived_from(settings, row["row_id"])
    top = _grow_up(tree, row, made, gone)
    _grow_models(settings, tree, [row, *made], top + 1)
    called_back = {each.id: each for each in recalls(settings)}.get(gone.get(row["row_no"], ""))
    text, answer = said(row)
    facts = {
        "table": spec.name,
        "row_id": row["row_id"].hex(),
        "text": text,
        "answer": answer,
        "provenance": {
            "Made by": f"{row['step']} r{row['step_revision']}",
            "Prompt": f"{row['prompt_name']} @ {row['prompt_version']}",
            "Written by": f"{row['generator']} @ {row['generator_revision']}",
            "Judged by": f"{row['scorer']} @ {row['scorer_revision']}",
            "Score": "none"
            if row["score"] is None
            else f"{row['score']:.4g}, held against {row['threshold']}",
            "Review": f"{row['review']} ({row['reviewer']})",
            "Source": f"{row['source_uri']} {row['source_span']}",
            "Source revision": row["source_revision"],
            "Run": row["run_id"],
            "Row number": str(row["row_no"]),
        },
        "recall": called_back
        and {
            "id": called_back.id,
            "selector": str(called_back.selector),
            "reason": called_back.reason,
            "rows": 1,
            "first_step": 0,
        },
        "nodes": tree.nodes,
        "edges": sorted(set(tree.edges)),
        "more": {level: number for level, number in sorted(tree.more.items()) if number},
        "rejected": [f"{each['step']}: {each['reason']}" for each in rejections(settings, row["row_id"])],
    }
    return cast(RowPedigree, facts)


def said(row: Mapping[str, Any]) -> tuple[str, str]:
    """What a stored row says (of a trace the user's last turn) and its answer; "" where it has none."""
    turns = [turn["content"] or "" for turn in row.get("messages") or () if turn["role"] == "user"]
    text = row.get("text") or (turns[-1] if turns else "")
    return text, row.get("answer") or row.get("response") or ""


class _Tree:
    """Places by level, few at each; what does not fit is counted."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[tuple[str, str]] = []
        self.more: dict[int, int] = {}
        self._at: dict[int, set[str]] = {}

    def add(self, level: int, place: Mapping[str, str], *, recalled: bool = False) -> bool:
        """Give it a place, unless its level is full; whether it has one."""
        here = self._at.setdefault(level, set())
        if place["key"] in here:
            return True
        if len(here) >= _LISTED:
            self.more[level] = self.more.get(level, 0) + 1
            return False
        here.add(place["key"])
        self.nodes.append({"level": level, **place, "recalled": recalled})
        return True


def _of_row(table: str, row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "key": row["row_id"].hex(),
        "kind": "row",
        "title": f"{table} {row['row_id'].hex()[:10]}",
        "note": f"{row['step']} r{row['step_revision']}" if "step_revision" in row else row["step"],
    }


def _grow_down(settings: Settings, tree: _Tree, row: Mapping[str, Any], gone: Mapping[int, str]) -> None:
    """Ancestors level by level, then the places in sources of those that have no parents."""
    graph = ancestors_of(settings, [row["row_no"]])
    shown, seen, depth, origins = [row["row_id"]], {row["row_id"]}, 0, []
    level = [row["row_id"]]
    while level:
        origins += [each for each in level if not graph[each]["parents"]]
        depth -= 1
        parents = sorted({p for each in level for p in graph[each]["parents"]} - seen)
        seen |= set(parents)
        placed = [
            p
            for p in parents
            if tree.add(depth, _of_row(graph[p]["table"], graph[p]), recalled=graph[p]["row_no"] in gone)
        ]
        for child in shown:
            named = set(graph[child]["parents"])
            tree.edges += [(p.hex(), child.hex()) for p in placed if p in named]
        shown, level = placed, parents
    places = {node["key"] for node in tree.nodes}
    for origin in origins:
        stored = graph[origin]
        key = f"{stored['source_revision']} {stored['source_span']}"
        if origin.hex() not in places:
            tree.more[depth] = tree.more.get(depth, 0) + 1
            continue
        name = stored["source_uri"].rstrip("/").rpartition("/")[2]
        if tree.add(depth, {"key": key, "kind": "source", "title": name, "note": stored["source_span"]}):
            tree.edges.append((key, origin.hex()))


def _grow_up(
    tree: _Tree,
    row: Mapping[str, Any],
    made: Sequence[Mapping[str, Any]],
    gone: Mapping[int, str],
) -> int:
    """Descendants level by level; the highest level, 0 where nothing was derived from the row."""
    followed = {each["row_id"]: each for each in made[:_FOLLOWED]}
    parents = {row_id: set(each["parents"]) for row_id, each in followed.items()}
    level, depth, left = {row["row_id"]}, 0, dict(followed)
    shown = {row["row_id"]}
    while children := [each for each in left if parents[each] & level]:
        depth += 1
        placed = {
            c
            for c in children
            if tree.add(depth, _of_row(left[c]["table"], left[c]), recalled=left[c]["row_no"] in gone)
        }
        tree.edges += [(p.hex(), c.hex()) for c in placed for p in parents[c] & shown]
        level, shown = set(children), placed
        for child in children:
            del left[child]
    if len(made) > _FOLLOWED:
        tree.more[depth] = tree.more.get(depth, 0) + len(made) - _FOLLOWED
    return depth


def _grow_models(settings: Settings, tree: _Tree, rows: Sequence[Mapping[str, Any]], level: int) -> None:
    """The checkpoints that ate some of the rows, registered ones first, with the aliases on them."""
    number_of = {each["row_id"].hex(): each["row_no"] for each in rows}
    numbers = BitMap64(each["row_no"] for each in rows)
    ate_all, gone = bitmaps(settings), banned_numbers(settings)
    ate = {at: eaten & numbers for at, eaten in ate_all.items()}
    named = {(each.run_id, each.step): each for each in versions(settings)}
    standing = aliases(settings)
    reached = [at for at, eaten in ate.items() if eaten]
    reached.sort(key=lambda at: (at not in named, -named[at].version if at in named else 0, at))
    nodes = [node for node in tree.nodes if node["kind"] == "row" and node["level"] >= 0]
    by_key = {node["key"]: number_of[node["key"]] for node in nodes}
    for at in reached:
        version = named.get(at)
        here = standing.get(version.name, {}) if version else {}
        flags = sorted(alias for alias, n in here.items() if version and n == version.version)
        eaten = len(ate[at])
        place = {
            "key": f"{at[0]}/{at[1]}",
            "kind": "model",
            "title": str(version) if version else f"run {at[0][:12]}",
            "note": ", ".join([f"ate {eaten} of the rows" if eaten > 1 else "ate it", *flags]),
        }
        if tree.add(level, place, recalled=bool(ate_all[at] & gone)):
            tree.edges += [(key, place["key"]) for key, number in by_key.items() if number in ate[at]]
