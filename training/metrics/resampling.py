"""How far chance alone could move a number: percentile bootstraps that cost little, whatever the items.

A resample of n items is, for a metric that is made of counts, a draw of those counts: of how often each kind
of item comes (multinomial), not of the items. So 10,000 resamples of 100,000 items take seconds. The kinds:

    mean of scores     the distinct scores
    macro F1           hits per label and all errors together; which errors, is drawn from their list
    entity F1          the distinct (right, found, true) counts of a text: texts are drawn, not entities
    calibration error  bin, confidence and correctness

A score or a confidence that takes more values than KINDS is grouped to so many levels of its range, each
level at the mean of what is in it. The mean over all items stays exact, and the spread that is lost within
levels is below a thousandth of the whole (`_grouped` measures it; where it is not, every distinct value is a
kind of its own).

The same seed gives the same interval; 0 is a seed. Errors: TrainingError on empty, unequal or non-finite
input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics.calibration import BINS, bin_of
from training.metrics.entities import entity_f1_of
from training.metrics.items import aligned, confident, filled, finite
from training.metrics.labels import Confusion, confusion, macro_f1_of
from training.recipe import TrainingError

KINDS = 256
"""Most levels of a continuous score; 256 levels of 0..1 are 0.004 apart."""

CELLS = 4_000_000
"""Numbers in memory at a time: 32 MB as int64."""

Interval = tuple[float, float]


def bootstrap_interval(
    correct: Sequence[bool] | Sequence[float] | np.ndarray, *, seed: int, level: float = 0.95, n: int = 2000
) -> Interval:
    """Percentile bootstrap interval of the mean of `correct` (of accuracy, for booleans)."""
    return _interval(_resampled_means(finite(filled(np.asarray(correct))), seed=seed, n=n), level)


def macro_f1_interval(
    labels: Sequence | np.ndarray,
    predicted: Sequence | np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
    n: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of macro F1; a label that a resample lacks does not count in it."""
    counts = confusion(labels, predicted)
    streams = np.random.default_rng(seed).spawn(2)
    values = [_macro_f1_draws(counts, size, *streams) for size in _chunks(n, len(counts.hits) + 1)]
    return _interval(np.concatenate(values), level)


def entity_f1_interval(counts: np.ndarray, *, seed: int, level: float = 0.95, n: int = 2000) -> Interval:
    """Percentile bootstrap interval of entity F1, from the counts per text of `entity_counts`."""
    kinds, often = np.unique(filled(np.asarray(counts)), axis=0, return_counts=True)
    return bootstrap(often, lambda drawn: entity_f1_of(drawn @ kinds), seed=seed, level=level, n=n)


