"""How likely a decoder holds the right answers, as its template writes them.

perplexity = exp(-sum of log-likelihoods / sum of tokens)   over the answers' tokens, stop token included
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from infra.chat import render
from infra.inference import Generator
from training.encoded import NO_LOSS, batch
from training.minibatches import FEWEST_PASSES, PASS_TOKENS, cut
from training.objectives.causal import sequences_of
from training.objectives.dpo import log_probabilities

_MOST = 32
"""Rows in a forward pass."""


def likelihoods(
    generator: Generator,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    answers: Sequence[str | None],
    calls: Sequence[str | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood (natural) of each answer with its tool calls, float64 (rows,); and its tokens, int64.

    What does not fit into the model's context is cut at its end: tokens behind it are in neither.
    """
    import torch

    model, tokenizer = cast(Any, generator.model), generator.tokenizer
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    rendered = [
        render(tokenizer, messages, answer, answer_tool_calls=called, loss_on="answer")
        for messages, answer, called in zip(conversations, answers, calls, strict=True)
    ]
    sequences, _ = sequences_of(rendered, max_length=context)
    counts = np.add.reduceat(
        np.append(sequences.targets != NO_LOSS, False).astype(np.int64), sequences.starts[:-1]
    )
    device = next(model.parameters()).device
    pass_tokens = PASS_TOKENS if device.type == "cpu" else FEWEST_PASSES
    found = np.zeros(len(rendered))
    with torch.inference_mode():
        for part in cut(sequences.lengths, most=_MOST, pass_tokens=pass_tokens):
            fed = batch(
                sequences, [[int(row)] for row in part], pad_token_id=cast(int, tokenizer.pad_token_id)
            )
            found[part] = log_probabilities(model, fed.to(str(device))).double().cpu().numpy()
    return found, counts
