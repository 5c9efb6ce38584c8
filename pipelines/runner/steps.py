"""Runs steps over stored rows on Ray Data, and stores what they make."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, tables
from lineage.rows import Derivation, Fingerprint, Rejection, RowError, without_ids
from lineage.runs import Run, code_revision
from lineage.schemas import REJECTED, TableSpec
from lineage.stamp import Stamp, stamp_derived
from lineage.tables import TableVersion
from pipelines.runner.losses import (
    RunnerError,
    check_balance,
    counted,
    recalled,
    require_same_bans,
    stored_ids,
    with_column,
    without_banned,
)
from pipelines.step import Step, keep

log = logging.getLogger("stemma.runner")

_REJECTION = pa.struct(
    [
        ("step", pa.string()),
        ("step_revision", pa.string()),
        ("reason", pa.string()),
        ("scorer", pa.string()),
        ("scorer_revision", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
    ]
)
_MARK = "rejection"  # null on rows that go on; rejected rows ride along, so that one pass brings back both


def derive(
    runtime: Runtime,
    rows: pa.Table,
    *,
    steps: Sequence[Step],
    run: Run,
    key: str,
    vouched: frozenset[bytes] = frozenset(),
) -> tuple[list[TableVersion], dict[str, int]]:
    """Run a tuple of steps over stored rows and commit what they make as one batch; nothing new, no commit.

    What comes from a row that a person vouches for (`vouched`: ids) goes on whatever a filter or scorer says.
    Returns the batches that hold the rows, and the counts. What an earlier, killed go of the same run (`key`)
    committed is found and returned. Raises RunnerError, before any commit, when a row is unaccounted for.
    """
    settings = runtime.settings
    into = steps[-1].writes
    _check_chain(steps)
    if tables.is_stored(settings, key, into=into):
        found = tables.batch_with(settings, key, into=into)
        assert found is not None
        return [found], tables.facts(settings, found)["counts"]
    stamp = Stamp(run.id, code_revision(), runtime.now())
    blocks = _run_steps(runtime, rows, steps, stamp, vouched)
    finished = pa.concat_tables(blocks)
    made = _live(finished).select(into.schema.names).cast(into.schema)
    banned = bans.standing(settings)
    made, refused = without_banned(made, into, banned)
    rejected = pa.concat_tables(
        [_rejections(finished, run), recalled(refused, steps[-1].fingerprint, run.id)]
    )
    fresh = without_ids(made, stored_ids(settings, into))
    counts = _count(rows, made, fresh, rejected)
    check_balance(counts)
    first = tables.reserve(settings, fresh.num_rows, run_id=run.id)
    fresh = with_column(fresh, "row_no", pa.array(range(first, first + fresh.num_rows), pa.int64()))
    files = [tables.write_file(settings, fresh, into=into, name=f"{run.id}-00000")] if fresh.num_rows else []
    tables.replace(settings, rejected, into=REJECTED, run_id=run.id)
    require_same_bans(settings, banned)
    versions = _holders(settings, into, frozenset(made["row_id"].to_pylist()))
    if files:
        facts = {"counts": counts}
        versions.append(tables.commit(settings, files, into=into, run_id=run.id, keys=[key], facts=facts))
    log.info("derive %s: %s", run.id, counted(counts))
    return versions, counts


def apply(
    step: Step,
    batch: pa.Table,
    *,
    steps: Sequence[Fingerprint],
    stamp: Stamp,
    vouched: frozenset[bytes] = frozenset(),
) -> pa.Table:
    """One step over one batch, stamped; rejected rows are marked and kept. An ordinary function, without Ray.

    A batch that makes the step raise is tried again row by row (scope row), so one poison row costs one row.
    """
    live, dead = _live(batch), _dead(batch)
    if not live.num_rows:
        return _marked(dead, step.writes)
    try:
        derivation = step.derive(live.drop_columns([_MARK]))
        derivation.check_covers(live.num_rows)
    except Exception as error:
        if step.scope != "row" or isinstance(error, RowError):
            raise
        if live.num_rows == 1:
            derivation = _refuse_all(step, live, f"step_failed:{type(error).__name__}")
        else:
            parts = (live.slice(i, 1) for i in range(live.num_rows))
            singles = [apply(step, part, steps=steps, stamp=stamp, vouched=vouched) for part in parts]
            return pa.concat_tables([*singles, _marked(dead, step.writes)])
    derivation = _overruled(derivation, live, step, vouched)
    made = stamp_derived(derivation, live, into=step.writes, steps=steps, stamp=stamp)
    made = made.append_column(_MARK, pa.nulls(made.num_rows, _REJECTION))
    lost = _reject(live, step, derivation.rejected)
    return pa.concat_tables([made, _marked(lost, step.writes), _marked(dead, step.writes)])


def _overruled(derivation: Derivation, live: pa.Table, step: Step, vouched: frozenset[bytes]) -> Derivation:
    """What the step made, and as they are the rows that it rejected and a person vouches for."""
    if not vouched or step.binds or step.reads is not step.writes:
        return derivation
    parents = live["parents"].to_pylist()
    saved = [
        position for position in sorted(derivation.rejected) if not vouched.isdisjoint(parents[position])
    ]
    rows = [derivation.rows, keep(live.drop_columns([_MARK]), saved)]
    return replace(
        derivation,
        rows=pa.concat_tables(rows, promote_options="default"),  # what the step states, these do not
        parents=[*derivation.parents, *((position,) for position in saved)],
        rejected={at: why for at, why in derivation.rejected.items() if at not in saved},
    )


def _run_steps(
    runtime: Runtime, rows: pa.Table, steps: Sequence[Step], stamp: Stamp, vouched: frozenset[bytes]
) -> list[pa.Table]:
    """All steps over all rows; a table-scope step sees one block with everything."""
    ray = runtime.ray()
    batch = rows.append_column(_MARK, pa.nulls(rows.num_rows, _REJECTION))
    dataset = ray.data.from_arrow(batch.combine_chunks()).repartition(max(1, min(8, rows.num_rows // 1000)))
    for position, step in enumerate(steps):
        identifying = tuple(s.fingerprint for s in steps[: position + 1] if s.identifies) or (
            step.fingerprint,
        )
        if step.scope == "table":
            dataset = dataset.repartition(1)
        dataset = dataset.map_batches(
            _applied(step, identifying, stamp, vouched),
            batch_format="pyarrow",
            batch_size=None,
            zero_copy_batch=True,
        )
    wanted = pa.schema([*steps[-1].writes.schema, pa.field(_MARK, _REJECTION)])
    blocks = [ray.get(ref) for ref in dataset.to_arrow_refs()]
    return [
        wanted.empty_table(),
        *(block.select(wanted.names).cast(wanted) for block in blocks if block.num_rows),
    ]


def _applied(
    step: Step, steps: Sequence[Fingerprint], stamp: Stamp, vouched: frozenset[bytes]
) -> Callable[[pa.Table], pa.Table]:
    def on_worker(batch: pa.Table) -> pa.Table:
        if not batch.num_rows:
            return batch
        return apply(step, batch, steps=steps, stamp=stamp, vouched=vouched)

    return on_worker


def _check_chain(steps: Sequence[Step]) -> None:
    for before, after in pairwise(steps):
        if before.writes is not after.reads:
            raise RunnerError(
                f"{before.name} writes {before.writes.name}, but {after.name} reads {after.reads.name}"
            )


def _live(batch: pa.Table) -> pa.Table:
    return batch.filter(pc.is_null(batch[_MARK]))


def _dead(batch: pa.Table) -> pa.Table:
    return batch.filter(pc.is_valid(batch[_MARK]))


def _refuse_all(step: Step, live: pa.Table, reason: str) -> Derivation:
    nothing = step.writes.payload.empty_table()
    return Derivation(nothing, [], {i: Rejection(reason) for i in range(live.num_rows)})


def _reject(live: pa.Table, step: Step, rejected: Mapping[int, Rejection]) -> pa.Table:
    positions = sorted(rejected)
    marks = [
        {
            "step": step.name,
            "step_revision": str(step.revision),
            "reason": rejected[position].reason,
            "scorer": rejected[position].scorer,
            "scorer_revision": rejected[position].scorer_revision,
            "score": rejected[position].score,
            "threshold": rejected[position].threshold,
        }
        for position in positions
    ]
    return with_column(live.take(pa.array(positions, pa.int64())), _MARK, pa.array(marks, _REJECTION))


def _marked(rows: pa.Table, spec: TableSpec) -> pa.Table:
    """Rejected rows in the shape of what comes next; what they do not have is null."""
    columns = {
        field.name: rows[field.name]
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in [*spec.schema, pa.field(_MARK, _REJECTION)]
    }
    return pa.table(columns)


def _rejections(finished: pa.Table, run: Run) -> pa.Table:
    """One row of `rejected` per stored row behind each rejected one."""
    found: list[dict[str, Any]] = []
    for row in _dead(finished).select(["row_id", "row_no", "parents", "parent_nos", _MARK]).to_pylist():
        stored = [(row["row_id"], row["row_no"])]
        if row["row_no"] < 0:
            stored = list(zip(row["parents"], row["parent_nos"], strict=True))
        found.extend({"row_id": i, "row_no": n, **row[_MARK], "run_id": run.id} for i, n in stored)
    return pa.Table.from_pylist(found, schema=REJECTED.schema)


def _count(rows: pa.Table, made: pa.Table, fresh: pa.Table, rejected: pa.Table) -> dict[str, int]:
    used = set(pc.list_flatten(made["parents"]).to_pylist())
    lost = set(rows["row_id"].to_pylist()) - used - set(rejected["row_id"].to_pylist())
    if lost:
        raise RunnerError(f"{len(lost)} of {rows.num_rows} rows are neither derived from nor rejected")
    edges = pc.sum(pc.list_value_length(made["parents"])).as_py() or 0
    return {
        "in": rows.num_rows,
        "created": edges + rejected.num_rows - rows.num_rows,
        "out": made.num_rows,
        "merged": edges - made.num_rows,
        "rejected": rejected.num_rows,
        "known": made.num_rows - fresh.num_rows,
    }


def _holders(settings: Settings, spec: TableSpec, row_ids: frozenset[bytes]) -> list[TableVersion]:
    """The batches that hold any of these rows, oldest first."""
    if not row_ids:
        return []
    stored = tables.read(settings, spec, columns=["row_id", "run_id"])
    runs = {
        run for row_id, run in zip(*(c.to_pylist() for c in stored.columns), strict=True) if row_id in row_ids
    }
    return sorted(version for run, version in tables.batches(settings, spec).items() if run in runs)
