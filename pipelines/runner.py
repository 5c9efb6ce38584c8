"""Runs readers and steps on Ray Data, stamps what they make, and stores it. The only caller of lineage.stamp.

Both paths end alike: rows and rejections leave the workers as Arrow blocks, row numbers are leased, files are
written beside the table, the losses (quarantine, rejected) are committed, and one commit makes the rows
visible.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.runtime import Runtime
from infra.settings import Settings
from infra.storage import Block, SourceFile, records
from lineage import bans, tables
from lineage.bans import Bans
from lineage.rows import Derivation, Fingerprint, Rejection, RowError
from lineage.runs import Run, code_revision
from lineage.schemas import NOT_APPLICABLE, QUARANTINE, REJECTED, TableSpec
from lineage.stamp import Source, SourceRecord, Stamp, stamp_derived, stamp_source
from lineage.tables import TableVersion, WrittenFile
from pipelines.readers import Reader, Unreadable
from pipelines.readers.json_lines import decode_json_object
from pipelines.step import Step

log = logging.getLogger("stemma.runner")


class RunnerError(Exception):
    """A job's balance does not come out; nothing was committed."""


# ---------------------------------------------------------------- sources


@dataclass(frozen=True)
class _Task:
    """One block of one source for one worker."""

    block: Block
    source: Source
    reader: Reader
    first_row_no: int
    name: str


def read_sources(
    runtime: Runtime, sources: Sequence[tuple[SourceFile, Reader]], *, run: Run, keys: Sequence[str]
) -> tuple[list[TableVersion], dict[str, int]]:
    """Read sources and commit their rows as one batch under `keys`; without a new row nothing is committed.

    Returns the batches that hold rows which were stored before, and the counts.
    """
    settings = runtime.settings
    into = sources[0][1].writes
    stamp = Stamp(run.id, code_revision(), runtime.now())
    tasks = _tasks(settings, sources, run)
    stored, banned = _stored_ids(settings, into), bans.standing(settings)
    ray = runtime.ray()

    def on_worker(row: dict[str, Any]) -> dict[str, bytes]:
        task = tasks[row["id"]]
        result = _read_block(task, settings=settings, into=into, stamp=stamp, stored=stored, banned=banned)
        return {"result": pickle.dumps(result)}

    done: list[dict[str, Any]] = []
    for round_of in _rounds(tasks):
        items = [{"id": position} for position in round_of]
        blocks = ray.data.from_items(items, override_num_blocks=len(items))
        results = [pickle.loads(row["result"]) for row in blocks.map(on_worker).take_all()]
        stored |= {row_id for result in results for row_id in result["ids"]}
        done += results
    quarantine = pa.concat_tables([result["quarantine"] for result in done])
    rejected = pa.concat_tables([result["rejected"] for result in done])
    files: list[WrittenFile] = [result["file"] for result in done if result["file"] is not None]
    counts = {name: sum(result["counts"][name] for result in done) for name in done[0]["counts"]}
    check_balance(counts)
    tables.replace(settings, quarantine, into=QUARANTINE, run_id=run.id)
    tables.replace(settings, rejected, into=REJECTED, run_id=run.id)
    _require_same_bans(settings, banned)
    if files:
        tables.commit(settings, files, into=into, run_id=run.id, keys=keys, facts={"counts": counts})
    log.info("ingest %s: %s", run.id, _counted(counts))
    known = frozenset(row_id for result in done for row_id in result["known_ids"])
    return holders(settings, into, known), counts


def _rounds(tasks: Sequence[_Task]) -> list[list[int]]:
    """Tasks by rounds, such that no two sources of one round can hold the same row.

    Only sources that begin with the same record can: one that grew, beside its older copy. They go in turn.
    """
    begun: dict[bytes, list[str]] = {}
    rounds: dict[int, list[int]] = {}
    for position, task in enumerate(tasks):
        sources = begun.setdefault(task.source.first_record, [])
        if task.source.uri not in sources:
            sources.append(task.source.uri)
        rounds.setdefault(sources.index(task.source.uri), []).append(position)
    return [rounds[number] for number in sorted(rounds)]


def _tasks(settings: Settings, sources: Sequence[tuple[SourceFile, Reader]], run: Run) -> list[_Task]:
    """One task per block; a record's numbers follow from its line, so workers need not agree on anything."""
    needed = sum(source.lines * reader.rows_per_record for source, reader in sources)
    next_no = tables.reserve(settings, needed, run_id=run.id)
    tasks: list[_Task] = []
    for source, reader in sources:
        origin = Source(source.uri, source.revision, source.first_record)
        for block in source.blocks:
            tasks.append(_Task(block, origin, reader, next_no, f"{run.id}-{len(tasks):05d}"))
            next_no += block.lines * reader.rows_per_record
    return tasks


