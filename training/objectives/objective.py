"""Objective: how rows become token ids and targets, and how a minibatch becomes a loss.

The seam between the loop, which knows steps and ranks, and the task, which knows what is right. The loop
divides every loss by the loss tokens of the whole step, so an objective returns a sum, never a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from infra.models import BaseModel
from training.encoded import NO_LOSS, Batch, Encoded, Sequences
from training.recipe import TrainingConfig

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Minibatch:
    """What goes through the model at once."""

    batches: tuple[Batch, ...]
    """One; for `dpo` two: the answers, and the rejected ones of the same rows."""
    reference: torch.Tensor | None = None
    """For `dpo`: float32 (rows, 2), what the frozen reference gives to the answers and the rejected ones."""


class Objective(Protocol):
    """A kind of fine-tuning."""

    columns: ClassVar[tuple[str, ...]]
    """What it reads of a row."""

    def labels(self, rows: pa.Table) -> Sequence[str]:
        """What the head gives, in the order of its outputs; none for a decoder."""
        ...

    def encode(
        self, rows: pa.Table, labels: Sequence[str], *, base: BaseModel, config: TrainingConfig
    ) -> Encoded:
        """Token ids and targets of every row, in the rows' order. Raises TrainingError."""
        ...

    def loss_sum(self, model: torch.nn.Module, minibatch: Minibatch, config: TrainingConfig) -> torch.Tensor:
        """The scalar float32 sum of the loss over the minibatch's loss tokens."""
        ...


def fit_into(
    sequences: Sequences, config: TrainingConfig, *, n_cut: np.ndarray
) -> tuple[np.ndarray, dict[int, str]]:
    """Loss tokens of each row, and the rows that are to be dropped: too long, or without any loss."""
    counts = sequences.targets != NO_LOSS
    n_loss = np.add.reduceat(np.append(counts, False).astype(np.int32), sequences.starts[:-1])
    dropped: dict[int, str] = {}
    if config.excess_length_strategy == "drop":
        dropped = {int(index): "longer_than_max_length" for index in np.flatnonzero(n_cut)}
    for index in np.flatnonzero(n_loss == 0).tolist():
        dropped.setdefault(index, "no_loss_token")
    return n_loss.astype(np.int32), dropped
