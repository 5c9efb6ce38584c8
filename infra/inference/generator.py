"""Answers conversations with a decoder: greedily, so that the same model gives the same answer.

Prompts are padded on the left by a rule that heeds the prompt alone, as in `batches`. What a minibatch's size
does to the last bits of a sum remains: two tokens that are likely to within it may change places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.chat import prompt_ids, stop_token_ids
from infra.inference.batches import batches, each
from infra.inference.record import AdapterRecord
from infra.inference.tuned import load_tuned
from infra.models import BaseModel, Dtype, Quantization, load_causal, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_THOUGHT = "</think>"


@dataclass(frozen=True)
class Generated:
    """What a decoder answered to one conversation."""

    text: str
    """Without special tokens; and without what was thought before, where the template knows <think>."""
    token_ids: list[int]
    """All that was generated, the token that ended it included."""
    confidence: float
    """Mean probability of these tokens; 0 where there is none."""
    stopped: bool
    """Did the model end its answer? If not, max_new_tokens or the model's context did."""


class Generator:
    """A decoder in eval mode, fine-tuned or as it is."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        record: AdapterRecord | None = None,
    ) -> None:
        """Answer with `model`; a bare base has no record."""
        self.record = record
        self.model = model
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, base: BaseModel, folder: str | Path, *, device: str = "cpu") -> Generator:
        """Load a folder that training saved. Raises ModelError, as load_tuned does."""
        return cls(*load_tuned(base, folder, device=device, expected=("sft", "dpo")))

    @classmethod
    def of_base(
        cls,
        base: BaseModel,
        quantization: Quantization | None = None,
        *,
        device: str = "cpu",
        dtype: Dtype = "float32",
    ) -> Generator:
        """Answer with the base alone, as before any fine-tuning."""
        model, _ = load_causal(base, quantization=quantization, seed=0, device=device, dtype=dtype)
        return cls(model, load_tokenizer(base))

    def generate(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        *,
        max_new_tokens: int = 256,
        batch_size: int = 64,
    ) -> list[Generated]:
        """One answer per conversation, in the order given; no conversations give an empty list.

        Conversations are messages as the column `messages` stores them, or as chat templates take them. One
        that fills the model's context gets an empty answer that is not stopped. Raises ChatError where one
        cannot be written.
        """
        if not conversations:
            return []
        stops = stop_token_ids(self.tokenizer)
        rows = [prompt_ids(self.tokenizer, messages) for messages in conversations]
        config: Any = self.model.config
        context = getattr(config.get_text_config(), "max_position_embeddings", None)
        most = [min(max_new_tokens, context - len(row) if context else max_new_tokens) for row in rows]
        asked = [index for index, row in enumerate(rows) if row and most[index] > 0]
        written: list[list[tuple[int, float]]] = [[] for _ in rows]

        def answer(places: list[int], ids: torch.Tensor, mask: torch.Tensor) -> None:
            indices = [asked[place] for place in places]
            answers = _continue(self.model, ids, mask, most=[most[i] for i in indices], stops=stops)
            for index, tokens in zip(indices, answers, strict=True):
                written[index] = tokens

        prompts = [rows[index] for index in asked]
        each(batches(self.model, self.tokenizer, prompts, batch_size, side="left"), answer)
        return [self._generated(tokens, stops) for tokens in written]

    def lengths(self, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[int]:
        """How many tokens each conversation has, as it is asked. Raises ChatError, as `generate` does."""
        return [len(prompt_ids(self.tokenizer, messages)) for messages in conversations]

    def _generated(self, tokens: list[tuple[int, float]], stops: frozenset[int]) -> Generated:
        token_ids = [token for token, _ in tokens]
        stopped = bool(token_ids) and token_ids[-1] in stops
        said = token_ids[:-1] if stopped else token_ids
        text = str(self.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        if _THOUGHT in text and _THOUGHT in self.tokenizer.get_chat_template():
            text = text.rpartition(_THOUGHT)[2].lstrip("\n")  # as such a template takes an answer apart
        confidence = sum(likelihood for _, likelihood in tokens) / len(tokens) if tokens else 0.0
        return Generated(text, token_ids, confidence, stopped)


def _continue(
    model: torch.nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    *,
    most: Sequence[int],
    stops: frozenset[int],
) -> list[list[tuple[int, float]]]:
    """The likeliest tokens behind left-padded rows, with their probabilities, up to `most` each."""
    import torch

    written: list[list[tuple[int, float]]] = [[] for _ in most]
    rows = list(range(len(most)))  # those that go on
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = None
    while rows:
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        likelihoods, tokens = out.logits[:, -1].float().softmax(-1).max(-1)
        for row, token, likelihood in zip(rows, tokens.tolist(), likelihoods.tolist(), strict=True):
            written[row].append((token, likelihood))
        on = [
            n
            for n, row in enumerate(rows)
            if written[row][-1][0] not in stops and len(written[row]) < most[row]
        ]
        if len(on) < len(rows):
            rows = [rows[n] for n in on]
            going = torch.tensor(on, dtype=torch.int64, device=ids.device)
            tokens, mask, positions = tokens[going], mask[going], positions[going]
            if rows:
                cache.batch_select_indices(going)
        ids, positions = tokens.unsqueeze(-1), positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], dim=-1)
    return written
