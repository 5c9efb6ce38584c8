"""Everything that a training's workers need, the same for every rank: what is fed when, by which recipe.

    rows, config, base --encode, drop what cannot be learnt--> plan --> Assignment

Errors: TrainingError, PlanError; infra.chat.ChatError where a template does not suit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from infra.code import code_revision
from infra.models import BaseModel
from lineage.rows import canonical_json
from training.encoded import Encoded, tokens_digest
from training.ledger import slot_digest, summed
from training.objectives import OBJECTIVES
from training.plan import Plan, PlanError, make_plan
from training.recipe import PLACEMENT, TrainingConfig, TrainingError


@dataclass(frozen=True)
class Assignment:
    """The plan joined to the encoded rows."""

    base: BaseModel
    labels: tuple[str, ...]
    config: TrainingConfig
    encoded: Encoded
    plan: Plan
    row: np.ndarray
    """int64, one entry per line of the plan: index into `encoded`."""
    number: np.ndarray
    """int64, row_no of each encoded row."""
    dropped: Mapping[int, str]
    """row_no -> why it is not trained on."""
    adapter: tuple[str, str] | None = None
    """Folder and digest of the adapter that the training goes on from."""

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.plan.steps

    @cached_property
    def row_no(self) -> np.ndarray:
        """int64, one entry per line of the plan."""
        return self.plan.table["row_no"].to_numpy()

    @cached_property
    def step(self) -> np.ndarray:
        """int32, one entry per line of the plan."""
        return self.plan.table["step"].to_numpy()

    @cached_property
    def slot(self) -> np.ndarray:
        """int32, one entry per line of the plan."""
        return self.plan.table["slot"].to_numpy()

    @cached_property
    def offset(self) -> np.ndarray:
        """int32, one entry per line of the plan."""
        return self.plan.table["offset"].to_numpy()

    @cached_property
    def key(self) -> str:
        """What two trainings share that may take each other's work over: all but how it is carried out."""
        recipe = {k: v for k, v in self.config.model_dump(mode="json").items() if k not in PLACEMENT}
        said = [
            self.plan.digest,
            self.encoded.digest,
            self.base.digest,
            code_revision(),
            list(self.labels),
            recipe,
            self.adapter[1] if self.adapter else "",
        ]
        return hashlib.sha256(canonical_json(said)).hexdigest()[:32]

    def packs_of(self, step: int, *, rank: int, world_size: int) -> list[np.ndarray]:
        """The plan's lines of each pack that a rank takes of a step: every world_size-th, from its own on."""
        lines = np.arange(*self._begins[step : step + 2])
        packs = self._pack[lines]
        every = np.split(lines, np.flatnonzero(np.diff(packs)) + 1)
        return every[rank::world_size]

    def loss_tokens_of(self, step: int) -> int:
        """Loss tokens of a step over all ranks."""
        lines = slice(*self._begins[step : step + 2])
        return int(self.encoded.n_loss_tokens[self.row[lines]].sum())

    def expected_digests(self) -> dict[int, str]:
        """Per step what its rows' tokens and targets make, from the plan's row_nos and the rows alone.

        What workers fed must be that (training.ledger.step_digests): it is computed on another way, through
        neither `row` nor a batch.
        """
        place = {row_no: index for index, row_no in enumerate(self.number.tolist())}
        of_row = {
            row_no: [tokens_digest(*each.row(place[row_no])) for each in self.encoded.sequences]
            for row_no in np.unique(self.row_no).tolist()
        }
        digests: dict[int, list[int]] = {}
        lines = zip(self.step.tolist(), self.slot.tolist(), self.row_no.tolist(), strict=True)
        for step, slot, row_no in lines:
            digests.setdefault(step, []).append(slot_digest(step, slot, of_row[row_no]))
        return {step: summed(found) for step, found in digests.items()}

    def by(self, method: str) -> Assignment:
        """The same training by another method."""
        return replace(self, config=self.config.model_copy(update={"method": method}))

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.searchsorted(self.step, np.arange(self.steps + 1))

    @cached_property
    def _pack(self) -> np.ndarray:
        return self.plan.table["pack"].to_numpy()


def assign(
    rows: pa.Table,
    config: TrainingConfig,
    base: BaseModel,
    *,
    labels: Sequence[str] | None = None,
    adapter: tuple[str, str] | None = None,
) -> Assignment:
    """Encode and plan the rows; what is wrong about them is found here, before a model is loaded.

    `rows` has row_no, row_id, optionally weight, and the objective's columns. `labels`: those to learn, in
    the order of the head's outputs; None: those of the rows, sorted. `adapter`: folder and digest of the one
    that training goes on from. Raises TrainingError.
    """
    objective = OBJECTIVES[config.objective]
    wanted = ("row_no", "row_id", *objective.columns)
    if missing := [name for name in wanted if name not in rows.column_names]:
        raise TrainingError(f"the rows lack the columns {missing}; expected {', '.join(wanted)}")
    if not rows.num_rows:
        raise PlanError("a plan needs at least one row, got none; check the curriculum's selection")
    to_learn = tuple(objective.labels(rows) if labels is None else labels)
    encoded = objective.encode(rows, to_learn, base=base, config=config)
    _require_places(encoded, base)
    row_nos = rows["row_no"].to_numpy()
    _require_short(encoded, row_nos, config)
    kept = np.array([index for index in range(rows.num_rows) if index not in encoded.dropped], dtype=np.int64)
    if not len(kept):
        reasons = ", ".join(sorted(set(encoded.dropped.values())))
        raise PlanError(f"none of {rows.num_rows} rows can be trained on: {reasons}; see max_length")
    plan = make_plan(
        rows.take(pa.array(kept)),
        n_tokens=encoded.n_tokens[kept],
        n_loss_tokens=encoded.n_loss_tokens[kept],
        seed=config.seed,
        num_train_epochs=config.num_train_epochs,
        train_batch_size=config.train_batch_size,
        pack_length=config.max_length if config.packing else None,
    )
    place = {row_no: index for index, row_no in enumerate(row_nos.tolist())}
    row = np.array([place[row_no] for row_no in plan.table["row_no"].to_pylist()], dtype=np.int64)
    dropped = {int(row_nos[index]): reason for index, reason in encoded.dropped.items()}
    return Assignment(base, to_learn, config, encoded, plan, row, row_nos, dropped, adapter)


def _require_places(encoded: Encoded, base: BaseModel) -> None:
    """Raise PlanError for rows that are longer than the base has places for."""
    config = json.loads(Path(base.path, "config.json").read_text(encoding="utf-8"))
    places = config.get("max_position_embeddings")
    longest = max(int(each.lengths.max()) for each in encoded.sequences)
    if isinstance(places, int) and longest > places:
        raise PlanError(
            f"a row has {longest} tokens, and {base.name} reads {places} at most; lower max_length"
        )


def _require_short(encoded: Encoded, row_nos: np.ndarray, config: TrainingConfig) -> None:
    if config.excess_length_strategy == "raise" and (long := np.flatnonzero(encoded.n_cut)).size:
        raise PlanError(
            f"{len(long)} rows are longer than max_length = {config.max_length} tokens, first row "
            f"{row_nos[long[0]]} by {encoded.n_cut[long[0]]}; raise max_length, or set excess_length_strategy"
        )
