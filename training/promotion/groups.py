"""Does one category pay for the others? Each category's losses, by exact tests, and its floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.promotion.churn import Arm, arm_of, pooled
from training.promotion.facts import Check, Evidence, First, Flags
from training.promotion.gate import Gate
from training.promotion.losses import holm, more_than

LEAST_P = 0.05
"""A category in which no loss could come below this against retrains is held against all items alone."""
_NAMED = 5  # categories in a sentence; the page has all


@dataclass(frozen=True)
class Group:
    """A category's items: candidate and nulls beside the champion."""

    name: str
    items: int
    candidate: Arm
    null: Arm
    """All null retrains together."""
    p: float
    """That the candidate loses no more than retrains do, by Holm over all categories; never below the p of
    the test against the retrains in this category alone. 1 where it wins as much as it loses."""


def groups_of(evidence: Evidence) -> list[Group]:
    """The categories, by name. Empty where the items have none.

    A category of ten items and one retrain can show little by itself, so its losses are held against what
    retrains lose of all items; and a hard category loses more than others under any retrain, so they are held
    against what retrains lose there, too. Both must speak against the candidate.
    """
    null, found = pooled(evidence.champion, evidence.nulls), []
    names = np.asarray(evidence.categories)
    for name in sorted(set(evidence.categories)):
        inside = names == name
        champion = _of(evidence.champion, inside)
        arm = arm_of(champion, _of(evidence.candidate, inside))
        control = pooled(champion, [_of(each, inside) for each in evidence.nulls])
        found.append((name, int(inside.sum()), arm, control))
    overall = holm([more_than(arm.lost, arm.passes, null.lost, null.passes) for _, _, arm, _ in found])
    return [
        Group(name, items, arm, control, _worst(arm, control, p))
        for (name, items, arm, control), p in zip(found, overall, strict=True)
    ]


def no_category_falls(groups: Sequence[Group], *, alpha: float) -> Check:
    """No category loses more than a retrain would lose."""
    name = "categories"
    if not groups:
        return Check(name, True, "The items have no categories.")
    fallen = sorted((group for group in groups if group.p < alpha), key=lambda group: (group.p, group.name))
    if not fallen:
        worst = min(groups, key=lambda group: (group.p, group.candidate.net))
        if worst.candidate.net >= 0:
            return Check(name, True, f"None of {len(groups)} categories loses more than it wins.")
        text = (
            f"None of {len(groups)} categories loses more than a retrain would; nearest '{worst.name}': "
            f"{worst.candidate} (p = {worst.p:.3f}, refused below {alpha:g} by Holm)."
        )
        return Check(name, True, text)
    told = "; ".join(
        f"'{group.name}' {group.candidate}, retrains lost {group.null.lost} of {group.null.passes} there "
        f"(p = {group.p:.2g})"
        for group in fallen[:_NAMED]
    )
    more = f"; and {len(fallen) - _NAMED} more" if len(fallen) > _NAMED else ""
    return Check(name, False, f"{len(fallen)} of {len(groups)} categories fell: {told}{more}.")


def floors_of(evidence: Evidence | First, gate: Gate) -> list[Check]:
    """A check for each category that has a floor."""
    wanted = {name: gate.category_floor for name in evidence.categories} if gate.category_floor else {}
    return [
        _reaches_floor(evidence, category, floor)
        for category, floor in sorted({**wanted, **gate.floors}.items())
    ]


def _reaches_floor(evidence: Evidence | First, category: str, floor: float) -> Check:
    inside = np.asarray(evidence.categories) == category
    if not inside.any():
        text = f"No evaluated item is of category '{category}', so its floor of {floor:.1%} is unproven."
        return Check(f"floor:{category}", False, text)
    reached = float(np.mean(_of(evidence.candidate, inside)))
    verdict = "reaches" if reached >= floor else "stays below"
    text = (
        f"In category '{category}' the candidate is right on {reached:.1%} of {int(inside.sum())} items and "
        f"{verdict} the floor of {floor:.1%}."
    )
    return Check(f"floor:{category}", reached >= floor, text)


def _worst(arm: Arm, control: Arm, overall: float) -> float:
    if arm.lost <= arm.fixed:
        return 1.0
    if more_than(arm.passes, arm.passes, 0, control.passes) >= LEAST_P:
        return overall  # of so few items not even the loss of all, where retrains lose none, would show
    return max(overall, more_than(arm.lost, arm.passes, control.lost, control.passes))


def _of(flags: Flags, inside: np.ndarray) -> list[bool]:
    return np.asarray(flags, dtype=bool)[inside].tolist()
