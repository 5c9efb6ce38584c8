"""What a model was fed: over time, by provenance, and row by row where there are few."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lineage.registry.pedigree.facts import (
    Ancestor,
    Ate,
    Curriculum,
    Fold,
    Group,
    Others,
    Portion,
    Strip,
    Value,
)
from lineage.registry.pedigree.marks import (
    clip,
    count,
    last,
    percent,
    short,
    slice_class,
    stated,
    text,
)
from lineage.registry.pedigree.style import SERIES

_VISIBLE_GROUPS = 12
_LEFT, _WIDTH, _HIGH, _LOW = 52, 1_010, 112, 40  # px of a strip's chart; a strip of what was recalled is low

_TITLES = {
    "slice": "by slice",
    "prompt_version": "by prompt version",
    "recalled": "called back",
    "source": "Source",
    "prompt": "Prompt",
    "scorer": "Judged by",
    "generator": "Written by",
}


def strips(all_strips: Sequence[Strip]) -> str:
    """Slots per bin of steps, stacked by value; each value says when it was first eaten."""
    return "".join(_strip(strip) for strip in all_strips if strip["starts"])


def slices(curriculum: Curriculum) -> str:
    """The curriculum's slices as one bar."""
    total = sum(curriculum["slices"].values())
    if not total:
        return "<p class=quiet>The curriculum holds no row.</p>"
    bar, legend = [], []
    for name, rows in sorted(curriculum["slices"].items()):
        mark = slice_class(name)
        bar.append(f'<i class={mark} style="width:{100 * rows / total:.2f}%"></i>')
        legend.append(
            f"<span><i class={mark}></i>{text(name)} <b>{rows:,}</b> ({percent(rows, total)})</span>"
        )
    return f"<div class=bar>{''.join(bar)}</div><p class=legend>{''.join(legend)}</p>"


def folds(all_folds: Sequence[Fold]) -> str:
    """One table per part of the provenance; every table accounts for every row."""
    tables = [_fold(fold) for fold in all_folds if fold["by"] != "slice" and fold["values"]]
    return f"<div class=folds>{''.join(tables)}</div>" if tables else ""


def groups(listed: Sequence[Group], others: Others | None) -> str:
    """Rows that share all of their provenance: the largest groups, the next folded away, the rest as one."""
    if not listed:
        return "<p class=quiet>No consumed row is recorded for this checkpoint.</p>"
    end = max(portion["last_step"] for portion in [*listed, *([others] if others else [])])
    rows = [_group(group, end) for group in listed]
    tail = [_other_groups(others, end)] if others else []
    shown, hidden = rows[:_VISIBLE_GROUPS], rows[_VISIBLE_GROUPS:]
    if not hidden:
        return _group_table([*shown, *tail])
    folded = listed[_VISIBLE_GROUPS:]
    more = len(folded) + (others["values"] if others else 0)
    rest = sum(group["rows"] for group in folded) + (others["rows"] if others else 0)
    summary = f"<summary>and {more:,} more, with {count(rest, 'row')} together</summary>"
    return f"{_group_table(shown)}<details>{summary}{_group_table([*hidden, *tail])}</details>"


def rows(ate: Sequence[Ate]) -> str:
    """Each consumed row with its ancestry, down to the places in sources."""
    return f"<ol class=rows>{''.join(map(_row, ate))}</ol>" if ate else ""


