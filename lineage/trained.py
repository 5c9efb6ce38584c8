"""The books of training: what was to be fed, what was, what each step gave, and what came of it."""

from __future__ import annotations

import pyarrow as pa

from lineage.columns import TIMESTAMP, Column, TableSpec

PACK = Column(
    "pack", pa.int32(), "sequence within the step that holds the row; empty in old ones", nullable=True
)
OFFSET = Column("offset", pa.int32(), "its first token in that sequence; empty in old ones", nullable=True)

PLAN = TableSpec(
    "plans",
    "Which row a training run means to feed at which step and slot, settled before the first step.",
    writer="lineage.consumption",
    keys=("run_id", "step", "slot"),
    own=(
        Column("run_id", pa.string(), "the training run"),
        Column(
            "step", pa.int32(), "optimiser step, from 0; -1: offered to a trainer that draws its own order"
        ),
        Column("slot", pa.int32(), "place within the step; rank r of w takes packs r, r+w, ..."),
        Column("row_no", pa.int64(), "the example"),
        Column("row_id", pa.binary(), "and its id"),
        Column("n_tokens", pa.int32(), "tokens fed"),
        Column("n_loss_tokens", pa.int32(), "tokens (for classification: rows) that the loss counts"),
        PACK,
        OFFSET,
    ),
)

CONSUMPTION = TableSpec(
    "consumption",
    "Which rows each training step ate, recorded as it ate them.",
    writer="lineage.consumption",
    keys=("run_id", "step", "slot"),
    own=(
        Column("run_id", pa.string(), "the training run, attempt included"),
        Column("step", pa.int32(), "optimiser step, from 0"),
        Column("rank", pa.int16(), "the worker"),
        Column("slot", pa.int32(), "place within the step"),
        Column("row_no", pa.int64(), "the example that was fed"),
        Column("loss_tokens", pa.int32(), "tokens (for classification: rows) that counted in the loss"),
        PACK,
        OFFSET,
    ),
)

STEP = TableSpec(
    "steps",
    "What each worker did at each training step, lost goes included: what a reproduction must repeat.",
    writer="lineage.consumption",
    keys=("run_id", "fed_by", "go", "step", "rank"),
    own=(
        Column("run_id", pa.string(), "the training run whose checkpoint was made"),
        Column("fed_by", pa.string(), "the run that took the step: that one, or a killed attempt before it"),
        Column("go", pa.int32(), "which start of the workers within that run, from 1"),
        Column("step", pa.int32(), "optimiser step, from 0"),
        Column("rank", pa.int16(), "the worker"),
        Column("world_size", pa.int16(), "of how many"),
        Column("rows", pa.int32(), "rows that it fed"),
        Column("tokens", pa.int64(), "their tokens"),
        Column("loss_tokens", pa.int64(), "of these, what counted in the loss"),
        Column(
            "digest", pa.string(), "of token ids and targets as fed; summed over ranks, of the whole step"
        ),
        Column("loss", pa.float64(), "mean of the whole step"),
        Column("grad_norm", pa.float64(), "of the whole step, before clipping"),
        Column("micro_batch_size", pa.int32(), "most sequences in a forward pass"),
        Column("lost", pa.bool_(), "taken in vain: no state kept it, and it was taken again"),
    ),
)

CHECKPOINT = TableSpec(
    "checkpoints",
    "Training states: written last, so its existence means that files and consumption are complete.",
    writer="lineage.consumption",
    keys=("run_id", "step"),
    own=(
        Column("run_id", pa.string(), "the training run"),
        Column("step", pa.int32(), "steps taken"),
        Column("uri", pa.string(), "folder of the adapter"),
        Column("adapter_digest", pa.string(), "SHA-256 over the adapter's tensors"),
        Column("base_model", pa.string(), "name of the base model"),
        Column("base_digest", pa.string(), "SHA-256 of its weights"),
        Column("curriculum", pa.string(), "root of the curriculum"),
        Column("plan_digest", pa.string(), "SHA-256 of the plan"),
        Column("consumption_root", pa.string(), "SHA-256 over (step, slot, row_id) as eaten"),
        Column("row_bitmap", pa.binary(), "roaring bitmap (64 bit) of the row_nos eaten"),
        Column("at", TIMESTAMP, "when"),
        Column(
            "adapter_config_digest",
            pa.string(),
            "SHA-256 over the JSON beside the tensors: how they are used; empty in older checkpoints",
            nullable=True,
        ),
        Column(
            "started_from",
            pa.string(),
            "run_id/step of the checkpoint whose adapter training went on from; empty: from fresh ones",
            nullable=True,
        ),
    ),
)
