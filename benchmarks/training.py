"""Our training loop beside TRL's SFTTrainer: `python benchmarks/training.py [--steps 24] [--rows 8]`.

A Llama of random weights, LoRA r=16 on every linear layer but the head, float32, one thread, no gradient
checkpointing, adamw_torch_fused, the loss on answers alone, chat rows of 20 to 400 tokens of which a third is
asked. Both loops eat the same rows in the same steps and take turns, step by step, in one process, so what
else the machine does falls on both alike; the losses of every step must agree within 1e-4. The ratio is
TRL's seconds over ours of the same step, the median over the steps; the first two are not counted. Tokens are
those of the rows, padding not counted.

TRL is measured at the setting that is the fastest for it here: of --trl-passes, rows in a forward pass (the
rest of a step by gradient accumulation), the best counts. On a CPU that is one, which pads nothing. Part of
what is left of the difference is the head: off Triton devices TRL 1.16 scores every position, the prompt's
too, with entropy and accuracy (trl.trainer.utils.add_fused_lm_head); ours is only applied to what is learnt.
On a GPU TRL leaves the prompt out as well, so these ratios say nothing about one.

Packed, with packing_strategy="bfd": TRL's collator lays a whole pass end to end in one line, without a mask;
position_ids begin anew in each row. It warns that only flash attention is known to keep rows apart, but
transformers reads the same position_ids for sdpa's masks (masking_utils.find_packed_sequence_indices) where
no mask is given, so no row sees another: what a row's logits are alone they are in its collator's line, which
is checked. Attention is paid for over the square of the line, so here too TRL is best with one sequence to a
pass. It is given our sequences, so that steps can be compared; its own packer must make as many of the rows.

`ledger_overhead`: CPU time of what TRL does not do (digests and log of what was fed, guards, the checksum of
the frozen weights and the adapters' digest at both ends, a state every 100 steps) over that of the steps,
the worse of both kinds; the ends are borne by the few steps of this run alone. The last line is JSON:
ratio_to_trl_unpacked, ratio_to_trl_packed, ledger_overhead.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies one that bears a package's name

import numpy as np
import pyarrow as pa
import torch

from infra.models import BaseModel, resolve
from training import feeding, guards, loop, states
from training.assignment import Assignment, assign
from training.ledger import FedLog
from training.recipe import TrainingConfig
from training.tiny.tokenizer import make_tokenizer

WARM_UP = 2
TRIAL_STEPS = 2
SAVE_STEPS = 100  # TrainingConfig's default; one state is saved and its cost spread over so many steps
SEQUENCE = 1024
VOCABULARY = 4096
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second beside TRL's SFTTrainer, on a CPU.")
    parser.add_argument("--steps", type=int, default=24, help="Steps that are timed.")
    parser.add_argument("--rows", type=int, default=8, help="Rows of a step, unpacked.")
    parser.add_argument("--sequences", type=int, default=2, help="Sequences of a step, packed.")
    parser.add_argument("--trl-passes", type=int, nargs="+", default=[1, 2, 8])
    options = parser.parse_args()
    _quiet()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base, parameters = make_base(folder / "base")
        size_m = parameters / 1e6
        print(f"Llama of {size_m:.1f} M parameters, vocabulary {VOCABULARY}, LoRA r=16, float32, 1 thread")
        print(f"{'':<20}{'rows a pass':>12}{'tokens/s':>10}{'per CPU s':>14}{'ratio':>8}{'of CPU s':>11}")
        ratios, overheads, loops = {}, {}, {}
        for kind, size in (("unpacked", options.rows), ("packed", options.sequences)):
            assignment = assigned(base, kind, size, options.steps + WARM_UP)
            passes = fastest_passes(assignment, folder, [n for n in options.trl_passes if n <= size])
            if assignment.config.packing:
                require_rows_apart(assignment)
            ours, theirs = side_by_side(assignment, folder / kind, passes)
            ratios[kind] = show(kind, ours, theirs, passes)
            overheads[kind], loops[kind] = ours.overhead, ours
        for kind, each in loops.items():
            print(f"losses, {kind}: {len(each.losses)} steps, furthest apart {each.furthest:.1e}")
        for kind, parts in overheads.items():
            told = ", ".join(f"{name} {share:.2%}" for name, share in parts.items())
            print(f"ledger and guards, {kind}: {sum(parts.values()):.2%} of CPU time ({told})")
    print(
        json.dumps(
            {
                "ratio_to_trl_unpacked": round(ratios["unpacked"], 2),
                "ratio_to_trl_packed": round(ratios["packed"], 2),
                "ledger_overhead": round(max(sum(parts.values()) for parts in overheads.values()), 4),
            }
        )
    )


# --- the work: a base, rows, and their plan


def make_base(folder: Path) -> tuple[BaseModel, int]:
    """A decoder of random weights with a tokenizer of its own, on disk; and its number of parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(
        (row["prompt"] + " " + row["answer"] for row in conversations(4000, seed=1)),
        vocab_size=VOCABULARY,
        model_max_length=2 * SEQUENCE,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2 * SEQUENCE,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return resolve(str(folder)), sum(p.numel() for p in model.parameters())


def conversations(count: int, *, seed: int) -> Iterator[dict[str, str]]:
    """Prompts and answers of 20 to 400 words in all, a third of them asked; a word is mostly one token."""
    drawn = random.Random(0)
    words = ["".join(drawn.choices(SYLLABLES, k=drawn.randint(1, 3))) for _ in range(3000)]
    drawn = random.Random(seed)
    for _ in range(count):
        length = drawn.randint(20, 400) - 4  # what the template adds
        said = drawn.choices(words, k=length)
        asked = max(1, round(length * drawn.uniform(0.25, 0.42)))
        yield {"prompt": " ".join(said[:asked]), "answer": " ".join(said[asked:])}


SYLLABLES = [
    first + last for first in "bdfgklmnprstvz" for last in ("a", "e", "i", "o", "u", "an", "el", "or")
]


def assigned(base: BaseModel, kind: str, size: int, steps: int) -> Assignment:
    """So many steps' rows, planned as a fine-tuning would have them."""
    rows_of_a_step = size if kind == "unpacked" else size * SEQUENCE // 215
    rows = list(conversations(steps * rows_of_a_step, seed=2))
    table = pa.table(
        {
            "row_no": range(len(rows)),
            "row_id": [hashlib.blake2b(b"%d" % n, digest_size=16).digest() for n in range(len(rows))],
            "messages": [[{"role": "user", "content": row["prompt"]}] for row in rows],
            "answer": [row["answer"] for row in rows],
            "answer_tool_calls": pa.nulls(len(rows), pa.string()),
        }
    )
    config = TrainingConfig(
        objective="sft",
        method="lora",
        r=16,
        lora_alpha=32,
        target_modules=MODULES,
        num_train_epochs=1,
        train_batch_size=size,
        max_length=SEQUENCE,
        packing=kind == "packed",
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        gradient_checkpointing=False,
        torch_threads=1,
        save_steps=steps // 2,
    )
    return assign(table, config, base)


# --- two loops that take turns


@dataclass
class Contestant:
    """What one loop did: a line per step."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    overhead: dict[str, float] = field(default_factory=dict)
    furthest: float = 0.0
    """Of a step's loss from the other's."""


class Turns:
    """Lets two threads work by turns, each until its step is done."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turn = 0
        self._left: set[int] = set()
        self._began = {0: (0.0, 0.0), 1: (0.0, 0.0)}

    def begin(self, who: int) -> None:
        """Wait for the other, unless it has left."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == who or self._left)
        self._began[who] = (time.perf_counter(), time.thread_time())

    def end(self, who: int) -> tuple[float, float]:
        """(seconds, of them on the CPU) since begin; now it is the other's turn."""
        wall, cpu = self._began[who]
        took = time.perf_counter() - wall, time.thread_time() - cpu
        with self._changed:
            self._turn = 1 - who
            self._changed.notify_all()
        return took

    def leave(self, who: int) -> None:
        """The other need not wait any more."""
        with self._changed:
            self._left.add(who)
            self._changed.notify_all()


def side_by_side(assignment: Assignment, folder: Path, passes: int) -> tuple[Contestant, Contestant]:
    """Both eat the plan, step by step in turn."""
    turns = Turns()
    ours, theirs = Contestant(), Contestant()
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None], who: int) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
        finally:
            turns.leave(who)

    both = (
        lambda: run_ours(assignment, folder, ours, turns),
        lambda: run_trl(assignment, folder, theirs, turns, passes=passes),
    )
    threads = [threading.Thread(target=guarded, args=(work, who)) for who, work in enumerate(both)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=0, atol=1e-4, err_msg="not the same work")
    ours.furthest = max(abs(our - their) for our, their in zip(ours.losses, theirs.losses, strict=True))
    return ours, theirs


