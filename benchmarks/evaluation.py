"""What evaluating costs: `python benchmarks/evaluation.py [--texts 2000] [--answers 128]`.

Side by side in one run, in turns: our classifier, as `stemma evaluate` asks it, and a bare loop of batched
transformers over the same texts, on the same NF4 model; our decoder, many conversations at a time and one at
a time. Then the statistics of 100,000 rows, 10,000 resamples each.

Ratios are of medians. The last line is JSON: ratio_to_bare_loop, batched_speedup, bootstrap_s.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies one that bears a package's name

import numpy as np
import torch

from infra.inference import Generator, Predictor
from infra.inference.record import AdapterRecord
from infra.models import Quantization, load_classifier, load_tokenizer, resolve, sentence_logits
from training.metrics import bootstrap_interval, ece_interval, macro_f1_interval, paired_difference
from training.tiny.bases import TINY
from training.tiny.pretraining import pretrain
from training.tiny.problems import draw

LABELS = [f"label {n}" for n in range(150)]
BATCH = 64
MOST_TOKENS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description="Texts and answers a second; seconds of statistics.")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--answers", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratio = labelled(options.texts, options.turns)
        speedup = answered(options.answers, options.turns, Path(folder))
    seconds = statistics()
    figures = {
        "ratio_to_bare_loop": round(ratio, 2),
        "batched_speedup": round(speedup, 2),
        "bootstrap_s": round(seconds, 2),
    }
    print(json.dumps(figures))


def labelled(n: int, turns: int) -> float:
    """Texts a second of ours over those of a bare loop."""
    base = resolve("all-MiniLM-L6-v2")
    tokenizer = load_tokenizer(base)
    model, _ = load_classifier(base, LABELS, quantization=Quantization(), seed=0)
    model.eval()
    record = AdapterRecord(tuple(LABELS), 128, base.name, base.digest, "qlora", Quantization(), "")
    predictor = Predictor(model, tokenizer, record, batch_size=BATCH)
    texts = requests(n)

    def bare() -> list[str]:
        said = []
        with torch.inference_mode():
            for start in range(0, n, BATCH):
                batch = tokenizer(
                    texts[start : start + BATCH],
                    padding=True,
                    truncation=True,
                    max_length=128,
                    return_tensors="pt",
                )
                said += sentence_logits(model, batch.input_ids, batch.attention_mask).argmax(-1).tolist()
        return [LABELS[each] for each in said]

    def ours() -> list[str]:
        return [each.label for each in predictor.predict(texts)]

    took, said = in_turns({"bare loop": bare, "ours": ours}, turns)
    same = np.mean([a == b for a, b in zip(said["bare loop"], said["ours"], strict=True)])
    print(f"classifier, {n} texts, NF4, 150 labels, batches of {BATCH}; same label on {same:.1%}")
    show(took, n, "texts/s")
    return took["bare loop"] / took["ours"]


def answered(n: int, turns: int, folder: Path) -> float:
    """Answers a second of many at a time over one at a time."""
    recipe = TINY["stemma-arithmetic"]
    pretrain(replace(recipe, steps=200), folder)  # enough to answer and to stop
    generator = Generator.of_base(resolve(str(folder)))
    asked = [
        [{"role": "user", "content": each.question}]
        for each in draw(n, side="evaluation", digits=recipe.digits, seed=5)
    ]

    def one_by_one() -> list[str]:
        return [generator.generate([each], max_new_tokens=MOST_TOKENS)[0].text for each in asked]

    def batched() -> list[str]:
        return [each.text for each in generator.generate(asked, max_new_tokens=MOST_TOKENS, batch_size=BATCH)]

    took, said = in_turns({"one by one": one_by_one, "batched": batched}, turns)
    same = np.mean([a == b for a, b in zip(said["one by one"], said["batched"], strict=True)])
    print(f"decoder of 0.9 M parameters, {n} conversations, batches of {BATCH}; same answer on {same:.1%}")
    show(took, n, "answers/s")
    return took["one by one"] / took["batched"]


def statistics() -> float:
    """Seconds of all statistics of an evaluation of 100,000 rows, 10,000 resamples each."""
    rng = np.random.default_rng(0)
    n = 100_000
    truth = rng.integers(0, 150, n)
    said = np.where(rng.random(n) < 0.9, truth, rng.integers(0, 150, n))
    right, confidence = truth == said, rng.random(n)
    other = right ^ (rng.random(n) < 0.05)
    parts = {
        "accuracy": lambda: bootstrap_interval(right, seed=0, n=10_000),
        "mean of scores": lambda: bootstrap_interval(confidence, seed=0, n=10_000),
        "macro F1, 150 labels": lambda: macro_f1_interval(truth, said, seed=0, n=10_000),
        "calibration error": lambda: ece_interval(confidence, right, seed=0, n=10_000),
        "paired difference": lambda: paired_difference(right, other, seed=0, n=10_000),
    }
    print("statistics of 100,000 rows, 10,000 resamples")
    seconds = 0.0
    for name, compute in parts.items():
        start = time.perf_counter()
        compute()
        took = time.perf_counter() - start
        seconds += took
        print(f"  {name:<24}{took:>8.2f} s")
    return seconds


def in_turns(
    ways: dict[str, Callable[[], list[str]]], turns: int
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Median seconds of each, taken in turns after one that does not count; and what each said."""
    said = {name: way() for name, way in ways.items()}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            took[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in took.items()}, said


def show(took: dict[str, float], n: int, unit: str) -> None:
    for name, seconds in took.items():
        print(f"  {name:<24}{seconds:>8.2f} s{n / seconds:>10.0f} {unit}")


def requests(n: int) -> list[str]:
    """Texts of 4 to 40 words."""
    rng = np.random.default_rng(0)
    words = "please could you book a room for ten because my password does not work".split()  # noqa: SIM905
    return [" ".join(rng.choice(words, rng.integers(4, 40))) for _ in range(n)]


if __name__ == "__main__":
    main()
