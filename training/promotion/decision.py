"""The decision: every check is made, also after one has failed, and each says its numbers."""

from __future__ import annotations

import numpy as np

from training.promotion.facts import Check, Decision, Evidence, First, decided, require_same_items
from training.promotion.gains import (
    beats_recipe,
    gain_of,
    has_items,
    has_no_overlap,
    is_better,
    is_better_than_constant,
    merged_answers_alike,
    over_recipe,
    reaches_overall_floor,
    reaches_target,
)
from training.promotion.gate import Gate
from training.promotion.groups import floors_of, groups_of, no_category_falls
from training.promotion.losses import keeps_history, keeps_passes, keeps_previous_set


def decide(evidence: Evidence, *, seed: int, gate: Gate | None = None) -> Decision:
    """Put a candidate before the gate. `seed` fixes the bootstrap. Raises TrainingError."""
    gate = gate or Gate()
    require_same_items(evidence, need_categories=bool(gate.floors or gate.category_floor))
    gain = gain_of(evidence, seed=seed, level=gate.level)
    over = over_recipe(evidence, level=gate.null_level, spread=gate.spread)
    checks = [
        is_better(evidence, gain, level=gate.level),
        beats_recipe(evidence, over, level=gate.null_level),
        keeps_passes(evidence, gate),
        keeps_previous_set(evidence, gate),
        keeps_history(evidence, gate),
        no_category_falls(groups_of(evidence), alpha=gate.alpha),
        *_whatever_reigns(evidence, gate),
    ]
    figures = {
        "accuracy": float(np.mean(evidence.candidate)),
        "champion_accuracy": float(np.mean(evidence.champion)),
        "null_accuracy": float(np.mean(evidence.nulls)),
        "gain": gain.diff,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "over_recipe": over.gain,
        "over_recipe_low": over.low,
        "over_recipe_high": over.high,
        "items": len(evidence.candidate),
    }
    return decided(checks, notes=_notes(evidence, gate), figures=figures)


def decide_first(first: First, *, seed: int, gate: Gate | None = None) -> Decision:
    """Put a first model before the gate, where no champion is. Raises TrainingError."""
    gate = gate or Gate()
    require_same_items(first, need_categories=bool(gate.floors or gate.category_floor))
    checks = [is_better_than_constant(first, seed=seed), *_whatever_reigns(first, gate)]
    figures = {"accuracy": float(np.mean(first.candidate)), "items": len(first.candidate)}
    return decided(checks, notes=_notes(first, gate), figures=figures)


def _whatever_reigns(evidence: Evidence | First, gate: Gate) -> list[Check]:
    """The checks that ask nothing of a champion."""
    checks = [has_items(evidence, gate.least_items), has_no_overlap(evidence)]
    if gate.overall_floor:
        checks.append(reaches_overall_floor(evidence, gate.overall_floor))
    checks += floors_of(evidence, gate)
    if gate.require_score_target:
        checks.append(reaches_target(evidence, gate))
    if evidence.merged:
        checks.append(merged_answers_alike(evidence, evidence.merged, tolerance=gate.merged_tolerance))
    return checks


def _notes(evidence: Evidence | First, gate: Gate) -> list[str]:
    if gate.require_score_target:
        return []
    target = reaches_target(evidence, gate)
    then = "a loop may stop here" if target.passed else "a loop goes on"
    return [f"{target.text.removesuffix('.')}: {then}; it is no condition."]
