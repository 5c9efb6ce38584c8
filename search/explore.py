"""Search: try edited recipes as Ray Tune trials and say which scored best. The job behind `stemma search`.

    dimensions --Searcher--> recipes --Ray Tune--> trial(settings, recipe, search_run) --> log --> facets

The search is one Run; what a trial does is a Run of its own with the search as its parent. A search that was
killed and is carried out again goes on from its log: what has a score is not tried again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import mirror, registry, runs, tables
from lineage.recipe import Recipe
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import NOT_APPLICABLE, TRIAL
from search.edits import Dimension, check, describe
from search.space import Mode, SearchError, SearchGraph, Vertex, read_events

Trial = Callable[[Settings, Mapping[str, Any], str], Mapping[str, Any]]
"""trial(settings, recipe, search_run) -> {"score": float, "run_id": str, ...}.

Runs in a worker, which it may share with trials before and after it. `recipe` is {"data": ...,
"hyperparameters": ..., "strategy": ...} in plain JSON values, `search_run` the run id of the search. The
score lies under the config's `metric`, must be finite, and must never come from the split `report`. An
exception fails this trial, not the search.
"""

log = logging.getLogger("stemma.search")


class SearchConfig(BaseModel):
    """How long to search, and for what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_trials: int = Field(default=4, ge=1)
    """Recipes to try, the base recipe among them. With no more than 10 every proposal is a random draw."""

    max_concurrent_trials: int = Field(default=2, ge=1)
    """Trials that run at the same time, on one CPU each."""

    seed: int = Field(default=0, ge=0)
    """Seed of the proposals."""

    include_base: bool = True
    """Try the unedited base recipe first, so that there is something to be better than."""

    metric: str = "score"
    """Name under which a trial returns what is compared."""

    mode: Mode = "max"
    """Whether more is better or less is."""


def explore(
    runtime: Runtime,
    config: SearchConfig,
    *,
    base: Recipe,
    dimensions: Sequence[Dimension],
    trial: Trial,
    inputs: Sequence[str] = (),
    parent: Run | None = None,
) -> Outcome:
    """Carry out a search as a Run; `inputs` are the table versions that the recipes select from.

    Raises SearchError when the dimensions do not fit the base recipe, when the trial is no top-level
    function, when every trial failed, and when the search was cut short.
    """
    check(dimensions, base)
    identity = {
        "config": config.model_dump(mode="json"),
        "base": base.as_json(),
        "dimensions": [describe(dimension) for dimension in dimensions],
        "trial": _name(trial),
    }

    def work(run: Run) -> Outcome:
        settings = runtime.settings
        for event in runs.events(settings, run.identity):  # killed, they are still shown as going on
            if event["status"] == "ABORT":
                registry.if_reachable(registry.close_run, settings, run_id=event["run_id"], status="ABORT")
        # Opened before its trials, which nest below it in MLflow while they run.
        registry.if_reachable(registry.open_run, settings, run_id=run.id, job="search", tags={})
        try:
            return _search(runtime, config, run, base=base, dimensions=dimensions, trial=trial)
        except BaseException:
            registry.if_reachable(registry.close_run, settings, run_id=run.id, status="FAIL")
            raise

    outcome = carry_out(runtime, "search", config=identity, inputs=inputs, work=work, parent=parent)
    mirror.show_outcome(runtime.settings, outcome)
    return outcome


def run_trial(
    configuration: Mapping[str, Any], *, trial: Trial, settings: Settings, search_run: str, metric: str
) -> dict[str, Any]:
    """Try one recipe, on a worker: {"vertex", "score" or None, "run_id", "error": a sentence or None}.

    A failure is an answer like any other: it keeps its vertex and its sentence, and the worker its imports.
    """
    answer: dict[str, Any] = {
        "vertex": configuration["vertex"],
        "score": None,
        "run_id": NOT_APPLICABLE,
        "error": None,
    }
    try:
        result = trial(settings, Recipe.parse(configuration["recipe"]).as_json(), search_run)
        answer["run_id"] = str(result.get("run_id") or NOT_APPLICABLE)
        answer["score"] = _score(result, metric)
    except Exception as error:
        log.exception("search %s: vertex %s failed", search_run, configuration["vertex"])
        answer["error"] = _sentence(error)
    return answer


