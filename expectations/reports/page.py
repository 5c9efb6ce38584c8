"""One page per judged commit: the verdict, each rule with its trend, the worst rows, what it stands on.

Like a pedigree, a page is one file without scripts that opens anywhere, and everything on it that somebody
else may have written is escaped. It looks back, not ahead: what a later verdict says does not change it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expectations.gate import waivers_used
from expectations.reports.failing import Failing, worst
from expectations.reports.style import STILL, STYLE
from expectations.reports.text import HEADINGS, advice, mark, observed, threshold
from expectations.reports.trend import VERSIONS, Trend, sparkline, strip, trends
from infra.redaction import without_credentials
from infra.settings import Settings
from lineage.registry.pedigree.marks import clip, count, page, section, short, text, when
from lineage.verdicts import Given, Rule, Verdict
from lineage.waivers import Waiver, all_waivers

_EXCERPT = 400  # characters of a row's text


@dataclass(frozen=True)
class Facts:
    """What a page tells."""

    given: Given
    past: Sequence[Given]
    """The verdicts on this table's commits up to this one, oldest first, this one last."""

    withdrawn: bool
    rows: Sequence[Failing]
    """The worst."""

    broken: int
    """How many rows are known to have broken a rule."""

    waivers: Mapping[str, Waiver]
    """By id, those that cover a rule."""

    lake: str
    tracking: str
    """MLflow's address, without credentials; empty where there is none."""


def facts_of(settings: Settings, given: Given, history: Sequence[Given], *, withdrawn: bool) -> Facts:
    """All of it, from the lake's record; `history` holds at least this table's verdicts, oldest first."""
    table, at = given.verdict.batch.table, given.at
    past = [each for each in history if each.verdict.batch.table == table and each.at <= at]
    rows, broken = worst(settings, given)
    return Facts(
        given,
        past[-VERSIONS:],
        withdrawn,
        rows,
        broken,
        _used(settings, given.verdict),
        settings.shown_lake,
        without_credentials(settings.tracking_uri),
    )


def _used(settings: Settings, verdict: Verdict) -> dict[str, Waiver]:
    used = waivers_used(verdict)
    return {each.id: each for each in all_waivers(settings) if each.id in used} if used else {}


def verdict_html(facts: Facts, *, home: str = "") -> str:
    """The facts as one self-contained page; `home` is where its index lies, for a page that has one."""
    verdict = facts.given.verdict
    told, command = advice(verdict, withdrawn=facts.withdrawn)
    back = f'<p class=kicker><a href="{text(home)}">All verdicts</a></p>' if home else ""
    header = (
        f"<header>{back or '<p class=kicker>Verdict on a batch</p>'}{_heading(facts)}"
        f"<p class=lead>{_summary(facts)}</p>"
        f"<p class=next>{text(told)} Next: <code>{text(command)}</code></p></header>"
    )
    not_passed = [rule for rule in verdict.rules if not rule.holds]
    passed = [rule for rule in verdict.rules if rule.holds]
    trend = trends(facts.past)
    return page(
        str(verdict.batch),
        [
            header,
            section("What did not hold", _rules(not_passed, trend)),
            section(_worst_heading(facts), _rows(facts.rows)),
            section("Waivers", _waivers(not_passed, facts.waivers)),
            section(
                "What held", _folded(f"{len(passed)} rules", _rules(passed, trend), when=bool(not_passed))
            ),
            section("What it stands on", _identities(facts)),
            "<footer>Stemma keeps this verdict in the lake; the page is a copy of it. "
            f"Ask again: <code>stemma reports {text(verdict.batch)}</code></footer>",
        ],
        kind="verdict",
        head=STILL.format(scripts="'none'") + STYLE,
    )


def _heading(facts: Facts) -> str:
    verdict = facts.given.verdict
    gone = "<span class='pill plain'>withdrawn</span>" if facts.withdrawn else ""
    return (
        f"<h1>{text(verdict.batch.table)}<span class=at>@</span>{verdict.batch.version:d}</h1>"
        f"<p class=pills><span class='pill {verdict.outcome}'>{HEADINGS[verdict.outcome].lower()}</span>"
        f"{gone}</p>"
    )


def _summary(facts: Facts) -> str:
    verdict = facts.given.verdict
    held = sum(rule.outcome == "pass" for rule in verdict.rules)
    said = (
        f"<b>{count(verdict.rows, 'row')}</b>, judged on {when(facts.given.at)}: "
        f"<b>{held} of {len(verdict.rules)}</b> rules held."
    )
    if verdict.routed:
        said += f" {count(verdict.routed, 'row')} went to <code>rejected</code>, the others on."
    if len(facts.past) > 1:
        past = [each.verdict.outcome for each in facts.past]
        said += (
            f"<br><small>The last {len(past)} versions of {text(verdict.batch.table)}, this one last: "
            f"{past.count('pass')} admitted</small>{strip(facts.past)}"
        )
    return said


