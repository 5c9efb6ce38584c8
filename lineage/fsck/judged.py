"""Do the verdicts follow from their rules, and is what they refused kept apart?"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables, verdicts, waivers
from lineage.runs import identity_of
from lineage.schemas import REJECTED, ROW_TABLES, UNEXPECTED, VERDICT
from lineage.verdicts import Verdict
from lineage.waivers import NEVER, Waiver


def wrong_verdicts(settings: Settings) -> tuple[int, list[str]]:
    """Verdicts looked at, the newest on each batch; and a sentence for each that does not follow."""
    given = list(verdicts.all_latest(settings).values())
    known = {each.id: each for each in waivers.all_waivers(settings)}
    written = tables.read(settings, VERDICT, columns=["run_id", "at"]).to_pylist()
    judged_at = {row["run_id"]: row["at"] for row in written}
    broken = _per_rule(settings)
    rejected = Counter(
        identity_of(run_id)
        for run_id in tables.read(settings, REJECTED, columns=["run_id"])["run_id"].to_pylist()
    )
    found: list[str] = []
    for verdict in given:
        said = [
            *_undeserved(verdict),
            *_unwaived(verdict, known, judged_at[verdict.run_id]),
            *_uncounted(verdict, broken),
        ]
        by = identity_of(verdict.run_id)
        if verdict.routed and rejected[by] != verdict.routed:
            said.append(f"moved {verdict.routed} rows, but 'rejected' holds {rejected[by]} of them")
        found += [f"the verdict on {verdict.batch} {sentence}" for sentence in said]
    return len(given), [*found, *_still_there(settings)]


def _undeserved(verdict: Verdict) -> Iterator[str]:
    refusing = [rule.name for rule in verdict.rules if rule.refuses]
    if verdict.passed and refusing:
        yield f"admits it, though rule '{refusing[0]}' did not pass and nothing waives it; gate it again"


def _unwaived(verdict: Verdict, known: Mapping[str, Waiver], at: dt.datetime) -> Iterator[str]:
    for rule in verdict.rules:
        if not rule.waived:
            continue
        waiver = known.get(rule.waived)
        if waiver is None:
            yield f"names waiver {rule.waived}, which is not on record; restore 'waivers' from a copy"
        elif rule.name in NEVER or (waiver.table, waiver.rule) != (verdict.batch.table, rule.name):
            yield f"lets rule '{rule.name}' be broken by waiver {rule.waived}, which cannot cover it"
        elif not waiver.at <= at or waiver.state(at) != "in force":
            yield f"lets rule '{rule.name}' be broken by waiver {rule.waived}, which was not in force then"


def _uncounted(verdict: Verdict, broken: Mapping[tuple[str, str], int]) -> Iterator[str]:
    if not verdict.thresholds:  # of before all rows were written down
        return
    by = identity_of(verdict.run_id)
    counted = {rule.name: rule.failing for rule in verdict.rules}
    stored = {rule: count for (run, rule), count in broken.items() if run == by}
    for rule in sorted(counted.keys() | stored.keys()):
        if counted.get(rule, 0) != stored.get(rule, 0):
            yield (
                f"counts {counted.get(rule, 0)} rows that broke '{rule}', of which 'unexpected' holds "
                f"{stored.get(rule, 0)}"
            )


def _per_rule(settings: Settings) -> Counter[tuple[str, str]]:
    rows = tables.read(settings, UNEXPECTED, columns=["run_id", "rule"])
    sums = rows.group_by(["run_id", "rule"]).aggregate([([], "count_all")]).to_pylist()
    found: Counter[tuple[str, str]] = Counter()
    for row in sums:
        found[identity_of(row["run_id"]), row["rule"]] += row["count_all"]
    return found


def _still_there(settings: Settings) -> Iterator[str]:
    """Rows that a gate moved to `rejected` and that stand in their table all the same."""
    for spec in ROW_TABLES:
        moved = verdicts.all_routed(settings, spec)
        if not moved:
            continue
        there = pads.field("row_no").isin(pa.array(list(moved), pa.int64()))
        rows = tables.read(settings, spec, columns=["row_no", "run_id"], where=there)
        admitted = verdicts.admitted(settings, spec)
        back = [row["row_no"] for row in rows.to_pylist() if row["run_id"] in admitted]
        if back:
            yield f"{spec.name}: row {min(back)} was moved to 'rejected' by a gate, and is admitted"
