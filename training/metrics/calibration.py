"""Whether a confidence means what it says, how to mend it, and from which one on an answer counts.

What is fitted carries what it was fitted on, and refuses to be applied there: a calibration and a threshold
are fitted on validation rows only, and are worth what they do on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics.items import aligned, confident
from training.recipe import TrainingError

BINS = 15
"""Bins of equal width of the calibration error, as in Guo et al. 2017, section 2."""

SWEEP = tuple(round(0.50 + 0.01 * step, 2) for step in range(50))
"""The thresholds that are tried: 0.50 to 0.99."""


def ece(
    confidences: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray, *, bins: int = BINS
) -> float:
    """Expected calibration error: |accuracy - confidence| per equal-width bin, weighted by the bin's items.

    15 bins as in Guo et al. 2017, section 2. 0 is perfectly calibrated.
    """
    confidence, hit = aligned(confidences, correct)
    confidence, hit = confident(confidence), hit.astype(float)
    gaps = np.bincount(bin_of(confidence, bins), weights=hit - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(hit))


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The number of each confidence's bin.

    Bins are open on the left and closed on the right, so a confidence of 1.0 falls into the last.
    """
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def calibrated(
    confidence: Sequence[float] | np.ndarray,
    label: Sequence[str],
    label_accuracy: Mapping[str, float],
    w: float,
) -> np.ndarray:
    """w * accuracy of the predicted label + (1 - w) * what the model said; one number per item.

    A label that is not in `label_accuracy` keeps what the model said.
    """
    raw = confident(confidence)
    if len(raw) != len(label):
        raise TrainingError(f"got {len(raw)} confidences of {len(label)} labels; expected one per item")
    usual = np.array([label_accuracy.get(each, own) for each, own in zip(label, raw, strict=True)])
    return w * usual + (1 - w) * raw


@dataclass(frozen=True)
class Calibration:
    """How a confidence is mended by how often its label is right."""

    label_accuracy: Mapping[str, float]
    w: float
    """Weight of the label's accuracy, 0 to 1; 0 leaves what the model said."""

    fitted_on: str
    """The rows it was fitted on, by name or digest."""

    n: int
    """Items it was fitted on."""

    def apply(
        self, confidence: Sequence[float] | np.ndarray, label: Sequence[str], *, rows_of: str
    ) -> np.ndarray:
        """Mended confidences of predicted labels. Raises TrainingError on the rows it was fitted on."""
        _refuse_own(self.fitted_on, rows_of, what="calibration")
        return calibrated(confidence, label, self.label_accuracy, self.w)


def fit_calibration(
    confidence: Sequence[float] | np.ndarray,
    label: Sequence[str],
    correct: Sequence[bool] | np.ndarray,
    *,
    fitted_on: str,
) -> Calibration:
    """Fit label accuracies and their weight on validation rows.

    A label's accuracy is drawn by one item toward the accuracy of all, so a label seen once is not taken for
    perfect. `w` is the one of 0, 0.05, ..., 1 with the least squared error (Brier) where each item is judged
    by the accuracy of its label without itself: otherwise w = 1 would always look best.
    """
    raw, hit = aligned(confidence, correct)
    raw, hit = confident(raw), hit.astype(float)
    names, codes = np.unique(np.asarray(label), return_inverse=True)
    if len(codes) != len(raw):
        raise TrainingError(f"got {len(raw)} confidences of {len(codes)} labels; expected one per item")
    hits, seen = np.bincount(codes, weights=hit), np.bincount(codes)
    overall = float(hit.mean())
    others = (hit.sum() - hit) / max(1, len(hit) - 1)
    without_itself = (hits[codes] - hit + others) / seen[codes]
    weights = np.linspace(0, 1, 21)
    losses = [np.mean((w * without_itself + (1 - w) * raw - hit) ** 2) for w in weights]
    accuracies = (hits + overall) / (seen + 1)
    return Calibration(
        label_accuracy=dict(zip(names.tolist(), accuracies.tolist(), strict=True)),
        w=round(float(weights[int(np.argmin(losses))]), 2),
        fitted_on=_named(fitted_on),
        n=len(hit),
    )


@dataclass(frozen=True)
class Threshold:
    """The confidence from which on an answer counts; below it the question goes on to someone else."""

    value: float
    fitted_on: str
    """The rows it was fitted on, by name or digest."""

    n: int
    """Items it was fitted on."""

    def kept(self, confidence: Sequence[float] | np.ndarray, *, rows_of: str) -> np.ndarray:
        """Which answers count; bool (items,). Raises TrainingError on the rows it was fitted on."""
        _refuse_own(self.fitted_on, rows_of, what="threshold")
        return confident(confidence) >= self.value


@dataclass(frozen=True)
class SweepPoint:
    """What one threshold does: how many answers it keeps, and how many of those are right."""

    value: float
    coverage: float
    accuracy: float
    """Of what is kept; 0 where nothing is."""


def sweep(
    confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray
) -> tuple[SweepPoint, ...]:
    """Coverage and accuracy at every threshold of SWEEP, from the lowest."""
    raw, hit = aligned(confidence, correct)
    raw, hit = confident(raw), hit.astype(float)
    points = []
    for value in SWEEP:
        kept = raw >= value
        points.append(SweepPoint(value, float(kept.mean()), float(hit[kept].mean()) if kept.any() else 0.0))
    return tuple(points)


def fit_threshold(
    confidence: Sequence[float] | np.ndarray,
    correct: Sequence[bool] | np.ndarray,
    *,
    fitted_on: str,
    wrong_cost: float,
) -> Threshold:
    """Fit the threshold on validation rows: coverage x (accuracy - wrong_cost x (1 - accuracy)) is greatest.

    A right answer that is kept gains 1, a wrong one costs `wrong_cost`, one that goes on gains nothing; so
    answers are worth keeping where they are right more often than wrong_cost / (1 + wrong_cost): 4 asks for
    80 %. The bare product accuracy x coverage, wrong_cost = 0, is greatest at the lowest threshold whatever
    the model, and is refused. Of equals the lowest wins. Raises TrainingError where no threshold gains
    anything.
    """
    if not 0 < wrong_cost < float("inf"):
        raise TrainingError(
            f"wrong_cost = {wrong_cost}, expected a number above 0: how many right answers one wrong answer "
            "costs. With 0 the lowest threshold always wins, and there is nothing to fit"
        )
    points = sweep(confidence, correct)
    gains = [round(p.coverage * (p.accuracy - wrong_cost * (1 - p.accuracy)), 12) for p in points]
    best = int(np.argmax(gains))
    if gains[best] <= 0:
        raise TrainingError(
            f"no threshold from {SWEEP[0]} to {SWEEP[-1]} gains anything on {fitted_on} at wrong_cost = "
            f"{wrong_cost}: even where it is surest the model is right no more often than "
            f"{wrong_cost / (1 + wrong_cost):.0%}; calibrate it first, or lower wrong_cost"
        )
    return Threshold(points[best].value, _named(fitted_on), len(correct))


def _named(rows: str) -> str:
    if not rows.strip():
        raise TrainingError("fitted_on is empty; name the validation rows, so that they are not scored on")
    return rows


def _refuse_own(fitted_on: str, rows_of: str, *, what: str) -> None:
    if fitted_on == rows_of:
        raise TrainingError(
            f"this {what} was fitted on {fitted_on} and would be applied there; what is fitted on is "
            "never what is scored: apply it to other rows"
        )
