"""The searcher's contract with Ray Tune, without Ray: what is proposed, when, and what the log says of it."""

import datetime as dt
import itertools

import pytest

from infra.settings import Settings
from lineage.recipe import Recipe
from lineage.runs import Run
from search.edits import Categorical, LogUniform, Uniform
from search.searcher import STARTUP_TRIALS, Question, Searcher
from search.space import SearchError, append, read_events

RUN = Run("0123456789abcdef", 1, "search")
BASE = Recipe(data={"slices": "gold"}, hyperparameters={"learning_rate": 0.002, "dropout": 0})
SLICES = Categorical("data.slices", ("gold", "hard", "replay"))
RATE = LogUniform("hyperparameters.learning_rate", 1e-4, 1e-1)
DROPOUT = Uniform("hyperparameters.dropout", 0.0, 0.5)


@pytest.fixture
def settings(tmp_path):
    return Settings(lake=str(tmp_path), tracking_uri="")


@pytest.fixture
def searcher_of(settings):
    def make(*dimensions, n_trials=4, seed=0, run=RUN, max_concurrent=1, **rest):
        question = Question(BASE, dimensions or (RATE, SLICES), n_trials, seed, **rest)
        seconds = itertools.count()
        start = dt.datetime(2026, 1, run.attempt, tzinfo=dt.UTC)
        return Searcher(
            settings,
            run,
            question,
            now=lambda: start + dt.timedelta(seconds=next(seconds)),
            max_concurrent=max_concurrent,
        )

    return make


def carry_on(searcher, objective, *, limit=100):
    """What Tune does with one trial at a time; returns the recipes that were tried, in order."""
    tried = []
    for trial_id in map(str, range(limit)):
        suggestion = searcher.suggest(trial_id)
        if suggestion == Searcher.FINISHED:
            return tried
        recipe = Recipe.parse(suggestion["recipe"])
        assert suggestion["vertex"] == recipe.key
        tried.append(recipe)
        searcher.on_trial_complete(trial_id, {"vertex": recipe.key, "score": objective(recipe)})
    raise AssertionError("the searcher did not finish")


def near_a_hundredth(recipe):
    return -abs(recipe.at("hyperparameters.learning_rate") - 0.01)


def test_the_unedited_base_recipe_comes_first(searcher_of):
    assert carry_on(searcher_of(), near_a_hundredth)[0] == BASE


def test_the_base_recipe_can_be_left_out(searcher_of):
    tried = carry_on(searcher_of(include_base=False), near_a_hundredth)
    assert len(tried) == 4
    assert BASE not in tried


def test_no_recipe_is_proposed_twice_and_a_used_up_space_ends_the_search(searcher_of):
    tried = carry_on(searcher_of(SLICES, n_trials=50), lambda recipe: 0.0)
    assert sorted(recipe.at("data.slices") for recipe in tried) == ["gold", "hard", "replay"]


def test_a_larger_space_is_used_up_to_its_last_recipe_even_where_tpe_prefers_known_ones(searcher_of):
    sixty = Categorical("hyperparameters.dropout", tuple(range(20)))
    tried = carry_on(searcher_of(SLICES, sixty, n_trials=99), lambda r: -r.at("hyperparameters.dropout"))
    assert len(set(tried)) == len(tried) == 60


def test_the_same_seed_proposes_the_same_whatever_the_trials_are_called(settings, searcher_of, tmp_path):
    def tried(seed, place):
        lake = Settings(lake=str(tmp_path / place), tracking_uri="")
        question = Question(BASE, (RATE, SLICES), STARTUP_TRIALS + 5, seed)
        searcher = Searcher(lake, RUN, question, now=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        return carry_on(searcher, near_a_hundredth)

    assert tried(0, "a") == tried(0, "b")
    assert set(tried(0, "c")) & set(tried(1, "d")) == {BASE}


def test_random_draws_do_not_depend_on_the_order_in_which_trials_end(searcher_of, tmp_path):
    one = carry_on(searcher_of(), near_a_hundredth)
    lake = Settings(lake=str(tmp_path / "at-once"), tracking_uri="")
    question = Question(BASE, (RATE, SLICES), 4, 0)
    at_once = Searcher(
        lake, RUN, question, now=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC), max_concurrent=4
    )
    suggested = [at_once.suggest(name) for name in "wxyz"]
    assert [Recipe.parse(suggestion["recipe"]) for suggestion in suggested] == one


def test_after_the_random_draws_proposals_gather_where_scores_were_good(searcher_of):
    tried = carry_on(searcher_of(RATE, n_trials=40), near_a_hundredth)
    drawn, learned = tried[1:STARTUP_TRIALS], tried[-10:]
    assert sum(map(near_a_hundredth, learned)) / 10 > sum(map(near_a_hundredth, drawn)) / len(drawn)


def test_no_more_are_proposed_than_may_run_at_once(searcher_of):
    searcher = searcher_of(n_trials=9)
    assert searcher.set_max_concurrency(2)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert first["vertex"] != second["vertex"]
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", {"vertex": first["vertex"], "score": 1.0})
    assert searcher.suggest("c")["vertex"] not in (first["vertex"], second["vertex"])


