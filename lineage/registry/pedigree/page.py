"""A model's page: how it came to be, when it ate what, its family, its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lineage.registry.pedigree import feeding, picture
from lineage.registry.pedigree.facts import (
    Model,
    Node,
    Pedigree,
    Reached,
    Relative,
    Reported,
    Waived,
    in_order,
)
from lineage.registry.pedigree.marks import clip, count, page, section, text, when

_RELATIVES = 8


def pedigree_html(facts: Pedigree) -> str:
    """The facts as one self-contained page."""
    model, groups = facts["model"], in_order(facts["groups"])
    fed = [
        feeding.slices(facts["curriculum"]),
        feeding.folds(facts.get("folds", ())),
        "<h3>All of it together</h3>",
        feeding.groups(groups, facts.get("others")),
    ]
    return page(
        _name(model),
        [
            f"<header><p class=kicker>Pedigree of a model</p>{_heading(model)}{_aliases(facts)}"
            f"{_recalls(facts.get('recalls', ()))}<p class=lead>{_summary(facts)}</p>"
            f"{_waivers(facts.get('waivers', ()))}</header>",
            section("How it came to be", picture.path(facts)),
            section("When it was eaten", feeding.strips(facts.get("strips", ()))),
            section("What it was fed", *fed),
            section("Row by row", feeding.rows(facts.get("rows", ()))),
            section("Its family", _family(facts)),
            section("How good it is", _reports(facts["reports"])),
            section("What it stands on", _identities(facts)),
            f"<footer>Stemma keeps this record in the lake; the page is a copy of it. "
            f"Ask again: <code>stemma lineage {text(_reference(model))}</code></footer>",
        ],
    )


def _name(model: Model) -> str:
    return f"{model['name']} @ {model['version']}" if model["version"] else f"run {model['name']}"


def _reference(model: Model) -> str:
    return f"{model['name']}@{model['version']}" if model["version"] else model["run_id"]


def _heading(model: Model) -> str:
    if not model["version"]:
        return f"<h1 class=mono>{text(model['name'])}</h1>"
    return f"<h1>{text(model['name'])}<span class=at>@</span>{model['version']:d}</h1>"


def _aliases(facts: Pedigree) -> str:
    pills = "".join(f"<span class=pill>{text(alias)}</span>" for alias in sorted(facts.get("aliases", ())))
    return f"<p class=pills>{pills}</p>" if pills else ""


def _recalls(recalls: Sequence[Reached]) -> str:
    said = [
        f"<p><b>Recalled.</b> Recall <code>{text(each['id'])}</code> ({text(clip(each['selector'], 200))}) "
        f"took back {count(each['rows'], 'row')} that it ate, the first at step {each['first_step']:,}: "
        f"{text(clip(each['reason'], 600))}</p>"
        for each in recalls
    ]
    return f"<div class=recall>{''.join(said)}</div>" if said else ""


def _waivers(waivers: Sequence[Waived]) -> str:
    """A line each, for whoever asks why a row that broke a rule was eaten."""
    return "".join(
        f"<p class=quiet>Some of it was admitted although rule <code>{text(each['rule'])}</code> of "
        f"{text(each['table'])} failed: {text(clip(each['by'], 80))} waived it on {when(each['at'])} "
        f"(<code>{text(each['id'])}</code>): {text(clip(each['reason'], 600))}</p>"
        for each in waivers
    )


def _summary(facts: Pedigree) -> str:
    model, curriculum = facts["model"], facts["curriculum"]
    others = facts.get("others")
    eaten = sum(group["rows"] for group in facts["groups"]) + (others["rows"] if others else 0)
    made = "Registered" if model["version"] else "Made"
    said = (
        f"{made} on {when(model['at'])}, trained from <b>{text(model['base_model'])}</b>. "
        f"It was offered <b>{count(curriculum['rows'], 'row')}</b> and consumed <b>{count(eaten, 'row')}</b>"
    )
    fold = next((each for each in facts.get("folds", ()) if each["by"] == "source"), None)
    if fold is None:
        return f"{said}."
    sources = len(fold["values"]) + (fold["others"]["values"] if fold["others"] else 0)
    return f"{said} from <b>{count(sources, 'source revision')}</b>."


def _family(facts: Pedigree) -> str:
    """Models that wrote some of its rows, and models that learned from what it wrote."""
    parents, children = facts.get("parents", ()), facts.get("children", ())
    if not (parents or children):
        return ""
    this = Node(
        key="this",
        level=0,
        kind="model",
        title=_reference(facts["model"]),
        note=", ".join(sorted(facts.get("aliases", ()))) or "this model",
        recalled=bool(facts.get("recalls")),
    )
    nodes, edges, more = [this], [], {}
    for level, relatives, did in ((-1, parents, "wrote"), (1, children, "ate")):
        ranked = sorted(relatives, key=lambda each: (-each.get("rows", 0), each["name"], each["version"]))
        for each in ranked[:_RELATIVES]:
            key = f"{level} {each['name']}@{each['version']}"
            note = f"{did} {count(each['rows'], 'row')}" if "rows" in each else did
            title = f"{each['name']}@{each['version']}"
            nodes.append(Node(key=key, level=level, kind="model", title=title, note=note, recalled=False))
            edges.append((key, "this") if level < 0 else ("this", key))
        if len(ranked) > _RELATIVES:
            more[level] = len(ranked) - _RELATIVES
    lead = "<p class=quiet>Who wrote rows that it ate, and who ate rows that it wrote.</p>"
    return lead + picture.tree(nodes, edges, more, label="Models before and after")


def _reports(reports: Sequence[Reported]) -> str:
    if not reports:
        return "<p class=quiet>No report yet. <code>stemma evaluate</code> makes one.</p>"
    rows = []
    for report in sorted(reports, key=lambda each: (each["metric"], each["split"], each["condition"])):
        value, low, high = (_finite(number) for number in (report["value"], report["low"], report["high"]))
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        rows.append(
            f"<tr><td>{text(report['metric'])}</td><td>{text(report['split'])}</td>"
            f"<td>{text(report['condition'])}</td>"
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
        lines.append(("Version before", _said(previous)))
    lines += [("Learned from", _said(parent)) for parent in facts.get("parents", ())]
    lines += [("Taught", _said(child)) for child in facts.get("children", ())]
    items = "".join(f"<dt>{label}</dt><dd class=mono>{text(value)}</dd>" for label, value in lines)
    return f"<dl>{items}</dl>"


def _said(relative: Relative) -> str:
    return f"{relative['name']}@{relative['version']} (run {relative['run_id']})"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
