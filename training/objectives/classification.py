"""One label per text; each row is one loss token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import pyarrow as pa

from infra.models import BaseModel, encode, load_tokenizer, sentence_logits
from training.encoded import NO_LOSS, Encoded, Sequences
from training.objectives.objective import Minibatch, fit_into
from training.recipe import TrainingConfig, TrainingError

if TYPE_CHECKING:
    import torch


class SequenceClassification:
    """The label stands at the text's first token; the logits are those of the whole sentence."""

    columns: ClassVar[tuple[str, ...]] = ("text", "answer")

    def labels(self, rows: pa.Table) -> Sequence[str]:
        """Every label of the rows, sorted."""
        return sorted(set(rows["answer"].to_pylist()))

    def encode(
        self, rows: pa.Table, labels: Sequence[str], *, base: BaseModel, config: TrainingConfig
    ) -> Encoded:
        """Every label must be one of `labels`."""
        index = {label: position for position, label in enumerate(labels)}
        texts, named = rows["text"].to_pylist(), rows["answer"].to_pylist()
        if unknown := sorted({str(label) for label in named} - index.keys()):
            raise TrainingError(
                f"{len(unknown)} labels of the rows are not among the {len(labels)} labels to learn, "
                f"first '{unknown[0]}'; add them or leave the rows out"
            )
        if None in texts:
            raise TrainingError(f"row {texts.index(None)} has no text; an empty text is allowed, null is not")
        tokenizer = load_tokenizer(base)
        input_ids, n_cut = encode(tokenizer, texts, max_length=config.max_length)
        targets = [
            [index[label], *[NO_LOSS] * (len(ids) - 1)] for ids, label in zip(input_ids, named, strict=True)
        ]
        sequences = Sequences.of(input_ids, targets)
        n_loss, dropped = fit_into(sequences, config, n_cut=n_cut)
        return Encoded((sequences,), n_loss, n_cut, dropped, cast(int, tokenizer.pad_token_id))

    def loss_sum(self, model: torch.nn.Module, minibatch: Minibatch, config: TrainingConfig) -> torch.Tensor:
        """Cross-entropy of the sentence's logits, summed over rows."""
        from torch.nn.functional import cross_entropy

        (batch,) = minibatch.batches
        assert batch.attention_mask is not None
        logits = sentence_logits(model, batch.input_ids, batch.attention_mask)
        return cross_entropy(logits, batch.targets[:, 0], reduction="sum")
