"""QLoRA of an 8B decoder on one NVIDIA GPU: `python benchmarks/qlora_gpu.py [--batch 2] [--steps 20]`.

A Llama-3-8B shape of random weights, so nothing is downloaded: every linear layer is drawn and quantised on
its own (NF4, double quantisation, bfloat16 products), LoRA r=32 on all of them, sequences of 2,048 tokens
packed from rows of 128 to 1,024 of which two thirds are learnt, no gradient checkpointing where it fits.
First our objective's loss, then TRL's SFTTrainer where trl is installed: tokens a second and peak memory.

The script needs torch, transformers, peft and bitsandbytes, and the package `training` beside it for our
loss; without CUDA it says so and ends. `--tiny` walks the same path with a tiny shape on the CPU: a check of
the script, not a measurement. The last line is JSON.

Published, each in another setting: torchtune, Llama-3.1-8B QLoRA, RTX 4090, batch 2, packed 2,048, compiled:
2,413 tokens/s in 7.4 GiB (its README). NeMo AutoModel, Llama-3-8B LoRA in bfloat16, not quantised, H100,
sequences of 4,096: 12,473 tokens/s (docs/performance-summary.mdx). For 8B in NF4 on an H100 none was found.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies one that bears a package's name

WARM_UP = 2
RATE = 2e-4
Pack = list[tuple[list[int], list[int]]]  # token ids and labels of each row; -100 = no loss


@dataclass(frozen=True)
class Shape:
    """What is trained, and on what."""

    device: str
    vocab_size: int = 128_256
    hidden_size: int = 4096
    intermediate_size: int = 14_336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    sequence: int = 2048
    row: tuple[int, int] = (128, 1024)
    r: int = 32


TINY = Shape("cpu", 512, 64, 128, 2, 4, 2, sequence=128, row=(8, 64))


@dataclass(frozen=True)
class Measured:
    """A contestant's figures."""

    name: str
    tokens_per_s: float
    peak_gb: float
    batch: int
    recomputes: bool
    first_loss: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second of QLoRA on a GPU.")
    parser.add_argument(
        "--batch", type=int, default=2, help="Sequences in a step; halved where memory is short."
    )
    parser.add_argument("--steps", type=int, default=20, help="Steps that are timed.")
    parser.add_argument("--tiny", action="store_true", help="Test this script on the CPU.")
    options = parser.parse_args()
    import torch

    if not options.tiny and not torch.cuda.is_available():
        print("No NVIDIA GPU is here, so nothing is measured; --tiny tests this script on the CPU.")
        return
    shape = TINY if options.tiny else Shape("cuda")
    where = "CPU, tiny: no measurement" if options.tiny else torch.cuda.get_device_name()
    attention = attention_of(shape)
    print(f"{where}; NF4, double quantisation, r={shape.r}, packed {shape.sequence}, bfloat16, {attention}")
    print(f"{'':<30}{'tokens/s':>10}{'peak GB':>9}{'batch':>7}{'checkpointing':>15}{'first loss':>12}")
    measured = [fitting(run_ours, shape, options.batch, options.steps)]
    if importlib.util.find_spec("trl"):
        measured.append(fitting(run_trl, shape, options.batch, options.steps))
    else:
        print("trl is not installed: not measured")
    figures: dict[str, Any] = {"gpu": None if options.tiny else where}
    for each in measured:
        print(
            f"{each.name:<30}{each.tokens_per_s:>10.0f}{each.peak_gb:>9.1f}{each.batch:>7}"
            f"{'yes' if each.recomputes else 'no':>15}{each.first_loss:>12.3f}"
        )
        figures[each.name] = {"tokens_per_s": round(each.tokens_per_s), "peak_gb": round(each.peak_gb, 1)}
    print(json.dumps(figures))


