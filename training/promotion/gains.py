"""Is the candidate better than the champion, and than the champion's recipe trained again?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy import stats

from training.metrics import Difference, bootstrap_interval, paired_difference
from training.promotion.churn import arm_of, pooled, retrains
from training.promotion.facts import Check, Evidence, First, Merged
from training.promotion.gate import Gate


def is_better(evidence: Evidence, gain: Difference, *, level: float) -> Check:
    """The paired interval of candidate minus champion lies above 0; told beside what the retrains gained."""
    passed = gain.low > 0
    verdict = "a gain" if passed else "no gain beyond the noise"
    arm, null = arm_of(evidence.champion, evidence.candidate), pooled(evidence.champion, evidence.nulls)
    text = (
        f"The candidate is right on {np.mean(evidence.candidate):.1%} of {len(evidence.candidate)} items, "
        f"the champion on {np.mean(evidence.champion):.1%}: a difference of {100 * gain.diff:+.1f} points "
        f"({level:.0%} interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}), {verdict}. It {arm}; "
        f"{retrains(len(evidence.nulls))} of the champion's recipe {null} ({100 * null.gain:+.1f} points), "
        f"so {100 * (gain.diff - null.gain):+.1f} points are left."
    )
    return Check("better", passed, text)


def gain_of(evidence: Evidence, *, seed: int, level: float) -> Difference:
    """How much more often the candidate is right than the champion."""
    return paired_difference(evidence.candidate, evidence.champion, seed=seed, level=level)


@dataclass(frozen=True)
class OverRecipe:
    """How much more often the candidate is right than the champion's recipe is, trained again and again."""

    gain: float
    low: float
    high: float
    spread: float
    """Standard deviation between trainings of the recipe, beyond what flipping items explain."""


_ASSUMED = 2  # so many nulls is the assumed spread worth: docs/promotion.md has what others would do


def over_recipe(evidence: Evidence, *, level: float, spread: float) -> OverRecipe:
    """Candidate minus the mean of champion and nulls, item by item, with its interval.

    The interval covers two kinds of chance: which items were drawn, and which training of the recipe the
    champion and the candidate happen to be. The second is the variance between the accuracies of champion
    and nulls, less the part that items flipping on their own explain; one null sees it poorly, so `spread`,
    a standard deviation, is assumed until several have been seen.
    """
    recipe = np.asarray([evidence.champion, *evidence.nulls], dtype=float)  # (trainings, items)
    trainings, items = recipe.shape
    gains = np.asarray(evidence.candidate, dtype=float) - recipe.mean(axis=0)
    by_items = gains.var() / items
    flips = recipe.var(axis=0, ddof=1).mean() / items
    seen, nulls = max(0.0, float(recipe.mean(axis=1).var(ddof=1) - flips)), trainings - 1
    between = (_ASSUMED * spread**2 + nulls * seen) / (_ASSUMED + nulls)
    deviation = float(np.sqrt(by_items + between * (1 + 1 / trainings)))
    reach = float(stats.norm.ppf((1 + level) / 2)) * deviation
    gain = float(gains.mean())
    return OverRecipe(gain, gain - reach, gain + reach, float(np.sqrt(between)))


def beats_recipe(evidence: Evidence, over: OverRecipe, *, level: float) -> Check:
    """Its gain is more than what training the champion's recipe again could have shown."""
    passed = over.low > 0
    verdict = "more than chance gives" if passed else "no more than chance gives"
    mean = np.mean([evidence.champion, *evidence.nulls])
    text = (
        f"The champion and {retrains(len(evidence.nulls))} of its recipe are right on {mean:.1%} in the "
        f"mean, and the candidate on {100 * over.gain:+.1f} points more ({level:.0%} interval "
        f"{100 * over.low:+.1f} to {100 * over.high:+.1f}; trainings differ by "
        f"{100 * over.spread:.1f} points): {verdict}."
    )
    return Check("beats_null", passed, text)


def is_better_than_constant(first: First, *, seed: int) -> Check:
    """Without a champion there is nothing to compare with but the commonest answer."""
    low, high = bootstrap_interval(first.candidate, seed=seed)
    commonest = Counter(first.answers).most_common(1)[0][1] / len(first.answers)
    text = (
        f"The first model is right on {np.mean(first.candidate):.1%} of {len(first.candidate)} items (95% "
        f"interval {low:.1%} to {high:.1%}); always giving the commonest answer would be right on "
        f"{commonest:.1%}."
    )
    return Check("better_than_constant", low > commonest, text)


def reaches_target(evidence: Evidence | First, gate: Gate) -> Check:
    """The score target, H3: whether it counts is the gate's to say."""
    score = float(np.mean(evidence.candidate))
    passed = score >= gate.score_target
    verdict = "reaches" if passed else "stays below"
    text = f"The candidate's score of {score:.1%} {verdict} the target of {gate.score_target:.1%}."
    return Check("score_target", passed, text)


def reaches_overall_floor(evidence: Evidence | First, floor: float) -> Check:
    """The floor over all items, H5."""
    score = float(np.mean(evidence.candidate))
    verdict = "reaches" if score >= floor else "stays below"
    text = f"Over all items the candidate is right on {score:.1%} and {verdict} the floor of {floor:.1%}."
    return Check("floor", score >= floor, text)


def has_items(evidence: Evidence | First, least: int) -> Check:
    """There are enough items to decide by."""
    n = len(evidence.candidate)
    verdict = "enough to decide by" if n >= least else "too few to decide by"
    return Check(
        "items", n >= least, f"There are {n} evaluated items, at least {least} are asked for: {verdict}."
    )


def has_no_overlap(evidence: Evidence | First) -> Check:
    """None of the items was trained on."""
    if evidence.overlap == 0:
        return Check("overlap", True, "None of the evaluated items was in the candidate's training rows.")
    text = (
        f"{evidence.overlap} of {len(evidence.candidate)} evaluated items were in the candidate's training "
        "rows, expected none."
    )
    return Check("overlap", False, text)


def merged_answers_alike(evidence: Evidence | First, merged: Merged, *, tolerance: float) -> Check:
    """The merged model is another candidate: it may not be worse than the adapter that was judged."""
    adapter, whole = float(np.mean(evidence.candidate)), float(np.mean(merged.right))
    passed = adapter - whole <= tolerance
    others = len(merged.agrees) - int(np.sum(np.asarray(merged.agrees, dtype=bool)))
    verdict = "within" if passed else "more than"
    text = (
        f"Merged onto {merged.onto} it is right on {whole:.1%}, as an adapter on {adapter:.1%}, and answers "
        f"otherwise on {others} of {len(merged.agrees)} items: {verdict} the tolerance of {tolerance:.1%}."
    )
    return Check("merged", passed, text)
