"""One tag per word: named entities, as spans of characters in the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import pyarrow as pa

from infra.models import BaseModel, bio_labels, encode_tags, load_tokenizer
from lineage.spans import Span, parse_spans
from training.encoded import NO_LOSS, Encoded, Sequences
from training.objectives.objective import Minibatch, fit_into
from training.recipe import TrainingConfig, TrainingError

if TYPE_CHECKING:
    import torch


class TokenClassification:
    """Every word's first token is one loss token; the answer is the JSON list of spans (lineage.spans)."""

    columns: ClassVar[tuple[str, ...]] = ("text", "answer")

    def labels(self, rows: pa.Table) -> Sequence[str]:
        """`O`, and begin and inside of each kind of entity among the rows, sorted."""
        return bio_labels(sorted({span.label for spans in _spans(rows) for span in spans}))

    def encode(
        self, rows: pa.Table, labels: Sequence[str], *, base: BaseModel, config: TrainingConfig
    ) -> Encoded:
        """Every kind of entity must be among `labels`."""
        spans = _spans(rows)
        if unknown := sorted({s.label for each in spans for s in each if f"B-{s.label}" not in labels}):
            raise TrainingError(
                f"the rows have entities of kinds {unknown}, which are not among the labels to learn"
            )
        tokenizer = load_tokenizer(base)
        given = [[(s.start, s.end, s.label) for s in each] for each in spans]
        input_ids, tags, n_cut = encode_tags(
            tokenizer, rows["text"].to_pylist(), given, labels, max_length=config.max_length
        )
        sequences = Sequences.of(input_ids, tags)
        n_loss, dropped = fit_into(sequences, config, n_cut=n_cut)
        return Encoded((sequences,), n_loss, n_cut, dropped, cast(int, tokenizer.pad_token_id))

    def loss_sum(self, model: torch.nn.Module, minibatch: Minibatch, config: TrainingConfig) -> torch.Tensor:
        """Cross-entropy summed over words."""
        from torch.nn.functional import cross_entropy

        (batch,) = minibatch.batches
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
        return cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=NO_LOSS, reduction="sum"
        )


def _spans(rows: pa.Table) -> list[tuple[Span, ...]]:
    texts, answers = rows["text"].to_pylist(), rows["answer"].to_pylist()
    return [parse_spans(answer, text) for answer, text in zip(answers, texts, strict=True)]