def _strip(strip: Strip) -> str:
    starts, steps = strip["starts"], max(1, strip["steps"])
    is_recalled = strip["by"] == "recalled"
    high = _LOW if is_recalled else _HIGH
    sums = [sum(column) for column in zip(*(series["slots"] for series in strip["series"]), strict=True)]
    most = max(sums, default=0) or 1
    width = min((b - a for a, b in pairwise(starts)), default=steps)
    ends = [min(start + width, steps) for start in starts]
    floor = [0.0] * len(starts)
    marks, legend = [], []
    for index, series in enumerate(strip["series"]):
        mark = "gone" if is_recalled or series["recalled"] else _colour(strip, index)
        drawn = []
        for bin_, slots in enumerate(series["slots"]):
            if slots:
                x, end = (_LEFT + _WIDTH * step / steps for step in (starts[bin_], ends[bin_]))
                tall = high * slots / most
                y = 6 + high - floor[bin_] - tall
                drawn.append(f"M{x:.1f} {y:.1f}h{max(1.0, end - x - 0.8):.1f}v{tall:.1f}H{x:.1f}z")
                floor[bin_] += tall
        name = series["name"]
        marks.append(
            f'<path class="{mark}" d="{"".join(drawn)}"><title>{text(clip(name, 200))}</title></path>'
        )
        first = next((bin_ for bin_, slots in enumerate(series["slots"]) if slots), 0)
        since = f"step {starts[first]:,}"
        since += f" to {ends[first] - 1:,}" if ends[first] - starts[first] > 1 else ""
        said = f"recall {text(clip(name, 60))}" if is_recalled else text(clip(name, 60))
        legend.append(
            f'<span><i class="{mark}"></i>{said} <b>{sum(series["slots"]):,}</b> '
            f"<em>first at {since}</em></span>"
        )
    axis = _axis(steps, high, most)
    return (
        f"<h3>Slots eaten, {_TITLES.get(strip['by'], text(strip['by']))}</h3><div class=scroll>"
        f'<svg viewBox="0 0 1140 {high + 34}" role="img" aria-label="Slots eaten over the training steps">'
        f"{axis}{''.join(marks)}</svg></div><p class=legend>{''.join(legend)}</p>"
    )


def _axis(steps: int, high: int, most: int) -> str:
    marks = [
        f'<path class=rule d="M{_LEFT} {6 + high}.5h{_WIDTH}"/>',
        f'<text class="note end" x="{_LEFT - 8}" y="16">{most:,}</text>',
        f'<text class="note end" x="{_LEFT - 8}" y="{9 + high}">0</text>',
    ]
    for at in sorted({round(steps * part / 5) for part in range(6)}):
        x = _LEFT + _WIDTH * at / steps
        marks.append(f'<text class="note mid" x="{x:.1f}" y="{high + 26}">{at:,}</text>')
    marks.append(f'<text class="note" x="{_LEFT + _WIDTH + 24}" y="{high + 26}">steps</text>')
    return "".join(marks)


def _colour(strip: Strip, index: int) -> str:
    return slice_class(strip["series"][index]["name"]) if strip["by"] == "slice" else f"c{index % SERIES}"


def _fold(fold: Fold) -> str:
    portions: list[Portion] = [*fold["values"], *([fold["others"]] if fold["others"] else [])]
    rows_, tokens = (sum(portion[name] for portion in portions) for name in ("rows", "loss_tokens"))
    most = max(portion["loss_tokens"] for portion in portions) or 1
    lines = [_fold_line(_value(fold["by"], value), value, most, tokens) for value in fold["values"]]
    if others := fold["others"]:
        said = f"<span class=quiet>{count(others['values'], 'other')}</span>"
        lines.append(_fold_line(said, others, most, tokens))
    head = (
        f"<th>{_TITLES[fold['by']]}</th><th colspan=2>Share of the loss tokens</th><th class=num>Rows</th>"
        "<th class=num>First step</th>"
    )
    foot = f"<td>all</td><td class=num colspan=2>{tokens:,}</td><td class=num>{rows_:,}</td><td></td>"
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
        f"<tfoot><tr>{foot}</tr></tfoot></table>"
    )


def _value(by: str, value: Value) -> str:
    if by == "source":
        return (
            f'<span title="{text(clip(value["name"], 300))}">{text(clip(last(value["name"]), 36))}</span>'
            f"<small class=mono>{text(short(value['revision']))}</small>"
        )
    return stated(value["name"], clip(value["revision"], 18))


