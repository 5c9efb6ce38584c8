"""How often a label is right, and how evenly over the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics.items import aligned


def accuracy(labels: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of items whose predicted label is the true one."""
    truth, guess = aligned(labels, predicted)
    return float((truth == guess).mean())


def macro_f1(labels: Sequence | np.ndarray, predicted: Sequence | np.ndarray) -> float:
    """Mean of F1 over the labels that occur in either list; a label never hit counts 0."""
    return confusion(labels, predicted).macro_f1


@dataclass(frozen=True)
class Confusion:
    """Which label was taken for which, as much as F1 needs; labels are numbered in sorted order."""

    hits: np.ndarray
    """int64 (labels,): items of this label that were told so."""

    wrong: np.ndarray
    """int64 (errors, 2): of each item told wrongly the true label's number and the predicted one's."""

    @property
    def n(self) -> int:
        """Items."""
        return int(self.hits.sum()) + len(self.wrong)

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over the labels."""
        missed = np.bincount(self.wrong.ravel(), minlength=len(self.hits))
        return float(macro_f1_of(self.hits, missed))


def confusion(labels: Sequence | np.ndarray, predicted: Sequence | np.ndarray) -> Confusion:
    """Count the hits per label and list the errors."""
    truth, guess = aligned(labels, predicted)
    names, codes = np.unique(np.concatenate([truth, guess]), return_inverse=True)
    true, said = codes[: len(truth)], codes[len(truth) :]
    right = true == said
    return Confusion(
        hits=np.bincount(true[right], minlength=len(names)),
        wrong=np.stack([true[~right], said[~right]], axis=1),
    )


def macro_f1_of(hits: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Macro F1 along the last axis, from a label's hits and how often it was part of an error.

    F1 = 2 hits / (items of the label + predictions of it) = 2 hits / (2 hits + errors it is part of). A label
    that does not occur, as may be in a resample, does not count.
    """
    weight = 2 * hits + missed
    there = weight > 0
    scores = np.divide(2 * hits, weight, out=np.zeros(weight.shape), where=there)
    return scores.sum(axis=-1) / there.sum(axis=-1)
