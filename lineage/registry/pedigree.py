"""The pedigree of a model version as a page that a person reads and as JSON that a program reads.

    sources -> curriculum -> training run -> checkpoint -> alias

Pure: the same facts give the same bytes. The page is one file without scripts or links, light or dark as the
reader's screen is. Everything on it is data that somebody else may have written, so everything is escaped.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NotRequired, TypedDict

SCHEMA = "stemma.pedigree/1"
_VISIBLE_GROUPS = 12
_DRAWN_GROUPS = 6


class Model(TypedDict):
    """The version whose pedigree this is."""

    name: str
    version: int
    run_id: str
    adapter_digest: str
    base_model: str
    base_digest: str
    at: dt.datetime | str


class Curriculum(TypedDict):
    """What the training run was offered: its root, and its rows by slice."""

    root: str
    rows: int
    slices: Mapping[str, int]


class Group(TypedDict):
    """Consumed rows of one provenance: how many, and the first and last step that ate one."""

    source_uri: str
    source_revision: str
    prompt_name: str
    prompt_version: str
    scorer: str
    scorer_revision: str
    generator: str
    rows: int
    first_step: int
    last_step: int


class Reported(TypedDict):
    """One number about the model with its 95 % interval; a number that is not there is None."""

    metric: str
    split: str
    condition: str
    value: float | None
    low: float | None
    high: float | None
    n: int


class Relative(TypedDict):
    """Another version: the one before it, or one whose answers it learned from."""

    name: str
    version: int
    run_id: str


class Pedigree(TypedDict):
    """The facts. `parents` are models whose outputs were among the rows; `aliases` point here now."""

    model: Model
    curriculum: Curriculum
    groups: Sequence[Group]
    reports: Sequence[Reported]
    previous: NotRequired[Relative | None]
    parents: NotRequired[Sequence[Relative]]
    aliases: NotRequired[Sequence[str]]


def pedigree_json(facts: Pedigree) -> str:
    """The facts as JSON, keys sorted, groups in the page's order; a number that is none becomes null."""
    ordered = {**facts, "groups": _ordered(facts["groups"]), "schema": SCHEMA}
    return json.dumps(_plain(ordered), sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def pedigree_html(facts: Pedigree) -> str:
    """The facts as one self-contained page."""
    model, groups = facts["model"], _ordered(facts["groups"])
    title = f"{model['name']} @ {model['version']}"
    parts = [
        f"<header><p class=kicker>Pedigree of a model</p><h1>{_text(model['name'])}<span class=at>@</span>"
        f"{model['version']:d}</h1>{_aliases(facts)}<p class=lead>{_summary(facts, groups)}</p></header>",
        f"<section><h2>How it came to be</h2><div class=scroll>{_picture(facts, groups)}</div></section>",
        f"<section><h2>How good it is</h2>{_reports(facts['reports'])}</section>",
        f"<section><h2>What it was fed</h2>{_slices(facts['curriculum'])}{_groups(groups)}</section>",
        f"<section><h2>What it stands on</h2>{_identities(facts)}</section>",
        f"<footer>Stemma keeps this record in the lake; the page is a copy of it. "
        f"Ask again: <code>stemma lineage {_text(model['name'])}@{model['version']:d}</code></footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}: pedigree</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _ordered(groups: Sequence[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (-group["rows"], *(str(value) for value in group.values())))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _summary(facts: Pedigree, groups: Sequence[Group]) -> str:
    model, curriculum = facts["model"], facts["curriculum"]
    sources = len({group["source_revision"] for group in groups})
    eaten = sum(group["rows"] for group in groups)
    return (
        f"Registered on {_when(model['at'])}, trained from <b>{_text(model['base_model'])}</b>. "
        f"It was offered <b>{_count(curriculum['rows'], 'row')}</b> "
        f"and consumed <b>{_count(eaten, 'row')}</b> from <b>{_count(sources, 'source revision')}</b>."
    )


def _aliases(facts: Pedigree) -> str:
    pills = "".join(f"<span class=pill>{_text(alias)}</span>" for alias in sorted(facts.get("aliases", ())))
    return f"<p class=pills>{pills}</p>" if pills else ""


def _picture(facts: Pedigree, groups: Sequence[Group]) -> str:
    """Sources as ribbons as wide as their rows, then curriculum, run, checkpoint and alias in a line."""
    model, curriculum = facts["model"], facts["curriculum"]
    streams = _streams(groups)
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
            f'<text class="name end" x="258" y="{top + slot / 2 - 2:.1f}">{_text(name)}</text>'
            f'<text class="note end" x="258" y="{top + slot / 2 + 14:.1f}">{_text(note)}</text>'
        )
        top, entry = top + slot, entry + thick
    if not streams:
        marks.append(f'<text class="note end" x="258" y="{middle:.1f}">no consumed row is recorded</text>')
    steps = max((group["last_step"] for group in groups), default=None)
    upto = "no step recorded" if steps is None else f"steps 0 to {steps}"
    cards = (
        (400, "Curriculum", _short(curriculum["root"]), _count(curriculum["rows"], "row")),
        (596, "Training run", _short_run(model["run_id"]), upto),
        (792, "Checkpoint", _short(model["adapter_digest"]), "adapter digest"),
    )
    for x, label, name, note in cards:
        marks.append(_card(x, middle, label, name, note))
        marks.append(f'<path class=flow d="M{x + 160} {middle:.1f}h26" marker-end="url(#tip)"/>')
    marks.append(_slice_bar(412, middle + 34, 132, curriculum["slices"]))
    marks.append(_flags(996, middle, sorted(facts.get("aliases", ()))))
    return (
        f'<svg viewBox="0 0 1140 {height:.0f}" role="img" aria-label="Path from the sources through '
        f'curriculum, training run and checkpoint to the alias">{"".join(marks)}</svg>'
    )


def _streams(groups: Sequence[Group]) -> list[tuple[str, str, int]]:
    """(name, note, rows) of the sources with most rows; all others are one stream."""
    rows_of: dict[tuple[str, str], int] = {}
    for group in groups:
        source = (group["source_uri"], group["source_revision"])
        rows_of[source] = rows_of.get(source, 0) + group["rows"]
    ranked = sorted(rows_of.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked if len(ranked) <= _DRAWN_GROUPS else ranked[: _DRAWN_GROUPS - 1]
    streams = [
        (_clip(_last(uri), 30), f"{_count(rows, 'row')} · {_short(revision)}", rows)
        for (uri, revision), rows in shown
    ]
    if rest := ranked[len(shown) :]:
        streams.append(
            (
                f"{len(rest):,} more sources",
                _count(sum(rows for _, rows in rest), "row"),
                sum(r for _, r in rest),
            )
        )
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
        f'<text class=label x="{x + 14:g}" y="{y + 26:.1f}">{_text(label)}</text>'
        f'<text class="name mono" x="{x + 14:g}" y="{y + 51:.1f}">{_text(name)}</text>'
        f'<text class=note x="{x + 14:g}" y="{y + 71:.1f}">{_text(note)}</text>'
    )


def _slice_bar(x: float, y: float, width: float, slices: Mapping[str, int]) -> str:
    total = sum(slices.values())
    marks = []
    for name, rows in sorted(slices.items()):
        if rows:
            share = width * rows / total
            marks.append(
                f'<rect class="s-{_slice_class(name)}" x="{x:.1f}" y="{y:.1f}" height="5" rx="2" '
                f'width="{max(share - 2, 1):.1f}"><title>{_text(name)}: {rows:,}</title></rect>'
            )
            x += share
    return "".join(marks)


def _flags(x: float, middle: float, aliases: Sequence[str]) -> str:
    if not aliases:
        return (
            f'<rect class="flag empty" x="{x:g}" y="{middle - 17:.1f}" width="136" height="34" rx="17"/>'
            f'<text class="note mid" x="{x + 68:g}" y="{middle + 4:.1f}">no alias</text>'
        )
    shown = [*aliases[:3], *([f"and {len(aliases) - 3} more"] if len(aliases) > 3 else [])]
    top = middle - 21 * len(shown)
    return "".join(
        f'<rect class=flag x="{x:g}" y="{top + 42 * index + 4:.1f}" width="136" height="34" rx="17"/>'
        f'<text class="flagged mid" x="{x + 68:g}" y="{top + 42 * index + 26:.1f}">'
        f"{_text(_clip(alias, 15))}</text>"
        for index, alias in enumerate(shown)
    )


def _reports(reports: Sequence[Reported]) -> str:
    if not reports:
        return "<p class=quiet>No report yet. <code>stemma evaluate</code> makes one.</p>"
    rows = []
    for report in sorted(reports, key=lambda each: (each["metric"], each["split"], each["condition"])):
        value, low, high = (_finite(report[key]) for key in ("value", "low", "high"))
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        rows.append(
            f"<tr><td>{_text(report['metric'])}</td><td>{_text(report['split'])}</td>"
            f"<td>{_text(report['condition'])}</td>"
            f"<td class=num><b>{'none' if value is None else f'{value:.3f}'}</b></td>"
            f"<td class=num>{interval}</td><td>{_whisker(value, low, high)}</td>"
            f"<td class=num>{report['n']:,}</td></tr>"
        )
    head = (
        "<th>Metric</th><th>Split</th><th>Condition</th><th class=num>Value</th>"
        "<th class=num>95 % interval</th><th>0 to 1</th><th class=num>Rows</th>"
    )
    return (
        f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _whisker(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or not 0 <= value <= 1:
        return ""
    low, high = max(0.0, value if low is None else low), min(1.0, value if high is None else high)
    return (
        '<svg class=whisker viewBox="0 0 224 16" aria-hidden="true"><path class=axis d="M2 8h220"/>'
        f'<path class=range d="M{2 + 220 * low:.1f} 8H{2 + 220 * high:.1f}"/>'
        f'<path class=tick d="M{2 + 220 * value:.1f} 2v12"/></svg>'
    )


def _slices(curriculum: Curriculum) -> str:
    total = sum(curriculum["slices"].values())
    if not total:
        return "<p class=quiet>The curriculum holds no row.</p>"
    bar, legend = [], []
    for name, rows in sorted(curriculum["slices"].items()):
        share = 100 * rows / total
        mark = f"s-{_slice_class(name)}"
        bar.append(f'<i class={mark} style="width:{share:.2f}%"></i>')
        legend.append(f"<span><i class={mark}></i>{_text(name)} <b>{rows:,}</b> ({share:.0f} %)</span>")
    return f"<div class=bar>{''.join(bar)}</div><p class=legend>{''.join(legend)}</p>"


def _groups(groups: Sequence[Group]) -> str:
    if not groups:
        return "<p class=quiet>No consumed row is recorded for this checkpoint.</p>"
    last = max(group["last_step"] for group in groups)
    rows = [_group(group, last) for group in groups]
    shown, hidden = rows[:_VISIBLE_GROUPS], rows[_VISIBLE_GROUPS:]
    table = _group_table(shown)
    if not hidden:
        return table
    rest = _count(sum(group["rows"] for group in groups[_VISIBLE_GROUPS:]), "row")
    summary = f"<summary>and {len(hidden):,} more, with {rest} together</summary>"
    return f"{table}<details>{summary}{_group_table(hidden)}</details>"


def _group_table(rows: Sequence[str]) -> str:
    head = (
        "<th>Source</th><th>Prompt</th><th>Written by</th><th>Judged by</th><th class=num>Rows</th>"
        "<th>Consumed at steps</th>"
    )
    return (
        f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _group(group: Group, last: int) -> str:
    uri, revision = group["source_uri"], group["source_revision"]
    first, end = group["first_step"], group["last_step"]
    start, width = 100 * first / (last + 1), 100 * (end - first + 1) / (last + 1)
    return (
        f'<tr><td><span title="{_text(uri)}">{_text(_clip(_last(uri), 44))}</span>'
        f'<small class=mono title="{_text(revision)}">{_text(_short(revision))}</small></td>'
        f"<td>{_stated(group['prompt_name'], group['prompt_version'])}</td>"
        f"<td>{_stated(group['generator'])}</td>"
        f"<td>{_stated(group['scorer'], group['scorer_revision'])}</td><td class=num>{group['rows']:,}</td>"
        f'<td><div class=span><i style="left:{start:.2f}%;width:max(3px,{width:.2f}%)"></i></div>'
        f"<small>{first:,} to {end:,}</small></td></tr>"
    )


def _stated(name: str, version: str | None = None) -> str:
    if name in ("unstated", "not_applicable", "mixed"):
        return f"<span class=quiet>{name.replace('_', ' ')}</span>"
    tail = (
        ""
        if version in (None, "unstated", "not_applicable")
        else f"<small>@ {_text(_short(version, 40))}</small>"
    )
    return f'<span title="{_text(name)}">{_text(_clip(name, 36))}</span>{tail}'


def _identities(facts: Pedigree) -> str:
    model = facts["model"]
    lines = [
        ("Training run", model["run_id"]),
        ("Curriculum root", facts["curriculum"]["root"]),
        ("Adapter digest", model["adapter_digest"]),
        ("Base model", model["base_model"]),
        ("Base digest", model["base_digest"]),
    ]
    if previous := facts.get("previous"):
        lines.append(("Version before", _reference(previous)))
    lines += [("Learned from", _reference(parent)) for parent in facts.get("parents", ())]
    items = "".join(f"<dt>{label}</dt><dd class=mono>{_text(value)}</dd>" for label, value in lines)
    return f"<dl>{items}</dl>"


def _reference(relative: Relative) -> str:
    return f"{relative['name']}@{relative['version']} (run {relative['run_id']})"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _when(at: dt.datetime | str) -> str:
    if isinstance(at, str):
        return _text(at)
    return f"{at.astimezone(dt.UTC):%d %B %Y, %H:%M} UTC"


def _last(uri: str) -> str:
    return PurePosixPath(uri).name or uri


def _short(digest: str, length: int = 12) -> str:
    """The first characters of a digest, without the name of its algorithm."""
    return digest.removeprefix("sha256:")[:length]


def _short_run(run_id: str) -> str:
    """The first characters of a run's identity, and its attempt."""
    identity, dash, attempt = run_id.rpartition("-")
    return _clip(f"{identity[:12]}{dash}{attempt}", 16)


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _slice_class(name: str) -> str:
    return name if name in ("gold", "hard", "replay") else "other"


_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def _text(value: object) -> str:
    """Data as text: markup escaped; what a reader cannot see (control and direction marks) shown as a box."""
    return html.escape(_UNSEEN.sub("\ufffd", str(value)), quote=True)


_ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path class=tip d="M0 0l8 4-8 4z"/></marker></defs>'
)

_STYLE = """
:root{color-scheme:light dark;--paper:#fbf9f3;--sheet:#fffefa;--ink:#211d17;--soft:#6f675b;--line:#e4ddce;
--seal:#8f2f2a;--source:#4d7a5f;--gold:#b9812a;--hard:#7b5c90;--replay:#3f6a8c;--other:#98907f}
@media(prefers-color-scheme:dark){:root{--paper:#16140f;--sheet:#1e1b15;--ink:#ece5d6;--soft:#a2988a;--line:#363126;
--seal:#d9786c;--source:#83b596;--gold:#dba94f;--hard:#b697cb;--replay:#7eaed3;--other:#8f8776}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:48px 28px 40px}
header{border-bottom:1px solid var(--line);padding-bottom:22px;margin-bottom:34px}
h1,h2{font-family:"Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua",Georgia,serif;font-weight:600}
h1{font-size:46px;line-height:1.1;margin:4px 0 10px;letter-spacing:-.01em;overflow-wrap:anywhere}
h1 .at{color:var(--seal);padding:0 .12em;font-weight:400}
h2{font-size:21px;margin:0 0 14px}
section{margin-bottom:40px}
.kicker,.label{letter-spacing:.12em;text-transform:uppercase;font-size:11.5px;color:var(--soft)}
.kicker{margin:0}
.lead{font-size:17px;max-width:46em;margin:10px 0 0}
.pills{margin:0 0 8px}
.pill{background:var(--seal);color:var(--paper);border-radius:99px;padding:3px 13px;margin-right:6px;
font-size:13px;font-weight:600}
.mono,code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.quiet,small{color:var(--soft)}
small{display:block;font-size:12px}
.scroll{overflow-x:auto}
svg{display:block}
.scroll>svg{min-width:900px;width:100%;height:auto}
svg text{fill:var(--ink);font-size:14px}
svg .note{fill:var(--soft);font-size:12.5px}
svg .label{fill:var(--soft);font-size:11px}
svg .mono{font-size:15px}
.end{text-anchor:end}.mid{text-anchor:middle}
.card{fill:var(--sheet);stroke:var(--line);stroke-width:1.5}
.flow{stroke:var(--soft);stroke-width:1.6;fill:none}.tip{fill:var(--soft)}
.source,.ribbon{fill:var(--source)}.ribbon{opacity:.36;stroke:var(--paper);stroke-width:1.5}
.flag{fill:var(--seal)}.flag.empty{fill:none;stroke:var(--soft);stroke-dasharray:4 4}
svg .flagged{fill:var(--paper);font-weight:600}
.s-gold{fill:var(--gold);background:var(--gold)}.s-hard{fill:var(--hard);background:var(--hard)}
.s-replay{fill:var(--replay);background:var(--replay)}.s-other{fill:var(--other);background:var(--other)}
table{border-collapse:collapse;width:100%;min-width:800px;background:var(--sheet);
border:1px solid var(--line)}
th,td{text-align:left;padding:9px 14px;border-bottom:1px solid var(--line);vertical-align:top;
unicode-bidi:isolate}
th{font-size:12.5px;font-weight:600;color:var(--soft);white-space:nowrap}
td{overflow-wrap:break-word;max-width:21em}
tbody tr:last-child td{border-bottom:0}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.whisker{width:224px;height:16px;margin-top:4px}
.axis{stroke:var(--line);stroke-width:2}.range{stroke:var(--seal);stroke-width:8;opacity:.35}
.tick{stroke:var(--seal);stroke-width:2.5}
.bar{display:flex;gap:2px;height:12px;border-radius:6px;overflow:hidden}
.legend{margin:8px 0 18px}.legend span{margin-right:22px;white-space:nowrap}
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px}
.span{position:relative;height:6px;width:140px;margin:8px 0 3px;background:var(--line);border-radius:3px}
.span i{position:absolute;top:0;bottom:0;background:var(--seal);border-radius:3px}
details{margin-top:12px}summary{cursor:pointer;color:var(--seal);margin-bottom:12px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:7px 26px;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere;font-size:13.5px}
footer{border-top:1px solid var(--line);padding-top:16px;color:var(--soft);font-size:13.5px}
@media(max-width:640px){main{padding:28px 16px}h1{font-size:34px}
dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:10px}}
@media print{main{max-width:none;padding:0}}
"""
