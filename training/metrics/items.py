"""Items about which two lists speak: what every metric asks of its input before it counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.recipe import TrainingError


def aligned(left: Sequence | np.ndarray, right: Sequence | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of one length. Raises TrainingError where they are not, or where there are no items."""
    a, b = np.asarray(left), np.asarray(right)
    if len(a) != len(b):
        raise TrainingError(
            f"got {len(a)} items against {len(b)}; both must be about the same items in one order"
        )
    return filled(a), b


def filled(values: np.ndarray) -> np.ndarray:
    """The same values. Raises TrainingError where there are none."""
    if not len(values):
        raise TrainingError("a metric of no items is undefined; check that the evaluation set is not empty")
    return values


def confident(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Confidences as floats. Raises TrainingError where one is no probability."""
    found = np.asarray(values, dtype=float)
    wrong = ~((found >= 0) & (found <= 1))  # nan is neither
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise TrainingError(
            f"{int(wrong.sum())} of {len(found)} confidences are no probabilities, such as {found[at]} of "
            f"item {at}; expected numbers from 0 to 1: check what the model answered with"
        )
    return found


def finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Scores as floats. Raises TrainingError where one is not finite."""
    found = np.asarray(values, dtype=float)
    wrong = ~np.isfinite(found)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise TrainingError(
            f"{int(wrong.sum())} of {len(found)} scores are not finite, such as {found[at]} of item {at}; "
            "leave those items out and count them, or mend the scorer"
        )
    return found
