"""A search as a whole: Ray Tune, the searcher, the log and the search's own Run."""

import datetime as dt
import os
import sys

import numpy as np
import pytest

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import runs, tables
from lineage.recipe import Recipe
from lineage.schemas import TRIAL
from search.edits import Categorical, LogUniform
from search.explore import SearchConfig, explore, run_trial
from search.space import SearchError, SearchGraph, read_events

pytestmark = pytest.mark.cluster

BASE = Recipe(
    data={"slices": "gold"}, hyperparameters={"learning_rate": 0.002}, strategy={"format": "answer"}
)
FOUR = (Categorical("data.slices", ("gold", "hard")), Categorical("strategy.format", ("answer", "steps")))
RATE = (LogUniform("hyperparameters.learning_rate", 1e-4, 1e-1),)
TWO_OPTIMA = {
    ("gold", "answer"): 0.5,
    ("gold", "steps"): 0.2,
    ("hard", "answer"): 0.3,
    ("hard", "steps"): 0.9,
}


def two_optima(settings, recipe, search_run):
    """A local optimum at the base recipe, a better one where both of its values change."""
    score = TWO_OPTIMA[recipe["data"]["slices"], recipe["strategy"]["format"]]
    return {"score": score, "run_id": f"child-of-{search_run}"}


def loss_by_rate(settings, recipe, search_run):
    return {"loss": abs(recipe["hyperparameters"]["learning_rate"] - 0.01)}


def loss_by_rate_as_score(settings, recipe, search_run):
    return {"score": -loss_by_rate(settings, recipe, search_run)["loss"]}


def child_run(settings, recipe, search_run):
    identity, _, attempt = search_run.rpartition("-")
    asked = runs.Run(identity, int(attempt), "search")
    score = TWO_OPTIMA[recipe["data"]["slices"], recipe["strategy"]["format"]]

    def work(run):
        return runs.Outcome(facets={"score": score})

    outcome = runs.carry_out(Runtime(settings), "finetune", config=recipe, inputs=[], work=work, parent=asked)
    return {"score": outcome.facets["score"], "run_id": outcome.run_id}


def hard_rows_fail(settings, recipe, search_run):
    if recipe["data"]["slices"] == "hard":
        raise ValueError("no hard rows are left\nsecond line")
    return two_optima(settings, recipe, search_run)


def steps_kill_the_worker(settings, recipe, search_run):
    if recipe["strategy"]["format"] == "steps":
        os._exit(1)
    return two_optima(settings, recipe, search_run)


def always_not_a_number(settings, recipe, search_run):
    return {"score": float("nan")}


def where_it_runs(settings, recipe, search_run):
    import search.space

    return {"score": 1.0, "run_id": f"{os.getpid()} {search.space.__file__}"}


def a_clock_that_is_interrupted_once(*, after):
    """A clock that somebody presses Ctrl-C on when it is read for the `after`+1st time."""
    reads = iter(range(1000))

    def now():
        if next(reads) == after:
            raise KeyboardInterrupt
        return dt.datetime.now(dt.UTC)

    return now


@pytest.fixture(scope="module")
def ray_session(tmp_path_factory):
    from ray import cloudpickle

    # Workers need not find the tests: a toy travels by value.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Runtime(Settings(lake=str(tmp_path_factory.mktemp("ray")), tracking_uri=""), num_cpus=2) as runtime:
        runtime.ray()
        yield


@pytest.fixture
def runtime(ray_session, tmp_path):
    return Runtime(Settings(lake=str(tmp_path / "lake"), tracking_uri=""))


def test_the_better_of_two_optima_is_found_among_four_trials(runtime):
    outcome = explore(runtime, SearchConfig(n_trials=4), base=BASE, dimensions=FOUR, trial=two_optima)
    assert outcome.counts == {"proposed": 4, "scored": 4, "failed": 0, "scored_before": 0}
    best = outcome.facets["best"]
    assert best["score"] == 0.9
    assert best["edits"] == ['data.slices: "gold" -> "hard"', 'strategy.format: "answer" -> "steps"']
    assert best["recipe"]["data"] == {"slices": "hard"}
    assert best["run_id"] == f"child-of-{outcome.run_id}"
    first = outcome.facets["trials"][0]
    assert (first["vertex"], first["edits"], first["score"]) == (BASE.key, [], 0.5)
    assert "every proposal but the base recipe is a random draw" in outcome.facets["sampling"]
    assert outcome.outputs == (str(tables.current(runtime.settings, TRIAL)),)


