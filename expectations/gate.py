"""Hold exactly the rows of one commit against its table's suite, and admit or refuse it.

    verdict = admit(runtime, "traces@12")

The order makes a kill harmless: Great Expectations' result, the rows that broke a rule, where rows are
routed those into `rejected` and out of the table, then the verdict, then (where it refuses) the withdrawal.
Consumers read only what has a passing verdict, so nothing is ever readable that must not be, and gating again
finds what was done. Batch and lake are read at the versions of the moment it begins, whatever is committed
meanwhile. Two gates of one table that run at once do not see each other's batch: gate them one after the
other.

    UnknownTable   the reference names no table or no version
    NotGated       the version cannot be judged: no suite, or withdrawn without having been refused
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.dataset as pads

from expectations import routing
from expectations.blocks import Batch
from expectations.config import GateConfig
from expectations.judge import Judge, Judgement, Moved
from expectations.suites import SUITES, Suite, digest
from expectations.thresholds import DEFAULTS, Thresholds
from infra.runtime import Runtime, log
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.runs import Outcome, Run, carry_out, identity_of
from lineage.schemas import CURRICULUM, ROW_TABLES, TableSpec
from lineage.tables import TableError, TableVersion
from lineage.tables.commit import commit_metadata
from lineage.tables.files import open_filesystem
from lineage.tables.reads import withdrawn
from lineage.verdicts import OnFail, Verdict
from lineage.waivers import in_force

RESULTS = ("docs", "results")  # below the lake: Great Expectations' results, one JSON file per gate run


class NotGated(TableError):
    """A version that cannot be judged was to be gated."""


def admit(
    runtime: Runtime,
    reference: str | TableVersion,
    *,
    thresholds: Thresholds = DEFAULTS,
    on_fail: OnFail = "refuse",
    parent: Run | None = None,
    suites: Mapping[str, Suite] = SUITES,
) -> Verdict:
    """Judge the rows that exactly this commit added; withdraw them if a rule fails that is not waived.

    With `reject_rows` those that broke a rule are moved to `rejected`, where the others pass without them.
    Row rules see the commit's rows, set rules also what other admitted batches hold. A version with a verdict
    by the same suite and thresholds is not judged again; one that was refused stays refused under any suite
    and waiver, and a row that was moved stays out. A crash decides nothing: the batch is neither admitted nor
    withdrawn, and can be judged again. Nor does a gate take back what was admitted, as rows may stand on it:
    that is for a recall; a later verdict on it counts where it passes, and else is told only. Raises
    UnknownTable, NotGated, and TableError where the version stored no batch.
    """
    settings = runtime.settings
    batch = _batch(settings, reference, suites)
    suite = suites[batch.table]
    rules = suite.build(thresholds)
    waived = {rule: each.id for rule, each in in_force(settings, batch.table, runtime.now()).items()}
    before = verdicts.latest(settings, batch)
    is_anew = before is not None and before.passed and before.suite_digest != digest(rules)
    if is_anew:
        on_fail = "refuse"  # no row of it is moved: others may stand on it
    only_told: list[Verdict] = []

    def work(run: Run) -> Outcome:
        verdict, against = verdicts.latest(settings, batch), frozenset[str]()
        if is_anew or verdict is None or verdict.outcome == "error":
            lake = _Lake(settings, batch)
            asked = Batch(settings, batch, suite, thresholds)
            judge = Judge(
                runtime, asked, rules, lake, waived, on_fail, f"{batch} run {run.id}", runtime.now()
            )
            verdict, against = _judge(judge, run, stands=is_anew), lake.read
        if verdict.stands:
            only_told.append(verdict)
        elif verdict.outcome == "fail":
            tables.withdraw(settings, batch, run_id=run.id, reason=reason(verdict))
        facets = {"outcome": verdict.outcome, "reason": reason(verdict), "against": sorted(against)}
        facets |= {"waivers": used} if (used := waivers_used(verdict)) else {}
        return Outcome((), _counts(verdict, run), facets)

    config = {"suite": digest(rules), "thresholds": thresholds.model_dump(mode="json"), "on_fail": on_fail}
    config |= {"waivers": sorted(waived.values())}
    if is_anew:  # judged beside what is admitted by now, however often it was before
        config["again"] = runtime.now().isoformat()
    elif before is not None and before.outcome == "error":
        config["again"] = before.run_id
    carry_out(runtime, "gate", config=config, inputs=[str(batch)], work=work, parent=parent)
    verdict = only_told[0] if only_told else verdicts.latest(settings, batch)
    assert verdict is not None  # the work was done, now or in an earlier run
    told = reason(verdict) or "no rule refuses it"
    told += f"; {verdict.routed} rows moved to 'rejected'" if verdict.routed else ""
    log.info("gate %s: %s, %d rows; %s", batch, verdict.outcome, verdict.rows, told)
    return verdict


def admit_by(
    runtime: Runtime,
    reference: str | TableVersion,
    config: GateConfig,
    *,
    parent: Run | None = None,
) -> Verdict:
    """The same, by a config. Raises ConfigError, too."""
    return admit(
        runtime,
        reference,
        thresholds=config.thresholds,
        on_fail=config.on_fail_of(str(reference).partition("@")[0]),
        suites=config.suites_in_force,
        parent=parent,
    )


def exit_code(verdict: Verdict) -> int:
    """0 admitted, 1 refused, 2 error: what `stemma gate` ends with."""
    return {"pass": 0, "fail": 1, "error": 2}[verdict.outcome]


def reason(verdict: Verdict) -> str:
    """The names of the rules that refuse the batch, in the suite's order; empty where it passes."""
    return ", ".join(
        rule.name if rule.outcome == "fail" else f"{rule.name} (crashed)"
        for rule in verdict.rules
        if rule.refuses
    )


