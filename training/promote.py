"""The jobs behind `stemma promote`: move the champion alias through the gates, or leave it where it is.

    candidate ─ evaluate on `gate` ─┐
    champion  ─ evaluate on `gate` ─┼─ decide ─ event in Delta ─ alias in MLflow
    null      ─ retrain, evaluate  ─┘

The null is the champion's own recipe with another seed: what chance alone gains and loses.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.runtime import Runtime
from lineage import bans, curricula, mirror, models, registry, report, runs
from lineage.consumption import Checkpoint, bitmaps
from lineage.runs import Outcome, Run, carry_out
from training.evaluate import evaluate
from training.finetune import FinetuneConfig, config_of, finetune
from training.metrics import bootstrap_interval
from training.promotion import Check, Decision, Evidence, decide
from training.recipe import TrainingError

log = logging.getLogger("stemma.promote")

CONDITION = "noisy"  # the gate set's noisy rows are fresh traffic, which the champion did not select


def promote(
    runtime: Runtime, reference: str, *, name: str, seed: int = 0, parent: Run | None = None
) -> Outcome:
    """Put a checkpoint before the gates, and move `champion` to it if it passes all of them.

    The facets hold `promoted`, the version, and every check with its numbers; whatever the decision, it is on
    record. Evaluates on the gate split, and retrains the champion's recipe as the null, where not done yet.
    """
    models.check_name(name)
    checkpoint, _ = models.resolve(runtime.settings, reference)
    models.require_finished(runtime.settings, checkpoint)
    eaten = list(bitmaps(runtime.settings)[checkpoint.run_id, checkpoint.step])
    bans.require_clean(runtime.settings, eaten, what=reference)
    models.require_untouched(runtime.settings, name)
    reigning = models.aliases(runtime.settings).get(name, {}).get("champion", 0)
    # Every move of the champion asks the question anew, and so does an evaluation on other items.
    reigns = sum(event.alias == "champion" for event in models.events(runtime.settings, name))
    champion = _checkpoint_of(runtime, name, reigning)
    if champion == checkpoint:
        cut_off = _cut_off(runtime, name)
        if cut_off is None:
            log.info("promote: %s@%d is champion already", name, reigning)
            checks = _checks_of(runtime, name, reigning)
            facets = {"promoted": True, "version": reigning, "checks": checks}
            return Outcome(facets=facets, again=True)
        # Its process died after the move: what is left of it, MLflow and its record, is done as it was begun.
        (reigning, seed), reigns = cut_off, reigns - 1
        champion = _checkpoint_of(runtime, name, reigning)
    evaluated = [evaluate(runtime, checkpoint.run_id, split="gate", seed=seed, parent=parent)]
    null = _null_of(runtime, champion, seed=seed, parent=parent) if champion else None
    if champion and null:
        others = (champion.run_id, null)
        evaluated += [evaluate(runtime, run, split="gate", seed=seed, parent=parent) for run in others]

    def work(run: Run) -> Outcome:
        runs.require_idle(runtime.settings, to="promote", jobs=models.MOVERS)
        bans.require_clean(runtime.settings, eaten, what=reference)  # what came during the evaluations
        decision = _decide(runtime, checkpoint, champion, null, seed=seed)
        version = models.register(runtime, checkpoint, name=name)
        moves = {"candidate": version.version}
        if decision.promoted:
            moves |= {"champion": version.version}
            moves |= {"previous": reigning} if champion else {}
        checks = [asdict(check) for check in decision.checks]
        reason = "passed every gate" if decision.promoted else "; ".join(decision.reasons)
        models.move_aliases(
            runtime, moves, name=name, kind="promotion", reason=reason, evidence=checks, run=run
        )
        registry.if_reachable(mirror.show_version, runtime.settings, version)
        registry.if_reachable(models.mirror_aliases, runtime.settings, name)
        log.info("promote %s: %s", version, "champion" if decision.promoted else f"refused: {reason}")
        facets = {"promoted": decision.promoted, "version": version.version, "null": null, "checks": checks}
        return Outcome((f"model:{version}",), {"items": _items(runtime, checkpoint).num_rows}, facets)

    config = {"name": name, "seed": seed, "reigns": reigns, "candidate": checkpoint.run_id}
    inputs = [f"checkpoint:{c.name}" for c in (checkpoint, champion) if c]
    inputs += [f"evaluation:{each.run_id}" for each in evaluated]
    return carry_out(runtime, "promote", config=config, inputs=inputs, work=work, parent=parent)


def _checkpoint_of(runtime: Runtime, name: str, version: int) -> Checkpoint | None:
    return models.resolve(runtime.settings, f"{name}@{version}")[0] if version else None


def _cut_off(runtime: Runtime, name: str) -> tuple[int, int] | None:
    """The version before the champion, and the seed, of a promotion that moved it and came to no end."""
    settings = runtime.settings
    move = next(e for e in reversed(models.events(settings, name)) if e.alias == "champion")
    history = runs.events(settings, runs.identity_of(move.run_id))
    if move.kind != "promotion" or any(event["status"] == "COMPLETE" for event in history):
        return None
    return move.from_version, json.loads(history[0]["config"])["seed"]


def _checks_of(runtime: Runtime, name: str, version: int) -> list[dict[str, Any]]:
    """The checks that a version passed when it was promoted last."""
    moves = [
        e for e in models.events(runtime.settings, name) if e.alias == "champion" and e.kind == "promotion"
    ]
    return next((json.loads(e.evidence) for e in reversed(moves) if e.to_version == version), [])


def _null_of(runtime: Runtime, champion: Checkpoint, *, seed: int, parent: Run | None) -> str:
    """The run of the champion's recipe with its seeds changed: which rows are drawn, the start, the order."""
    config = config_of(runtime, champion)
    data = config.data.model_copy(update={"seed": config.data.seed + 1 + seed})
    training = config.training.model_copy(update={"seed": config.training.seed + 1 + seed})
    return finetune(runtime, FinetuneConfig(data=data, training=training), parent=parent).run_id


