"""What a fine-tuning minimises: how rows become token ids and targets, and how a minibatch becomes a loss.

The seam between the loop, which knows steps and ranks, and the task, which knows labels. The loop divides
every loss by the loss tokens of the whole step, so an objective returns a sum, never a mean.

Errors: TrainingError when rows cannot be encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import pyarrow as pa

from infra.models import BaseModel, encode, load_tokenizer, sentence_logits
from training.recipe import TrainingConfig, TrainingError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Encoded:
    """Rows as the model is fed, aligned with the table they came from."""

    input_ids: list[list[int]]
    """Unpadded, special tokens included, at most max_length."""
    targets: np.ndarray
    """int64 (rows,), index into the labels."""
    n_tokens: np.ndarray
    """int32 (rows,)."""
    n_loss_tokens: np.ndarray
    """int32 (rows,), how many terms the row adds to the loss."""
    truncated: int
    """Rows that were cut to max_length."""
    pad_token_id: int


class Objective(Protocol):
    """A kind of fine-tuning."""

    def encode(self, rows: pa.Table, labels: Sequence[str], *, base: BaseModel, max_length: int) -> Encoded:
        """Token ids and targets of every row, in the rows' order. Raises TrainingError."""
        ...

    def loss_sum(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """The scalar float32 sum of the loss over the minibatch's loss tokens."""
        ...


class SequenceClassification:
    """One label per text; each row is one loss token."""

    def encode(self, rows: pa.Table, labels: Sequence[str], *, base: BaseModel, max_length: int) -> Encoded:
        """Columns `text` and `label`; every label must be one of `labels`."""
        index = {label: position for position, label in enumerate(labels)}
        texts, named = rows["text"].to_pylist(), rows["label"].to_pylist()
        if unknown := sorted({str(label) for label in named} - index.keys()):
            raise TrainingError(
                f"{len(unknown)} labels of the rows are not among the {len(labels)} labels to learn, "
                f"first '{unknown[0]}'; add them or leave the rows out"
            )
        if None in texts:
            raise TrainingError(f"row {texts.index(None)} has no text; an empty text is allowed, null is not")
        tokenizer = load_tokenizer(base)
        input_ids, truncated = encode(tokenizer, texts, max_length=max_length)
        return Encoded(
            input_ids=input_ids,
            targets=np.array([index[label] for label in named], dtype=np.int64),
            n_tokens=np.array([len(ids) for ids in input_ids], dtype=np.int32),
            n_loss_tokens=np.ones(len(input_ids), dtype=np.int32),
            truncated=truncated,
            pad_token_id=cast(int, tokenizer.pad_token_id),
        )

    def loss_sum(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy of the sentence's logits, summed over rows."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(sentence_logits(model, input_ids, attention_mask), targets, reduction="sum")


OBJECTIVES: dict[str, Objective] = {"sequence_classification": SequenceClassification()}


def encode_rows(rows: pa.Table, labels: Sequence[str], *, base: BaseModel, config: TrainingConfig) -> Encoded:
    """Encode rows as `config` will train on them: what `make_plan` needs to know about their lengths."""
    return OBJECTIVES[config.objective].encode(rows, labels, base=base, max_length=config.max_length)
