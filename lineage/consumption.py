"""What each training step actually ate, and the checkpoint that it made.

Committed files come first, the checkpoint last: its row is written when its files and its consumption are in
place; what has no such row does not exist.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyroaring import BitMap64

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.rows import LEAST_PREFIX
from lineage.runs import Run
from lineage.schemas import CHECKPOINT, CONSUMPTION, PLAN, STEP
from lineage.tables import TableError

_FEW = 16
OFFERED = -1
"""The step of a plan's rows whose order nobody settled beforehand: another trainer's sampler drew it."""


class CheckpointError(TableError):
    """A checkpoint cannot be found, or does not say what it must."""


@dataclass(frozen=True)
class Checkpoint:
    """A training state and what it ate."""

    run_id: str
    step: int
    uri: str
    adapter_digest: str
    base_model: str
    base_digest: str
    curriculum: str
    plan_digest: str
    consumption_root: str
    at: dt.datetime
    adapter_config_digest: str | None = None
    """Of the files beside the tensors; None: not on record, for the checkpoint is older than that."""
    started_from: str | None = None
    """The checkpoint, by its name, whose adapter training went on from: this one is made of its rows too."""

    @property
    def name(self) -> str:
        """How a person calls it."""
        return f"{self.run_id}/{self.step}"


def ledger_digest(rows: pa.Table) -> str:
    """SHA-256 over (step, slot, row_id, loss_tokens) in order; of packed rows also over (pack, offset).

    Of a plan and of a record of consumption alike: equal digests mean that what was planned was eaten, slot
    for slot. Row numbers are no part of it, for they differ from lake to lake.
    """
    ordered = rows.sort_by([("step", "ascending"), ("slot", "ascending")])
    is_packed = "offset" in rows.column_names and bool(pc.any(pc.greater(rows["offset"], 0)).as_py())
    digest = hashlib.sha256(b"stemma.ledger.v2" if is_packed else b"stemma.ledger.v1")
    columns = (ordered[name].to_pylist() for name in ("step", "slot", "row_id", "loss_tokens"))
    for step, slot, row_id, loss_tokens in zip(*columns, strict=True):
        digest.update(struct.pack(">iiib", step, slot, loss_tokens, len(row_id)) + row_id)
    if is_packed:
        for name in ("pack", "offset"):
            digest.update(ordered[name].to_numpy().astype(">i4").tobytes())
    return digest.hexdigest()


def plan_digest(plan: pa.Table) -> str:
    """The digest that a faithful record of consumption must have."""
    return ledger_digest(
        plan.rename_columns(["loss_tokens" if n == "n_loss_tokens" else n for n in plan.column_names])
    )


def is_offer(plan: pa.Table) -> bool:
    """Does the plan say only which rows a trainer of somebody else's was offered, not when it feeds them?"""
    return plan.num_rows > 0 and set(plan["step"].to_pylist()) == {OFFERED}


def offer(row_nos: Sequence[int], ids: Mapping[int, bytes]) -> pa.Table:
    """The plan of a trainer that draws its own order: each row that it was offered, once, at no step.

    What can be promised before the first step is the set; so that is what is on record before it, and what
    the record of consumption is held against.
    """
    numbers = sorted(set(row_nos))
    return pa.table(
        {
            "step": pa.array([OFFERED] * len(numbers), pa.int32()),
            "slot": pa.array(range(len(numbers)), pa.int32()),
            "row_no": pa.array(numbers, pa.int64()),
            "row_id": pa.array([ids[number] for number in numbers], pa.binary()),
            "n_tokens": pa.array([0] * len(numbers), pa.int32()),
            "n_loss_tokens": pa.array([0] * len(numbers), pa.int32()),
        }
    )


def consumption_root(eaten: pa.Table, ids: Mapping[int, bytes]) -> str:
    """The digest of what was eaten; `ids` turns row_no into row_id, which is the same on every machine."""
    row_ids = pa.array([ids.get(number, b"") for number in eaten["row_no"].to_pylist()], pa.binary())
    return ledger_digest(eaten.append_column("row_id", row_ids))


