"""Two synthetic lakes, written through the same doors as real ones: many small runs, and few large ones.

Rows are drawn, not derived by steps, for nobody asks what they say: half of them are traces, half examples of
one trace each, every twentieth of two equal ones. Each training run eats its curriculum once, in a random
order, and makes a registered version; the last one is champion.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyroaring import BitMap64

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables
from lineage.runs import Run
from lineage.schemas import CHECKPOINT, CONSUMPTION, CURRICULUM, EXAMPLE, MODEL, RUN, TRACE, TableSpec

PROMPTS, SCORERS, GENERATORS = 20, 5, 10
_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Shape:
    """How large a lake is."""

    rows: int
    """Traces and examples together."""

    batches: int
    """Sources, and so commits of traces; as many of examples."""

    runs: int
    rows_per_run: int
    rows_per_step: int


FLYWHEEL = Shape(rows=300_000, batches=100, runs=3_000, rows_per_run=1_200, rows_per_step=32)
LARGE = Shape(rows=10_000_000, batches=20, runs=20, rows_per_run=3_000_000, rows_per_step=256)


def build(lake: str, shape: Shape) -> None:
    """Write a lake of this shape; the same one for the same shape."""
    settings = Settings(lake=lake, tracking_uri="")
    random = np.random.default_rng(0)
    examples = _rows(settings, shape, random)
    started = time.monotonic()
    states: list[dict[str, Any]] = []
    for number in range(shape.runs):
        states.append(_train(settings, shape, examples, number, random))
        if number % max(1, shape.runs // 10) == 0:
            print(f"  run {number + 1} of {shape.runs}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    _register(settings, states)


def _register(settings: Settings, states: Sequence[dict[str, Any]]) -> None:
    """Every checkpoint as a version, the last one as champion."""
    count = len(states)
    rows = {
        "name": _same("made", count),
        "version": pa.array(np.arange(1, count + 1)),
        "run_id": pa.array([state["run_id"] for state in states]),
        "step": pa.array([state["step"] for state in states]),
    }
    file = tables.write_file(settings, _filled(MODEL, count, rows), into=MODEL, name="made")
    tables.commit(settings, [file], into=MODEL, run_id="made", keys=["made"])
    moved: dict[str, Any] = {"name": "made", "kind": "promotion", "reason": "the last", "evidence": []}
    run = Run("0" * 16, 1, "promote")
    models.move_aliases(Runtime(settings), {"champion": count}, run=run, **moved)


def _rows(settings: Settings, shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Traces and examples, batch by batch; the examples' numbers in the order they were stored."""
    size = shape.rows // shape.batches // 2
    made: list[np.ndarray] = []
    for batch in range(shape.batches):
        ids = random.bytes(16 * 2 * size)
        row_ids = [ids[at : at + 16] for at in range(0, len(ids), 16)]
        first = tables.reserve(settings, 2 * size, run_id=f"{batch:016x}-1")
        numbers = np.arange(first, first + 2 * size)
        said = {
            "prompt_name": _same("router", size),
            "prompt_version": _drawn(random, size, [str(n) for n in range(PROMPTS)]),
            "scorer": _same("judge", size),
            "scorer_revision": _drawn(random, size, [str(n) for n in range(SCORERS)]),
            "generator": _same("model", size),
            "generator_revision": _drawn(random, size, [str(n) for n in range(GENERATORS)]),
            "source_uri": _same(f"/logs/{batch}.jsonl", size),
            "source_revision": _same(f"sha256:{batch:064x}", size),
        }
        none = pa.array([[]] * size)
        _store(settings, TRACE, f"{2 * batch:016x}-1", size, {
            **said,
            "row_id": pa.array(row_ids[:size], pa.binary()),
            "row_no": pa.array(numbers[:size]),
            "parents": none,
            "parent_nos": none,
            "derivation": _same("source", size),
        })  # fmt: skip
        of_two = np.arange(size) % 20 == 0
        parents = [[n, (n + 1) % size] if two else [n] for n, two in enumerate(of_two)]
        _store(settings, EXAMPLE, f"{2 * batch + 1:016x}-1", size, {
            **said,
            "row_id": pa.array(row_ids[size:], pa.binary()),
            "row_no": pa.array(numbers[size:]),
            "parents": pa.array([[row_ids[p] for p in each] for each in parents]),
            "parent_nos": pa.array([[int(numbers[p]) for p in each] for each in parents]),
            "derivation": pa.array(np.where(of_two, "alternative", "joint")),
        })  # fmt: skip
        made.append(numbers[size:])
    return np.concatenate(made)


