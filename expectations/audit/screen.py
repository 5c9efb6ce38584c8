"""An audit as lines on a screen: what is wrong first, counts of what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from expectations.audit.counterfactual import WhatIf
from expectations.audit.mutations import Mutations
from infra.screen import harmless, one_line

_LISTED = 20
_NAMED = 4  # rules that a line names
_WIDTH = 110


def suite_lines(suite: Mapping[str, Any]) -> Iterator[str]:
    """One suite."""
    judged = f"{suite['is_judged']} batches judged" if suite["is_judged"] else "nothing judged"
    yield f"{suite['name']}: {len(suite['rules'])} rules, {judged}, suite {suite['suite_digest'][:23]}"
    for stretch in suite["history"]:
        outcomes = _counts(stretch["outcomes"])
        yield f"  since {stretch['since'][:19]}  {stretch['suite_digest'][:19]}  {outcomes}"
        yield from (f"    {line}" for line in _changed(stretch) if len(suite["history"]) > 1)
    for commit in suite["commits"][:5]:
        told = "; ".join(_changed(commit)) or "wording"
        yield f"  {commit['at'][:10]} {one_line(commit['subject'], 70)} ({one_line(commit['by'], 25)})"
        yield _line(f"    {told}", 160)
    for entry in suite["replayed"]:
        yield from (f"  {line}" for line in _replayed(entry))
    yield from _listed(
        "columns without a rule",
        (each["column"] or "of the frame: " + ", ".join(each["shown_in"]) for each in suite["uncovered"]),
    )
    for each in suite["vacuous"]:
        if each["cannot_fail"]:
            yield _line(f"  cannot fail: {each['rule']}: {each['why']}")
    yield from _listed("never failed", (each["rule"] for each in suite["vacuous"] if not each["cannot_fail"]))
    for kind in ("contradictory", "duplicates"):
        for each in suite[kind]:
            yield _line(f"  {kind}: {' and '.join(each['rules'])} on {each['column']}: {each['why']}")
    for each in suite["drift"]:
        p = "" if each["p"] is None else f", p = {each['p']:.1g}"
        yield (
            f"  drift: {each['rule']} is {each['value']:g} in version {each['version']}; "
            f"{each['versions']} earlier ones: {each['low']:g} to {each['high']:g}{p}"
        )
    for each in suite["waivers"]:
        yield _line(f"  waived: {each['rule']} until {each['until'][:10]}, by {each['by']}: {each['reason']}")


def _changed(entry: Mapping[str, Any]) -> Iterator[str]:
    for name, mark in (("rules_added", "+"), ("rules_removed", "-")):
        if len(entry[name]) > _NAMED:
            yield f"{mark} {len(entry[name])} rules"
        elif entry[name]:
            yield f"{mark} {', '.join(entry[name])}"
    changed = entry["thresholds_changed"]
    if len(changed) > _NAMED:
        yield f"~ {len(changed)} rules"
    for rule, (before, after) in changed.items() if len(changed) <= _NAMED else ():
        yield f"{rule}: {_arguments(before, after)}"


def _arguments(before: Any, after: Any) -> str:
    """What differs, of arguments that have names; else both."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return f"{before} -> {after}"
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)} -> {after.get(name)}" for name in names)


def _replayed(entry: Mapping[str, Any]) -> Iterator[str]:
    if "error" in entry:
        yield _line(f"{entry['batch']}: cannot be held against the present suite: {entry['error']}")
        return
    yield f"{entry['batch']}: was {entry['was']}, would be {entry['would_be']}"
    for rule, (before, after) in entry["rules"].items():
        yield f"  {rule}: {before} -> {after}"
    for kind, said in (("refused", "would break"), ("passed", "would no longer break")):
        for rule, ids in entry[kind].items():
            shown = ", ".join(each[:12] for each in ids[:5])
            more = f" and {len(ids) - 5:,} more" if len(ids) > 5 else ""
            yield f"  {said} {rule}: {shown}{more}"
    if not entry["all_known"]:
        yield "  (its verdict names only twenty rows of a rule; more may have been broken then)"


