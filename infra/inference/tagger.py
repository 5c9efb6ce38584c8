"""Finds labelled spans in texts with a fine-tuned tagger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.inference.batches import batches, each
from infra.inference.record import AdapterRecord
from infra.inference.tuned import load_tuned
from infra.models import BaseModel, TaggedSpan
from infra.models.tagging import spans_of, split_words

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class Tagger:
    """A fine-tuned tagger of words, in eval mode."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        record: AdapterRecord,
        *,
        batch_size: int = 64,
    ) -> None:
        """Tag with `model`, whose head gives `record.labels`, BIO tags, in order."""
        self.record = record
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    @classmethod
    def load(
        cls, base: BaseModel, folder: str | Path, *, batch_size: int = 64, device: str = "cpu"
    ) -> Tagger:
        """Load a folder that training saved. Raises ModelError, as load_tuned does."""
        expected = ("token_classification",)
        model, tokenizer, record = load_tuned(base, folder, device=device, expected=expected)
        return cls(model, tokenizer, record, batch_size=batch_size)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text are read."""
        rows, _, _ = split_words(self._tokenizer, texts, max_length=self.record.max_length)
        return [len(row) for row in rows]

    def tag(self, texts: Sequence[str]) -> list[list[TaggedSpan]]:
        """The spans of each text from left to right, apart from each other; texts in the order given.

        The first token of a word decides its tag. What lies behind a text's first `max_length` tokens is not
        read, and bears no span.
        """
        rows, words_per_text, _ = split_words(self._tokenizer, texts, max_length=self.record.max_length)
        found: list[list[TaggedSpan]] = [[] for _ in rows]

        def answer(indices: list[int], ids: torch.Tensor, mask: torch.Tensor) -> None:
            likelihoods = self._model(input_ids=ids, attention_mask=mask).logits.float().softmax(-1)
            confidences, tags = (highest.tolist() for highest in likelihoods.max(-1))
            for place, index in enumerate(indices):
                words = words_per_text[index]
                found[index] = spans_of(
                    words,
                    [self.record.labels[tags[place][word.token]] for word in words],
                    [confidences[place][word.token] for word in words],
                )

        each(batches(self._model, self._tokenizer, rows, self._batch_size), answer)
        return found
