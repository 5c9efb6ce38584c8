"""A recipe's identity: what makes two of them the same, and what may be changed."""

import hashlib
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineage.recipe import Recipe, RecipeError

BASE = Recipe(
    data={"slices": ["gold", "hard"], "shares": {"gold": 0.75, "hard": 0.25}},
    hyperparameters={"learning_rate": 0.002, "epochs": 1},
    strategy={"format": "answer"},
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["c", "a", "é.b"]), inner, max_size=3)
    ),
    max_leaves=5,
)
parts = st.dictionaries(st.sampled_from(["b", "a"]), json_values, max_size=2)


def test_the_digest_is_for_ever():
    text = '{"data":{"rows":3},"hyperparameters":{"learning_rate":0.002},"strategy":{}}'
    recipe = Recipe(data={"rows": 3}, hyperparameters={"learning_rate": 0.002})
    assert recipe.text == text
    assert recipe.digest == hashlib.sha256(text.encode()).hexdigest()
    assert recipe.key == "81284ff22464e2ff"


def test_the_order_of_keys_does_not_count():
    assert Recipe(data={"a": 1, "b": {"c": 2, "d": 3}}) == Recipe(data={"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0, -0.0), (100, 1e2), ([2], (2.0,))])
def test_how_a_whole_number_is_written_does_not_count(one, other):
    assert Recipe(data={"x": one}).digest == Recipe(data={"x": other}).digest


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (1, "1"), (0, None), ([1, 2], [2, 1])])
def test_values_that_mean_something_else_make_another_recipe(one, other):
    assert Recipe(data={"x": one}) != Recipe(data={"x": other})


def test_the_same_values_in_another_part_make_another_recipe():
    assert Recipe(data={"x": 1}).key != Recipe(strategy={"x": 1}).key


@settings(deadline=None)
@given(parts, parts, parts)
def test_a_recipe_comes_back_from_its_text_and_from_a_pickle(data, hyperparameters, strategy):
    recipe = Recipe(data=data, hyperparameters=hyperparameters, strategy=strategy)
    for copy in (
        Recipe.parse(recipe.text),
        Recipe(**recipe.as_json()),
        pickle.loads(pickle.dumps(recipe)),
    ):
        assert (copy, copy.digest, hash(copy)) == (recipe, recipe.digest, hash(recipe))


def test_nothing_in_a_recipe_can_be_changed():
    given = {"inner": {"list": [1]}}
    recipe = Recipe(data=given)
    given["inner"]["list"].append(2)
    recipe.as_json()["data"]["inner"]["list"].append(2)
    assert recipe.at("data.inner.list") == (1,)
    with pytest.raises(TypeError):
        recipe.data["inner"]["list"] = 3  # type: ignore[index]


def test_an_edit_changes_what_it_names_and_nothing_else():
    edited = BASE.edit({"hyperparameters.learning_rate": 0.0005, "data.shares.hard": 0.5})
    assert edited.edits_since(BASE) == (
        "data.shares.hard: 0.25 -> 0.5",
        "hyperparameters.learning_rate: 0.002 -> 0.0005",
    )
    assert BASE.at("hyperparameters.learning_rate") == 0.002
    assert edited.edit({"hyperparameters.learning_rate": 0.002, "data.shares.hard": 0.25}) == BASE


def test_an_edit_may_replace_a_whole_object():
    edited = BASE.edit({"data.shares": {"replay": 1}})
    assert edited.edits_since(BASE) == (
        "data.shares.gold: 0.75 -> absent",
        "data.shares.hard: 0.25 -> absent",
        "data.shares.replay: absent -> 1",
    )
    assert BASE.edit({"data": {}}).data == {}


def test_an_edit_that_changes_nothing_is_the_same_recipe():
    assert BASE.edit({"hyperparameters.epochs": 1.0}) == BASE
    assert BASE.edits_since(BASE) == ()


@pytest.mark.parametrize("path", ["hyperparameters.rank", "rank", "data.shares.gold.more", ""])
def test_a_path_that_the_recipe_does_not_have_is_refused_with_those_it_has(path):
    with pytest.raises(RecipeError, match=rf"no '{path}'; it has: .*hyperparameters.epochs"):
        BASE.edit({path: 8})


def test_an_edit_inside_what_the_same_edit_replaces_is_refused():
    with pytest.raises(RecipeError, match="same edit replaces"):
        BASE.edit({"data.shares": 1, "data.shares.gold": 0.5})


@pytest.mark.parametrize(
    ("value", "said"),
    [(math.nan, "nan"), (math.inf, "inf"), (b"x", "bytes"), ({1: 2}, "key 1")],
)
def test_what_json_cannot_say_is_refused_with_its_place(value, said):
    with pytest.raises(RecipeError, match=rf"'data.x\[0\]'.*{said}"):
        Recipe(data={"x": [value]})


@pytest.mark.parametrize(
    "text", ["[]", '{"data": {}}', '{"data":{},"hyperparameters":{},"strategy":{},"x":1}']
)
def test_text_that_is_no_recipe_is_refused(text):
    with pytest.raises(RecipeError, match="JSON object of data, hyperparameters, strategy"):
        Recipe.parse(text)
