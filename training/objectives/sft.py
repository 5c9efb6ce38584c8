"""Supervised fine-tuning of a decoder: the tokens of the answer, its stop token included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import pyarrow as pa

from infra.chat import render
from infra.models import BaseModel
from training.encoded import Encoded
from training.objectives.causal import learnt, sequences_of, target_losses, tokenizer_of
from training.objectives.objective import Minibatch, fit_into
from training.recipe import TrainingConfig

if TYPE_CHECKING:
    import torch


class SupervisedFineTuning:
    """A conversation by the chat template; the loss is on what the config says, by default on the answer."""

    columns: ClassVar[tuple[str, ...]] = ("messages", "answer", "answer_tool_calls")

    def labels(self, rows: pa.Table) -> Sequence[str]:
        """None."""
        return ()

    def encode(
        self, rows: pa.Table, labels: Sequence[str], *, base: BaseModel, config: TrainingConfig
    ) -> Encoded:
        """One conversation per row."""
        tokenizer = tokenizer_of(base, config)
        columns = (rows[name].to_pylist() for name in self.columns)
        wanted = partial(learnt, chain_of_thought=config.chain_of_thought)
        rendered = [
            render(
                tokenizer,
                messages,
                wanted(answer),
                answer_tool_calls=calls,
                loss_on=_loss_on(config),
            )
            for messages, answer, calls in zip(*columns, strict=True)
        ]
        sequences, n_cut = sequences_of(rendered, max_length=config.max_length)
        n_loss, dropped = fit_into(sequences, config, n_cut=n_cut)
        return Encoded((sequences,), n_loss, n_cut, dropped, cast(int, tokenizer.pad_token_id))

    def loss_sum(self, model: torch.nn.Module, minibatch: Minibatch, config: TrainingConfig) -> torch.Tensor:
        """Cross-entropy summed over tokens."""
        (batch,) = minibatch.batches
        return target_losses(model, batch)[0].sum()


def _loss_on(config: TrainingConfig) -> Literal["answer", "assistant", "all"]:
    if config.completion_only_loss:
        return "answer"
    return "assistant" if config.assistant_only_loss else "all"