def record_plan(settings: Settings, plan: pa.Table, run: Run) -> None:
    """Store what a training run means to eat, before its first step."""
    rows = _of_run(_with_places(plan), run).select(PLAN.schema.names).cast(PLAN.schema)
    tables.replace(settings, rows, into=PLAN, run_id=run.id)


def record_checkpoint(
    runtime: Runtime,
    run: Run,
    *,
    eaten: pa.Table,
    ids: Mapping[int, bytes],
    step: int,
    uri: str,
    adapter_digest: str,
    adapter_config_digest: str,
    base_model: str,
    base_digest: str,
    curriculum: str,
    plan: pa.Table,
    steps: pa.Table | None = None,
    started_from: str | None = None,
) -> Checkpoint:
    """Commit the steps, consumption, then the checkpoint.

    `steps`: rows of STEP without run_id; None where the trainer does not tell. Raises CheckpointError when
    what was eaten is not what was planned, or is not among what was offered.
    """
    root, planned = consumption_root(eaten, ids), plan_digest(plan)
    if is_offer(plan):
        strangers = set(eaten["row_no"].to_pylist()) - set(plan["row_no"].to_pylist())
        if strangers or not eaten.num_rows:
            what = f"rows that it was not offered, as {min(strangers)}" if strangers else "no row"
            raise CheckpointError(f"run {run.id} ate {what}; not committed")
    elif root != planned:
        raise CheckpointError(
            f"run {run.id} ate other rows than planned ({root[:12]} is not {planned[:12]}); not committed"
        )
    settings = runtime.settings
    if steps is not None:
        told = _of_run(steps, run).select(STEP.schema.names).cast(STEP.schema)
        tables.replace(settings, told, into=STEP, run_id=run.id)
    ledger = _of_run(_with_places(eaten), run).select(CONSUMPTION.schema.names).cast(CONSUMPTION.schema)
    tables.replace(settings, ledger, into=CONSUMPTION, run_id=run.id)
    row = {
        "run_id": run.id,
        "step": step,
        "uri": uri,
        "adapter_digest": adapter_digest,
        "base_model": base_model,
        "base_digest": base_digest,
        "curriculum": curriculum,
        "plan_digest": planned,
        "consumption_root": root,
        "row_bitmap": BitMap64(eaten["row_no"].to_pylist()).serialize(),
        "at": runtime.now(),
        "adapter_config_digest": adapter_config_digest,
        "started_from": started_from,
    }
    tables.replace(
        settings, pa.Table.from_pylist([row], schema=CHECKPOINT.schema), into=CHECKPOINT, run_id=run.id
    )
    return _checkpoint(row)


def forget_checkpoint(settings: Settings, run: Run) -> None:
    """Take away the row that a killed go at the same work left; its consumption goes when there is a new one.

    Its run did not come to its end, so nothing can have been made of it.
    """
    tables.replace(settings, CHECKPOINT.schema.empty_table(), into=CHECKPOINT, run_id=run.id)


def checkpoints(settings: Settings) -> list[Checkpoint]:
    """All checkpoints, oldest first."""
    columns = list(Checkpoint.__dataclass_fields__)  # without the bitmap, which is most of it
    rows = tables.read(settings, CHECKPOINT, columns=columns).sort_by("at")
    return [_checkpoint(row) for row in rows.to_pylist()]


def find_checkpoint(settings: Settings, prefix: str) -> Checkpoint:
    """The last checkpoint of the run that a prefix of its id names.

    Raises CheckpointError with the candidates.
    """
    runs = runs_starting(settings, prefix)
    if len(prefix) < LEAST_PREFIX and prefix not in runs:
        raise CheckpointError(
            f"'{prefix}' is too short to name a run; expected an alias, a version, or at least "
            f"{LEAST_PREFIX} hex digits; see: stemma status"
        )
    if len(runs) != 1:
        several = (
            f"could be any of: {', '.join(runs[:8])}" if runs else "names no model, alias or training run"
        )
        raise CheckpointError(f"'{prefix}' {several}; see: stemma status")
    mine = (checkpoint for checkpoint in checkpoints(settings) if checkpoint.run_id == runs[0])
    return max(mine, key=lambda checkpoint: checkpoint.step)