def _read_block(
    task: _Task,
    *,
    settings: Settings,
    into: TableSpec,
    stamp: Stamp,
    stored: frozenset[bytes],
    banned: Bans,
) -> dict[str, Any]:
    """Parse one block and write its rows; runs on a worker, and on a three-line file without Ray.

    A record that cannot be parsed, read or stored costs itself and nothing else.
    """
    read: list[tuple[SourceRecord, int]] = []  # with the record's first row number
    quarantine: list[dict[str, Any]] = []
    for line, position, record in records(task.block):
        try:
            rows = task.reader.read(decode_json_object(record))
        except Unreadable as error:
            quarantine.append(_quarantined(task, position, record, error.reason, error.detail, stamp))
        except Exception as error:
            quarantine.append(_quarantined(task, position, record, "reader_failed", repr(error), stamp))
        else:
            first = task.first_row_no + (line - task.block.lines_before) * task.reader.rows_per_record
            read.append((SourceRecord(position, record, rows), first))
    try:
        stamped = _stamped(read, task, into, stamp)
    except Exception:  # some value fits no column, such as half a surrogate pair: find out whose
        singles: list[pa.Table] = []
        for item, first in read:
            try:
                singles.append(_stamped([(item, first)], task, into, stamp))
            except Exception as error:
                lost = _quarantined(task, item.position, item.record, "not_storable", repr(error), stamp)
                quarantine.append(lost)
        stamped = pa.concat_tables([into.schema.empty_table(), *singles])
    spans = len(set(stamped["source_span"].to_pylist()))  # a record is one span, however many rows it gave
    read_rows = stamped.num_rows
    stamped, refused = _without_banned(stamped, into, banned)
    fresh = _without_ids(stamped, stored)
    file = tables.write_file(settings, fresh, into=into, name=task.name) if fresh.num_rows else None
    counts = {
        "in": spans + len(quarantine),
        "created": read_rows - spans,
        "out": stamped.num_rows,
        "merged": 0,
        "rejected": read_rows - stamped.num_rows,
        "quarantined": len(quarantine),
        "known": stamped.num_rows - fresh.num_rows,
    }
    return {
        "file": file,
        "ids": fresh["row_id"].to_pylist(),
        "known_ids": [row_id for row_id in stamped["row_id"].to_pylist() if row_id in stored],
        "quarantine": pa.Table.from_pylist(quarantine, schema=QUARANTINE.schema),
        "rejected": _recalled(refused, task.reader.fingerprint, stamp.run_id),
        "counts": counts,
    }


def _stamped(
    read: Sequence[tuple[SourceRecord, int]], task: _Task, into: TableSpec, stamp: Stamp
) -> pa.Table:
    stamped = stamp_source(
        [item for item, _ in read], into=into, source=task.source, reader=task.reader.fingerprint, stamp=stamp
    )
    numbers = [first + ordinal for item, first in read for ordinal in range(len(item.rows))]
    return _with(stamped, "row_no", pa.array(numbers, pa.int64()))


def _quarantined(
    task: _Task, position: int, record: bytes, reason: str, detail: str, stamp: Stamp
) -> dict[str, Any]:
    return {
        "source_uri": task.source.uri,
        "source_revision": task.source.revision,
        "source_span": f"bytes:{position}-{position + len(record)}",
        "reader": task.reader.fingerprint.name,
        "reason": reason,
        "detail": detail[:500],
        "record": record,
        "run_id": stamp.run_id,
    }