def run_ours(assignment: Assignment, folder: Path, into: Contestant, turns: Turns) -> None:
    """`training.loop.train`, which `fit` calls on every worker; what ledger and guards cost is counted."""
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)

    def on_step(fed: Any, steps: int) -> None:
        took, cpu = turns.end(0)
        into.losses.append(fed.loss)
        into.tokens.append(fed.tokens)
        into.seconds.append(took)
        into.cpu.append(cpu)
        turns.begin(0)

    with counted(spent, calls):
        turns.begin(0)  # with the first step goes the loading, which is not timed
        loop.train(assignment, run_id="bench", work=folder / "work", out=folder / "out", on_step=on_step)
        turns.end(0)
    steps_cpu = sum(into.cpu[WARM_UP:]) / len(into.cpu[WARM_UP:]) * assignment.steps
    save = spent.pop("state every 100 steps") / calls["state every 100 steps"]
    into.overhead = {name: each / steps_cpu for name, each in spent.items()}
    into.overhead["state every 100 steps"] = save / SAVE_STEPS * assignment.steps / steps_cpu


@contextmanager
def counted(spent: dict[str, float], calls: dict[str, int]) -> Iterator[None]:
    """Measures the CPU time of everything that ledger and guards do."""
    places: list[tuple[Any, str, str]] = [
        (feeding, "_digest", "digests"),
        (feeding, "summed", "digests"),
        (FedLog, "write", "log"),
        (states, "save", "state every 100 steps"),
        (loop, "digest_of", "at the ends"),
        (guards, "frozen_checksum", "at the ends"),
    ]
    places += [(guards, name, "guards") for name in vars(guards) if name.startswith("require_")]

    def timed(work: Callable[..., Any], name: str) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            before = time.thread_time()
            try:
                return work(*given, **named)
            finally:
                spent[name] += time.thread_time() - before
                calls[name] += 1

        return measured

    were = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for (place, name, shown), (_, _, work) in zip(places, were, strict=True):
            setattr(place, name, timed(work, shown))
        yield
    finally:
        for place, name, work in were:
            setattr(place, name, work)


