"""Embeddings of a frozen base: what finds texts that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from infra.inference.batches import batches, each
from infra.models import BaseModel, encode, load_encoder, load_tokenizer, mean_over_tokens

if TYPE_CHECKING:
    import torch


def embed(
    base: BaseModel, texts: Sequence[str], *, batch_size: int = 64, max_length: int = 256
) -> np.ndarray:
    """Embeddings of the frozen, unquantised base: float32 (texts, width), mean pooled, L2-normalised."""
    from torch.nn.functional import normalize

    model, tokenizer = load_encoder(base), load_tokenizer(base)
    rows, _ = encode(tokenizer, texts, max_length=max_length)
    out = np.zeros((len(rows), model.config.hidden_size), dtype=np.float32)

    def place(indices: list[int], ids: torch.Tensor, mask: torch.Tensor) -> None:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        out[indices] = normalize(mean_over_tokens(hidden, mask)).cpu().numpy()

    each(batches(model, tokenizer, rows, batch_size), place)
    return out