def ece_interval(
    confidences: Sequence[float] | np.ndarray,
    correct: Sequence[bool] | np.ndarray,
    *,
    seed: int,
    bins: int = BINS,
    level: float = 0.95,
    n: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of the calibration error.

    The error is a sum of absolute gaps, so resamples lie above the value: of a model that is calibrated well
    the interval may not hold it.
    """
    confidence, hit = aligned(confidences, correct)
    confidence, hit = confident(confidence), hit.astype(bool)
    of_bin = bin_of(confidence, bins)
    # a level per 1/KINDS of confidence within bin and correctness, each at its own mean gap
    keys = (of_bin * (KINDS + 1) + np.rint(confidence * KINDS).astype(int)) * 2 + hit
    found, which, often = np.unique(keys, return_inverse=True, return_counts=True)
    gaps = np.bincount(which, weights=hit - confidence) / often
    per_bin = np.zeros((len(found), bins))
    per_bin[np.arange(len(found)), found // 2 // (KINDS + 1)] = gaps
    return bootstrap(
        often,
        lambda drawn: np.abs(drawn @ per_bin).sum(axis=1) / len(hit),
        seed=seed,
        level=level,
        n=n,
    )


def bootstrap(
    often: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    level: float = 0.95,
    n: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of any number that is made of how often each kind of item occurs.

    `often` is int (kinds,). `statistic` is given float64 (resamples, kinds), each row a resample of the same
    total, and answers one number per row. It is called several times, so that memory stays bounded.
    """
    return _interval(np.concatenate(_drawn(np.asarray(often), statistic, seed=seed, n=n)), level)


@dataclass(frozen=True)
class Difference:
    """How much more often a is right than b, on the same items."""

    diff: float
    low: float
    high: float
    p: float
    """One-sided: the share of resamples in which a is not better, (k + 1) / (n + 1)."""


def paired_difference(
    a_correct: Sequence[bool] | Sequence[float] | np.ndarray,
    b_correct: Sequence[bool] | Sequence[float] | np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
    n: int = 2000,
) -> Difference:
    """Paired percentile bootstrap of mean(a) - mean(b); the items are resampled, so a and b stay together."""
    a, b = aligned(a_correct, b_correct)
    gain = finite(a) - finite(b)
    means = _resampled_means(gain, seed=seed, n=n)
    low, high = _interval(means, level)
    p = (np.sum(means <= 0) + 1) / (n + 1)
    return Difference(diff=float(gain.mean()), low=low, high=high, p=float(p))


def _resampled_means(values: np.ndarray, *, seed: int, n: int) -> np.ndarray:
    levels, often = _grouped(values)
    return np.concatenate(_drawn(often, lambda drawn: drawn @ levels / len(values), seed=seed, n=n))


def _grouped(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels and how often each occurs: the distinct values, or means of at most KINDS groups of them."""
    levels, often = np.unique(values, return_counts=True)
    if len(levels) <= KINDS:
        return levels, often
    low, high = levels[0], levels[-1]
    group = np.minimum(((levels - low) / (high - low) * KINDS).astype(int), KINDS - 1)
    _, group = np.unique(group, return_inverse=True)
    within = np.bincount(group, weights=often)
    means = np.bincount(group, weights=often * levels) / within
    lost = np.average((levels - means[group]) ** 2, weights=often) / values.var()
    return (means, within.astype(np.int64)) if lost < 1e-3 else (levels, often)


def _drawn(
    often: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, seed: int, n: int
) -> list[np.ndarray]:
    """The statistic of n resamples. Chunks come from one stream: how it is cut changes nothing."""
    total = int(filled(often).sum())
    if total <= 0:
        raise TrainingError("a metric of no items is undefined; check that the evaluation set is not empty")
    rng = np.random.default_rng(seed)
    shares = often / total
    return [
        statistic(rng.multinomial(total, shares, size=size).astype(float)) for size in _chunks(n, len(often))
    ]


def _chunks(n: int, kinds: int) -> list[int]:
    if n < 1:
        raise TrainingError(f"{n} resamples give no interval; expected at least 1, better 2000")
    most = max(1, CELLS // kinds)
    return [min(most, n - start) for start in range(0, n, most)]


def _macro_f1_draws(
    counts: Confusion, size: int, of_items: np.random.Generator, of_errors: np.random.Generator
) -> np.ndarray:
    """Macro F1 of `size` resamples: hits per label are a multinomial draw, errors are drawn from their list.

    There are up to labels squared kinds of errors, too many for a multinomial draw of each; the items that
    are errors are few.
    """
    labels, errors = len(counts.hits), len(counts.wrong)
    drawn = of_items.multinomial(counts.n, np.append(counts.hits, errors) / counts.n, size=size)
    missed = np.zeros((size, labels), dtype=np.int64)
    if errors:
        truth, said = np.ascontiguousarray(counts.wrong.T)
        for resample, often in enumerate(drawn[:, -1]):
            picked = of_errors.integers(0, errors, often, dtype=np.uint32)
            missed[resample] = np.bincount(truth[picked], minlength=labels)
            missed[resample] += np.bincount(said[picked], minlength=labels)
    return macro_f1_of(drawn[:, :-1], missed)


def _interval(values: np.ndarray, level: float) -> Interval:
    if not 0 < level < 1:
        raise TrainingError(f"level = {level}, expected a share such as 0.95")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
