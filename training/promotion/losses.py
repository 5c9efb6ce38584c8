"""Does the candidate lose more of what the champion, or one before it, got right than a retrain would?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from training.promotion.churn import arm_of, pooled, retrains
from training.promotion.facts import Check, Evidence, Reign, share
from training.promotion.gate import Gate


def keeps_passes(evidence: Evidence, gate: Gate) -> Check:
    """What the champion passes today, against the nulls' losses or the count."""
    arm, null = arm_of(evidence.champion, evidence.candidate), pooled(evidence.champion, evidence.nulls)
    lost = (
        f"Of {arm.passes} items that the champion passes the candidate loses {arm.lost} "
        f"({share(arm.lost, arm.passes)})"
    )
    chance = (
        f"{retrains(len(evidence.nulls))} of its recipe lost {null.lost} of {null.passes} "
        f"({share(null.lost, null.passes)})"
    )
    if gate.regressions == "count":
        return Check("regressions", arm.lost <= gate.epsilon, f"{lost}, {_allowed(gate)}; {chance}.")
    p = more_than(arm.lost, arm.passes, null.lost, null.passes)
    passed = p >= gate.alpha
    verdict = "no more than a retrain would" if passed else "more than a retrain would"
    text = f"{lost}; {chance}: {verdict} (one-sided p = {p:.3f}, refused below {gate.alpha:g})."
    return Check("regressions", passed, text)


def keeps_previous_set(evidence: Evidence, gate: Gate) -> Check:
    """H4: the items that the champion was promoted on."""
    name, before = "previous_set", evidence.previous
    if before is None:
        return Check(name, True, "On which items the champion was promoted is not on record.")
    if not np.any(before.known):
        return Check(name, True, f"Of the items {before.version} was promoted on none is evaluated today.")
    lost, passes, control = _against(before, evidence)
    if np.all(before.known) and np.array_equal(before.passed, evidence.champion):
        today = keeps_passes(evidence, gate)
        verdict = "lost no more than is allowed" if today.passed else "too much of them is lost"
        text = f"{before.version} was promoted on the same items, and has the same passes: {verdict}."
        return Check(name, today.passed, text)
    told = (
        f"Of {passes} items that {before.version} passed when it was promoted the candidate loses {lost} "
        f"({share(lost, passes)})"
    )
    if gate.regressions == "count":
        return Check(name, lost <= gate.epsilon, f"{told}, {_allowed(gate)}.")
    p = more_than(lost, passes, *control)
    verdict = "no more than its retrains" if p >= gate.alpha else "more than its retrains"
    return Check(name, p >= gate.alpha, f"{told}, {verdict} ({share(*control)}; one-sided p = {p:.3f}).")


def keeps_history(evidence: Evidence, gate: Gate) -> Check:
    """Every earlier champion's passes: small losses that each step allows must not add up."""
    reigns = [reign for reign in evidence.history if np.any(reign.kept)]
    if not reigns:
        return Check("history", True, "No champion before this one was judged on today's items.")
    losses = [_against(reign, evidence) for reign in reigns]
    if gate.regressions == "count":
        wrong = [i for i, (lost, _, _) in enumerate(losses) if lost > gate.epsilon]
        rule = _allowed(gate)
    else:
        adjusted = holm([more_than(lost, passes, *control) for lost, passes, control in losses])
        wrong = [i for i, p in enumerate(adjusted) if p < gate.alpha]
        rule = f"refused where p by Holm is below {gate.alpha:g}, least p = {min(adjusted):.3f}"
    shown = wrong or [int(np.argmax([lost / passes for lost, passes, _ in losses]))]
    told = "; ".join(
        f"of {losses[i][1]} passes of {reigns[i].version} the candidate loses {losses[i][0]} "
        f"({share(losses[i][0], losses[i][1])}, its retrains {share(*losses[i][2])})"
        for i in shown[:5]
    )
    head = "Too much is lost" if wrong else f"Of {len(reigns)} earlier champions, the worst"
    return Check("history", not wrong, f"{head}: {told} ({rule}).")


def more_than(lost: int, passes: int, null_lost: int, null_passes: int) -> float:
    """One-sided p of Fisher's exact test that the candidate's rate of losses is the null's.

    P(candidate has `lost` or more of all losses), were losses spread evenly: the hypergeometric upper tail.
    """
    if not passes or not null_passes:
        return 1.0  # nothing to lose, or nothing to hold it against
    return float(stats.hypergeom.sf(lost - 1, passes + null_passes, lost + null_lost, passes))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: so many questions, and one chance in all of a false alarm."""
    order = np.argsort(ps, kind="stable")
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def _against(reign: Reign, evidence: Evidence) -> tuple[int, int, tuple[int, int]]:
    """What the candidate loses of a reign's passes, of how many, and what retrains lost: (lost, of).

    Retrains of that reign's own recipe where there were some, for a weaker champion passes more by luck;
    else today's champion's.
    """
    kept = reign.kept
    lost = int((kept & ~np.asarray(evidence.candidate, dtype=bool)).sum())
    if reign.retrains_passes:
        control = (reign.retrains_lost, reign.retrains_passes)
    else:
        null = pooled(evidence.champion, evidence.nulls)
        control = (null.lost, null.passes)
    return lost, int(kept.sum()), control


def _allowed(gate: Gate) -> str:
    return f"where at most {gate.epsilon} may be lost"
