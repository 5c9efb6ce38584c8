"""The batch plan: which row is eaten at which step, decided before training and independent of who trains.

    rows --sort by row_id--> repeat by weight --seeded permutation per epoch--> cut into steps of slots

The order depends on the row ids, their weights, the seed and the batch size: not on the order in which the
rows came, not on their numbers, not on the number of workers. Rank r of w takes slots r, r + w, r + 2w, ...
of a step.

Errors: PlanError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from training.recipe import TrainingError


class PlanError(TrainingError):
    """The rows cannot be planned, or a plan does not fit the rows it is used with."""


PLAN_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("slot", pa.int32()),
        ("row_no", pa.int64()),
        ("row_id", pa.binary()),
        ("pack", pa.int32()),  # = slot, until several rows share a sequence
        ("offset", pa.int32()),  # = 0, first token of the row within its pack
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
    """`sha256:<hex>` of step, slot, row_id, n_tokens, n_loss_tokens. Not of row_no: a re-run numbers anew."""
    steps: int


def make_plan(
    rows: pa.Table,
    *,
    n_tokens: Sequence[int],
    n_loss_tokens: Sequence[int],
    seed: int,
    num_train_epochs: int,
    train_batch_size: int,
) -> Plan:
    """Plan every row `weight` times per epoch.

    `rows` has row_id (unique), row_no and optionally weight: a whole number of one or more, how often an
    epoch repeats the row (absent: 1). `n_tokens` and `n_loss_tokens` are aligned with `rows`, after any cut
    to max_length. An epoch never shares a step with the next, so its last step may be smaller. Raises
    PlanError.
    """
    if num_train_epochs < 1 or train_batch_size < 1:
        raise PlanError(
            f"epochs and batch size must be 1 or more, got {num_train_epochs} and {train_batch_size}"
        )
    members = _members(rows, n_tokens, n_loss_tokens)
    eaten = np.repeat(
        np.arange(members.num_rows), members["weight"].to_numpy()
    )  # one entry per slot of an epoch
    order = np.concatenate(
        [eaten[_permutation(len(eaten), seed, epoch)] for epoch in range(num_train_epochs)]
    )
    place = np.tile(np.arange(len(eaten)), num_train_epochs)
    steps_per_epoch = -(-len(eaten) // train_batch_size)
    epoch = np.repeat(np.arange(num_train_epochs), len(eaten))
    slot = place % train_batch_size
    planned = members.take(pa.array(order))
    columns = {
        "step": epoch * steps_per_epoch + place // train_batch_size,
        "slot": slot,
        "pack": slot,
        "offset": np.zeros_like(slot),
    } | {name: planned[name] for name in ("row_no", "row_id", "n_tokens", "n_loss_tokens")}
    table = pa.table({name: columns[name] for name in PLAN_SCHEMA.names}).cast(PLAN_SCHEMA).combine_chunks()
    return Plan(table=table, digest=plan_digest(table), steps=steps_per_epoch * num_train_epochs)


def plan_digest(table: pa.Table) -> str:
    """The digest of a plan's table, rows in the order of step and slot."""
    ordered = table.sort_by([("step", "ascending"), ("slot", "ascending")])
    row_ids = ordered["row_id"].to_pylist()
    digest = hashlib.sha256(b"stemma plan 1\n")
    for name in ("step", "slot", "n_tokens", "n_loss_tokens"):
        digest.update(ordered[name].to_numpy().astype("<i4").tobytes())
    # lengths first: otherwise two lists of ids could run together into the same bytes
    digest.update(np.array([len(row_id) for row_id in row_ids], dtype="<i4").tobytes())
    digest.update(b"".join(row_ids))
    return f"sha256:{digest.hexdigest()}"


def _members(rows: pa.Table, n_tokens: Sequence[int], n_loss_tokens: Sequence[int]) -> pa.Table:
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


def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    # numpy promises the raw stream of a bit generator across versions, but not Generator.permutation
    draws = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(size)
    return np.argsort(draws, kind="stable")
