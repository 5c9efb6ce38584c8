"""What a model wins and loses against another by item, and what a mere retrain does, with exact intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from training.promotion.facts import Flags
from training.recipe import TrainingError


@dataclass(frozen=True)
class Arm:
    """A model beside the champion: what it fixes of the champion's failures and loses of its passes."""

    fixed: int
    failures: int
    lost: int
    passes: int

    @property
    def net(self) -> int:
        """How many more items it is right on."""
        return self.fixed - self.lost

    @property
    def gain(self) -> float:
        """That, as a share of all items."""
        return self.net / (self.failures + self.passes)

    def __str__(self) -> str:
        """Both counts, as a sentence's end."""
        return f"fixed {self.fixed} of {self.failures} failures and lost {self.lost} of {self.passes} passes"


@dataclass(frozen=True)
class Churn:
    """What chance alone does to a recipe: its retrains beside the model that it gave."""

    arms: Sequence[Arm]
    """One per retrain."""
    accuracies: Sequence[float]
    """The model's own first, then each retrain's."""
    fixed: tuple[float, float, float]
    """Share of the failures that a retrain fixes, all retrains together, and its 95 % interval
    (Clopper-Pearson). With several retrains of the same items it is too narrow: items are not drawn anew."""
    lost: tuple[float, float, float]
    """Share of the passes that a retrain loses, likewise."""

    def lines(self) -> list[str]:
        """The numbers, a line each."""
        plural = "s" if len(self.arms) != 1 else ""
        told = [
            f"{len(self.arms)} null retrain{plural}: the recipe unchanged, with other seeds",
            f"fixes  {_interval(self.fixed)} of the failures",
            f"loses  {_interval(self.lost)} of the passes",
        ]
        for index, (arm, accuracy) in enumerate(zip(self.arms, self.accuracies[1:], strict=True), start=1):
            told.append(f"null {index}: accuracy {accuracy:.1%} ({100 * arm.gain:+.1f} points), {arm}")
        return told


def arm_of(champion: Flags, other: Flags) -> Arm:
    """Another model beside the champion, on the same items."""
    then, now = np.asarray(champion, dtype=bool), np.asarray(other, dtype=bool)
    return Arm(
        fixed=int((~then & now).sum()),
        failures=int((~then).sum()),
        lost=int((then & ~now).sum()),
        passes=int(then.sum()),
    )


def pooled(champion: Flags, nulls: Sequence[Flags]) -> Arm:
    """The null retrains beside the champion, all of them together: its items count once for each."""
    arms = [arm_of(champion, null) for null in nulls]
    return Arm(
        fixed=sum(arm.fixed for arm in arms),
        failures=sum(arm.failures for arm in arms),
        lost=sum(arm.lost for arm in arms),
        passes=sum(arm.passes for arm in arms),
    )


def retrains(number: int) -> str:
    """So many retrains, in words."""
    return "one retrain" if number == 1 else f"{number} retrains"


def churn_of(champion: Flags, nulls: Sequence[Flags]) -> Churn:
    """What the retrains do to the champion's failures and passes. Raises TrainingError without items."""
    if not len(champion) or not nulls:
        raise TrainingError("churn is of a model and its retrains on some items; got none of one of them")
    together = pooled(champion, nulls)
    return Churn(
        arms=[arm_of(champion, null) for null in nulls],
        accuracies=[float(np.mean(each)) for each in (champion, *nulls)],
        fixed=exact_share(together.fixed, together.failures),
        lost=exact_share(together.lost, together.passes),
    )


def exact_share(part: int, whole: int, *, level: float = 0.95) -> tuple[float, float, float]:
    """A share and its Clopper-Pearson interval; of nothing it is 0, and anything from 0 to 1."""
    if not whole:
        return 0.0, 0.0, 1.0
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, part, whole - part + 1)) if part else 0.0
    high = float(stats.beta.ppf(1 - tail, part + 1, whole - part)) if part < whole else 1.0
    return part / whole, low, high


def _interval(of: tuple[float, float, float]) -> str:
    value, low, high = of
    return f"{value:6.1%} [{low:.1%}, {high:.1%}]"