def _search(
    runtime: Runtime,
    config: SearchConfig,
    run: Run,
    *,
    base: Recipe,
    dimensions: Sequence[Dimension],
    trial: Trial,
) -> Outcome:
    settings = runtime.settings
    earlier = SearchGraph.fold(read_events(settings, run.identity))
    errors: dict[str, str] = {}
    if len(earlier.scored) < config.n_trials:
        errors = _tune(runtime, config, run, base=base, dimensions=dimensions, trial=trial)
    graph = SearchGraph.fold(read_events(settings, run.identity))
    best = graph.best(config.mode)
    cut_short = [vertex.key for vertex in graph.unscored if vertex.status == "proposed"]
    if cut_short:
        raise SearchError(
            f"the search ended before {', '.join(cut_short)}; run it again, it goes on from its log"
        )
    if best is None:
        first = next(iter(errors.values()), "no sentence was left")
        raise SearchError(
            f"all {len(graph.vertices)} trials failed, the first with: {first}; mend it and run it again"
        )
    return Outcome(
        outputs=(str(tables.current(settings, TRIAL)),),
        counts={
            "proposed": len(graph.vertices),
            "scored": len(graph.scored),
            "failed": len(graph.unscored),
            "scored_before": len(earlier.scored),
        },
        facets={
            "trials": [_told(vertex, base, errors) for vertex in graph.vertices.values()],
            "best": {**_told(best, base, errors), "recipe": best.recipe.as_json()},
            "base": base.key,
            "metric": config.metric,
            "mode": config.mode,
            "sampling": _sampling(config),
        },
    )


def _tune(
    runtime: Runtime,
    config: SearchConfig,
    run: Run,
    *,
    base: Recipe,
    dimensions: Sequence[Dimension],
    trial: Trial,
) -> dict[str, str]:
    """Run the trials; vertex -> error sentence of those that failed now. All else is in the log."""
    runtime.ray()
    from ray import tune
    from ray.tune.logger import JsonLoggerCallback

    from search.searcher import Question, Searcher

    settings = runtime.settings
    question = Question(base, dimensions, config.n_trials, config.seed, config.mode, config.include_base)
    metric, search_run = config.metric, run.id

    def trainable(configuration: dict[str, Any]) -> dict[str, Any]:
        return run_trial(configuration, trial=trial, settings=settings, search_run=search_run, metric=metric)

    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=Searcher(settings, run, question, now=runtime.now),
            num_samples=config.n_trials,
            max_concurrent_trials=config.max_concurrent_trials,
            reuse_actors=True,  # what a trial imports is imported once per worker: seconds, with torch
            trial_dirname_creator=lambda tried: tried.config["vertex"],
        ),
        run_config=tune.RunConfig(
            name=run.id,
            # Tune's own books, which nobody reads; with a remote lake they stay in Ray's folder on the head.
            storage_path=settings.path("tune") if settings.is_local else None,
            callbacks=[JsonLoggerCallback()],  # without its file, Tune warns that a trial has no metrics
            verbose=0,
        ),
    ).fit()
    errors: dict[str, str] = {}
    for result in results:
        if result.error is not None:  # its process died, so it could not answer
            # A trial that died before it answered may come back without its config; its folder has its name.
            vertex = (result.config or {}).get("vertex") or PurePath(result.path).name
            errors[vertex] = _sentence(result.error)
        elif result.metrics and result.metrics.get("error"):
            errors[result.metrics["vertex"]] = result.metrics["error"]
    return errors


def _told(vertex: Vertex, base: Recipe, errors: Mapping[str, str]) -> dict[str, Any]:
    """One trial as the search's record shows it."""
    return {
        "vertex": vertex.key,
        "edits": list(vertex.recipe.edits_since(base)),
        "status": vertex.status,
        "score": vertex.score,
        "run_id": vertex.run_id,
        "error": errors.get(vertex.key),
    }


def _sampling(config: SearchConfig) -> str:
    from search.searcher import STARTUP_TRIALS

    but_base = " but the base recipe" if config.include_base else ""
    if config.n_trials <= STARTUP_TRIALS:
        return (
            f"{config.n_trials} trials are no more than the {STARTUP_TRIALS} that TPE begins with at random: "
            f"every proposal{but_base} is a random draw"
        )
    return f"every proposal{but_base} is a random draw until {STARTUP_TRIALS} trials have a score, then TPE's"


def _score(result: Mapping[str, Any], metric: str) -> float:
    score = result.get(metric)
    if isinstance(score, bool) or not isinstance(score, Real) or not math.isfinite(score):
        raise SearchError(f"the trial returned {score!r} as '{metric}'; expected a finite number")
    return float(score)


def _name(trial: Trial) -> str:
    """Where workers find the trial. Raises SearchError unless it is a function at a module's top level."""
    name = getattr(trial, "__qualname__", "")
    if not name.isidentifier():
        raise SearchError(
            f"the trial is {trial!r}; expected a function at the top level of a module, for workers import it"
        )
    return f"{trial.__module__}:{name}"


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]
