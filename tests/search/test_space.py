"""The search graph is a fold of its log: the same in any order, at every prefix, and never with a cycle."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import Settings
from lineage.recipe import Recipe
from search.space import SearchError, SearchGraph, TrialEvent, append, log_digest, read_events

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
relaxed = settings(deadline=None)  # a busy machine is not an error
RECIPES = [Recipe(data={"rows": rows}) for rows in range(5)]


def event(position, rows, kind="proposed", *, parents=(), score=None, search_run="0123456789abcdef-1"):
    recipe = RECIPES[rows]
    keys = tuple(RECIPES[parent].key for parent in parents)
    at = NOON + dt.timedelta(microseconds=position)
    return TrialEvent(search_run, recipe.key, kind, keys, recipe.text, at, score=score)


@st.composite
def logs(draw):
    """Logs as they may come: proposals from any parents, what became of them, several attempts."""
    told, proposed = [], []
    for position in range(draw(st.integers(0, 20))):
        kind = draw(st.sampled_from(["proposed", "scored", "failed"])) if proposed else "proposed"
        rows = draw(st.sampled_from(proposed) if kind != "proposed" else st.integers(0, 4))
        parents = draw(st.lists(st.integers(0, 4), max_size=3, unique=True)) if kind == "proposed" else ()
        score = draw(st.floats(-1, 1)) if kind == "scored" else None
        attempt = f"0123456789abcdef-{1 + position // 8}"
        told.append(event(position, rows, kind, parents=parents, score=score, search_run=attempt))
        proposed.append(rows)
    return told


@relaxed
@given(logs(), st.integers(0, 20), st.randoms())
def test_any_prefix_of_a_log_folds_to_the_same_graph_in_any_order(told, length, random):
    prefix = told[:length]
    shuffled = random.sample(prefix, len(prefix))
    assert SearchGraph.fold(shuffled) == SearchGraph.fold(prefix)
    assert list(SearchGraph.fold(shuffled).vertices) == list(SearchGraph.fold(prefix).vertices)


@relaxed
@given(logs(), st.integers(0, 20))
def test_what_a_prefix_knows_of_scores_the_whole_log_knows_too(told, length):
    whole = SearchGraph.fold(told)
    for vertex in SearchGraph.fold(told[:length]).scored:
        assert whole.vertices[vertex.key].score == vertex.score


@relaxed
@given(logs())
def test_no_vertex_is_its_own_ancestor(told):
    graph = SearchGraph.fold(told)
    for start in graph.vertices:
        above, ancestors = list(graph.vertices[start].parents), set()
        while above:
            key = above.pop()
            if key not in ancestors:
                ancestors.add(key)
                above += graph.vertices[key].parents if key in graph.vertices else ()
        assert start not in ancestors


def test_no_events_give_an_empty_graph():
    graph = SearchGraph.fold([])
    assert (dict(graph.vertices), graph.best("max"), graph.unscored) == ({}, None, ())


def test_equal_recipes_are_one_vertex_with_all_their_parents():
    twice = [event(0, 0), event(1, 1, parents=[0]), event(2, 2, parents=[0]), event(3, 2, parents=[1])]
    graph = SearchGraph.fold(twice)
    assert len(graph.vertices) == 3
    merged = graph.vertices[RECIPES[2].key]
    assert set(merged.parents) == {RECIPES[0].key, RECIPES[1].key}
    assert merged in graph.children(RECIPES[0].key)
    assert merged in graph.children(RECIPES[1].key)


def test_an_edit_that_undoes_another_adds_no_edge_back():
    graph = SearchGraph.fold([event(0, 0), event(1, 1, parents=[0]), event(2, 0, parents=[1])])
    assert graph.vertices[RECIPES[0].key].parents == ()
    assert graph.vertices[RECIPES[1].key].parents == (RECIPES[0].key,)


def test_a_failure_can_be_made_good_but_a_first_score_stands():
    log = [event(0, 0), event(1, 0, "failed"), event(2, 0), event(3, 0, "scored", score=0.5)]
    assert SearchGraph.fold(log[:2]).vertices[RECIPES[0].key].status == "failed"
    assert SearchGraph.fold(log[:3]).vertices[RECIPES[0].key].status == "proposed"
    later = [*log, event(4, 0, "scored", score=0.9), event(5, 0, "failed")]
    for told in (log, later):
        vertex = SearchGraph.fold(told).vertices[RECIPES[0].key]
        assert (vertex.status, vertex.score) == ("scored", 0.5)


def test_the_best_vertex_is_the_one_proposed_first_among_equals():
    scores = [0.5, 0.7, 0.7, 0.5]
    told = [event(rows, rows) for rows in range(4)]
    told += [event(9 - rows, rows, "scored", score=score) for rows, score in enumerate(scores)]
    graph = SearchGraph.fold(told)
    assert [graph.best(mode).key for mode in ("max", "min")] == [RECIPES[1].key, RECIPES[0].key]


def test_a_vertex_that_is_not_its_recipes_is_refused():
    forged = TrialEvent(**{**vars(event(0, 0)), "recipe": RECIPES[1].text})
    with pytest.raises(SearchError, match="edited by hand"):
        SearchGraph.fold([forged])


def test_a_log_comes_back_from_the_lake_as_it_was_written(tmp_path):
    settings = Settings(lake=str(tmp_path), tracking_uri="")
    assert read_events(settings, "0123456789abcdef") == ()
    own = [event(0, 0), event(1, 1, parents=[0]), event(2, 0, "scored", score=0.5)]
    own += [event(3, 1, search_run="0123456789abcdef-12")]
    others = [event(0, 2, search_run="0123456789abcdee-1"), event(0, 3, search_run="0123456789abcdf0-1")]
    for entry in [*others, *reversed(own)]:
        append(settings, entry)
    found = read_events(settings, "0123456789abcdef")
    assert found == tuple(own)
    assert log_digest(found) == log_digest(own) != log_digest(own[:3])
