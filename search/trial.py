"""One trial of a search, on any worker: a recipe becomes an adapter and its score on the gate split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import Run
from training.evaluate import evaluate
from training.finetune import FinetuneConfig, finetune

METRIC = "accuracy.noisy"


def try_recipe(settings: Settings, recipe: Mapping[str, Any], search_run: str) -> dict[str, Any]:
    """Fine-tune by a recipe and score it. Returns `score`, its interval, and `run_id` of the child run."""
    config = FinetuneConfig.model_validate({"data": recipe["data"], "training": recipe["hyperparameters"]})
    identity, _, attempt = search_run.rpartition("-")
    parent = Run(identity, int(attempt), "search")
    with Runtime(settings) as runtime:
        trained = finetune(runtime, config, parent=parent)
        scored = evaluate(runtime, trained.run_id, split="gate", parent=parent)
    score, low, high, n = scored.facets.get(METRIC) or next(iter(scored.facets.values()))
    return {"score": score, "low": low, "high": high, "n": n, "run_id": trained.run_id}