def test_the_log_holds_a_proposal_and_a_score_of_each_vertex(runtime):
    outcome = explore(runtime, SearchConfig(n_trials=4), base=BASE, dimensions=FOUR, trial=two_optima)
    logged = read_events(runtime.settings, outcome.run_id.partition("-")[0])
    assert sorted(event.event for event in logged) == ["proposed"] * 4 + ["scored"] * 4
    assert {event.search_run for event in logged} == {outcome.run_id}
    graph = SearchGraph.fold(logged)
    assert {vertex.key for vertex in graph.children(BASE.key)} == set(graph.vertices) - {BASE.key}


def test_a_search_that_used_up_its_space_ends_before_its_number_of_trials(runtime):
    outcome = explore(runtime, SearchConfig(n_trials=9), base=BASE, dimensions=FOUR, trial=two_optima)
    assert outcome.counts["scored"] == 4


def test_a_search_for_less_finds_the_least_of_the_named_metric(runtime):
    config = SearchConfig(n_trials=4, metric="loss", mode="min")
    outcome = explore(runtime, config, base=BASE, dimensions=RATE, trial=loss_by_rate)
    scores = [trial["score"] for trial in outcome.facets["trials"]]
    assert outcome.facets["best"]["score"] == min(scores) < max(scores)


def test_a_failed_trial_is_named_with_its_sentence_and_the_search_goes_on(runtime):
    outcome = explore(runtime, SearchConfig(n_trials=4), base=BASE, dimensions=FOUR, trial=hard_rows_fail)
    assert (outcome.counts["scored"], outcome.counts["failed"]) == (2, 2)
    failed = [trial for trial in outcome.facets["trials"] if trial["status"] == "failed"]
    assert [trial["error"] for trial in failed] == ["ValueError: no hard rows are left"] * 2
    assert outcome.facets["best"]["score"] == 0.5


def test_a_trial_whose_process_dies_is_a_failure_of_its_vertex(runtime):
    outcome = explore(
        runtime, SearchConfig(n_trials=4), base=BASE, dimensions=FOUR, trial=steps_kill_the_worker
    )
    failed = [trial for trial in outcome.facets["trials"] if trial["status"] == "failed"]
    assert len(failed) == 2
    assert all(trial["error"] and "steps" in trial["edits"][-1] for trial in failed)


def test_a_search_in_which_all_trials_fail_fails_and_can_be_carried_out_again(runtime):
    config = SearchConfig(n_trials=2)
    for attempt in (1, 2):
        with pytest.raises(SearchError, match=r"all 2 trials failed.*nan.*expected a finite number"):
            explore(runtime, config, base=BASE, dimensions=RATE, trial=always_not_a_number)
        logged = tables.read(runtime.settings, TRIAL).to_pylist()
        assert len(logged) == attempt * 4  # tried again, not remembered as hopeless
    assert len({event["vertex"] for event in logged}) == 2


def test_a_search_that_was_carried_out_is_not_carried_out_again(runtime):
    first = explore(runtime, SearchConfig(n_trials=2), base=BASE, dimensions=FOUR, trial=two_optima)
    again = explore(runtime, SearchConfig(n_trials=2), base=BASE, dimensions=FOUR, trial=two_optima)
    assert again.again
    assert (again.run_id, again.facets) == (first.run_id, first.facets)


def test_a_killed_search_goes_on_without_trying_again_what_has_a_score(runtime):
    config = SearchConfig(n_trials=4, max_concurrent_trials=1)
    whole = explore(runtime, config, base=BASE, dimensions=RATE, trial=loss_by_rate_as_score)
    vertices = [trial["vertex"] for trial in whole.facets["trials"]]

    settings = Settings(lake=runtime.settings.lake + "-killed", tracking_uri="")
    # One read for the run's start, four for two recipes proposed and scored, one for a third proposal.
    killed = Runtime(settings, now=a_clock_that_is_interrupted_once(after=6))
    with pytest.raises(KeyboardInterrupt):
        explore(killed, config, base=BASE, dimensions=RATE, trial=loss_by_rate_as_score)

    resumed = explore(Runtime(settings), config, base=BASE, dimensions=RATE, trial=loss_by_rate_as_score)
    assert resumed.run_id.partition("-")[2] == "2"
    assert resumed.counts == {"proposed": 4, "scored": 4, "failed": 0, "scored_before": 2}
    assert [trial["vertex"] for trial in resumed.facets["trials"]] == vertices
    events = read_events(settings, resumed.run_id.partition("-")[0])
    assert [e.vertex for e in events if e.search_run == resumed.run_id and e.event == "scored"] == vertices[
        2:
    ]


