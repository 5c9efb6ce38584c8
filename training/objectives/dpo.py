"""Direct preference optimisation (Rafailov et al. 2023): the answer against the rejected one.

    loss of a row = -log sigmoid(beta ((log p(answer) - log p(rejected)) - the same of the frozen reference))

Log-probabilities are summed over the answer's tokens alone. Each row is one loss token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import pyarrow as pa

from infra.chat import render
from infra.models import BaseModel
from training.encoded import Batch, Encoded
from training.objectives.causal import learnt, sequences_of, target_losses, tokenizer_of
from training.objectives.objective import Minibatch, fit_into
from training.recipe import TrainingConfig, TrainingError

if TYPE_CHECKING:
    import torch


class DirectPreference:
    """Two conversations per row, alike but for their last turn."""

    columns: ClassVar[tuple[str, ...]] = ("messages", "answer", "answer_tool_calls", "rejected")

    def labels(self, rows: pa.Table) -> Sequence[str]:
        """None."""
        return ()

    def encode(
        self, rows: pa.Table, labels: Sequence[str], *, base: BaseModel, config: TrainingConfig
    ) -> Encoded:
        """The answers' sequences, then the rejected ones'. Raises TrainingError where a row has no second."""
        tokenizer = tokenizer_of(base, config)
        if missing := rows["rejected"].null_count:
            raise TrainingError(
                f"{missing} of {rows.num_rows} rows have no rejected answer; choose rows of preference: "
                'data.tasks = ["preference"]'
            )
        wanted = partial(learnt, chain_of_thought=config.chain_of_thought)
        both, n_cut, dropped = [], np.zeros(rows.num_rows, np.int32), {}
        asked, none = rows["messages"].to_pylist(), [None] * rows.num_rows
        for name, calls in (("answer", rows["answer_tool_calls"].to_pylist()), ("rejected", none)):
            rendered = [
                render(
                    tokenizer,
                    messages,
                    wanted(said),
                    answer_tool_calls=called,
                    loss_on="answer",
                )
                for messages, said, called in zip(asked, rows[name].to_pylist(), calls, strict=True)
            ]
            sequences, cut = sequences_of(rendered, max_length=config.max_length)
            both.append(sequences)
            n_cut += cut
            dropped |= fit_into(sequences, config, n_cut=cut)[1]
        n_loss = np.ones(rows.num_rows, np.int32)
        return Encoded(tuple(both), n_loss, n_cut, dropped, cast(int, tokenizer.pad_token_id))

    def loss_sum(self, model: torch.nn.Module, minibatch: Minibatch, config: TrainingConfig) -> torch.Tensor:
        """Summed over rows."""
        from torch.nn.functional import logsigmoid

        assert minibatch.reference is not None
        answer, rejected = (log_probabilities(model, each) for each in minibatch.batches)
        margin = (answer - rejected) - (minibatch.reference[:, 0] - minibatch.reference[:, 1])
        return -logsigmoid(config.beta * margin).sum()


def log_probabilities(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Of each line's targets together, float32 (lines,)."""
    import torch

    losses, lines = target_losses(model, batch)
    return -torch.zeros(len(batch.input_ids), device=losses.device).index_add(0, lines, losses)
