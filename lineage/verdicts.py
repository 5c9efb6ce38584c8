"""Whether a batch may be used.

A Verdict is bound to exactly one commit; consumers read only what was admitted.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads
from pyroaring import BitMap64

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.runs import Run, identity_of, of_any_attempt
from lineage.schemas import REJECTED, UNEXPECTED, VERDICT, TableSpec
from lineage.tables import TableError, TableVersion

RuleOutcome = Literal["pass", "fail", "error"]
Severity = Literal["fail", "warn"]
OnFail = Literal["refuse", "reject_rows"]


class NotAdmitted(TableError):
    """A batch without a passing verdict was to be used."""


@dataclass(frozen=True)
class Rule:
    """How one rule of a suite came out."""

    name: str
    outcome: RuleOutcome
    sentence: str
    """What was observed and what was expected, as a person reads it."""

    observed: Any = None
    threshold: Any = None
    failing: int = 0
    """How many rows broke it; 0 for rules about the whole batch."""

    examples: tuple[str, ...] = ()
    """Up to 20 row ids (hex) that broke it; all of them are in the book `unexpected`."""

    severity: Severity = "fail"
    """warn: where it fails it is shown, and does not refuse."""

    waived: str = ""
    """The waiver that let the batch break it, where it failed and one was in force."""

    moved: bool = False
    """It passes because the rows that broke it were moved to `rejected`; `failing` counts those."""

    @property
    def holds(self) -> bool:
        """Did no row break it, of those that were judged and of those that were moved out?"""
        return self.outcome == "pass" and not self.moved

    @property
    def refuses(self) -> bool:
        """Does the batch not pass because of this rule? A waiver does not cover a crash."""
        return self.outcome == "error" or (
            self.outcome == "fail" and self.severity == "fail" and not self.waived
        )


@dataclass(frozen=True)
class Verdict:
    """What a gate decided about one commit."""

    batch: TableVersion
    outcome: RuleOutcome
    """fail if a rule failed that is no warning and not waived; else error if one crashed; else pass."""

    suite: str
    suite_digest: str
    rows: int
    """How many were judged; of a batch that passes, all but the routed ones are admitted."""

    rules: tuple[Rule, ...]

    thresholds: Mapping[str, Any] = field(default_factory=dict)
    """Name -> value of every threshold in force; empty for a verdict of before they were written down."""

    on_fail: OnFail = "refuse"
    """What was to be done with rows that broke a rule."""

    routed: int = 0
    """Rows that were moved to `rejected`, so that the others pass."""

    run_id: str = field(default="", compare=False)
    """The gate's own run; empty before it is on record."""

    stands: bool = False
    """Judged again after it was admitted, and not passed: that is told, and the batch stays admitted."""

    @property
    def passed(self) -> bool:
        """May the batch be used?"""
        return self.outcome == "pass"


def record(runtime: Runtime, verdict: Verdict, *, batch_run: str, run_id: str) -> None:
    """Write a verdict down. The newest verdict on a commit is the one that counts."""
    row = {
        "table": verdict.batch.table,
        "version": verdict.batch.version,
        "batch": batch_run,
        "outcome": verdict.outcome,
        "suite": verdict.suite,
        "suite_digest": verdict.suite_digest,
        "rows": verdict.rows,
        "rules": json.dumps([asdict(rule) for rule in verdict.rules], default=str),
        "at": tables.after_all(runtime.settings, runtime.now(), VERDICT),
        "run_id": run_id,
        "thresholds": json.dumps({**verdict.thresholds, "on_fail": verdict.on_fail}),
        "routed": verdict.routed,
    }
    tables.record(runtime.settings, [row], into=VERDICT)


def record_unexpected(
    settings: Settings, batch: TableVersion, broken: Mapping[str, pa.Array], *, run: Run
) -> None:
    """Write down the ids of all rows that broke a rule, before the verdict, for what a killed go left."""
    count = sum(map(len, broken.values()))
    if not count and run.attempt == 1:
        return
    columns = {
        "table": pa.repeat(batch.table, count),
        "version": pa.repeat(pa.scalar(batch.version, pa.int64()), count),
        "rule": pa.chunked_array([pa.repeat(rule, len(ids)) for rule, ids in broken.items()], pa.string()),
        "row_id": pa.chunked_array(list(broken.values()), pa.binary()),
        "run_id": pa.repeat(run.id, count),
    }
    rows = pa.table([columns[name] for name in UNEXPECTED.schema.names], schema=UNEXPECTED.schema)
    tables.replace(settings, rows, into=UNEXPECTED, run_id=run.id)


def unexpected(settings: Settings, verdict: Verdict, *, rule: str | None = None) -> pa.Table:
    """The rows that broke the rules of a verdict, or one of them, as rows of `unexpected`."""
    if not verdict.run_id:
        return UNEXPECTED.schema.empty_table()
    where = of_any_attempt(identity_of(verdict.run_id))
    return tables.read(
        settings, UNEXPECTED, where=where if rule is None else where & (pads.field("rule") == rule)
    )