def waivers_used(verdict: Verdict) -> list[str]:
    """The waivers without which the batch would not have passed, sorted."""
    return sorted({rule.waived for rule in verdict.rules if rule.waived})


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


def _judge(judge: Judge, run: Run, *, stands: bool) -> Verdict:
    """Evaluate, route and record. What `stands` was admitted before: only that it passes is put on record."""
    runtime, asked = judge.runtime, judge.batch
    settings, batch = asked.settings, asked.version
    found = judge.judge(_moved(settings, batch, run))
    verdict = Verdict(
        batch,
        found.outcome,
        asked.suite.title,
        digest(judge.rules),
        found.keys.num_rows,
        found.rules,
        thresholds=asked.thresholds.model_dump(mode="json"),
        on_fail=judge.on_fail,
        routed=len(found.moved),
        stands=stands and found.outcome != "pass",
    )
    if verdict.stands:
        return verdict
    _keep(settings, found, f"{batch}-{run.id}")
    verdicts.record_unexpected(settings, batch, found.broken, run=run)
    if found.moved:
        by = {"suite": asked.suite.name, "suite_digest": verdict.suite_digest}
        routing.move(settings, found.keys, found.moved, of=batch, **by, run=run)
    verdicts.record(runtime, verdict, batch_run=tables.stored_by(settings, batch), run_id=run.id)
    return verdict


def _moved(settings: Settings, batch: TableVersion, run: Run) -> Moved:
    """What earlier gates have taken out of the batch: the rows are in `rejected` under their runs."""
    found = verdicts.moved_out(settings, batch)
    by_this = found.pop(run.identity, {})
    return Moved({row_id: why for moved in found.values() for row_id, why in moved.items()}, by_this)


def _counts(verdict: Verdict, run: Run) -> dict[str, int]:
    """Of a gate that moved rows, the whole balance; one that found another's verdict has moved none."""
    out = verdict.rows - verdict.routed if verdict.passed else 0
    counts = {"in": verdict.rows, "out": out}
    if verdict.routed and identity_of(verdict.run_id or run.id) == run.identity:
        counts |= {"created": 0, "merged": 0, "rejected": verdict.routed}
    return counts


class _Lake:
    """Reads what other batches held that were admitted when it was made, and remembers which those were."""

    def __init__(self, settings: Settings, batch: TableVersion):
        self._settings, self._of = settings, batch.spec
        self._without = tables.stored_by(settings, batch)
        self._pinned = {spec: self._now(spec) for spec in (*ROW_TABLES, CURRICULUM)}
        self._read: set[str] = set()

    @property
    def read(self) -> frozenset[str]:
        """The batches that were looked at."""
        return frozenset(self._read)

    def __call__(self, spec: TableSpec, columns: Sequence[str], where: pads.Expression, /) -> pa.Table:
        version, admitted = self._pinned[spec]
        if version is None:
            return pa.schema([spec.schema.field(name) for name in columns]).empty_table()
        self._read |= {str(batch) for batch in admitted.values()}
        only = pads.field("run_id").isin(pa.array(list(admitted), pa.string()))
        return tables.read(self._settings, version, columns=columns, where=only & where)

    def _now(self, spec: TableSpec) -> tuple[TableVersion | None, dict[str, TableVersion]]:
        version = tables.current(self._settings, spec)  # before: what is admitted later is not in it
        admitted = verdicts.admitted(self._settings, spec)
        if spec == self._of:  # judged again, a batch is no double of itself
            admitted.pop(self._without, None)
        return version, admitted


def _keep(settings: Settings, found: Judgement, name: str) -> None:
    filesystem, folder = open_filesystem(settings, settings.path(*RESULTS))
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(f"{folder}/{name}.json") as sink:
        sink.write(json.dumps(found.result).encode())
