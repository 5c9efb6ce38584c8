"""Trains the tiny decoder from scratch: a Llama of under a million parameters that answers sums, in minutes.

    Pretraining -> draw problems -> tokenizer -> LlamaForCausalLM -> folder (config, weights, tokenizer)

Two thirds of the problems are answered directly and the rest in steps, so a fine-tuning has either way to
choose from. Left alone, the base answers directly, and is wrong: of 300 held-out sums it gets 1 % directly,
and 99 % in steps with seed 0, 100 % with seed 1. No problem comes twice. The same recipe gives the same
weights on the same machine, byte for byte; elsewhere they differ, as sums of floats do.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.tiny.problems import Problem, draw
from training.tiny.tokenizer import make_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("stemma.pretrain")

_TOKENIZER_TEXTS = 2000  # every word of the problems many times over
_LOG_EVERY = 100


@dataclass(frozen=True)
class Pretraining:
    """Everything that decides the weights, but for the machine."""

    digits: int = 3
    """Of both numbers of a sum."""
    hidden_size: int = 128
    """A multiple of 64, so that blocks of 4-bit quantisation do not straddle rows; so the next."""
    intermediate_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    max_position_embeddings: int = 256
    vocab_size: int = 384
    """At most; 256 are bytes."""

    steps: int = 900
    train_batch_size: int = 48
    """Problems a step."""
    direct_share: float = 2 / 3
    """Of the problems that are answered directly: the harder thing to learn, and the shorter."""
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.1
    seed: int = 0
    torch_threads: int = 1
    """The weights depend on it, so it is said and not taken from the machine. Two gain a third on idle cores,
    and lose much more beside another busy process."""

    @property
    def digest(self) -> str:
        """16 hex digits over all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Pretrained:
    """What was measured on the way."""

    parameters: int
    losses: tuple[float, ...]
    """Nats a token of an answer, of each step."""
    seconds: float
    compute_dtype: str


def pretrain(recipe: Pretraining, folder: Path) -> Pretrained:
    """Train and write the model with its tokenizer into the folder. Torch's random state stays as it was."""
    import torch

    problems = draw(
        recipe.steps * recipe.train_batch_size, side="pretraining", digits=recipe.digits, seed=recipe.seed
    )
    tokenizer = make_tokenizer(
        [f"{problem.question} {problem.steps}" for problem in problems[:_TOKENIZER_TEXTS]],
        vocab_size=recipe.vocab_size,
        model_max_length=recipe.max_position_embeddings,
    )
    # where the processor has no bfloat16 it would be emulated, at several times the cost
    dtype = torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32
    started = time.perf_counter()
    with _own_torch(recipe):
        model = _fresh_model(recipe, tokenizer)
        losses = _fit(model, recipe, problems, tokenizer, dtype)
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return Pretrained(
        parameters=sum(p.numel() for p in model.parameters()),
        losses=tuple(losses),
        seconds=time.perf_counter() - started,
        compute_dtype=str(dtype).removeprefix("torch."),
    )


def _fresh_model(recipe: Pretraining, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    special: dict[str, Any] = {
        name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_hidden_layers,
        num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_attention_heads,
        max_position_embeddings=recipe.max_position_embeddings,
        tie_word_embeddings=True,
        # Llama's 0.02 is for wide models: at this width the steps are learnt three times as slowly with it
        initializer_range=recipe.hidden_size**-0.5,
        **special,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # fused attention's backward takes twice as long in bfloat16
    return model


def _fit(
    model: Any,
    recipe: Pretraining,
    problems: Sequence[Problem],
    tokenizer: PreTrainedTokenizerFast,
    dtype: torch.dtype,
) -> list[float]:
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_at(step, recipe))
    model.train()
    losses: list[float] = []
    for step in range(recipe.steps):
        mine = problems[step * recipe.train_batch_size : (step + 1) * recipe.train_batch_size]
        passes = [_encoded(kind, tokenizer) for kind in _by_kind(mine, recipe.direct_share)]
        targets = sum(int((labels != -100).sum()) for _, labels in passes)
        loss = 0.0
        for input_ids, labels in passes:  # one kind of answer each: rows of like length, little padding
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                hidden = model.model(input_ids=input_ids).last_hidden_state[:, :-1]
                predicting = labels[:, 1:] != -100
                logits = model.lm_head(hidden[predicting])
            wanted = labels[:, 1:][predicting]
            part = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum") / targets
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        losses.append(loss)
        if (step + 1) % _LOG_EVERY == 0:
            log.info("pretrain: step %d of %d, loss %.3f", step + 1, recipe.steps, loss)
    return losses


def _by_kind(problems: Sequence[Problem], direct_share: float) -> Iterator[list[tuple[str, str]]]:
    """Question and answer of each problem: those that are answered directly, then those in steps."""
    first = round(len(problems) * direct_share)
    yield [(problem.question, problem.direct) for problem in problems[:first]]
    yield [(problem.question, problem.steps) for problem in problems[first:]]


def _encoded(
    pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids as the chat template has them, and labels: int64 (pairs, length), -100 = no loss."""
    import torch

    told: Any = tokenizer.apply_chat_template(
        [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in pairs
        ],
        return_dict=True,
        return_assistant_tokens_mask=True,
        padding=True,
        return_tensors="pt",
    )
    input_ids: torch.Tensor = told["input_ids"]
    answered = torch.as_tensor(told["assistant_masks"]).bool()
    return input_ids, input_ids.masked_fill(~answered, -100)


def _rate_at(step: int, recipe: Pretraining) -> float:
    """Share of the peak rate: a linear warm-up, then a cosine down to nothing."""
    rising = min(1.0, (step + 1) / recipe.warmup_steps)
    return rising * (1 + math.cos(math.pi * step / recipe.steps)) / 2


@contextmanager
def _own_torch(recipe: Pretraining) -> Iterator[None]:
    """The recipe's seed and threads for a while."""
    import torch

    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            torch.set_num_threads(recipe.torch_threads)
            yield
    finally:
        torch.set_num_threads(threads)