def fitting(
    run: Callable[[Shape, int, int, bool], Measured], shape: Shape, batch: int, steps: int
) -> Measured:
    """The contestant with as much at once as memory holds; it recomputes where one sequence is too much."""
    import torch

    recomputes = False
    while True:
        gc.collect()
        if shape.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            return run(shape, batch, steps, recomputes)
        except torch.OutOfMemoryError:
            if batch == 1 and recomputes:
                raise
        batch, recomputes = max(1, batch // 2), batch == 1


# --- the work


def packs(shape: Shape, count: int) -> list[Pack]:
    """Sequences of rows of random tokens, filled to the last token; a third of each row is its prompt."""
    drawn = random.Random(0)
    found = []
    for _ in range(count):
        pack: Pack = []
        left = shape.sequence
        while left:
            length = min(left, drawn.randint(*shape.row))
            ids = [drawn.randrange(2, shape.vocab_size) for _ in range(length)]
            prompt = max(1, length // 3)
            pack.append((ids, [-100] * prompt + ids[prompt:]))
            left -= length
        found.append(pack)
    return found


def quantised_model(shape: Shape) -> Any:
    """A Llama of random weights, on the device layer by layer: never more than one layer in bfloat16."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        attn_implementation=attention_of(shape),
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)

    def drawn(like: torch.Tensor) -> torch.Tensor:
        return torch.empty(like.shape, dtype=torch.bfloat16, device=shape.device).normal_(std=0.02)

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            small = Linear4bit(
                module.in_features,
                module.out_features,
                bias=False,
                compute_dtype=torch.bfloat16,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
            weight: Any = Params4bit(
                drawn(module.weight),
                requires_grad=False,
                compress_statistics=True,
                quant_type="nf4",
                module=small,
            )
            small.weight = weight.to(shape.device)  # quantises
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, small)
    for name, parameter in list(model.named_parameters()):
        if parameter.device.type == "meta":
            parent, _, last = name.rpartition(".")
            values = drawn(parameter) if parameter.dim() > 1 else drawn(parameter).fill_(1.0)
            setattr(model.get_submodule(parent), last, torch.nn.Parameter(values, requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(shape.device)
    model.is_loaded_in_4bit = True  # peft and trl ask
    return model


def attention_of(shape: Shape) -> str:
    """The fastest attention that keeps packed rows apart here."""
    there = shape.device == "cuda" and importlib.util.find_spec("flash_attn")
    return "flash_attention_2" if there else "sdpa"


def lora(shape: Shape) -> Any:
    """Adapters on every linear layer but the head."""
    from peft import LoraConfig

    return LoraConfig(r=shape.r, lora_alpha=2 * shape.r, target_modules="all-linear", task_type="CAUSAL_LM")


# --- ours


def run_ours(shape: Shape, batch: int, steps: int, recomputes: bool) -> Measured:
    """The loss of our objective, one pass a step; adapters in float32, products in bfloat16."""
    import torch
    from peft import get_peft_model

    model: Any = get_peft_model(quantised_model(shape), lora(shape))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    if recomputes:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    name, loss_of = our_loss(shape)
    optimizer = torch.optim.AdamW(trained, lr=RATE, fused=True)
    model.train()
    fed = packs(shape, batch * (steps + WARM_UP))
    seconds, losses = [], []
    for step in range(steps + WARM_UP):
        synchronise(shape)
        began = time.perf_counter()
        with torch.autocast(shape.device, torch.bfloat16):
            loss = loss_of(model, fed[step * batch : (step + 1) * batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        synchronise(shape)
        seconds.append(time.perf_counter() - began)
    return measured(name, shape, batch, recomputes, seconds, losses[0])


def our_loss(shape: Shape) -> tuple[str, Callable[[Any, list[Pack]], Any]]:
    """What turns sequences into the mean loss of their answers' tokens."""
    try:
        from training.encoded import Sequences
        from training.encoded import batch as batch_of
        from training.objectives.causal import target_losses
    except ImportError as error:
        print(f"our objective cannot be imported ({error}): the model's own loss stands in for it")
        return "transformers", lambda model, fed: plain_loss(model, fed, shape)

    def loss(model: Any, fed: list[Pack]) -> Any:
        rows = [row for pack in fed for row in pack]
        # the first token of a row has no loss: with packing another row comes before it
        sequences = Sequences.of([ids for ids, _ in rows], [[-100, *labels[1:]] for _, labels in rows])
        ends = list(accumulate(len(pack) for pack in fed))
        places = [range(end - len(pack), end) for end, pack in zip(ends, fed, strict=True)]
        if attention_of(shape) == "flash_attention_2":
            places = [
                range(len(rows))
            ]  # in a batch of two lines transformers' path for it takes no heed of rows
        given = batch_of(sequences, places, pad_token_id=0, packed=True).to(shape.device)
        return target_losses(model, given)[0].mean()

    return "stemma", loss


def plain_loss(model: Any, fed: list[Pack], shape: Shape) -> Any:
    """The loss that transformers computes, logits of every token included."""
    import torch

    def tensor(rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=shape.device)

    return model(
        input_ids=tensor([[token for ids, _ in pack for token in ids] for pack in fed]),
        position_ids=tensor([[place for ids, _ in pack for place in range(len(ids))] for pack in fed]),
        labels=tensor([[label for _, labels in pack for label in labels] for pack in fed]),
    ).loss


# --- TRL


def run_trl(shape: Shape, batch: int, steps: int, recomputes: bool) -> Measured:
    """SFTTrainer over the same sequences, as its packer would leave them."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    seconds: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            synchronise(shape)
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            synchronise(shape)
            seconds.append(time.perf_counter() - self.began)

    class Told(SFTTrainer):
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss = super().compute_loss(*given, **named)
            losses.append(float(loss.detach()))
            return loss

    fed = packs(shape, batch * (steps + WARM_UP))
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<eos>"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Told(
            model=quantised_model(shape),
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=batch,
                max_steps=steps + WARM_UP,
                max_length=shape.sequence,
                packing=True,
                packing_strategy="bfd",
                dataset_kwargs={"skip_prepare_dataset": True},
                train_sampling_strategy="sequential",
                optim="adamw_torch_fused",
                learning_rate=RATE,
                lr_scheduler_type="constant",
                warmup_steps=0,
                gradient_checkpointing=recomputes,
                bf16=True,
                use_cpu=shape.device == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(
                {
                    "input_ids": [[token for ids, _ in pack for token in ids] for pack in fed],
                    "labels": [[label for _, labels in pack for label in labels] for pack in fed],
                    "seq_lengths": [[len(ids) for ids, _ in pack] for pack in fed],
                }
            ),
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"
            ),
            peft_config=lora(shape),
            callbacks=[Clock()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return measured("trl", shape, batch, recomputes, seconds, losses[0])


# --- figures


def measured(
    name: str, shape: Shape, batch: int, recomputes: bool, seconds: list[float], first_loss: float
) -> Measured:
    """The median step's; every token of a sequence is a row's."""
    import torch

    peak = torch.cuda.max_memory_allocated() / 1e9 if shape.device == "cuda" else 0.0
    each = statistics.median(seconds[WARM_UP:])
    return Measured(name, batch * shape.sequence / each, peak, batch, recomputes, first_loss)


def synchronise(shape: Shape) -> None:
    import torch

    if shape.device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
