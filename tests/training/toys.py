"""Toy decoders with random weights, conversations of a few words, and a training without Ray."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from infra.models import BaseModel, resolve
from training.assignment import Assignment
from training.feeding import accumulate
from training.loop import Trained, train
from training.tiny.tokenizer import make_tokenizer
from training.tunable import as_it_was, trained_of

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256}
SAID = ("What is 3 + 4? ones 3+4=07 #### 7", "Add 20 and 5. tens 2+0=02 #### 25")


def decoder(folder: Path, kind: str = "llama", *, change: Any = None, **sizes: Any) -> BaseModel:
    """A random decoder with the tiny one's tokenizer and template; `change` may change its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer(SAID, vocab_size=300, model_max_length=256)
    tokenizer.save_pretrained(folder)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        initializer_range=0.3,
        **{"tie_word_embeddings": False} | SIZES | ids | sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    if change:
        with torch.no_grad():
            change(model)
    model.save_pretrained(folder)
    return resolve(str(folder))


def rows_of(pairs: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Example rows, numbered from 100, each from its `asked` (a question or messages), `answer` and so on."""
    told = []
    for number, pair in enumerate(pairs):
        asked = pair["asked"]
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        told.append(
            {
                "row_no": 100 + number,
                "row_id": hashlib.blake2b(json.dumps(pair).encode(), digest_size=16).digest(),
                "messages": [{"tool_calls": None} | message for message in messages],
                "answer": pair["answer"],
                "answer_tool_calls": pair.get("calls"),
                "rejected": pair.get("rejected"),
            }
        )
    schema = pa.schema(
        [
            ("row_no", pa.int64()),
            ("row_id", pa.binary()),
            (
                "messages",
                pa.list_(pa.struct([(name, pa.string()) for name in ("role", "content", "tool_calls")])),
            ),
            ("answer", pa.string()),
            ("answer_tool_calls", pa.string()),
            ("rejected", pa.string()),
        ]
    )
    return pa.Table.from_pylist(told, schema=schema)


def sums(n: int) -> pa.Table:
    """`n` rows of sums, their answers of unequal length, each with a worse one."""
    steps = ("", "ones first, ", "ones first, then the tens, and what is carried, ")
    return rows_of(
        [
            {
                "asked": f"What is {number} + {3 * number}?" + " Please." * (number % 2),
                "answer": f"{steps[number % 3]}#### {4 * number}",
                "rejected": f"{steps[(number + 1) % 3]}#### {4 * number + 1}",
            }
            for number in range(1, n + 1)
        ]
    )


def trained(
    assignment: Assignment, folder: Path, *, run_id: str = "run-1", cache: Path | None = None, on_step=None
) -> Trained:
    """Trained in this process, by the loop alone; the model lies in `folder`/model."""
    work = folder / "work"
    with as_it_was():
        return train(assignment, run_id=run_id, work=work, out=folder / "model", cache=cache, on_step=on_step)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """With adapters that say something: fresh ones give nothing, and half of their gradient is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def gradients(
    model: torch.nn.Module, assignment: Assignment, *, most: int, world_size: int = 1, reference=None
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of the first step, summed over the ranks of a world."""
    model.zero_grad()
    model.train()
    loss = 0.0
    for rank in range(world_size):
        packs = assignment.packs_of(0, rank=rank, world_size=world_size)
        tokens = assignment.loss_tokens_of(0)
        loss += accumulate(model, assignment, packs, loss_tokens=tokens, most=most, reference=reference).loss
    return loss, {name: p.grad.clone() for name, p in trained_of(model).items() if p.grad is not None}


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Every gradient is the expected one to 1e-5 of its largest entry, and none is zero throughout."""
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        largest = wanted.abs().max().item()
        assert largest > 0, name
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5 * largest, msg=name)