def _fold_line(name: str, portion: Portion, most: int, tokens: int) -> str:
    wide = 100 * portion["loss_tokens"] / most
    gone = 100 * portion["recalled"] / portion["rows"] if portion["rows"] else 0
    hatched = f'<u style="width:{gone:.1f}%"></u>' if portion["recalled"] else ""
    return (
        f"<tr><td>{name}{_back(portion)}</td>"
        f'<td><div class=share><i style="width:{wide:.1f}%">{hatched}</i></div></td>'
        f"<td class=num>{percent(portion['loss_tokens'], tokens)}</td>"
        f"<td class=num>{portion['rows']:,}</td><td class=num>{portion['first_step']:,}</td></tr>"
    )


def _back(portion: Portion) -> str:
    recalled = portion["recalled"]
    said = "all called back" if recalled == portion["rows"] else f"{recalled:,} called back"
    return f"<small class=back>{said}</small>" if recalled else ""


def _group_table(lines: Sequence[str]) -> str:
    head = (
        "<th>Source</th><th>Prompt</th><th>Written by</th><th>Judged by</th><th class=num>Rows</th>"
        "<th>Consumed at steps</th>"
    )
    return (
        f"<div class=scroll><table class=groups><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _group(group: Group, end: int) -> str:
    uri, revision = group["source_uri"], group["source_revision"]
    return (
        f'<tr><td><span title="{text(clip(uri, 300))}">{text(clip(last(uri), 44))}</span>'
        f"<small class=mono>{text(short(revision))}</small></td>"
        f"<td>{stated(group['prompt_name'], group['prompt_version'])}</td>"
        f"<td>{stated(group['generator'], group['generator_revision'])}</td>"
        f"<td>{stated(group['scorer'], group['scorer_revision'])}</td>{_steps(group, end)}</tr>"
    )


def _other_groups(others: Others, end: int) -> str:
    said = count(others["values"], "other group")
    return f"<tr class=quiet><td colspan=4>{said}</td>{_steps(others, end)}</tr>"


def _steps(portion: Portion, end: int) -> str:
    first, last_ = portion["first_step"], portion["last_step"]
    start, width = 100 * first / (end + 1), 100 * (last_ - first + 1) / (end + 1)
    return (
        f"<td class=num>{portion['rows']:,}{_back(portion)}</td>"
        f'<td><div class=span><i style="left:{start:.2f}%;width:max(3px,{width:.2f}%)"></i></div>'
        f"<small>{first:,} to {last_:,}</small></td>"
    )


def _row(row: Ate) -> str:
    times = f", {row['times']} times" if row["times"] > 1 else ""
    back = f"<b class=back>called back by {text(row['recalled'])}</b> " if row["recalled"] else ""
    chips = [f"<b class=mono>{text(row['row_id'][:10])}</b> {text(row['made_by'])}"]
    depths = sorted({ancestor["depth"] for ancestor in row["ancestors"]})
    line = [f"<span class=chip>{chips[0]}</span>"]
    for depth in depths:
        several = [_chip(each) for each in row["ancestors"] if each["depth"] == depth]
        line.append(f"<span class=from>←</span><span class=chips>{''.join(several)}</span>")
    if row["more"]:
        line.append(f"<span class=quiet>and {row['more']:,} more ancestors</span>")
    return (
        f'<li><p class=when><i class="{slice_class(row["slice"])}"></i>step {row["first_step"]:,}{times}</p>'
        f"<div><p class=said>{text(clip(row['text'], 220))} <b>→ {text(clip(row['answer'], 120))}</b></p>"
        f"<p class=of>{back}{text(row['slice'])} · prompt {text(clip(row['prompt'], 60))} · judged by "
        f"{text(clip(row['scorer'], 60))}</p><p class=line>{''.join(line)}</p></div></li>"
    )


def _chip(ancestor: Ancestor) -> str:
    where = ""
    if ancestor["span"]:
        span = ancestor["span"].removeprefix("bytes:")
        where = f" · {text(clip(last(ancestor['source_uri']), 32))} <i>{text(clip(span, 32))}</i>"
    return (
        f"<span class=chip><b class=mono>{text(ancestor['row_id'][:10])}</b> {text(ancestor['table'])}, "
        f"{text(clip(ancestor['step'], 40))}{where}</span>"
    )