def routed(settings: Settings, verdict: Verdict) -> pa.Table:
    """The rows that a verdict moved out of its batch, as rows of `rejected`."""
    if not verdict.routed:
        return REJECTED.schema.empty_table()
    return tables.read(settings, REJECTED, where=of_any_attempt(identity_of(verdict.run_id)))


def moved_out(settings: Settings, batch: TableVersion) -> dict[str, dict[bytes, str]]:
    """What gates took out of a batch: identity of the gate's run -> row id -> why it lies in `rejected`."""
    found: dict[str, dict[bytes, str]] = {}
    for entry in tables.commits(settings, batch.spec):
        if entry.get("stemma.routed") == str(batch):
            by = identity_of(entry["stemma.run_id"])
            rows = tables.read(settings, REJECTED, columns=["row_id", "reason"], where=of_any_attempt(by))
            found[by] = {row["row_id"]: row["reason"] for row in rows.to_pylist()}
    return found


def all_routed(settings: Settings, spec: TableSpec, *, before: dt.datetime | None = None) -> BitMap64:
    """The numbers of all rows of a table that gates have moved to `rejected`, ever or `before` a time."""
    some = (pads.field("table") == spec.name) & (pads.field("routed") > 0)
    if before is not None:
        some &= pads.field("at") < before
    gates = tables.read(settings, VERDICT, columns=["run_id"], where=some)["run_id"].to_pylist()
    found = BitMap64()
    for identity in {identity_of(run_id) for run_id in gates}:
        moved = tables.read(settings, REJECTED, columns=["row_no"], where=of_any_attempt(identity))
        found |= BitMap64(moved["row_no"].to_pylist())
    return found


def latest(settings: Settings, batch: TableVersion) -> Verdict | None:
    """The newest verdict on a commit, or None where it was never gated."""
    where = (pads.field("table") == batch.table) & (pads.field("version") == batch.version)
    found = tables.read(settings, VERDICT, where=where).to_pylist()
    return _verdict(max(found, key=lambda row: row["at"])) if found else None


def all_latest(settings: Settings) -> dict[TableVersion, Verdict]:
    """The newest verdict on every commit that was ever gated."""
    found = [_verdict(row) for row in _newest(settings)]
    return {each.batch: each for each in found}


@dataclass(frozen=True)
class Given:
    """A verdict as it stands on record."""

    verdict: Verdict
    at: dt.datetime
    run_id: str
    """The gate that gave it."""

    stored_by: str
    """The run that wrote the commit."""


def history(settings: Settings, table: str | None = None) -> list[Given]:
    """The newest verdict on each commit, of one table or all, oldest first."""
    found = sorted(_newest(settings, table), key=lambda row: (row["at"], row["table"], row["version"]))
    return [Given(_verdict(row), row["at"], row["run_id"], row["batch"]) for row in found]


def admitted(settings: Settings, spec: TableSpec) -> dict[str, TableVersion]:
    """Run id -> batch, of all batches of a table that have a passing verdict and were not withdrawn."""
    gone = tables.withdrawn(settings, spec)
    return {
        row["batch"]: TableVersion(spec.name, row["version"])
        for row in sorted(_newest(settings, spec.name), key=lambda row: row["version"])
        if row["outcome"] == "pass" and f"{spec.name}@{row['version']}" not in gone
    }


def read_admitted(
    settings: Settings,
    spec: TableSpec,
    *,
    columns: Sequence[str] | None = None,
    where: pads.Expression | None = None,
) -> pa.Table:
    """Rows of a table's newest version that were admitted.

    Batches without a passing verdict are passed over.
    """
    only = pads.field("run_id").isin(pa.array(list(admitted(settings, spec)), pa.string()))
    return tables.read(settings, spec, columns=columns, where=only if where is None else only & where)


def require(settings: Settings, batch: TableVersion) -> None:
    """Raise NotAdmitted unless the batch may be used."""
    verdict = latest(settings, batch)
    if verdict is None:
        raise NotAdmitted(f"{batch} has no verdict; run: stemma gate {batch}")
    if not verdict.passed:
        raise NotAdmitted(f"{batch} was refused ({verdict.outcome}); see: stemma reports {batch}")


def _newest(settings: Settings, table: str | None = None) -> list[dict[str, Any]]:
    """Of each commit, of one table or all, the verdict that counts, as it is stored."""
    where = None if table is None else pads.field("table") == table
    rows = sorted(tables.read(settings, VERDICT, where=where).to_pylist(), key=lambda row: row["at"])
    return list({(row["table"], row["version"]): row for row in rows}.values())


def _verdict(row: dict[str, Any]) -> Verdict:
    rules = tuple(Rule(**{**rule, "examples": tuple(rule["examples"])}) for rule in json.loads(row["rules"]))
    config = json.loads(row["thresholds"] or "{}")
    return Verdict(
        TableVersion(row["table"], row["version"]),
        row["outcome"],
        row["suite"],
        row["suite_digest"],
        row["rows"],
        rules,
        on_fail=config.pop("on_fail", "refuse"),
        thresholds=config,
        routed=row["routed"] or 0,
        run_id=row["run_id"],
    )