def _rules(rules: Sequence[Rule], trend: dict[str, Trend]) -> str:
    if not rules:
        return ""
    lines = [_rule(rule, trend.get(rule.name, ())) for rule in rules]
    head = (
        "<th>Rule</th><th></th><th>Observed</th><th>Threshold</th><th class=num>Rows that break it</th>"
        "<th>Over the versions</th>"
    )
    return (
        f"<div class=scroll><table class=rules><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _folded(summary: str, content: str, *, when: bool) -> str:
    """Content behind a line that opens it, where it is not what the page is about."""
    if not when or not content:
        return content
    return f"<details><summary>{summary}</summary>{content}</details>"


def _rule(rule: Rule, trend: Trend) -> str:
    said = mark(rule)
    return (
        f"<tr><td><code>{text(rule.name)}</code><small>{text(clip(rule.sentence, 600))}</small></td>"
        f"<td><span class='mark {said.lower()}'>{said.lower()}</span></td>"
        f"<td>{text(clip(observed(rule), 120))}</td><td>{text(clip(threshold(rule), 120))}</td>"
        f"<td class=num>{f'{rule.failing:,}' if rule.failing else ''}</td>"
        f"<td>{sparkline(trend, rule)}</td></tr>"
    )


def _worst_heading(facts: Facts) -> str:
    shown = len(facts.rows)
    worst_of = f"worst {shown} of {facts.broken:,} " if facts.broken > shown else ""
    return f"The {worst_of}rows that broke rules"


def _rows(rows: Sequence[Failing]) -> str:
    return f"<ol class=rows>{''.join(map(_row, rows))}</ol>" if rows else ""


def _row(row: Failing) -> str:
    broke = "".join(f"<span class='chip broke'>{text(name)}</span>" for name in row.rules)
    line = f"<div class=line>{broke}</div>"
    if row.origin is None:
        said = "<p class=quiet>Its file is no longer stored.</p>"
    else:
        origin = row.origin
        answer = f" <span class=of>→ {text(clip(origin.answer, 160))}</span>" if origin.answer else ""
        chips = "".join(
            f"<span class=chip>{what} <b>{text(clip(name, 60))}</b></span>"
            for what, name in (
                ("prompt", origin.prompt),
                ("written by", origin.generator),
                ("judged by", origin.scorer),
            )
            if name
        )
        said = f"<p>{text(clip(origin.text, _EXCERPT)) or '<span class=quiet>no text</span>'}{answer}</p>"
        line += f"<div class=line>{chips}<span class='from mono'>{text(origin.place)}</span></div>"
    return f"<li><div class='when mono'>{text(row.row_id[:12])}</div><div>{said}{line}</div></li>"


def _waivers(rules: Sequence[Rule], known: Mapping[str, Waiver]) -> str:
    items = "".join(
        f"<dt><code>{text(rule.name)}</code></dt><dd>{_waiver(rule.waived, known.get(rule.waived))}</dd>"
        for rule in rules
        if rule.waived
    )
    return f"<dl>{items}</dl>" if items else ""


def _waiver(name: str, waiver: Waiver | None) -> str:
    said = f"covered by waiver <code>{text(name)}</code>"
    if waiver is None:
        return said
    return f"{said} of {text(waiver.by)} until {when(waiver.until)}: {text(clip(waiver.reason, 600))}"


def _identities(facts: Facts) -> str:
    given, verdict = facts.given, facts.given.verdict
    lines = [
        ("Stored by run", f"<code>{text(given.stored_by)}</code>"),
        ("Judged by run", f"<code>{text(given.run_id)}</code>"),
        ("Suite", f"{text(verdict.suite)} <code>{text(short(verdict.suite_digest, 16))}</code>"),
        ("Lake", f"<code>{text(facts.lake)}</code>"),
        ("The run, in full", f"<code>{text(_query(given.run_id))}</code>"),
    ]
    if facts.tracking:
        lines.append(("In MLflow", _mlflow(facts.tracking, given)))
    items = "".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in lines)
    return f"<dl>{items}</dl>{_thresholds(verdict.thresholds)}"


def _query(run_id: str) -> str:
    return f"stemma query \"select * from runs where run_id = '{run_id}'\""


def _mlflow(tracking: str, given: Given) -> str:
    found = f"tags.`stemma.run_id` = '{given.run_id}'"
    if tracking.startswith(("http://", "https://")):
        link = f'<a href="{text(tracking)}">{text(tracking)}</a>'
        return f"{link}, search for <code>{text(found)}</code>"
    return (
        f"<code>mlflow ui --backend-store-uri {text(tracking)}</code>, search for <code>{text(found)}</code>"
    )


def _thresholds(thresholds: Mapping[str, Any]) -> str:
    if not thresholds:
        return ""
    said = json.dumps(thresholds, indent=1, sort_keys=True, default=str)
    return f"<details><summary>All thresholds in force</summary><p class=mono>{text(said)}</p></details>"