def test_a_result_is_told_by_its_vertex_not_by_its_trial_id(searcher_of):
    searcher = searcher_of(max_concurrent=2)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    searcher.on_trial_complete("renamed", {"vertex": second["vertex"], "score": 2.0, "run_id": "child-1"})
    vertex = searcher.graph.vertices[second["vertex"]]
    assert (vertex.score, vertex.run_id) == (2.0, "child-1")
    assert searcher.graph.vertices[first["vertex"]].status == "proposed"


@pytest.mark.parametrize(
    ("result", "error"), [(None, True), ({"score": None}, False), ({"score": float("nan")}, False)]
)
def test_a_trial_without_a_score_is_a_failure_and_frees_its_place(searcher_of, settings, result, error):
    searcher = searcher_of(n_trials=2)
    vertex = searcher.suggest("a")["vertex"]
    searcher.on_trial_complete("a", result and {**result, "vertex": vertex}, error=error)
    assert searcher.graph.vertices[vertex].status == "failed"
    assert [event.event for event in read_events(settings, RUN.identity)] == ["proposed", "failed"]
    assert searcher.suggest("b")["vertex"] != vertex


def test_an_unknown_trial_and_a_second_word_on_a_vertex_change_nothing(searcher_of, settings):
    searcher = searcher_of()
    vertex = searcher.suggest("a")["vertex"]
    searcher.on_trial_complete("a", {"vertex": vertex, "score": 1.0})
    searcher.on_trial_complete("a", {"vertex": vertex, "score": 2.0})
    searcher.on_trial_complete("stranger", None, error=True)
    assert searcher.graph.best("max").score == 1.0
    assert len(read_events(settings, RUN.identity)) == 2


def test_failed_trials_do_not_count_as_startup_trials(searcher_of):
    tried = carry_on(searcher_of(RATE, DROPOUT, n_trials=STARTUP_TRIALS + 3), lambda recipe: float("nan"))
    assert len(set(tried)) == STARTUP_TRIALS + 3


@pytest.mark.parametrize("cut", range(1, 27, 5))
def test_a_search_cut_off_anywhere_ends_as_if_it_had_not_been(searcher_of, settings, tmp_path, cut):
    n_trials = STARTUP_TRIALS + 3
    tried = carry_on(searcher_of(n_trials=n_trials), near_a_hundredth)
    logged = read_events(settings, RUN.identity)

    second = Settings(lake=str(tmp_path / "cut"), tracking_uri="")
    for event in logged[:cut]:
        append(second, event)
    again = Searcher(
        second,
        Run(RUN.identity, 2, "search"),
        Question(BASE, (RATE, SLICES), n_trials, 0),
        now=lambda: dt.datetime(2026, 2, 1, tzinfo=dt.UTC),
    )
    scored_before = [vertex.key for vertex in again.graph.scored]
    tried_again = carry_on(again, near_a_hundredth)
    assert [recipe.key for recipe in tried_again] == [r.key for r in tried if r.key not in scored_before]
    assert list(again.graph.vertices) == [recipe.key for recipe in tried]


def test_a_new_attempt_tries_again_what_failed(searcher_of):
    first = searcher_of(n_trials=1)
    vertex = first.suggest("a")["vertex"]
    first.on_trial_complete("a", None, error=True)
    assert first.suggest("b") == Searcher.FINISHED
    second = searcher_of(n_trials=1, run=Run(RUN.identity, 2, "search"))
    assert second.suggest("a")["vertex"] == vertex


def test_a_restored_searcher_knows_what_is_in_flight_and_proposes_on(searcher_of, tmp_path):
    saved = searcher_of(max_concurrent=2)
    first = saved.suggest("a")
    saved.save(str(tmp_path / "state"))
    saved.on_trial_complete("a", {"vertex": first["vertex"], "score": 1.0})  # after the last save
    second = saved.suggest("b")
    saved.save(str(tmp_path / "state"))

    restored = searcher_of()
    restored.restore(str(tmp_path / "state"))
    assert restored.graph == saved.graph
    assert restored.suggest("c") is None  # one at once, and b is in flight
    restored.on_trial_complete("b", None, error=True)
    assert restored.graph.vertices[second["vertex"]].status == "failed"


def test_a_state_of_another_log_is_not_restored(searcher_of, tmp_path):
    saved = searcher_of()
    saved.suggest("a")
    saved.save(str(tmp_path / "state"))
    with pytest.raises(SearchError, match="another log"):
        searcher_of(run=Run("fedcba9876543210", 1, "search")).restore(str(tmp_path / "state"))


def test_a_base_recipe_outside_the_ranges_is_tried_all_the_same(searcher_of):
    narrow = LogUniform("hyperparameters.learning_rate", 0.01, 0.1)
    tried = carry_on(searcher_of(narrow, n_trials=3), near_a_hundredth)
    assert tried[0] == BASE
    assert all(0.01 <= recipe.at("hyperparameters.learning_rate") <= 0.1 for recipe in tried[1:])