def run_trl(
    assignment: Assignment, folder: Path, into: Contestant, turns: Turns, *, passes: int, steps: int = -1
) -> None:
    """SFTTrainer over the same rows in the same order; `passes`: rows in a forward pass, -1 steps: all."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    config = assignment.config
    torch.set_num_threads(1)  # each thread has a number of its own
    parts: list[float] = []

    class Recorder(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            parts.clear()

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            took, cpu = turns.end(1)
            into.losses.append(sum(parts))
            into.seconds.append(took)
            into.cpu.append(cpu)
            turns.begin(1)

    class Told(SFTTrainer):
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss = super().compute_loss(*given, **named)
            parts.append(float(loss.detach()))
            return loss

    turns.begin(1)
    model = AutoModelForCausalLM.from_pretrained(
        assignment.base.path, dtype=torch.float32, attn_implementation="sdpa"
    )
    trainer = Told(
        model=model,
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=passes,
            gradient_accumulation_steps=config.train_batch_size // passes,
            num_train_epochs=1,
            max_steps=steps,
            max_length=config.max_length,
            packing=config.packing,
            packing_strategy="bfd",
            completion_only_loss=None if config.packing else True,
            dataset_kwargs={"skip_prepare_dataset": True} if config.packing else None,
            train_sampling_strategy="sequential",
            optim=config.optim,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            warmup_steps=0,
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            seed=config.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=packed_rows(assignment) if config.packing else plain_rows(assignment),
        processing_class=AutoTokenizer.from_pretrained(assignment.base.path),
        peft_config=LoraConfig(
            r=config.r, lora_alpha=config.lora_alpha, target_modules=list(MODULES), task_type="CAUSAL_LM"
        ),
        callbacks=[Recorder()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    turns.end(1)


def plain_rows(assignment: Assignment) -> Any:
    """Prompt and completion of every row in the order of the plan; TRL renders and tokenizes them."""
    from datasets import Dataset

    rows = list(conversations(assignment.encoded.rows, seed=2))
    chosen = [rows[index] for index in assignment.row]
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": row["prompt"]}] for row in chosen],
            "completion": [[{"role": "assistant", "content": row["answer"]}] for row in chosen],
        }
    )


def packed_rows(assignment: Assignment) -> Any:
    """Our sequences, as TRL's own packer leaves them; it must need as many."""
    from datasets import Dataset
    from trl import pack_dataset

    (sequences,) = assignment.encoded.sequences
    packs = [
        [sequences.row(row) for row in assignment.row[pack]]
        for step in range(assignment.steps)
        for pack in assignment.packs_of(step, rank=0, world_size=1)
    ]
    columns = ("input_ids", "labels")
    singly = {name: [row[n] for pack in packs for row in pack] for n, name in enumerate(columns)}
    theirs = pack_dataset(Dataset.from_dict(singly), assignment.config.max_length, "bfd")
    assert len(theirs) == len(packs), (len(theirs), len(packs))
    together = {
        name: [np.concatenate([row[n] for row in pack]) for pack in packs] for n, name in enumerate(columns)
    }
    return Dataset.from_dict(together | {"seq_lengths": [[len(ids) for ids, _ in pack] for pack in packs]})


