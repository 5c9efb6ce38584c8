"""What a set of predictions is worth: accuracy, F1 of labels and of entities, calibration, and how far chance
alone could move them.

Pure numpy, nothing is read or stored here. Every interval takes its seed, so that a Report can be recomputed.

Errors: TrainingError on empty or unequal input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from infra.models import TaggedSpan
from lineage.spans import Span
from training.recipe import TrainingError


def accuracy(labels: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of items whose predicted label is the true one."""
    truth, guess = _aligned(labels, predicted)
    return float((truth == guess).mean())


def macro_f1(labels: Sequence | np.ndarray, predicted: Sequence | np.ndarray) -> float:
    """Mean of F1 over the labels that occur in either list; a label never hit counts 0."""
    truth, guess = _aligned(labels, predicted)
    scores = []
    for label in np.union1d(truth, guess):
        hits = np.sum((truth == label) & (guess == label))
        scores.append(2 * hits / (np.sum(truth == label) + np.sum(guess == label)))
    return float(np.mean(scores))


@dataclass(frozen=True)
class EntityScore:
    """How many of the found entities are right, how many true ones were found, and the harmonic mean."""

    precision: float
    recall: float
    f1: float


def entity_f1(truth: Sequence[Iterable[Span]], found: Sequence[Iterable[Span | TaggedSpan]]) -> EntityScore:
    """Micro-averaged over the entities of all texts; one collection of spans per text.

    An entity is right where a true one has the same start, end and label: "F1 entity" of WNUT-17 and of
    CoNLL-2003. A share of nothing counts 0.
    """
    if len(truth) != len(found):
        raise TrainingError(
            f"got the spans of {len(truth)} texts against {len(found)}; both must be about the same texts"
        )
    true, said = _places(truth), _places(found)
    hits = len(true & said)
    return EntityScore(
        precision=hits / max(1, len(said)),
        recall=hits / max(1, len(true)),
        f1=2 * hits / max(1, len(true) + len(said)),
    )


def ece(confidences: Sequence[float], correct: Sequence[bool], *, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence| per equal-width bin, weighted by the bin's items.

    15 bins as in Guo et al. 2017, section 2. 0 is perfectly calibrated.
    """
    confidence, hit = _aligned(confidences, correct)
    confidence, hit = confidence.astype(float), hit.astype(float)
    # bins are open on the left and closed on the right, so a confidence of 1.0 falls into the last
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=hit - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(hit))


def bootstrap_interval(
    correct: Sequence[bool], *, seed: int, level: float = 0.95, n: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `correct` (of accuracy, for booleans)."""
    values = _filled(np.asarray(correct, dtype=float))
    low, high = np.quantile(_resampled_means(values, seed=seed, n=n), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """How much more often a is right than b, on the same items."""

    diff: float
    low: float
    high: float
    p: float
    """One-sided: the share of resamples in which a is not better, (k + 1) / (n + 1)."""


def paired_difference(
    a_correct: Sequence[bool],
    b_correct: Sequence[bool],
    *,
    seed: int,
    level: float = 0.95,
    n: int = 2000,
) -> Difference:
    """Paired percentile bootstrap of mean(a) - mean(b); the items are resampled, so a and b stay together."""
    a, b = _aligned(a_correct, b_correct)
    gain = a.astype(float) - b.astype(float)
    means = _resampled_means(gain, seed=seed, n=n)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    p = (np.sum(means <= 0) + 1) / (n + 1)
    return Difference(diff=float(gain.mean()), low=float(low), high=float(high), p=float(p))


def _places(texts: Sequence[Iterable[Span | TaggedSpan]]) -> set[tuple[int, int, int, str]]:
    return {(text, span.start, span.end, span.label) for text, spans in enumerate(texts) for span in spans}


def _resampled_means(values: np.ndarray, *, seed: int, n: int) -> np.ndarray:
    """Means of n resamples with replacement.

    Correctness and its differences take few distinct values, so a resample is a draw of their counts: the
    same distribution as drawing every item, at a cost that does not grow with the items.
    """
    levels, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=n)
    return drawn @ levels / len(values)


def _aligned(left: Sequence | np.ndarray, right: Sequence | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(left), np.asarray(right)
    if len(a) != len(b):
        raise TrainingError(
            f"got {len(a)} items against {len(b)}; both must be about the same items in one order"
        )
    return _filled(a), b


def _filled(values: np.ndarray) -> np.ndarray:
    if not len(values):
        raise TrainingError("a metric of no items is undefined; check that the evaluation set is not empty")
    return values