# ---------------------------------------------------------------- steps

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
    runtime: Runtime, rows: pa.Table, *, steps: Sequence[Step], run: Run, key: str
) -> tuple[list[TableVersion], dict[str, int]]:
    """Run a tuple of steps over stored rows and commit what they make as one batch; nothing new, no commit.

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
    blocks = _run_steps(runtime, rows, steps, stamp)
    finished = pa.concat_tables(blocks)
    made = _live(finished).select(into.schema.names).cast(into.schema)
    banned = bans.standing(settings)
    made, refused = _without_banned(made, into, banned)
    rejected = pa.concat_tables(
        [_rejections(finished, run), _recalled(refused, steps[-1].fingerprint, run.id)]
    )
    fresh = _without_ids(made, _stored_ids(settings, into))
    counts = _count(rows, made, fresh, rejected)
    check_balance(counts)
    first = tables.reserve(settings, fresh.num_rows, run_id=run.id)
    fresh = _with(fresh, "row_no", pa.array(range(first, first + fresh.num_rows), pa.int64()))
    files = [tables.write_file(settings, fresh, into=into, name=f"{run.id}-00000")] if fresh.num_rows else []
    tables.replace(settings, rejected, into=REJECTED, run_id=run.id)
    _require_same_bans(settings, banned)
    versions = holders(settings, into, frozenset(made["row_id"].to_pylist()))
    if files:
        facts = {"counts": counts}
        versions.append(tables.commit(settings, files, into=into, run_id=run.id, keys=[key], facts=facts))
    log.info("derive %s: %s", run.id, _counted(counts))
    return versions, counts


def check_balance(counts: Mapping[str, int]) -> None:
    """rows in (+ created) = rows out + merged + rejected + quarantined. Raises RunnerError."""
    left = counts["in"] + counts["created"]
    right = counts["out"] + counts["merged"] + counts["rejected"] + counts.get("quarantined", 0)
    if left != right or counts["created"] < 0:
        raise RunnerError(f"rows do not balance: {_counted(counts)}")


def apply(step: Step, batch: pa.Table, *, steps: Sequence[Fingerprint], stamp: Stamp) -> pa.Table:
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
            singles = [apply(step, live.slice(i, 1), steps=steps, stamp=stamp) for i in range(live.num_rows)]
            return pa.concat_tables([*singles, _marked(dead, step.writes)])
    made = stamp_derived(derivation, live, into=step.writes, steps=steps, stamp=stamp)
    made = made.append_column(_MARK, pa.nulls(made.num_rows, _REJECTION))
    lost = _reject(live, step, derivation.rejected)
    return pa.concat_tables([made, _marked(lost, step.writes), _marked(dead, step.writes)])


def _run_steps(runtime: Runtime, rows: pa.Table, steps: Sequence[Step], stamp: Stamp) -> list[pa.Table]:
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
            _applied(step, identifying, stamp), batch_format="pyarrow", batch_size=None, zero_copy_batch=True
        )
    wanted = pa.schema([*steps[-1].writes.schema, pa.field(_MARK, _REJECTION)])
    blocks = [ray.get(ref) for ref in dataset.to_arrow_refs()]
    return [
        wanted.empty_table(),
        *(block.select(wanted.names).cast(wanted) for block in blocks if block.num_rows),
    ]


def _applied(step: Step, steps: Sequence[Fingerprint], stamp: Stamp) -> Callable[[pa.Table], pa.Table]:
    def on_worker(batch: pa.Table) -> pa.Table:
        return apply(step, batch, steps=steps, stamp=stamp) if batch.num_rows else batch

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
    return _with(live.take(pa.array(positions, pa.int64())), _MARK, pa.array(marks, _REJECTION))


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


# ---------------------------------------------------------------- both


def _stored_ids(settings: Settings, into: TableSpec) -> frozenset[bytes]:
    return frozenset(tables.read(settings, into, columns=["row_id"])["row_id"].to_pylist())


def holders(settings: Settings, spec: TableSpec, row_ids: frozenset[bytes]) -> list[TableVersion]:
    """The batches that hold any of these rows, oldest first."""
    if not row_ids:
        return []
    stored = tables.read(settings, spec, columns=["row_id", "run_id"])
    runs = {
        run for row_id, run in zip(*(c.to_pylist() for c in stored.columns), strict=True) if row_id in row_ids
    }
    return sorted(version for run, version in tables.batches(settings, spec).items() if run in runs)


def _without_banned(
    rows: pa.Table, spec: TableSpec, banned: Bans
) -> tuple[pa.Table, list[tuple[dict[str, Any], str]]]:
    """The rows that may be stored; and what may not, each with the recall that refuses it."""
    refused = banned.refused(rows, spec)
    if not refused:
        return rows, []
    named = rows.select(["row_id", "row_no", "parents", "parent_nos"])
    lost = named.take(pa.array(list(refused), pa.int64())).to_pylist()
    kept = [position not in refused for position in range(rows.num_rows)]
    return rows.filter(pa.array(kept, pa.bool_())), list(zip(lost, refused.values(), strict=True))


def _recalled(refused: Sequence[tuple[Mapping[str, Any], str]], maker: Fingerprint, run_id: str) -> pa.Table:
    """Rows of `rejected`: a source row under its own id, a derived one under those of its parents."""
    found: dict[bytes, dict[str, Any]] = {}
    for row, recall in refused:
        behind = list(zip(row["parents"], row["parent_nos"], strict=True)) or [(row["row_id"], -1)]
        for row_id, row_no in behind:
            found[row_id] = {
                "row_id": row_id,
                "row_no": row_no,
                "step": maker.name,
                "step_revision": str(maker.revision),
                "reason": f"recalled:{recall}",
                "scorer": NOT_APPLICABLE,
                "scorer_revision": NOT_APPLICABLE,
                "score": None,
                "threshold": None,
                "run_id": run_id,
            }
    return pa.Table.from_pylist(list(found.values()), schema=REJECTED.schema)


def _require_same_bans(settings: Settings, banned: Bans) -> None:
    """Raise RunnerError where a recall came while the job ran: its rows may be among these."""
    if bans.standing(settings) != banned:
        raise RunnerError(
            "a recall came while the job ran, or was lifted, so nothing was committed; run it again"
        )


def _without_ids(rows: pa.Table, stored: frozenset[bytes]) -> pa.Table:
    """Rows whose id is not stored yet: what came before, by whatever path, is not stored twice."""
    if not stored:
        return rows
    return rows.filter(pa.array([row_id not in stored for row_id in rows["row_id"].to_pylist()], pa.bool_()))


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    position = rows.column_names.index(name)
    return rows.set_column(position, rows.schema.field(name), values)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items() if number)