def mutation_lines(found: Mutations) -> Iterator[str]:
    """The scores, what slipped through, and why the rest was not to be expected."""
    for each in found.by_table():
        yield (
            f"{each['table']}: {each['caught']} of {each['expected']} caught "
            f"({_percent(each['score'])}; raw {_percent(each['raw_score'])} of {each['planted']}), "
            f"rows: {each['sample']}"
        )
    yield f"mutation score {_percent(found.score)}, raw score {_percent(found.raw_score)}"
    for table, rules in found.blind.items():
        yield from _listed(f"{table}: rules that the sound rows break already", rules)
    for table, rules in found.idle.items():
        yield from _listed(f"{table}: rules that noticed nothing", rules)
    if found.missing:
        yield "slipped through:"
    for mutant in found.missing:
        told = f" ({mutant.fate}: {mutant.told})" if mutant.told else f" ({mutant.fate})"
        yield _line(
            f"  {mutant.corruption.name}: the rows that are hit {mutant.corruption.does}"
            f"{told if mutant.fate != 'slipped' else ''}"
        )
    reasons = Counter(m.corruption.why_not for m in found.mutants if not m.corruption.expected)
    if reasons:
        yield "not to be expected of a gate:"
    for reason, number in reasons.most_common():
        yield f"  {number:>3}  {reason}"


def what_if_lines(found: WhatIf) -> Iterator[str]:
    """What a change would do."""
    yield f"{found.question} (is {found.was}); rules: {', '.join(found.rules) or 'none: it changes nothing'}"
    for batch in found.batches:
        rules = ", ".join(f"{rule} {before} -> {after}" for rule, (before, after) in batch["rules"].items())
        yield f"  {batch['batch']}: was {batch['was']}, would be {batch['would_be']} ({rules})"
    for would, said in (("break", "would break a rule"), ("keep", "would no longer break one")):
        rows = [flip for flip in found.flips if flip.would == would]
        yield f"{len({(flip.batch, flip.row_id) for flip in rows}):,} rows {said}"
        for flip in rows[:_LISTED]:
            warns = " (warns)" if flip.severity == "warn" else ""
            yield _line(f"  {flip.batch} {flip.row_id[:12]}  {flip.rule}{warns}: {flip.value}  {flip.text}")
        if len(rows) > _LISTED:
            yield f"  and {len(rows) - _LISTED:,} more; --json lists all"
    yield from (_line(f"not looked at: {each}") for each in found.unreadable)


def model_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Under which rules a model came to be."""
    yield f"{found['model'] or found['run_id']}: {found['rows']:,} rows from {len(found['batches'])} batches"
    for suite in found["suites"]:
        now = "the present suite" if suite["is_present"] else "not the present suite"
        yield f"  {suite['table']}: {suite['batches']} batches under {suite['suite_digest'][:23]} ({now})"
    for batch in found["batches"]:
        waived = f", waived {', '.join(batch['waived'])}" if batch["waived"] else ""
        gated = f"gated {batch['at'][:19]} by {batch['gated_by']}"
        yield f"  {batch['batch']}: {batch['outcome']}, {gated}{waived}"
    for waiver in found["waivers"]:
        yield _line(
            f"  waiver {waiver['id']} of {waiver['rule']}: {waiver.get('reason', '')} "
            f"({waiver.get('by', 'unstated')})"
        )
    for each in found["unadmitted"]:
        yield f"  NOT ADMITTED: {each.get('batch') or each['table'] + ' of run ' + each['run_id']}"
    for each in found["reviews"]:
        yield _line(f"  {each['verdict']} {each['row_id'][:12]} by {each['reviewer']}: {each['reason']}")
    for each in found["moves"]:
        yield _line(f"  {each['kind']} to {each['alias']} by {each['actor']}: {each['reason']}")


def _listed(what: str, names: Any) -> Iterator[str]:
    found = list(names)
    if found:
        yield _line(f"  {what}: {', '.join(found)}", 1000)


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))


def _percent(share: float | None) -> str:
    return "none planted" if share is None else f"{share:.1%}"


def _line(said: str, width: int = _WIDTH) -> str:
    indent = said[: len(said) - len(said.lstrip())]
    return indent + one_line(harmless(said.strip()), width)
