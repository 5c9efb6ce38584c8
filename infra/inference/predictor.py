"""Labels texts with a fine-tuned classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infra.inference.batches import batches, each
from infra.inference.record import AdapterRecord
from infra.inference.tuned import load_tuned
from infra.models import BaseModel, encode, sentence_logits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prediction:
    """The likeliest label of one text, and its softmax probability."""

    label: str
    confidence: float


class Predictor:
    """A fine-tuned classifier, in eval mode."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        record: AdapterRecord,
        *,
        batch_size: int = 64,
    ) -> None:
        """Answer with `model`, whose head gives `record.labels` in order."""
        self.record = record
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    @classmethod
    def load(
        cls,
        base: BaseModel,
        adapter: str | Path,
        *,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> Predictor:
        """Load an adapter folder onto its base, as quantised as it was trained.

        Raises ModelError, as load_tuned does.
        """
        expected = ("sequence_classification",)
        model, tokenizer, record = load_tuned(base, adapter, device=device, expected=expected)
        return cls(model, tokenizer, record, batch_size=batch_size)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in the order given; no texts give an empty list."""
        rows = self.probabilities(texts)
        best = rows.argmax(axis=1) if len(rows) else []
        return [
            Prediction(self.record.labels[index], float(row[index]))
            for index, row in zip(best, rows, strict=True)
        ]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text are read."""
        rows, _ = encode(self._tokenizer, texts, max_length=self.record.max_length)
        return [len(row) for row in rows]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Softmax probabilities, float32 (texts, labels), in the order given."""
        rows, _ = encode(self._tokenizer, texts, max_length=self.record.max_length)
        out = np.zeros((len(rows), len(self.record.labels)), dtype=np.float32)

        def answer(indices: list[int], ids: torch.Tensor, mask: torch.Tensor) -> None:
            out[indices] = sentence_logits(self._model, ids, mask).softmax(-1).cpu().numpy()

        each(batches(self._model, self._tokenizer, rows, self._batch_size), answer)
        return out
