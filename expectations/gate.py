"""Hold exactly the rows of one commit against its table's suite, and admit or refuse it.

    verdict = admit(runtime, "traces@12")

The order makes a kill harmless: Great Expectations' result, then the verdict, then (where it refuses) the
withdrawal. Consumers read only what has a passing verdict, so nothing is ever readable that must not be, and
gating again finds the verdict and withdraws. Two gates of one table that run at once do not see each other's
batch: gate them one after the other.

    UnknownTable   the reference names no table or no version
    NotGated       the version cannot be judged: no suite, or withdrawn without having been refused
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as pads

from expectations.blocks import Batch, measured
from expectations.evaluation import Result, as_result, overall, rules_of
from expectations.suites import SUITES, Suite, digest
from expectations.thresholds import DEFAULTS, Thresholds
from infra.runtime import Runtime, log
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import TableSpec
from lineage.tables import TableError, TableVersion
from lineage.tables.commit import commit_metadata
from lineage.tables.files import open_filesystem
from lineage.tables.reads import withdrawn
from lineage.verdicts import Verdict

if TYPE_CHECKING:
    pass

RESULTS = ("docs", "results")  # below the lake: Great Expectations' results, one JSON file per gate run


class NotGated(TableError):
    """A version that cannot be judged was to be gated."""


def admit(
    runtime: Runtime,
    reference: str | TableVersion,
    *,
    thresholds: Thresholds = DEFAULTS,
    parent: Run | None = None,
    suites: Mapping[str, Suite] = SUITES,
) -> Verdict:
    """Judge the rows that exactly this commit added; withdraw them unless all rules pass.

    Row rules see those rows, set rules also what other admitted batches hold. A version with a verdict by the
    same suite and thresholds is not judged again; one that was refused stays refused under any suite.
    Raises UnknownTable, NotGated, and TableError where the version stored no batch.
    """
    settings = runtime.settings
    batch = _batch(settings, reference, suites)
    suite = suites[batch.table]
    rules = suite.build(thresholds)

    def work(run: Run) -> Outcome:
        verdict, against = verdicts.latest(settings, batch), frozenset[str]()
        if verdict is None or (verdict.passed and verdict.suite_digest != digest(rules)):
            verdict, against = _judge(runtime, batch, suite, thresholds, run)
        if not verdict.passed:
            tables.withdraw(settings, batch, run_id=run.id, reason=reason(verdict))
        counts = {"in": verdict.rows, "out": verdict.rows if verdict.passed else 0}
        facets = {"outcome": verdict.outcome, "reason": reason(verdict), "against": sorted(against)}
        return Outcome((), counts, facets)

    config = {"suite": digest(rules), "thresholds": thresholds.model_dump(mode="json")}
    carry_out(runtime, "gate", config=config, inputs=[str(batch)], work=work, parent=parent)
    verdict = verdicts.latest(settings, batch)
    assert verdict is not None  # the work was done, now or in an earlier run
    log.info(
        "gate %s: %s, %d rows; %s", batch, verdict.outcome, verdict.rows, reason(verdict) or "all rules hold"
    )
    return verdict


def exit_code(verdict: Verdict) -> int:
    """0 admitted, 1 refused, 2 error: what `stemma gate` ends with."""
    return {"pass": 0, "fail": 1, "error": 2}[verdict.outcome]


def reason(verdict: Verdict) -> str:
    """The names of the rules that did not pass, in the suite's order; empty where all did."""
    return ", ".join(
        rule.name if rule.outcome == "fail" else f"{rule.name} (crashed)"
        for rule in verdict.rules
        if rule.outcome != "pass"
    )


def _batch(settings: Settings, reference: str | TableVersion, suites: Mapping[str, Suite]) -> TableVersion:
    """The version that is meant, where it can be judged."""
    batch = tables.resolve(settings, str(reference))
    if batch.table not in suites:
        raise NotGated(f"table '{batch.table}' has no suite; gated are: {', '.join(sorted(suites))}")
    if "stemma.keys" not in commit_metadata(settings, batch):
        raise NotGated(f"{batch} did not store a batch (it created or withdrew); gate a version that did")
    given, gone = verdicts.latest(settings, batch), withdrawn(settings, batch.spec).get(str(batch))
    if gone is not None and (given is None or given.passed):
        raise NotGated(f"{batch} was withdrawn ({gone}); store its source again and gate the new version")
    return batch


def _judge(
    runtime: Runtime, batch: TableVersion, suite: Suite, thresholds: Thresholds, run: Run
) -> tuple[Verdict, frozenset[str]]:
    """Evaluate and record; returns the verdict, and the admitted batches that set rules looked at."""
    settings, rules = runtime.settings, suite.build(thresholds)
    stored_by = commit_metadata(settings, batch)["stemma.run_id"]
    lake = _Lake(settings, without=stored_by, of=batch.spec)
    asked = Batch(settings, batch, suite, thresholds)
    found, rows = measured(runtime, asked, lake)
    result = as_result(
        asked.plan(), found, rules, batch=str(batch), run=f"{batch} run {run.id}", at=runtime.now()
    )
    _keep(settings, result, f"{batch}-{run.id}")
    judged = tuple(rules_of(result, rules))
    outcome = overall(rule.outcome for rule in judged)
    verdict = Verdict(batch, outcome, suite.name, digest(rules), rows, judged)
    verdicts.record(runtime, verdict, batch_run=stored_by, run_id=run.id)
    return verdict, frozenset(lake.read)


class _Lake:
    """Reads what other batches hold that were admitted, and remembers which batches those were."""

    def __init__(self, settings: Settings, *, without: str, of: TableSpec):
        self._settings, self._without, self._of = settings, without, of
        self.read: set[str] = set()

    def __call__(self, spec: TableSpec, columns: Sequence[str], where: pads.Expression, /) -> pa.Table:
        admitted = verdicts.admitted(self._settings, spec)
        self.read |= {
            str(version) for run, version in admitted.items() if (run, spec) != (self._without, self._of)
        }
        if spec == self._of:  # judged again, a batch is no double of itself
            others = pads.field("run_id") != self._without
            where = others & where
        return verdicts.read_admitted(self._settings, spec, columns=columns, where=where)


def _keep(settings: Settings, result: Result, name: str) -> None:
    filesystem, folder = open_filesystem(settings, settings.path(*RESULTS))
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(f"{folder}/{name}.json") as sink:
        sink.write(json.dumps(result).encode())