def test_the_same_seed_proposes_the_same_recipes_and_another_seed_others(runtime):
    def proposed(seed, lake):
        own = Runtime(Settings(lake=f"{runtime.settings.lake}-{lake}", tracking_uri=""))
        outcome = explore(own, SearchConfig(seed=seed), base=BASE, dimensions=RATE, trial=where_it_runs)
        return [trial["vertex"] for trial in outcome.facets["trials"]]

    assert proposed(0, "a") == proposed(0, "b")
    assert set(proposed(0, "a")) & set(proposed(1, "c")) == {BASE.key}


def test_trials_run_our_code_in_no_more_processes_than_run_at_once(runtime):
    outcome = explore(runtime, SearchConfig(n_trials=4), base=BASE, dimensions=RATE, trial=where_it_runs)
    said = {trial["run_id"].partition(" ")[::2] for trial in outcome.facets["trials"]}
    import search.space

    assert {place for _, place in said} == {search.space.__file__}
    assert len({process for process, _ in said}) <= 2


def test_each_trial_can_be_a_child_run_of_the_search(runtime):
    outcome = explore(runtime, SearchConfig(n_trials=4), base=BASE, dimensions=FOUR, trial=child_run)
    for trial in outcome.facets["trials"]:
        child = runs.find(runtime.settings, trial["run_id"])
        assert (child["status"], child["parent_run"]) == ("COMPLETE", outcome.run_id)


def test_the_search_is_a_child_of_the_run_that_asked_for_it(runtime):
    asked = runs.Run("0123456789abcdef", 1, "adapt")
    outcome = explore(
        runtime, SearchConfig(n_trials=1), base=BASE, dimensions=FOUR, trial=two_optima, parent=asked
    )
    assert runs.find(runtime.settings, outcome.run_id)["parent_run"] == asked.id


def test_what_cannot_be_searched_is_refused_before_ray_starts(tmp_path):
    runtime = Runtime(Settings(lake=str(tmp_path), tracking_uri="", ray_address="nowhere:1"))
    with pytest.raises(SearchError, match=r"dimension 'data.nothing': the recipe has no"):
        explore(
            runtime,
            SearchConfig(),
            base=BASE,
            dimensions=(Categorical("data.nothing", (1,)),),
            trial=two_optima,
        )
    with pytest.raises(SearchError, match="top level of a module"):
        explore(runtime, SearchConfig(), base=BASE, dimensions=FOUR, trial=lambda *_: {"score": 1})


def test_a_score_may_be_any_finite_real_number_but_no_truth_value():
    def answer_to(score):
        configuration = {"vertex": BASE.key, "recipe": BASE.text}
        place = Settings(lake="/nowhere", tracking_uri="")
        return run_trial(
            configuration, trial=lambda *_: {"score": score}, settings=place, search_run="x-1", metric="score"
        )

    assert answer_to(np.float32(0.5)) == {
        "vertex": BASE.key,
        "score": 0.5,
        "run_id": "not_applicable",
        "error": None,
    }
    for wrong in (True, None, "0.5", float("inf")):
        assert answer_to(wrong)["score"] is None
        assert "expected a finite number" in answer_to(wrong)["error"]


def test_a_key_that_the_config_does_not_have_is_refused():
    with pytest.raises(ValueError, match="n_trails"):
        SearchConfig.model_validate({"n_trails": 3})


def test_timestamps_of_a_log_strictly_rise_even_when_the_clock_stands(ray_session, tmp_path):
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    runtime = Runtime(Settings(lake=str(tmp_path), tracking_uri=""), now=lambda: noon)
    outcome = explore(runtime, SearchConfig(n_trials=2), base=BASE, dimensions=FOUR, trial=two_optima)
    at = [event.at for event in read_events(runtime.settings, outcome.run_id.partition("-")[0])]
    assert len(set(at)) == 4
    assert at[0] == noon