def runs_starting(settings: Settings, prefix: str) -> list[str]:
    """The runs with a checkpoint whose id starts so, sorted."""
    return sorted({c.run_id for c in checkpoints(settings) if c.run_id.startswith(prefix)})


def line_of(settings: Settings, checkpoint: Checkpoint) -> list[Checkpoint]:
    """The checkpoint, the one whose adapter it goes on from, and so on to the first."""
    made = {each.name: each for each in checkpoints(settings)}
    line = [checkpoint]
    while line[-1].started_from in made:
        line.append(made[line[-1].started_from])
    return line


def bitmaps(settings: Settings, *, own: bool = False) -> Mapping[tuple[str, int], BitMap64]:
    """(run id, step) -> the numbers of the rows that a checkpoint is made of. Not to be changed.

    With what those ate whose adapters it goes on from; `own`: only what its own training ate.
    """
    newest = tables.snapshot(settings, CHECKPOINT)
    return {} if newest is None else _bitmaps(newest, own)


@lru_cache(maxsize=4)
def _bitmaps(newest: tables.Snapshot, own: bool) -> dict[tuple[str, int], BitMap64]:
    columns = ["run_id", "step", "row_bitmap", "started_from"]
    rows = tables.read(newest.settings, CHECKPOINT, columns=columns).to_pylist()
    mine = {f"{row['run_id']}/{row['step']}": BitMap64.deserialize(row["row_bitmap"]) for row in rows}
    before = {f"{row['run_id']}/{row['step']}": row["started_from"] for row in rows}
    found: dict[tuple[str, int], BitMap64] = {}
    for row in rows:
        name: str | None = f"{row['run_id']}/{row['step']}"
        eaten = mine[name]
        while not own and (name := before.get(name or "")) in mine:
            eaten = eaten | mine[name]
        found[row["run_id"], row["step"]] = eaten
    return found


def eaten_by(settings: Settings, checkpoint: Checkpoint) -> pa.Table:
    """The rows of `consumption` that the checkpoint contains, in the order they were eaten."""
    mine = (pads.field("run_id") == checkpoint.run_id) & (pads.field("step") < checkpoint.step)
    return tables.read(settings, CONSUMPTION, where=mine).sort_by(
        [("step", "ascending"), ("slot", "ascending")]
    )


def steps_of(settings: Settings, checkpoint: Checkpoint) -> pa.Table:
    """What the workers did at the steps that the checkpoint contains, rows of STEP by step and rank.

    Empty where they were not told: of another trainer, or in an older lake.
    """
    where = (pads.field("run_id") == checkpoint.run_id) & ~pads.field("lost")
    found = tables.read(settings, STEP, where=where & (pads.field("step") < checkpoint.step))
    return found.sort_by([("step", "ascending"), ("rank", "ascending")])


