"""Null retrains: a model's recipe unchanged, with other seeds. What they win and lose is chance.

    churn(runtime, "champion", seeds=3).lines()     what `stemma evaluate MODEL --null 3` prints

A retrain of a recipe with a seed is carried out once; whoever asks for it again is given the same model.
"""

from __future__ import annotations

from infra.runtime import Runtime
from lineage import models
from lineage.consumption import Checkpoint
from lineage.runs import Run
from training.asking import Asking
from training.evaluate import evaluate
from training.finetune import FinetuneConfig, config_of, finetune
from training.promotion import Churn, churn_of
from training.promotion.gate_set import items_of, passes, said_on
from training.recipe import TrainingError


def churn(
    runtime: Runtime,
    model: Checkpoint | str,
    *,
    seeds: int = 1,
    seed: int = 0,
    asking: Asking | None = None,
    parent: Run | None = None,
) -> Churn:
    """Train a model's recipe again with so many other seeds, and hold each beside it on the gate's items.

    `seed` numbers the retrains: those of seed 1 with one more begin where those of seed 0 end. Raises
    TrainingError for less than one.
    """
    if seeds < 1:
        raise TrainingError(f"{seeds} null retrains show nothing; ask for 1 or more")
    checkpoint = models.resolve(runtime.settings, model)[0] if isinstance(model, str) else model
    models.require_finished(runtime.settings, checkpoint)
    nulls = retrains(runtime, checkpoint, number=seeds, seed=seed, parent=parent)
    own, *evaluated = (
        evaluate(runtime, run, split="gate", seed=seed, asking=asking, parent=parent).run_id
        for run in (checkpoint.run_id, *nulls)
    )
    items = items_of(runtime.settings, checkpoint.run_id, evaluation=own)
    told = [
        said_on(runtime.settings, run, items, evaluation=evaluation)
        for run, evaluation in zip(nulls, evaluated, strict=True)
    ]
    return churn_of(passes(items), [passes(each) for each in told])


def retrains(
    runtime: Runtime, model: Checkpoint, *, number: int, seed: int, parent: Run | None = None
) -> list[str]:
    """The runs of a model's recipe with its seeds changed: which rows are drawn, the start, the order."""
    config = config_of(runtime, model)
    made = []
    for offset in range(seed + 1, seed + 1 + number):
        data = config.data.model_copy(update={"seed": config.data.seed + offset})
        training = config.training.model_copy(update={"seed": config.training.seed + offset})
        wanted = FinetuneConfig(data=data, training=training)
        made.append(finetune(runtime, wanted, parent=parent).run_id)
    return made
