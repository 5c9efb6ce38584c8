"""The job behind `stemma promote`: move the champion alias through the gates, or leave it where it is.

    candidate ─ evaluate on `gate` ─┐
    champion  ─ evaluate on `gate` ─┼─ decide ─ page ─ event in Delta ─ alias in MLflow
    nulls     ─ retrain, evaluate  ─┘

The nulls are the champion's own recipe with other seeds: what chance alone gains and loses. Killed anywhere,
the same command goes on where it was; the alias moves once, and after every evaluation.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

from infra.runtime import Runtime
from infra.screen import harmless
from infra.settings import Settings
from lineage import bans, mirror, models, promotion_pages, registry, runs
from lineage.consumption import Checkpoint, bitmaps
from lineage.runs import Outcome, Run, carry_out
from training.promotion import First, Gate, decide, decide_first
from training.promotion.contest import Contest, evidence_of, moved_items, prepare
from training.promotion.gate_set import items_of
from training.promotion.page import promotion_html
from training.promotion.shown import facts_of
from training.recipe import TrainingError

log = logging.getLogger("stemma.promote")


class ChampionMoved(TrainingError):
    """Another promotion, a rollback or a recall moved the champion while this one was being prepared."""


def promote(
    runtime: Runtime,
    reference: str,
    *,
    name: str,
    seed: int = 0,
    gate: Gate | None = None,
    parent: Run | None = None,
) -> Outcome:
    """Put a checkpoint before the gates, and move `champion` to it if it passes all of them.

    The facets hold `promoted`, the version, every check with its numbers, the notes, and who won and lost
    which items; whatever the decision, it is on record, and on a page in the lake. Evaluates on the gate
    split, and retrains the champion's recipe as the nulls, where not done yet. Where the champion is moved
    meanwhile, it is decided anew against the one that reigns then.
    """
    models.check_name(name)
    while True:
        try:
            return _promote(runtime, reference, name=name, seed=seed, gate=gate or Gate(), parent=parent)
        except ChampionMoved as moved:
            log.info("promote: %s", moved)


def _promote(
    runtime: Runtime, reference: str, *, name: str, seed: int, gate: Gate, parent: Run | None
) -> Outcome:
    settings = runtime.settings
    checkpoint, _ = models.resolve(settings, reference)
    models.require_finished(settings, checkpoint)
    eaten = list(bitmaps(settings)[checkpoint.run_id, checkpoint.step])
    bans.require_clean(settings, eaten, what=reference)
    models.require_untouched(settings, name)
    reigning = models.aliases(settings).get(name, {}).get("champion", 0)
    # Every move of the champion asks the question anew, and so does an evaluation on other items.
    reigns = _moves(settings, name)
    champion = _checkpoint_of(settings, name, reigning)
    if champion == checkpoint:
        cut_off = _cut_off(settings, name)
        if cut_off is None:
            log.info("promote: %s@%d is champion already", name, reigning)
            return _champion_already(settings, name, reigning)
        # Its process died after the move: what is left of it, MLflow and its record, is done as it was begun.
        (reigning, seed, gate), reigns = cut_off, reigns - 1
        champion = _checkpoint_of(settings, name, reigning)
    contest = prepare(
        runtime, name, checkpoint, champion, reigning=reigning, seed=seed, gate=gate, parent=parent
    )

    def work(run: Run) -> Outcome:
        # Of two that began at once the second sees the first here, and of one that has ended what it moved.
        runs.require_idle(settings, to="promote", jobs=models.MOVERS, run=run)
        if _moves(settings, name, but=run) != reigns:
            raise ChampionMoved(f"the champion of '{name}' was moved meanwhile; it is decided anew")
        bans.require_clean(settings, eaten, what=reference)  # what came during the evaluations
        return _decide_and_move(runtime, contest, run, seed=seed, gate=gate)

    config = {"name": name, "seed": seed, "reigns": reigns, "candidate": checkpoint.run_id}
    config |= {"gate": gate.model_dump(mode="json")}
    inputs = [f"checkpoint:{c.name}" for c in (checkpoint, champion) if c]
    inputs += [f"evaluation:{each}" for each in contest.evaluations]
    outcome = carry_out(runtime, "promote", config=config, inputs=inputs, work=work, parent=parent)
    mirror.show_outcome(settings, outcome)
    return outcome


def _decide_and_move(runtime: Runtime, contest: Contest, run: Run, *, seed: int, gate: Gate) -> Outcome:
    settings, name = runtime.settings, contest.name
    evidence = evidence_of(runtime, contest, gate)
    first = isinstance(evidence, First)
    decision = (
        decide_first(evidence, seed=seed, gate=gate) if first else decide(evidence, seed=seed, gate=gate)
    )
    version = models.register(runtime, contest.candidate, name=name)
    moves = {"candidate": version.version}
    if decision.promoted:
        moves |= {"champion": version.version}
        moves |= {"previous": contest.reigning} if contest.champion else {}
    checks = [asdict(check) for check in decision.checks]
    reason = "passed every gate" if decision.promoted else "; ".join(decision.reasons)
    items = items_of(settings, contest.candidate.run_id, evaluation=contest.evaluations[0])
    facts = facts_of(
        settings, contest, evidence, decision, version=version, run_id=run.id, at=runtime.now(), gate=gate
    )
    promotion_pages.keep(settings, run.id, promotion_html(facts))  # before the move, which it explains
    models.move_aliases(runtime, moves, name=name, kind="promotion", reason=reason, evidence=checks, run=run)
    registry.if_reachable(mirror.show_version, settings, version)
    registry.if_reachable(models.mirror_aliases, settings, name)
    log.info("promote %s: %s", version, "champion" if decision.promoted else f"refused: {harmless(reason)}")
    facets = {
        "promoted": decision.promoted,
        "version": version.version,
        "champion": contest.reigning,
        "nulls": list(contest.nulls),
        "evaluations": contest.roles,
        "checks": checks,
        "notes": list(decision.notes),
        "figures": dict(decision.figures),
        **moved_items(items, evidence),
    }
    return Outcome((f"model:{version}",), {"items": items.num_rows}, facets)


def _champion_already(settings: Settings, name: str, version: int) -> Outcome:
    facets = {
        "promoted": True,
        "version": version,
        "notes": [],
        "checks": _checks_of(settings, name, version),
    }
    return Outcome(facets=facets, again=True)


def _checkpoint_of(settings: Settings, name: str, version: int) -> Checkpoint | None:
    return models.resolve(settings, f"{name}@{version}")[0] if version else None


def _moves(settings: Settings, name: str, *, but: Run | None = None) -> int:
    """How often the champion was moved, `but` by this run or an attempt at it before."""
    mine = but.identity if but else ""
    moved = (event for event in models.events(settings, name) if event.alias == "champion")
    return sum(runs.identity_of(event.run_id) != mine for event in moved)


def _cut_off(settings: Settings, name: str) -> tuple[int, int, Gate] | None:
    """The version before the champion, seed and gate, of a promotion that moved it and came to no end."""
    move = next(e for e in reversed(models.events(settings, name)) if e.alias == "champion")
    history = runs.events(settings, runs.identity_of(move.run_id))
    if move.kind != "promotion" or not history or any(e["status"] == "COMPLETE" for e in history):
        return None
    config = json.loads(history[0]["config"])
    return move.from_version, config["seed"], Gate.model_validate(config.get("gate", {}))


def _checks_of(settings: Settings, name: str, version: int) -> list[dict[str, Any]]:
    """The checks that a version passed when it was promoted last."""
    moves = [e for e in models.events(settings, name) if e.alias == "champion" and e.kind == "promotion"]
    return next((json.loads(e.evidence) for e in reversed(moves) if e.to_version == version), [])