@dataclass(frozen=True)
class Ledger:
    """What a training run ate, in order, as arrays: 6 bytes a slot where numbers are small."""

    row_nos: np.ndarray
    loss_tokens: np.ndarray
    starts: np.ndarray
    """Place of each step's first slot, and at the end how many slots there are: int64 (steps + 1)."""

    def upto(self, step: int) -> Ledger:
        """What was eaten before a step: what the checkpoint of that step contains."""
        end = int(self.starts[min(step, len(self.starts) - 1)])
        return Ledger(self.row_nos[:end], self.loss_tokens[:end], self.starts[: step + 1])

    def then(self, later: Ledger) -> Ledger:
        """This, and after it what a training ate that went on from here; steps are counted through."""
        return Ledger(
            np.concatenate([self.row_nos, later.row_nos]),
            np.concatenate([self.loss_tokens, later.loss_tokens]),
            np.concatenate([self.starts, later.starts[1:] + self.starts[-1]]),
        )

    def places_of(self, row_nos: np.ndarray) -> np.ndarray:
        """Where these rows were eaten, ascending."""
        if len(row_nos) <= _FEW:  # a pass per row beats sorting all
            is_there = np.zeros(len(self.row_nos), bool)
            for each in row_nos.tolist():
                is_there |= self.row_nos == each
            return np.flatnonzero(is_there)
        return np.flatnonzero(np.isin(self.row_nos, row_nos))

    def step_of(self, place: int) -> int:
        """The step of a slot, by its place in the order eaten."""
        return int(np.searchsorted(self.starts, place, side="right")) - 1

    @property
    def steps(self) -> np.ndarray:
        """The step of every slot, ascending."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), np.diff(self.starts))

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.row_nos.nbytes + self.loss_tokens.nbytes + self.starts.nbytes


_LEDGER_BYTES = 512 * 1024 * 1024  # kept in memory: of runs that were asked for last
_ledgers: OrderedDict[tuple[object, ...], Ledger] = OrderedDict()
_lock = threading.RLock()


def ledger(settings: Settings, run_id: str) -> Ledger:
    """What a run ate. Empty for one that ate nothing."""
    newest = tables.snapshot(settings, CONSUMPTION)
    files = [
        each
        for each in (newest.files if newest else ())
        if (each.get("min.run_id") or "") <= run_id <= (each.get("max.run_id") or "~")
    ]
    key = (newest.table if newest else (), *(each["path"] for each in files), run_id)
    with _lock:
        if key in _ledgers:
            _ledgers.move_to_end(key)
            return _ledgers[key]
    found = _read_ledger(settings, run_id, files)
    with _lock:
        _ledgers[key] = found
        while sum(each.nbytes for each in _ledgers.values()) > _LEDGER_BYTES and len(_ledgers) > 1:
            _ledgers.popitem(last=False)
    return found


def ledger_of(settings: Settings, checkpoint: Checkpoint) -> Ledger:
    """What a checkpoint is made of, in order: what those ate whose adapters it goes on from comes first.

    Its own step n is step n + (steps of the ledger - checkpoint.step) of it.
    """
    first, *later = reversed(line_of(settings, checkpoint))
    found = ledger(settings, first.run_id).upto(first.step)
    for each in later:
        found = found.then(ledger(settings, each.run_id).upto(each.step))
    return found


def _read_ledger(settings: Settings, run_id: str, files: Sequence[Mapping[str, Any]]) -> Ledger:
    columns = ["step", "slot", "row_no", "loss_tokens"]
    parts = [CONSUMPTION.schema.empty_table().select(columns)]
    for each in files:
        is_all_mine = each.get("min.run_id") == each.get("max.run_id") == run_id
        wanted = columns if is_all_mine else [*columns, "run_id"]
        rows = tables.read_file(settings, each["path"], of=CONSUMPTION, columns=wanted)
        parts.append(rows if is_all_mine else rows.filter(pc.equal(rows["run_id"], run_id)).select(columns))
    rows = pa.concat_tables(parts)
    steps, slots = (rows[name].to_numpy() for name in ("step", "slot"))
    is_later = (steps[1:] > steps[:-1]) | ((steps[1:] == steps[:-1]) & (slots[1:] > slots[:-1]))
    order = slice(None) if is_later.all() else np.lexsort((slots, steps))
    steps = steps[order]
    numbers, tokens = (rows[name].to_numpy()[order] for name in ("row_no", "loss_tokens"))
    starts = np.searchsorted(steps, np.arange((int(steps[-1]) if len(steps) else -1) + 2))
    small_numbers = np.uint32 if not len(numbers) or numbers.max() < 2**32 else np.int64
    small_tokens = np.uint16 if not len(tokens) or tokens.max() < 2**16 else np.int32
    return Ledger(numbers.astype(small_numbers), tokens.astype(small_tokens), starts)


def _checkpoint(row: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(**{name: row[name] for name in Checkpoint.__dataclass_fields__})


def _with_places(rows: pa.Table) -> pa.Table:
    """With pack and offset, empty where another trainer does not tell them."""
    for name in ("pack", "offset"):
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.int32()))
    return rows


def _of_run(rows: pa.Table, run: Run) -> pa.Table:
    rows = rows.drop_columns(["run_id"]) if "run_id" in rows.column_names else rows
    return rows.append_column("run_id", pa.array([run.id] * rows.num_rows, pa.string()))
