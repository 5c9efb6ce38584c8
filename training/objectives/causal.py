"""What decoders' objectives share: the loss of each token that counts, and of no other.

The head is only applied where the loss looks: of a prompt of a thousand tokens and an answer of ten, ten rows
of logits are made, not a thousand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from infra.models import BaseModel, load_tokenizer
from training.encoded import NO_LOSS, Batch, Sequences
from training.guards import GuardError
from training.recipe import TrainingConfig, TrainingError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from infra.chat import Rendered

_APART = 0.02  # bfloat16 moved logits by up to 0.008 of the largest with another batch shape
_MOST_LOGITS = 1 << 26
"""float32 numbers, 256 MB: more logits at once are computed in parts, and again in the backward pass."""


def tokenizer_of(base: BaseModel, config: TrainingConfig) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with the config's chat template where it names one."""
    tokenizer = load_tokenizer(base)
    if config.chat_template_path is not None:
        try:
            tokenizer.chat_template = Path(config.chat_template_path).read_text(encoding="utf-8")
        except OSError as error:
            raise TrainingError(
                f"chat_template_path = '{config.chat_template_path}' cannot be read: {error.strerror}"
            ) from error
    return tokenizer


def sequences_of(rendered: list[Rendered], *, max_length: int) -> tuple[Sequences, np.ndarray]:
    """Conversations as fed, cut at their ends to `max_length`; and how many tokens each lost (int32).

    The first token has no loss: nothing comes before it, or, with packing, another row.
    """
    targets = []
    for each in rendered:
        wanted = [
            token if counts else NO_LOSS for token, counts in zip(each.input_ids, each.loss, strict=True)
        ]
        targets.append([NO_LOSS, *wanted[1:max_length]])
    n_cut = np.array([max(0, len(each.input_ids) - max_length) for each in rendered], dtype=np.int32)
    return Sequences.of([each.input_ids[:max_length] for each in rendered], targets), n_cut


def learnt(answer: str | None, *, chain_of_thought: bool) -> str | None:
    """What of an answer is learnt: all of it, or from the last `####` on, without the steps before it."""
    if answer is None or chain_of_thought or "####" not in answer:
        return answer
    return answer[answer.rindex("####") :]


def target_losses(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each target, float32 (targets,), and the line of the batch it stands in, int64."""
    causal: Any = _without_adapters(model)
    if batch.position_ids is not None and causal.config._attn_implementation == "flash_attention_2":
        batch = batch.in_one_line()  # the first token of a line has no loss, so none is predicted across
    targets = batch.targets[:, 1:]
    counts = targets != NO_LOSS  # the output at place i is about token i + 1
    given: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    given |= {"position_ids": batch.position_ids, "use_cache": False}
    if _applies_head_plainly(causal):
        hidden = causal.get_decoder()(**given).last_hidden_state[:, :-1][counts]
        losses = _cross_entropies(causal.get_output_embeddings(), hidden, targets[counts])
    else:
        losses = _cross_entropies(
            lambda logits: logits, causal(**given).logits[:, :-1][counts], targets[counts]
        )
    return losses, counts.nonzero()[:, 0]


def require_rows_apart(model: torch.nn.Module) -> None:
    """Raise GuardError for a decoder in which a packed row sees the one before it: asked of it, not believed.

    Attention goes by position_ids; what else carries state along a sequence (convolutions, recurrences), or
    counts its places itself, does not.
    """
    import torch

    causal: Any = _without_adapters(model)
    ids = torch.arange(2, 14, device=causal.device) % causal.config.get_text_config().vocab_size
    second = torch.arange(6, device=causal.device)[None]
    was_training = causal.training
    causal.eval()
    with torch.no_grad():
        alone = causal(input_ids=ids[None, 6:], use_cache=False).logits.float()
        together = causal(
            input_ids=ids[None], position_ids=torch.cat([second, second], dim=1), use_cache=False
        ).logits.float()[:, 6:]
    causal.train(was_training)
    apart = float((together - alone).abs().max() / alone.abs().max().clamp_min(1e-9))
    if apart > _APART:
        raise GuardError(
            f"packed rows would see each other in {type(causal).__name__} (logits {apart:.1e} apart); set "
            "packing = false"
        )


def _cross_entropies(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    def of(part: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return cross_entropy(head(part).float(), wanted, reduction="none")

    width = getattr(head, "out_features", hidden.shape[-1])
    most = max(1, _MOST_LOGITS // width)
    if len(hidden) <= most:
        return of(hidden, targets)
    import torch

    parts = zip(hidden.split(most), targets.split(most), strict=True)
    return torch.cat([cast("torch.Tensor", checkpoint(of, *part, use_reentrant=False)) for part in parts])


def _without_adapters(model: Any) -> Any:
    """The causal model itself, adapters inside its layers."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _applies_head_plainly(causal: Any) -> bool:
    """Are the model's logits its head on the last hidden states, and nothing more? Asked of it once.

    Some cap or scale them (Gemma 2, Cohere, Granite); of those all logits are taken from the model itself.
    """
    known = getattr(causal, "_stemma_plain_head", None)
    if known is None:
        import torch

        probe = torch.arange(3, device=causal.device)[None] % causal.config.get_text_config().vocab_size
        was_training = causal.training
        causal.eval()  # dropout would tell the two passes apart, and draw numbers that a resumed run does not
        with torch.no_grad():
            try:
                hidden = causal.get_decoder()(input_ids=probe, use_cache=False).last_hidden_state
                found = causal.get_output_embeddings()(hidden).float()
                known = torch.allclose(
                    found, causal(input_ids=probe, use_cache=False).logits.float(), rtol=1e-3, atol=1e-3
                )
            except (AttributeError, TypeError, NotImplementedError):
                known = False
            finally:
                causal.train(was_training)
        causal._stemma_plain_head = known
    return known