def _train(
    settings: Settings, shape: Shape, examples: np.ndarray, number: int, random: np.random.Generator
) -> dict[str, Any]:
    """One training run, from the curriculum to the checkpoint, whose facts it returns."""
    count = shape.rows_per_run
    known = examples[: max(count, len(examples) * (number + 1) // shape.runs)]
    eaten = random.choice(known, count, replace=False)
    chosen, root, run_id = np.sort(eaten), f"{number:064x}", f"{number:015x}f-1"
    members = {
        "curriculum": _same(root, count),
        "row_no": pa.array(chosen),
        "slice": _drawn(random, count, ["gold", "hard", "replay"]),
        "run_id": _same(run_id, count),
    }
    table = _filled(CURRICULUM, count, members)
    file = tables.write_file(settings, table, into=CURRICULUM, name=run_id)
    tables.commit(settings, [file], into=CURRICULUM, run_id=run_id, keys=[f"curriculum:{root}"])
    place = np.arange(count)
    ledger = {
        "run_id": _same(run_id, count),
        "step": pa.array((place // shape.rows_per_step).astype(np.int32)),
        "rank": pa.array((place % shape.rows_per_step % 2).astype(np.int16)),
        "slot": pa.array((place % shape.rows_per_step).astype(np.int32)),
        "row_no": pa.array(eaten),
        # Lengths of instructions and answers are about lognormal; here 90 tokens in the middle.
        "loss_tokens": pa.array(np.clip(random.lognormal(4.5, 0.6, count), 1, 2048).astype(np.int32)),
    }
    tables.replace(settings, _filled(CONSUMPTION, count, ledger), into=CONSUMPTION, run_id=run_id)
    at = _AT + dt.timedelta(minutes=number)
    state = {
        "run_id": run_id,
        "step": -(-count // shape.rows_per_step),
        "curriculum": root,
        "row_bitmap": BitMap64(chosen.astype(np.uint64)).serialize(),
        "at": at,
    }
    one = {name: pa.array([value], CHECKPOINT.schema.field(name).type) for name, value in state.items()}
    tables.replace(settings, _filled(CHECKPOINT, 1, one), into=CHECKPOINT, run_id=run_id)
    event = {column.name: _nothing(column.type) for column in RUN.columns} | {"error": None}
    event |= {"run_id": run_id, "job": "finetune", "at": at}
    tables.record(settings, [event | {"status": each} for each in ("START", "COMPLETE")], into=RUN)
    return state


def _store(settings: Settings, spec: TableSpec, run_id: str, count: int, said: dict[str, pa.Array]) -> None:
    rows = _filled(spec, count, said | {"run_id": _same(run_id, count)})
    file = tables.write_file(settings, rows, into=spec, name=run_id)
    tables.commit(settings, [file], into=spec, run_id=run_id, keys=[run_id])


def _filled(spec: TableSpec, count: int, said: dict[str, Any]) -> pa.Table:
    """Rows of a table whose other columns say nothing."""
    columns: list[pa.Array | pa.ChunkedArray] = []
    for column in spec.columns:
        if column.name in said:
            columns.append(said[column.name].cast(column.type))
        elif column.nullable:
            columns.append(pa.nulls(count, column.type))
        elif pa.types.is_timestamp(column.type):
            columns.append(pa.repeat(pa.scalar(_AT, column.type), count))
        else:
            columns.append(pa.repeat(pa.scalar(_nothing(column.type), column.type), count))
    return pa.Table.from_arrays(columns, schema=spec.schema)


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_binary(kind):
        return b""
    return "unstated" if pa.types.is_string(kind) else 0


def _same(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _drawn(random: np.random.Generator, count: int, values: Sequence[str]) -> pa.Array:
    return pa.array(values).take(pa.array(random.integers(0, len(values), count)))


__all__ = ["FLYWHEEL", "LARGE", "Shape", "build"]