def require_rows_apart(assignment: Assignment) -> None:
    """What TRL's collator makes of a step gives every row the logits that it has alone."""
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = packed_rows(assignment).select(range(assignment.config.train_batch_size))
    given = DataCollatorForLanguageModeling(assignment.encoded.pad_token_id, padding_free=True)(list(rows))
    given.pop("labels")
    model = AutoModelForCausalLM.from_pretrained(assignment.base.path, attn_implementation="sdpa")
    with torch.no_grad():
        together = model(**given, use_cache=False).logits[0]
        bounds = given["cu_seq_lens_q"].tolist()
        for begin, end in itertools.pairwise(bounds):
            alone = model(given["input_ids"][:, begin:end], use_cache=False).logits[0]
            torch.testing.assert_close(together[begin:end], alone, rtol=0, atol=1e-4)


def fastest_passes(assignment: Assignment, folder: Path, choices: list[int]) -> int:
    """Rows in a forward pass with which TRL takes the least CPU time, by a few steps each."""
    found = {}
    for passes in choices:
        trial, turns = Contestant(), Turns()
        turns.leave(0)
        run_trl(assignment, folder, trial, turns, passes=passes, steps=1 + TRIAL_STEPS)
        found[passes] = sum(trial.cpu[1:])
    return min(found, key=lambda passes: found[passes])


def show(kind: str, ours: Contestant, theirs: Contestant, passes: int) -> float:
    """Two lines of the table; the ratio of seconds."""
    counted_from = slice(WARM_UP, None)

    def per_second(seconds: list[float]) -> float:
        pairs = zip(ours.tokens[counted_from], seconds[counted_from], strict=True)
        return statistics.median(tokens / each for tokens, each in pairs)

    def ratio(name: str) -> float:
        pairs = zip(getattr(theirs, name)[counted_from], getattr(ours, name)[counted_from], strict=True)
        return statistics.median(their / our for their, our in pairs)

    for name, each, rows in (("stemma", ours, "by length"), ("TRL", theirs, str(passes))):
        speeds = f"{per_second(each.seconds):>10.0f}{per_second(each.cpu):>14.0f}"
        ratios = f"{ratio('seconds'):>8.2f}{ratio('cpu'):>11.2f}" if each is ours else ""
        print(f"{f'{name}, {kind}':<20}{rows:>12}{speeds}{ratios}")
    return ratio("seconds")


def _quiet() -> None:
    """Warnings about what is meant here: no flash attention on a CPU."""
    warnings.filterwarnings("ignore")
    logging.getLogger("trl").setLevel(logging.ERROR)
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


if __name__ == "__main__":
    main()
