"""What intervals cost: `python benchmarks/bootstrap.py [--rows 100000] [--resamples 10000]`.

Accuracy, a continuous score, macro F1 over 150 labels and the calibration error of the same predictions, each
with its interval: by ours, which draw counts, and by drawing every item, as scikit-learn's metrics would be
resampled; of that a few resamples are timed and the rest is reckoned. The last line is JSON: bootstrap_s (all
four together), bootstrap_core_s (the same on a core of its own), ratio_to_drawing_items, peak_mb.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np

from training.metrics import bootstrap_interval, ece, ece_interval, macro_f1, macro_f1_interval

LABELS = 150
SAMPLED = 20  # resamples of the peer that are timed


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds for intervals.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    options = parser.parse_args()
    start = time.process_time()
    ours = seconds(options.rows, options.resamples)
    core_s = time.process_time() - start
    theirs = seconds_by_items(options.rows, options.resamples)
    print(f"{options.rows:,} rows, {options.resamples:,} resamples, seconds:\n")
    print("| metric | counts drawn | items drawn, reckoned |\n|---|---|---|")
    for name in ours:
        print(f"| {name} | {ours[name]:.2f} | {theirs[name]:.0f} |")
    total = sum(ours.values())
    figures = {
        "bootstrap_s": round(total, 2),
        "bootstrap_core_s": round(core_s, 2),
        "ratio_to_drawing_items": round(sum(theirs.values()) / total, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
    }
    print(json.dumps(figures))


def seconds(rows: int = 100_000, resamples: int = 10_000) -> dict[str, float]:
    """Seconds of an interval of each metric."""
    truth, guess, confidence = predictions(rows)
    correct = truth == guess
    return {
        "accuracy": timed(lambda: bootstrap_interval(correct, seed=0, n=resamples)),
        "continuous score": timed(lambda: bootstrap_interval(confidence, seed=0, n=resamples)),
        "macro F1": timed(lambda: macro_f1_interval(truth, guess, seed=0, n=resamples)),
        "calibration error": timed(lambda: ece_interval(confidence, correct, seed=0, n=resamples)),
    }


def seconds_by_items(rows: int, resamples: int) -> dict[str, float]:
    """The same, where every item is drawn."""
    truth, guess, confidence = predictions(rows)
    correct = truth == guess
    metrics: dict[str, Callable[[np.ndarray], float]] = {
        "accuracy": lambda drawn: float(correct[drawn].mean()),
        "continuous score": lambda drawn: float(confidence[drawn].mean()),
        "macro F1": lambda drawn: macro_f1(truth[drawn], guess[drawn]),
        "calibration error": lambda drawn: ece(confidence[drawn], correct[drawn]),
    }
    draw = np.random.default_rng(0)

    def few(metric: Callable[[np.ndarray], float]) -> None:
        for _ in range(SAMPLED):
            metric(draw.integers(0, rows, rows))

    return {name: timed(partial(few, metric)) * resamples / SAMPLED for name, metric in metrics.items()}


def predictions(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which nine in ten are right, and a confidence that is another number in each row."""
    draw = np.random.default_rng(0)
    truth = draw.integers(0, LABELS, rows)
    guess = np.where(draw.random(rows) < 0.9, truth, draw.integers(0, LABELS, rows))
    return truth, guess, draw.beta(8, 2, rows)


def timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


if __name__ == "__main__":
    main()
