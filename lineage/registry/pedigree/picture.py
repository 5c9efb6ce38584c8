"""The two pictures of a pedigree: the path of the rows into an alias, and a tree of few places.

sources -> curriculum -> training run -> checkpoint -> alias
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lineage.registry.pedigree.facts import Fold, Node, Pedigree
from lineage.registry.pedigree.marks import clip, count, last, short, short_run, slice_class, text

_DRAWN = 6  # sources with a ribbon of their own
_CARD, _GAP, _ROW = 200, 60, 66  # px: a place in a tree, the way to the next level, from place to place


def path(facts: Pedigree) -> str:
    """Sources as ribbons as wide as their rows, then curriculum, run, checkpoint and alias in a line."""
    model, curriculum = facts["model"], facts["curriculum"]
    streams = _streams(facts)
    slots = [max(44.0, _ribbon(rows, streams) + 14) for _, _, rows in streams]
    height = max(190.0, sum(slots) + 24)
    middle, top = height / 2, (height - sum(slots)) / 2
    marks = [_ARROW]
    entry = middle - sum(_ribbon(rows, streams) for _, _, rows in streams) / 2
    for (name, note, rows), slot in zip(streams, slots, strict=True):
        thick = _ribbon(rows, streams)
        y = top + slot / 2 - thick / 2
        marks.append(_ribbon_mark(276, y, 400, entry, thick))
        marks.append(
            f'<text class="name end" x="258" y="{top + slot / 2 - 2:.1f}">{text(name)}</text>'
            f'<text class="note end" x="258" y="{top + slot / 2 + 14:.1f}">{text(note)}</text>'
        )
        top, entry = top + slot, entry + thick
    if not streams:
        marks.append(f'<text class="note end" x="258" y="{middle:.1f}">no consumed row is recorded</text>')
    steps = max((group["last_step"] for group in facts["groups"]), default=None)
    upto = "no step recorded" if steps is None else f"steps 0 to {steps:,}"
    cards = (
        (400, "Curriculum", short(curriculum["root"]), count(curriculum["rows"], "row")),
        (596, "Training run", short_run(model["run_id"]), upto),
        (792, "Checkpoint", short(model["adapter_digest"]), "adapter digest"),
    )
    for x, label, name, note in cards:
        marks.append(_card(x, middle, label, name, note))
        marks.append(f'<path class=flow d="M{x + 160} {middle:.1f}h26" marker-end="url(#tip)"/>')
    marks.append(_slice_bar(412, middle + 34, 132, curriculum["slices"]))
    marks.append(_flags(996, middle, sorted(facts.get("aliases", ())), bool(facts.get("recalls"))))
    return (
        f'<div class=scroll><svg viewBox="0 0 1140 {height:.0f}" role="img" '
        f'aria-label="Path from the sources through curriculum, training run and checkpoint to the alias">'
        f"{''.join(marks)}</svg></div>"
    )


def tree(
    nodes: Sequence[Node], edges: Sequence[tuple[str, str]], more: Mapping[int, int], *, label: str
) -> str:
    """Places in columns by level, from left to right, with what is not shown counted beneath."""
    levels = sorted({node["level"] for node in nodes} | set(more))
    column = {level: index for index, level in enumerate(levels)}
    here = {level: [node for node in nodes if node["level"] == level] for level in levels}
    heights = {level: len(places) + (level in more) for level, places in here.items()}
    width = len(levels) * (_CARD + _GAP) - _GAP + 4
    height = max(heights.values()) * _ROW + 4
    at: dict[str, tuple[float, float]] = {}
    marks: list[str] = []
    for level, places in here.items():
        x, y = column[level] * (_CARD + _GAP) + 2.0, (height - heights[level] * _ROW) / 2 + 8
        for node in places:
            at[node["key"]] = x, y + 25
            marks.append(_place(x, y, node))
            y += _ROW
        if level in more:
            marks.append(
                f'<rect class="place folded" x="{x:g}" y="{y:.1f}" width="{_CARD}" height="50" rx="8"/>'
                f'<text class="note mid" x="{x + _CARD / 2:g}" y="{y + 29:.1f}">'
                f"and {more[level]:,} more</text>"
            )
    lines = [_edge(at[start], at[end]) for start, end in edges if start in at and end in at]
    return (
        f'<div class=scroll><svg class=tree viewBox="0 0 {width} {height:.0f}" style="width:{width}px" '
        f'role="img" aria-label="{text(label)}">{"".join(lines)}{"".join(marks)}</svg></div>'
    )


def _place(x: float, y: float, node: Node) -> str:
    state = " recalled" if node["recalled"] else ""
    state += " here" if node["level"] == 0 else ""
    note = f"called back · {node['note']}" if node["recalled"] else node["note"]
    return (
        f"<g><title>{text(clip(node['title'], 300))} · {text(clip(note, 300))}</title>"
        f'<rect class="place k-{node["kind"]}{state}" x="{x:g}" y="{y:.1f}" '
        f'width="{_CARD}" height="50" rx="8"/>'
        f'<text class="title" x="{x + 13:g}" y="{y + 21:.1f}">{text(clip(node["title"], 24))}</text>'
        f'<text class="note" x="{x + 13:g}" y="{y + 38:.1f}">{text(clip(note, 27))}</text></g>'
    )


def _edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    x, bend = start[0] + _CARD, (start[0] + _CARD + end[0]) / 2
    return (
        f'<path class=edge d="M{x:g} {start[1]:.1f}C{bend:g} {start[1]:.1f} {bend:g} {end[1]:.1f} '
        f'{end[0]:g} {end[1]:.1f}"/>'
    )


def _streams(facts: Pedigree) -> list[tuple[str, str, int]]:
    """(name, note, rows) of the sources with most rows; all others are one stream."""
    fold: Fold | None = next((f for f in facts.get("folds", ()) if f["by"] == "source"), None)
    if fold is None:
        return []
    values, others = list(fold["values"]), fold["others"]
    values.sort(key=lambda value: (-value["rows"], value["name"], value["revision"]))
    shown = values if others is None and len(values) <= _DRAWN else values[: _DRAWN - 1]
    streams = [
        (clip(last(v["name"]), 30), f"{count(v['rows'], 'row')} · {short(v['revision'])}", v["rows"])
        for v in shown
    ]
    hidden = len(values) - len(shown) + (others["values"] if others else 0)
    if hidden:
        rows = sum(v["rows"] for v in values[len(shown) :]) + (others["rows"] if others else 0)
        streams.append((f"{count(hidden, 'more source')}", count(rows, "row"), rows))
    return streams


def _ribbon(rows: int, streams: Sequence[tuple[str, str, int]]) -> float:
    total = sum(rows for _, _, rows in streams) or 1
    return max(2.5, 84 * rows / total)  # 84 of the 104 px of a card's side


def _ribbon_mark(x: float, y: float, end: float, entry: float, thick: float) -> str:
    bend = (x + end) / 2
    return (
        f'<rect class=source x="{x - 8:g}" y="{y:.1f}" width="6" height="{thick:.1f}" rx="2"/>'
        f'<path class=ribbon d="M{x:g} {y:.1f}C{bend:g} {y:.1f} {bend:g} {entry:.1f} {end:g} {entry:.1f}'
        f'v{thick:.1f}C{bend:g} {entry + thick:.1f} {bend:g} {y + thick:.1f} {x:g} {y + thick:.1f}z"/>'
    )


def _card(x: float, middle: float, label: str, name: str, note: str) -> str:
    y = middle - 52
    return (
        f'<rect class=card x="{x:g}" y="{y:.1f}" width="156" height="104" rx="10"/>'
        f'<text class=label x="{x + 14:g}" y="{y + 26:.1f}">{text(label)}</text>'
        f'<text class="name mono" x="{x + 14:g}" y="{y + 51:.1f}">{text(name)}</text>'
        f'<text class=note x="{x + 14:g}" y="{y + 71:.1f}">{text(note)}</text>'
    )


def _slice_bar(x: float, y: float, width: float, slices: Mapping[str, int]) -> str:
    total = sum(slices.values())
    marks = []
    for name, rows in sorted(slices.items()):
        if rows:
            share = width * rows / total
            marks.append(
                f'<rect class="{slice_class(name)}" x="{x:.1f}" y="{y:.1f}" height="5" rx="2" '
                f'width="{max(share - 2, 1):.1f}"><title>{text(name)}: {rows:,}</title></rect>'
            )
            x += share
    return "".join(marks)


def _flags(x: float, middle: float, aliases: Sequence[str], is_recalled: bool) -> str:
    if not aliases:
        said = "recalled" if is_recalled else "no alias"
        return (
            f'<rect class="flag empty" x="{x:g}" y="{middle - 17:.1f}" width="136" height="34" rx="17"/>'
            f'<text class="note mid" x="{x + 68:g}" y="{middle + 4:.1f}">{said}</text>'
        )
    shown = [*aliases[:3], *([f"and {len(aliases) - 3} more"] if len(aliases) > 3 else [])]
    top = middle - 21 * len(shown)
    return "".join(
        f'<rect class=flag x="{x:g}" y="{top + 42 * index + 4:.1f}" width="136" height="34" rx="17"/>'
        f'<text class="flagged mid" x="{x + 68:g}" y="{top + 42 * index + 26:.1f}">'
        f"{text(clip(alias, 15))}</text>"
        for index, alias in enumerate(shown)
    )


_ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path class=tip d="M0 0l8 4-8 4z"/></marker></defs>'
)
