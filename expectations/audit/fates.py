"""How rows fare under a suite: each rule's outcome, and every row that breaks it, not only the first twenty.

held = hold(frame, suite)                     one frame
for batch in batches(settings, "examples")    what a lake stored, each with the verdict on it
then(settings, batch)                         what was admitted when that batch was judged
moved(settings, batch)                        the rows that its gates moved to `rejected`
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads

from expectations.evaluation import evaluate_rows, overall
from expectations.suites import Admitted
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.runs import events, identity_of
from lineage.schemas import ROW_TABLES, UNEXPECTED, VERDICT, TableSpec
from lineage.tables import TableVersion
from lineage.verdicts import Rule, RuleOutcome

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite


@dataclass(frozen=True)
class Held:
    """How one frame came out."""

    rules: tuple[Rule, ...]
    failing: Mapping[str, tuple[str, ...]]
    """Rule -> ids (hex) of all rows that broke it, in the frame's order; only of rules about rows."""

    @property
    def outcome(self) -> RuleOutcome:
        """Of the batch, where no rule is waived."""
        return overall(self.rules)


@dataclass(frozen=True)
class Judged:
    """A batch that a gate judged, and what it decided; of several verdicts the newest."""

    batch: TableVersion
    stored_by: str
    at: dt.datetime
    outcome: RuleOutcome
    suite_digest: str
    rows: int
    rules: tuple[Mapping[str, Any], ...]
    """As the verdict stored them."""

    thresholds: Mapping[str, Any]
    """As the verdict stored them; empty in older ones."""

    routed: int
    """Rows that were moved to `rejected`, so that the others pass."""

    run_id: str
    """The gate's."""


def hold(frame: pd.DataFrame, suite: ExpectationSuite) -> Held:
    """The frame, with `row_id` in hex, against the suite."""
    found = evaluate_rows(frame, suite)
    failing = {rule.name: tuple(row_ids) for rule, row_ids in found if row_ids}
    return Held(tuple(rule for rule, _ in found), failing)


def judged(settings: Settings, table: str, *, every: bool = False) -> list[Judged]:
    """The batches of a table that were judged, oldest first; `every`: all verdicts, in order of time."""
    rows = tables.read(settings, VERDICT, where=pads.field("table") == table).sort_by("at").to_pylist()
    if not every:
        rows = list({row["version"]: row for row in rows}.values())
    found = [_judged(row) for row in rows]
    return found if every else sorted(found, key=lambda each: each.batch.version)


def _judged(row: Mapping[str, Any]) -> Judged:
    return Judged(
        batch=TableVersion(row["table"], row["version"]),
        stored_by=row["batch"],
        at=row["at"],
        outcome=row["outcome"],
        suite_digest=row["suite_digest"],
        rows=row["rows"],
        rules=tuple(json.loads(row["rules"])),
        thresholds=json.loads(row.get("thresholds") or "{}"),
        routed=row.get("routed") or 0,
        run_id=row["run_id"],
    )


def then(settings: Settings, batch: Judged) -> Admitted:
    """Reads what was admitted when a batch was judged, called back since or not; never the batch itself.

    Rows that gates had moved to `rejected` by then were not admitted.
    """
    passed = (pads.field("outcome") == "pass") & (pads.field("at") < batch.at)
    rows = tables.read(settings, VERDICT, columns=["table", "version", "batch"], where=passed).to_pylist()
    runs: dict[str, list[str]] = {}
    for row in rows:
        if (row["table"], row["version"]) != (batch.batch.table, batch.batch.version):
            runs.setdefault(row["table"], []).append(row["batch"])

    def admitted(spec: TableSpec, columns: Sequence[str], where: pads.Expression, /) -> pa.Table:
        others = pads.field("run_id").isin(pa.array(sorted(runs.get(spec.name, [])), pa.string()))
        if spec not in ROW_TABLES:
            return tables.read(settings, spec, columns=columns, where=others & where)
        out = verdicts.all_routed(settings, spec, before=batch.at)
        stood = ~pads.field("row_no").isin(pa.array(out, pa.int64())) if out else True
        return tables.read_ever(settings, spec, columns=columns, where=others & where & stood)

    return admitted


def moved(settings: Settings, batch: Judged) -> frozenset[bytes]:
    """The ids of the rows that gates moved to `rejected`: the verdict on a batch is not about them."""
    if batch.outcome == "pass" and not batch.routed:  # a verdict that passes counts what earlier gates moved
        return frozenset()
    return frozenset(row_id for gone in verdicts.moved_out(settings, batch.batch).values() for row_id in gone)


def known_failing(
    settings: Settings, batch: Judged, now: Mapping[str, Sequence[str]]
) -> tuple[Mapping[str, frozenset[str]], bool]:
    """Rule -> the rows (hex) that broke it then, and whether that is known of all rules.

    A verdict names twenty of a rule; the book `unexpected`, which older lakes have not, names all. As many
    rows as break it `now`, the named ones among them, are the same rows.
    """
    named = {rule["name"]: frozenset(rule["examples"]) for rule in batch.rules}
    where = (pads.field("table") == batch.batch.table) & (pads.field("version") == batch.batch.version)
    for row in tables.read(settings, UNEXPECTED, where=where).to_pylist():
        if identity_of(row["run_id"]) == identity_of(batch.run_id):
            named[row["rule"]] = named.get(row["rule"], frozenset()) | {row["row_id"].hex()}
    whole = True
    for rule in batch.rules:
        name, broken = rule["name"], frozenset(now.get(rule["name"], ()))
        if len(named[name]) < rule["failing"]:
            if rule["failing"] == len(broken) and named[name] <= broken:
                named[name] = broken
            else:
                whole = False
    return named, whole


def who(settings: Settings, run_id: str) -> str:
    """Who ran a job, by its record."""
    for event in events(settings, identity_of(run_id)):
        return str(json.loads(event["agent"]).get("user", "unstated"))
    return "unstated"
