"""A verdict as text, for a machine without a browser: what broke, which rows, from where, what next."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from expectations.gate import waivers_used
from expectations.reports.failing import Origin, origins
from infra.screen import harmless, one_line
from infra.settings import Settings
from lineage.tables import withdrawn
from lineage.verdicts import Rule, Verdict
from lineage.waivers import Waiver, all_waivers

_WIDTH = 100
_SHOWN = 5  # failing rows of a rule
HEADINGS = {"pass": "ADMITTED", "fail": "REFUSED", "error": "ERROR"}
_NEXT_WHEN_ADMITTED = {
    "traces": "stemma curate FILE.toml",
    "documents": "stemma status",
    "examples": "stemma finetune FILE.toml",
    "curricula": "stemma finetune FILE.toml",
    "predictions": "stemma promote MODEL",
}
_NEXT_WHEN_REFUSED = {
    "traces": "stemma ingest SOURCE",
    "documents": "stemma ingest SOURCE",
    "examples": "stemma curate FILE.toml",
    "curricula": "stemma finetune FILE.toml",
    "predictions": "stemma evaluate MODEL",
}


def as_text(verdict: Verdict, settings: Settings) -> str:
    """The verdict on 100 columns: what did not pass, on which rows, every rule, the next command to type."""
    gone = withdrawn(settings, verdict.batch.spec).get(str(verdict.batch))
    lines = [*_heading(verdict, withdrawn=gone is not None)]
    not_passed = [rule for rule in verdict.rules if not rule.holds]
    known = origins(settings, verdict, {each for rule in not_passed for each in rule.examples[:_SHOWN]})
    given = {each.id: each for each in all_waivers(settings)} if waivers_used(verdict) else {}
    for rule in not_passed:
        lines += ["", *_paragraph(rule, known), *_waived(given.get(rule.waived))]
    if verdict.routed:
        rows = "row" if verdict.routed == 1 else "rows"
        told = f"{verdict.routed:,} {rows} that broke a rule lie in 'rejected'; the others hold every rule."
        lines += ["", *textwrap.wrap(told, _WIDTH)]
    lines += ["", *_table(verdict), "", *_advice(verdict, withdrawn=gone is not None)]
    return "\n".join(lines)


def in_brief(verdict: Verdict, settings: Settings) -> str:
    """The verdict on one line."""
    gone = withdrawn(settings, verdict.batch.spec).get(str(verdict.batch))
    return "; ".join(_heading(verdict, withdrawn=gone is not None))


def mark(rule: Rule) -> str:
    """How a rule came out, in a word."""
    if rule.outcome == "error":
        return "CRASHED"
    if rule.outcome == "pass":
        return "MOVED" if rule.moved else "ok"
    return "FAILED" if rule.refuses else "WAIVED" if rule.waived else "WARNED"


def observed(rule: Rule) -> str:
    """What was found, short."""
    if rule.observed is None:
        return "-" if rule.outcome == "error" else "no row concerned"
    if isinstance(rule.observed, Mapping):
        return ", ".join(f"{name} {_number(value, share=True)}" for name, value in rule.observed.items())
    if isinstance(rule.threshold, float) and isinstance(rule.observed, int | float):
        return f"{rule.observed:.1%} hold"
    return _number(rule.observed)


def threshold(rule: Rule) -> str:
    """What it was held against, short."""
    if isinstance(rule.threshold, float):
        return f"{rule.threshold:.1%}"
    if not isinstance(rule.threshold, Mapping):
        return "-"
    limits = {name.partition("_")[0]: value for name, value in rule.threshold.items()}
    said = (f"{name} {_number(limits[name])}" for name in ("min", "max") if limits.get(name) is not None)
    return ", ".join(said) or "-"


def advice(verdict: Verdict, *, withdrawn: bool) -> tuple[str, str]:
    """What to do now, and the next command; the first may be empty."""
    table = verdict.batch.table
    if verdict.stands:
        told = "It was admitted before, and stays so: rows may stand on it. Bad rows leave by a recall."
        return told, "stemma impact --help"
    if verdict.outcome == "error" and not withdrawn:
        told = "A crash decides nothing: it is neither admitted nor withdrawn. Mend the rule, judge again."
        return told, f"stemma gate {verdict.batch}"
    if verdict.passed:
        return "", _NEXT_WHEN_ADMITTED[table]
    if not withdrawn:
        told = "The batch is not withdrawn yet: the gate was ended too early."
        return told, f"stemma gate {verdict.batch}"
    told = (
        f"The batch stays readable as {verdict.batch}; no job reads it. Correct what the rules name, then "
        "store it again. A waiver (stemma gate --waive) does not bring it back: waive first, then store it "
        "again."
    )
    return told, _NEXT_WHEN_REFUSED[table]


def _heading(verdict: Verdict, *, withdrawn: bool) -> tuple[str, str]:
    state = ", withdrawn" if withdrawn else " by this suite; it stays admitted" if verdict.stands else ""
    passed = sum(rule.outcome == "pass" for rule in verdict.rules)
    moved = f", {verdict.routed:,} of them moved to rejected" if verdict.routed else ""
    return (
        f"{verdict.batch}: {HEADINGS[verdict.outcome]}{state}",
        f"{verdict.rows:,} rows{moved}, {passed} of {len(verdict.rules)} rules passed, "
        f"suite '{verdict.suite}' {verdict.suite_digest[:23]}",
    )


def _paragraph(rule: Rule, known: Mapping[str, Origin]) -> list[str]:
    lines = textwrap.wrap(
        f"{mark(rule)} {rule.name}: {rule.sentence}",
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
    )
    for row_id in rule.examples[:_SHOWN]:
        origin = known.get(row_id)
        told = ("no longer stored", "") if origin is None else (origin.place, origin.makers)
        lines.append(f"    row {row_id[:12]}  {_end(one_line(told[0], 10_000), _WIDTH - 22)}")
        lines += [f"{'':<22}{one_line(told[1], _WIDTH - 22)}"] if told[1] else []
    if rule.examples and rule.failing > _SHOWN:
        lines.append(f"    and {rule.failing - min(_SHOWN, len(rule.examples)):,} more")
    return lines


def _waived(waiver: Waiver | None) -> list[str]:
    if waiver is None:
        return []
    told = f"waived by {waiver.by} until {waiver.until:%Y-%m-%d %H:%M} ({waiver.id}): {waiver.reason}"
    return textwrap.wrap(harmless(told), _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _table(verdict: Verdict) -> list[str]:
    rows = [("rule", "", "observed", "threshold", "failing")]
    for rule in verdict.rules:
        failing = f"{rule.failing:,}" if rule.failing else ""
        rows.append((rule.name, mark(rule), observed(rule), threshold(rule), failing))
    widths = (30, 7, 31, 15, 7)
    return [
        "  ".join(_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _advice(verdict: Verdict, *, withdrawn: bool) -> list[str]:
    told, command = advice(verdict, withdrawn=withdrawn)
    return [*textwrap.wrap(told, _WIDTH), f"next: {command}"]


def _number(value: object, *, share: bool = False) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if share and 0 <= value <= 1:
        return f"{value:.0%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _end(text: str, width: int) -> str:
    """The end of an address, which tells more than its beginning."""
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
