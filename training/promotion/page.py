"""The page of a promotion: the decision and why, the numbers with intervals, and what changed row by row.

One file without scripts that opens anywhere; everything on it that somebody else may have written is escaped.
The same facts give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from lineage.registry.pedigree.marks import clip, count, last, page, section, stated, text, when
from training.promotion import Arm, Check, Group, exact_share
from training.promotion.shown import SHOWN, Moved, PageFacts, Standing

_EXCERPT = 280  # characters of a text
_GROUPS = 80
_STYLE = """<style>
.pass{color:var(--source);font-weight:600}.fail{color:var(--seal);font-weight:700}
.pill.refused{background:none;color:var(--seal);border:1.5px solid var(--seal)}
.checks td:nth-child(3){max-width:none}tr.fell td{background:color-mix(in srgb,var(--seal) 9%,transparent)}
.moved li{grid-template-columns:230px 1fr}.moved .said{font-size:13px}.moved .said b{font-weight:600}
.moved q{quotes:none}.moved .chip small{display:inline}.arms .whisker{width:150px}</style>"""
_STILL = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
)


def promotion_html(facts: PageFacts) -> str:
    """The facts as one self-contained page."""
    decision = facts.decision
    failed = [check for check in decision.checks if not check.passed]
    return page(
        facts.version,
        [
            f"<header><p class=kicker>Promotion of a model</p>{_heading(facts)}"
            f"<p class=lead>{_summary(facts, failed)}</p>{_notes(decision.notes)}</header>",
            section("Decision, check by check", _checks(decision.checks)),
            section("Candidate, champion and chance", _standings(facts)),
            section("Categories", _groups(facts.groups)),
            section(f"Lost ({facts.lost:,})", _rows(facts.losses, facts.lost)),
            section(f"Won ({facts.won:,})", _rows(facts.wins, facts.won)),
            section("Champions before", _reigns(facts)),
            section("Other metrics", _reports(facts)),
            section("What it stands on", _identities(facts)),
            "<footer>Stemma keeps this decision in the lake; the page is a copy of it. "
            f"Its model: <code>stemma lineage {text(facts.version)}</code></footer>",
        ],
        kind="promotion",
        head=_STILL + _STYLE,
    )


def _heading(facts: PageFacts) -> str:
    name, _, version = facts.version.rpartition("@")
    verdict = (
        "<span class=pill>champion</span>"
        if facts.decision.promoted
        else "<span class='pill refused'>refused</span>"
    )
    return f"<h1>{text(name)}<span class=at>@</span>{text(version)}</h1><p class=pills>{verdict}</p>"


def _summary(facts: PageFacts, failed: Sequence[Check]) -> str:
    checks = facts.decision.checks
    said = f"Decided on {when(facts.at)} on <b>{count(int(facts.decision.figures['items']), 'item')}</b>: "
    if not failed:
        took = (
            f", and took the place of <b>{text(facts.champion)}</b>"
            if facts.champion
            else "; there was no champion"
        )
        return f"{said}it passed <b>all {len(checks)} checks</b>{took}."
    names = ", ".join(text(check.name) for check in failed)
    stays = f" <b>{text(facts.champion)}</b> stays champion." if facts.champion else ""
    return f"{said}it failed <b>{len(failed)} of {len(checks)} checks</b> ({names}).{stays}"


def _notes(notes: Sequence[str]) -> str:
    return "".join(f"<p class=quiet>{text(note)}</p>" for note in notes)


def _checks(checks: Sequence[Check]) -> str:
    lines = [
        f"<tr><td class={'pass' if check.passed else 'fail'}>{'pass' if check.passed else 'FAIL'}</td>"
        f"<td><code>{text(check.name)}</code></td><td>{text(check.text)}</td></tr>"
        for check in sorted(checks, key=lambda check: check.passed)  # what decided first; else in order
    ]
    head = "<th></th><th>Check</th><th>What was found</th>"
    return f"<div class='scroll checks'>{_table(head, lines)}</div>"


def _standings(facts: PageFacts) -> str:
    lead = ""
    if facts.champion:
        lead = (
            "<p class=quiet>A null retrain is the champion's own recipe with another seed. It too fixes some "
            "of the champion's failures and loses some of its passes; only what a candidate does beyond it "
            "is its own.</p>"
        )
    lines = [
        f"<tr><td>{text(each.who)}</td><td class=num><b>{100 * each.accuracy:.1f} %</b></td>"
        f"<td class=num>{100 * each.low:.1f} to {100 * each.high:.1f}</td><td>{_whisker(each)}</td>"
        f"{_arm(each.arm)}</tr>"
        for each in facts.standings
    ]
    head = (
        "<th>Model</th><th class=num>Right</th><th class=num>95 % interval</th><th>0 to 100 %</th>"
        "<th class=num>Fixed of its failures</th><th class=num>Lost of its passes</th>"
        "<th class=num>Gain</th>"
    )
    return f"{lead}<div class='scroll arms'>{_table(head, lines)}</div>"


def _arm(arm: Arm | None) -> str:
    if arm is None:
        return "<td></td><td></td><td></td>"
    return (
        f"<td class=num>{_exact(arm.fixed, arm.failures)}</td>"
        f"<td class=num>{_exact(arm.lost, arm.passes)}</td>"
        f"<td class=num>{100 * arm.gain:+.1f}</td>"
    )


def _exact(part: int, whole: int) -> str:
    if not whole:
        return "none"
    value, low, high = exact_share(part, whole)
    return f"{part} of {whole}<small>{value:.1%} [{low:.1%}, {high:.1%}]</small>"


def _groups(groups: Sequence[Group]) -> str:
    ranked = sorted(groups, key=lambda each: (each.p, each.candidate.net, each.name))
    lines = []
    for each in ranked[:_GROUPS]:
        now, then = each.candidate.passes + each.candidate.net, each.candidate.passes
        p = "" if each.p >= 1 else f"{each.p:.2g}"
        lines.append(
            f"<tr{' class=fell' if each.p < 0.05 else ''}><td>{text(clip(each.name, 60))}</td>"
            f"<td class=num>{each.items}</td><td class=num>{then}</td><td class=num>{now}</td>"
            f"<td class=num>{each.candidate.fixed}</td><td class=num>{each.candidate.lost}</td>"
            f"<td class=num>{each.null.lost} of {each.null.passes}</td><td class=num>{p}</td></tr>"
        )
    if not lines:
        return ""
    head = (
        "<th>Category</th><th class=num>Items</th><th class=num>Champion right</th>"
        "<th class=num>Candidate right</th><th class=num>Fixed</th><th class=num>Lost</th>"
        "<th class=num>Retrains lost</th><th class=num>p (Holm)</th>"
    )
    more = len(ranked) - len(lines)
    rest = f"<p class=quiet>And {more:,} more.</p>" if more else ""
    return f"<div class=scroll>{_table(head, lines)}</div>{rest}"


def _rows(rows: Sequence[Moved], number: int) -> str:
    if not rows:
        return ""
    lines = [
        f"<li><div class=said>should say <b>{text(clip(each.answer, 80))}</b><br>"
        f"champion: {text(clip(each.champion, 80))}<br>candidate: {text(clip(each.candidate, 80))}<br>"
        f"<span class=quiet>{_retrains(each)}</span></div>"
        f"<div><p><q>{text(clip(each.text, _EXCERPT))}</q></p>"
        f"<div class=line>{_provenance(each)}</div></div></li>"
        for each in rows
    ]
    rest = number - len(rows)
    more = f"<p class=quiet>And {rest:,} more; the page shows {SHOWN}.</p>" if rest else ""
    return f"<ul class='rows moved'>{''.join(lines)}</ul>{more}"


def _retrains(row: Moved) -> str:
    if row.nulls == 1:
        return f"an unchanged retrain is {'right' if row.nulls_right else 'wrong'}"
    return f"{row.nulls_right} of {row.nulls} unchanged retrains are right"


def _provenance(row: Moved) -> str:
    return (
        f"<span class=chip title='{text(clip(row.source, 300))}'>{text(clip(last(row.source), 40))} "
        f"{text(clip(row.span, 40))}</span>"
        f"<span class=chip>prompt {stated(*row.prompt)}</span>"
        f"<span class=chip>scorer {stated(*row.scorer)}</span>"
        f"<span class=chip><code>{text(row.row_id[:12])}</code></span>"
    )


def _reigns(facts: PageFacts) -> str:
    lines = [
        f"<tr><td>{text(reign.version)}</td><td class=num>{sum(map(bool, reign.known))}</td>"
        f"<td class=num>{int(reign.kept.sum())}</td><td class=num>{_exact(lost, int(reign.kept.sum()))}</td>"
        f"<td class=num>{_exact(reign.retrains_lost, reign.retrains_passes)}</td></tr>"
        for reign, lost in facts.reigns
    ]
    if not lines:
        return ""
    head = (
        "<th>Champion</th><th class=num>Of today's items in its set</th><th class=num>Passed then</th>"
        "<th class=num>The candidate loses</th><th class=num>Its own retrains lost</th>"
    )
    return f"<div class=scroll>{_table(head, lines)}</div>"


def _reports(facts: PageFacts) -> str:
    lines = [
        f"<tr><td>{text(each.metric)}</td><td>{text(each.condition)}</td><td>{text(who)}</td>"
        f"<td class=num><b>{each.value:.3f}</b></td><td class=num>{each.low:.3f} to {each.high:.3f}</td>"
        f"<td class=num>{each.n:,}</td></tr>"
        for who, each in sorted(facts.reports, key=lambda told: (told[1].metric, told[1].condition, told[0]))
    ]
    head = (
        "<th>Metric</th><th>Condition</th><th>Model</th><th class=num>Value</th>"
        "<th class=num>95 % interval</th><th class=num>Rows</th>"
    )
    return f"<div class=scroll>{_table(head, lines)}</div>" if lines else ""


def _identities(facts: PageFacts) -> str:
    lines = [("Promotion run", facts.run_id)]
    lines += [(f"Evaluation, {who}", run) for who, run in facts.evaluations.items()]
    lines.append(("Gate", json.dumps(dict(facts.gate), sort_keys=True)))
    items = "".join(f"<dt>{text(label)}</dt><dd class=mono>{text(value)}</dd>" for label, value in lines)
    return f"<dl>{items}</dl>"


def _whisker(each: Standing) -> str:
    return (
        '<svg class=whisker viewBox="0 0 224 16" aria-hidden="true"><path class=axis d="M2 8h220"/>'
        f'<path class=range d="M{2 + 220 * each.low:.1f} 8H{2 + 220 * each.high:.1f}"/>'
        f'<path class=tick d="M{2 + 220 * each.accuracy:.1f} 2v12"/></svg>'
    )


def _table(head: str, lines: Sequence[str]) -> str:
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