def _decide(
    runtime: Runtime, candidate: Checkpoint, champion: Checkpoint | None, null: str | None, *, seed: int
) -> Decision:
    items = _items(runtime, candidate)
    if champion is None or null is None:
        return _decide_first(items, seed=seed)
    return decide(
        Evidence(
            champion=_correct(runtime, champion.run_id, items),
            candidate=_correct(runtime, candidate.run_id, items),
            nulls=[_correct(runtime, null, items)],
            overlap=_overlap(runtime, candidate, items),
        ),
        seed=seed,
    )


def _decide_first(items: pa.Table, *, seed: int) -> Decision:
    """Without a champion there is nothing to compare with but the commonest answer."""
    answers = items["answer"].to_pylist()
    correct = [a == b for a, b in zip(answers, items["prediction"].to_pylist(), strict=True)]
    low, high = bootstrap_interval(correct, seed=seed)
    commonest = Counter(answers).most_common(1)[0][1] / len(answers)
    passed = low > commonest
    text = (
        f"The first model is right on {sum(correct) / len(correct):.1%} of {len(correct)} items (95% "
        f"interval {low:.1%} to {high:.1%}); always giving the commonest answer would be right on "
        f"{commonest:.1%}."
    )
    check = Check("better_than_constant", passed, text)
    return Decision(passed, (text,), (check,))


def _items(runtime: Runtime, checkpoint: Checkpoint) -> pa.Table:
    found = report.predictions_of(runtime.settings, checkpoint.run_id, split="gate", condition=CONDITION)
    if found.num_rows:
        return found
    return report.predictions_of(runtime.settings, checkpoint.run_id, split="gate")


def _correct(runtime: Runtime, model_run: str, items: pa.Table) -> list[bool]:
    """Whether a model was right on exactly these items, in their order."""
    found = report.predictions_of(runtime.settings, model_run, split="gate")
    mine = found.filter(pc.is_in(found["row_id"], items["row_id"].combine_chunks())).sort_by("row_id")
    if mine["row_id"].to_pylist() != items["row_id"].to_pylist():
        raise TrainingError(
            f"run {model_run} was evaluated on other items than the candidate; evaluate both again"
        )
    return pc.equal(mine["answer"], mine["prediction"]).to_pylist()


def _overlap(runtime: Runtime, candidate: Checkpoint, items: pa.Table) -> int:
    members = curricula.load(runtime.settings, candidate.curriculum).members["row_id"].combine_chunks()
    return pc.sum(pc.is_in(items["row_id"], members)).as_py() or 0
