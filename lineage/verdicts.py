"""Whether a batch may be used.

A Verdict is bound to exactly one commit; consumers read only what was admitted.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.schemas import VERDICT, TableSpec
from lineage.tables import TableError, TableVersion

RuleOutcome = Literal["pass", "fail", "error"]


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
    """Up to 20 row ids (hex) that broke it."""


@dataclass(frozen=True)
class Verdict:
    """What a gate decided about one commit."""

    batch: TableVersion
    outcome: RuleOutcome
    """fail if any rule failed; error if none failed but one crashed; else pass."""

    suite: str
    suite_digest: str
    rows: int
    rules: tuple[Rule, ...]

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
    }
    tables.record(runtime.settings, [row], into=VERDICT)


def latest(settings: Settings, batch: TableVersion) -> Verdict | None:
    """The newest verdict on a commit, or None where it was never gated."""
    where = (pads.field("table") == batch.table) & (pads.field("version") == batch.version)
    found = tables.read(settings, VERDICT, where=where).to_pylist()
    return _verdict(max(found, key=lambda row: row["at"])) if found else None


def all_latest(settings: Settings) -> dict[TableVersion, Verdict]:
    """The newest verdict on every commit that was ever gated."""
    rows = tables.read(settings, VERDICT).to_pylist()
    newest = {(row["table"], row["version"]): row for row in sorted(rows, key=lambda row: row["at"])}
    found = [_verdict(row) for row in newest.values()]
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
    where = None if table is None else pads.field("table") == table
    rows = tables.read(settings, VERDICT, where=where).to_pylist()
    newest = {(row["table"], row["version"]): row for row in sorted(rows, key=lambda row: row["at"])}
    found = sorted(newest.values(), key=lambda row: (row["at"], row["table"], row["version"]))
    return [Given(_verdict(row), row["at"], row["run_id"], row["batch"]) for row in found]


def admitted(settings: Settings, spec: TableSpec) -> dict[str, TableVersion]:
    """Run id -> batch, of all batches of a table that have a passing verdict and were not withdrawn."""
    found = tables.read(settings, VERDICT, where=pads.field("table") == spec.name).to_pylist()
    newest: dict[int, dict[str, Any]] = {}
    for row in sorted(found, key=lambda row: row["at"]):
        newest[row["version"]] = row
    gone = tables.withdrawn(settings, spec)
    return {
        row["batch"]: TableVersion(spec.name, version)
        for version, row in sorted(newest.items())
        if row["outcome"] == "pass" and f"{spec.name}@{version}" not in gone
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


def _verdict(row: dict[str, Any]) -> Verdict:
    rules = tuple(Rule(**{**rule, "examples": tuple(rule["examples"])}) for rule in json.loads(row["rules"]))
    batch = TableVersion(row["table"], row["version"])
    return Verdict(batch, row["outcome"], row["suite"], row["suite_digest"], row["rows"], rules)
