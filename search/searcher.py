"""Which recipe next: a Ray Tune searcher over the log of trials, with Optuna beneath.

What it proposes is a function of the seed and of the log alone: for every proposal a study is filled anew
from the graph and asked. So a search that was killed and carried out again proposes what it would have
proposed, Tune's random trial ids decide nothing, and the study knows the recipes that were really tried,
rounded as they were.

    suggest             what earlier attempts proposed and did not score; then the base recipe; then Optuna's
    on_trial_complete   the score, or the failure, goes into the log
    save, restore       where the log stood; restoring reads the log again
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.tune.search

from infra.settings import Settings
from lineage.recipe import Recipe
from lineage.runs import Run
from lineage.schemas import NOT_APPLICABLE
from search.edits import Dimension, apply, first_unknown, parameters_of
from search.space import (
    EventKind,
    Mode,
    SearchError,
    SearchGraph,
    TrialEvent,
    Vertex,
    append,
    log_digest,
    read_events,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

STARTUP_TRIALS = 10  # Optuna's default: TPE draws at random until this many trials have a score
_ASKS = 32  # draws that may all be known recipes before the space counts as used up

log = logging.getLogger("stemma.search")


@dataclass(frozen=True)
class Question:
    """What is searched for: from which recipe, along which dimensions, how long, in which direction."""

    base: Recipe
    dimensions: Sequence[Dimension]
    n_trials: int
    seed: int
    mode: Mode = "max"
    include_base: bool = True


class Searcher(ray.tune.search.Searcher):
    """Proposes recipes to Ray Tune and logs what becomes of them; lives on the driver.

    A trial's configuration is {"vertex": key, "recipe": canonical JSON}. Its result is {"vertex": key,
    "score": float or None, "run_id": str}; no score means that it failed. Results are told apart by vertex,
    not by trial id: only a trial whose process died, and so has no result, is found by the id it was proposed
    under.
    """

    def __init__(
        self,
        settings: Settings,
        run: Run,
        question: Question,
        *,
        now: Callable[[], dt.datetime],
        max_concurrent: int = 1,
    ):
        super().__init__()  # no metric: Tune would take a result without one, a failure, for a mistake
        self._settings, self._run, self._question, self._now = settings, run, question, now
        self._max_concurrent = max_concurrent
        self._in_flight: dict[str, str] = {}  # trial id -> vertex
        self._events = list(read_events(settings, run.identity))

    @property
    def graph(self) -> SearchGraph:
        """What the log tells so far."""
        return SearchGraph.fold(self._events)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next recipe; None while as many are tried as may be at once; FINISHED when none is left."""
        if len(self._in_flight) >= self._max_concurrent:
            return None  # one of those in flight will end, and Tune asks again
        graph = self.graph
        proposal = self._cut_off(graph) or self._new(graph)
        if proposal is None:
            return self.FINISHED
        recipe, parents = proposal
        self._write("proposed", recipe, parents)
        self._in_flight[trial_id] = recipe.key
        return {"vertex": recipe.key, "recipe": recipe.text}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Log the trial's score or its failure. Of a vertex that has a score already, nothing is logged."""
        proposed_as = self._in_flight.pop(trial_id, None)
        key = (result or {}).get("vertex", proposed_as)
        vertex = self.graph.vertices.get(key or "")
        if vertex is None:
            log.warning(
                "search %s: trial %s ended, but the log knows no vertex of it", self._run.id, trial_id
            )
            return
        if vertex.status == "scored":
            return
        score = None if error or result is None else result.get("score")
        run_id = (result or {}).get("run_id") or NOT_APPLICABLE
        if score is None or not math.isfinite(score):
            self._write("failed", vertex.recipe, vertex.parents, run_id=run_id)
        else:
            self._write("scored", vertex.recipe, vertex.parents, run_id=run_id, score=float(score))

    def save(self, checkpoint_path: str) -> None:
        """Write where the log stands: how many events, their digest, and what is in flight."""
        state = {
            "events": len(self._events),
            "digest": log_digest(self._events),
            "in_flight": self._in_flight,
        }
        Path(checkpoint_path).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Read the log again, which may have grown since. Raises SearchError when it is another log."""
        state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        events = read_events(self._settings, self._run.identity)
        if log_digest(events[: state["events"]]) != state["digest"]:
            raise SearchError(
                f"'{checkpoint_path}' was saved beside another log than that of search {self._run.identity}; "
                "carry the search out again instead, it goes on from its log"
            )
        self._events = list(events)
        unscored = {vertex.key for vertex in self.graph.unscored}
        self._in_flight = {trial_id: key for trial_id, key in state["in_flight"].items() if key in unscored}

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take over Tune's limit; True: `suggest` itself keeps to it."""
        self._max_concurrent = max_concurrent
        return True

    def _cut_off(self, graph: SearchGraph) -> tuple[Recipe, tuple[str, ...]] | None:
        """The first recipe without a score that only earlier attempts proposed: it was cut off, or it failed.

        A failure counts for its attempt alone, for what a new attempt mends is often the machine.
        """
        tried_now = {event.vertex for event in self._events if event.search_run == self._run.id}
        for vertex in graph.unscored:
            if vertex.key not in tried_now:
                return vertex.recipe, vertex.parents
        return None

    def _new(self, graph: SearchGraph) -> tuple[Recipe, tuple[str, ...]] | None:
        """A recipe that is no vertex yet, or None when enough were proposed or no other is left."""
        question = self._question
        if len(graph.vertices) >= question.n_trials:
            return None
        if question.include_base and not graph.vertices:
            return question.base, ()
        recipe = self._drawn(graph) or first_unknown(question.dimensions, question.base, graph.vertices)
        return (recipe, (question.base.key,)) if recipe else None

    def _drawn(self, graph: SearchGraph) -> Recipe | None:
        """Optuna's next recipe, or None when it drew only known ones."""
        question = self._question
        study = _study(graph, question)
        ranges = {dimension.path: dimension.distribution() for dimension in question.dimensions}
        for _ in range(_ASKS):
            # A draw that is not used stays a running trial of this study, which TPE keeps away from.
            recipe = apply(question.dimensions, study.ask(ranges).params, question.base)
            if recipe.key not in graph.vertices:
                return recipe
        return None

    def _write(
        self,
        event: EventKind,
        recipe: Recipe,
        parents: tuple[str, ...],
        *,
        run_id: str = NOT_APPLICABLE,
        score: float | None = None,
    ) -> None:
        at = self._now()
        if self._events:
            at = max(
                at, self._events[-1].at + dt.timedelta(microseconds=1)
            )  # the log's order, whatever the clock does
        entry = TrialEvent(self._run.id, recipe.key, event, parents, recipe.text, at, run_id, score)
        append(self._settings, entry)
        self._events.append(entry)
        log.info(
            "search %s: vertex %s %s%s",
            self._run.id,
            recipe.key,
            event,
            "" if score is None else f" {score:.6g}",
        )


def _study(graph: SearchGraph, question: Question) -> Study:
    """A study that was told every vertex of the graph, in the order of their proposal."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Each proposal has a generator of its own, so that what was drawn before a kill need not be drawn again.
    seed = int(np.random.SeedSequence([question.seed, len(graph.vertices)]).generate_state(1)[0])
    study = optuna.create_study(
        direction="maximize" if question.mode == "max" else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    )
    for vertex in graph.vertices.values():
        told = _as_told(vertex, question.dimensions)
        if told is not None:
            study.add_trial(told)
    return study


def _as_told(vertex: Vertex, dimensions: Sequence[Dimension]) -> FrozenTrial | None:
    """The vertex as a trial of a study, or None where it lies outside the ranges (the base recipe may)."""
    from optuna.trial import TrialState, create_trial

    parameters = parameters_of(vertex.recipe, dimensions)
    if parameters is None:
        return None
    states = {"proposed": TrialState.RUNNING, "scored": TrialState.COMPLETE, "failed": TrialState.FAIL}
    return create_trial(
        params=parameters,
        distributions={dimension.path: dimension.distribution() for dimension in dimensions},
        state=states[vertex.status],
        value=vertex.score,
        user_attrs={"vertex": vertex.key},
    )
