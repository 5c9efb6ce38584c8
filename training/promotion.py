"""Decides whether a candidate replaces the champion: pure statistics on who got which item right.

    Evidence (champion, candidate, null retrains; the same items in one order) -> decide() -> Decision

A *null retrain* is the champion's recipe unchanged with another seed. It shows what chance alone does: it too
loses items that the champion passes, because the champion's passes include its lucky ones. So a candidate is
refused when it loses significantly more than the null, not when it loses anything; and a gain inside the
noise is no gain, so a null itself is not promoted.

The items must be traffic that the champion did not select: on its own failures every other model looks
better.

Errors: TrainingError when the evidence is empty or its lists are about different items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from training.metrics import paired_difference
from training.recipe import TrainingError


@dataclass(frozen=True)
class Evidence:
    """Per-item correctness on the gate set; every list is about the same items in the same order."""

    champion: Sequence[bool]
    candidate: Sequence[bool]
    nulls: Sequence[Sequence[bool]]
    """One list per null retrain; at least one."""
    overlap: int
    """How many gate items the candidate was trained on."""
    categories: Sequence[str] = ()
    """The category of each item; needed only where floors are set."""


@dataclass(frozen=True)
class Check:
    """One rule, whether the candidate passes it, and the numbers as a sentence."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Decision:
    """All checks, and the texts that decided: those of the failed checks, or of all when every one passed."""

    promoted: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Gate:
    """The thresholds of the decision."""

    level: float = 0.95
    """Of the paired bootstrap interval whose lower end must be above 0."""
    alpha: float = 0.05
    """Below this p value, the candidate loses more than the null does."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """Category -> lowest accuracy that the candidate may have there."""


def decide(evidence: Evidence, *, seed: int, gate: Gate | None = None) -> Decision:
    """Every check is made, also after one has failed. `seed` fixes the bootstrap. Raises TrainingError."""
    gate = gate or Gate()
    _require_same_items(evidence, gate)
    checks = (
        _is_better(evidence, seed=seed, level=gate.level),
        _loses_no_more_than_null(evidence, alpha=gate.alpha),
        _has_no_overlap(evidence),
        *(_reaches_floor(evidence, category, floor) for category, floor in sorted(gate.floors.items())),
    )
    failed = tuple(check.text for check in checks if not check.passed)
    return Decision(not failed, failed or tuple(check.text for check in checks), checks)


def _is_better(evidence: Evidence, *, seed: int, level: float) -> Check:
    gain = paired_difference(evidence.candidate, evidence.champion, seed=seed, level=level)
    passed = gain.low > 0
    verdict = "a gain" if passed else "no gain beyond the noise"
    text = (
        f"The candidate is right on {np.mean(evidence.candidate):.1%} of {len(evidence.candidate)} items, "
        f"the champion on {np.mean(evidence.champion):.1%}: a difference of {100 * gain.diff:+.1f} points "
        f"({level:.0%} interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}), {verdict}."
    )
    return Check("better", passed, text)


def _loses_no_more_than_null(evidence: Evidence, *, alpha: float) -> Check:
    """One-sided Fisher's exact test of the candidate's losses against the null retrains' pooled losses."""
    champion = np.asarray(evidence.champion, dtype=bool)
    passes = int(champion.sum())
    lost = int((champion & ~np.asarray(evidence.candidate, dtype=bool)).sum())
    null_lost = sum(int((champion & ~np.asarray(null, dtype=bool)).sum()) for null in evidence.nulls)
    null_passes = passes * len(evidence.nulls)
    # P(candidate has `lost` or more of all losses), were losses spread evenly: the hypergeometric upper tail
    p = float(stats.hypergeom.sf(lost - 1, passes + null_passes, lost + null_lost, passes))
    passed = p >= alpha
    verdict = "no more than a retrain would" if passed else "more than a retrain would"
    plural = "s" if len(evidence.nulls) > 1 else ""
    text = (
        f"Of {passes} items that the champion passes the candidate loses {lost} ({_share(lost, passes)}); "
        f"{len(evidence.nulls)} unchanged retrain{plural} lost {null_lost} of {null_passes} "
        f"({_share(null_lost, null_passes)}): {verdict} (one-sided p = {p:.3f}, refused below {alpha:g})."
    )
    return Check("regressions", passed, text)


def _has_no_overlap(evidence: Evidence) -> Check:
    if evidence.overlap == 0:
        return Check("overlap", True, "None of the evaluated items was in the candidate's training rows.")
    text = (
        f"{evidence.overlap} of {len(evidence.candidate)} evaluated items were in the candidate's training "
        "rows, expected none."
    )
    return Check("overlap", False, text)


def _reaches_floor(evidence: Evidence, category: str, floor: float) -> Check:
    inside = np.asarray(evidence.categories) == category
    if not inside.any():
        text = f"No evaluated item is of category '{category}', so its floor of {floor:.1%} is unproven."
        return Check(f"floor:{category}", False, text)
    reached = float(np.asarray(evidence.candidate, dtype=bool)[inside].mean())
    verdict = "reaches" if reached >= floor else "stays below"
    text = (
        f"In category '{category}' the candidate is right on {reached:.1%} of {int(inside.sum())} items and "
        f"{verdict} the floor of {floor:.1%}."
    )
    return Check(f"floor:{category}", reached >= floor, text)


def _require_same_items(evidence: Evidence, gate: Gate) -> None:
    items = len(evidence.champion)
    if not items:
        raise TrainingError("the gate set is empty; a promotion needs items to judge by")
    if not evidence.nulls:
        raise TrainingError(
            "no null retrain was given; retrain the champion's recipe with another seed first"
        )
    lengths = {"candidate": len(evidence.candidate)}
    lengths |= {f"null retrain {index}": len(null) for index, null in enumerate(evidence.nulls)}
    if gate.floors:
        lengths["categories"] = len(evidence.categories)
    for name, length in lengths.items():
        if length != items:
            raise TrainingError(
                f"{name} has {length} items, the champion {items}; evaluate all on the same items"
            )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none to lose"
