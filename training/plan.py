"""The batch plan: which row is eaten at which step, decided before training and independent of who trains.

    rows --sort by row_id--> repeat by weight --seeded permutation per epoch--> packs --> steps of packs

The order depends on the row ids, their weights and lengths, the seed and the batch size: not on the order in
which the rows came, not on their numbers, not on the number of workers. A *pack* is one sequence: a row, or
with packing several. Rank r of w takes packs r, r + w, r + 2w, ... of a step. A *slot* is a row's place
within its step.

Errors: PlanError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lineage.consumption import plan_digest
from training.packing import pack
from training.recipe import TrainingError


class PlanError(TrainingError):
    """The rows cannot be planned."""


PLAN_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("slot", pa.int32()),
        ("row_no", pa.int64()),
        ("row_id", pa.binary()),
        ("pack", pa.int32()),  # = slot without packing
        ("offset", pa.int32()),  # first token of the row within its pack
        ("n_tokens", pa.int32()),
        ("n_loss_tokens", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Plan:
    """One line per slot, ordered by step and slot."""

    table: pa.Table
    """PLAN_SCHEMA. Steps count from 0 through all epochs."""
    digest: str
    """SHA-256 in hex, `lineage.consumption.plan_digest`. Not of row_no: a re-run numbers anew."""
    steps: int


def make_plan(
    rows: pa.Table,
    *,
    n_tokens: Sequence[int] | np.ndarray,
    n_loss_tokens: Sequence[int] | np.ndarray,
    seed: int,
    num_train_epochs: int,
    train_batch_size: int,
    pack_length: int | None = None,
) -> Plan:
    """Plan every row `weight` times per epoch.

    `rows` has row_id (unique), row_no and optionally weight: a whole number of one or more, how often an
    epoch repeats the row (absent: 1). `n_tokens` and `n_loss_tokens` are aligned with `rows`, after any cut
    to max_length. `pack_length` puts rows together in sequences of so many tokens; a step then has
    `train_batch_size` sequences. An epoch never shares a step with the next, so its last step may be smaller.
    Raises PlanError.
    """
    if num_train_epochs < 1 or train_batch_size < 1:
        raise PlanError(
            f"epochs and batch size must be 1 or more, got {num_train_epochs} and {train_batch_size}"
        )
    members = _members(rows, n_tokens, n_loss_tokens)
    eaten = np.repeat(np.arange(members.num_rows), members["weight"].to_numpy())  # an epoch, in no order yet
    sizes = members["n_tokens"].to_numpy()
    epochs, steps = [], 0
    for epoch in range(num_train_epochs):
        order = eaten[_permutation(len(eaten), seed, epoch)]
        packs = (
            [np.array([row]) for row in order]
            if pack_length is None
            else _packs(order, sizes, pack_length, seed, epoch)
        )
        epochs.append(_lines(packs, sizes, train_batch_size, first_step=steps))
        steps += -(-len(packs) // train_batch_size)
    lines = {name: np.concatenate([each[name] for each in epochs]) for name in epochs[0]}
    planned = members.take(pa.array(lines.pop("member")))
    columns = lines | {name: planned[name] for name in ("row_no", "row_id", "n_tokens", "n_loss_tokens")}
    table = pa.table({name: columns[name] for name in PLAN_SCHEMA.names}).cast(PLAN_SCHEMA).combine_chunks()
    return Plan(table=table, digest=plan_digest(table), steps=steps)


def _packs(order: np.ndarray, sizes: np.ndarray, length: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of an epoch in sequences, these in an order of their own: best fit makes the fullest first."""
    packs = pack(sizes[order], capacity=length)
    shuffled = _permutation(len(packs), seed, epoch, 1)
    return [order[packs[index]] for index in shuffled]


def _lines(
    packs: Sequence[np.ndarray], sizes: np.ndarray, train_batch_size: int, *, first_step: int
) -> dict[str, np.ndarray]:
    """Step, slot, pack, offset and member of each row of an epoch, in the order eaten."""
    members = np.concatenate(packs)
    rows_of = np.array([len(each) for each in packs])
    pack_no = np.repeat(np.arange(len(packs)), rows_of)
    step = pack_no // train_batch_size
    place = np.arange(len(members))
    begins = np.searchsorted(step, np.arange(step[-1] + 1))  # of each step its first row
    ends = np.cumsum(sizes[members])
    heads = np.concatenate([[0], np.cumsum(rows_of)[:-1]])  # of each pack its first row
    before = np.where(heads > 0, ends[heads - 1], 0)
    return {
        "step": first_step + step,
        "slot": place - begins[step],
        "pack": pack_no % train_batch_size,
        "offset": ends - sizes[members] - before[pack_no],
        "member": members,
    }


def _members(
    rows: pa.Table, n_tokens: Sequence[int] | np.ndarray, n_loss_tokens: Sequence[int] | np.ndarray
) -> pa.Table:
    """The rows sorted by row_id, with their token counts and their weight as int64."""
    if rows.num_rows == 0:
        raise PlanError("a plan needs at least one row, got none; check the curriculum's selection")
    if not (len(n_tokens) == len(n_loss_tokens) == rows.num_rows):
        raise PlanError(
            f"{rows.num_rows} rows came with {len(n_tokens)} token counts and {len(n_loss_tokens)} loss "
            "token counts; encode exactly the rows that are planned"
        )
    row_ids = rows["row_id"].cast(pa.binary())
    if len(row_ids.unique()) != rows.num_rows:
        raise PlanError(
            f"{rows.num_rows} rows have {len(row_ids.unique())} distinct row ids; give each row once and "
            "repeat it by weight"
        )
    weight = np.ones(rows.num_rows) if "weight" not in rows.column_names else rows["weight"].to_numpy()
    whole = (weight >= 1) & (weight == np.floor(weight)) & np.isfinite(weight)
    if not whole.all():
        first = int(np.flatnonzero(~whole)[0])
        raise PlanError(
            f"row {rows['row_no'][first]} has weight {weight[first]}; a weight is the whole number of times "
            "that an epoch repeats a row, 1 or more (leave a row out of the curriculum to skip it)"
        )
    table = pa.table(
        {
            "row_id": row_ids,
            "row_no": rows["row_no"].cast(pa.int64()),
            "weight": weight.astype(np.int64),
            "n_tokens": np.asarray(n_tokens, dtype=np.int32),
            "n_loss_tokens": np.asarray(n_loss_tokens, dtype=np.int32),
        }
    )
    return table.sort_by("row_id")


def _permutation(size: int, *seeds: int) -> np.ndarray:
    # numpy promises the raw stream of a bit generator across versions, but not Generator.permutation
    draws = np.random.PCG64(np.random.SeedSequence(list(seeds))).random_raw(size)
    return np.argsort(draws, kind="stable")
