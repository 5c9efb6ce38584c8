"""Dimensions: what may change, how far, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineage.recipe import Recipe
from search.edits import Categorical, Integer, LogUniform, Uniform, apply, check, first_unknown, parameters_of
from search.space import SearchError

BASE = Recipe(
    data={"hard_share": 0.25, "slices": ["gold"]},
    hyperparameters={"learning_rate": 0.002, "epochs": 1},
    strategy={"format": "answer"},
)
RATE = LogUniform("hyperparameters.learning_rate", 0.00012345, 0.0123)
SLICES = Categorical("data.slices", (["gold"], ["gold", "hard"], None))
EPOCHS = Integer("hyperparameters.epochs", 1, 4)
SHARE = Uniform("data.hard_share", 0.0, 0.5)


@settings(deadline=None)
@given(st.floats(RATE.low, RATE.high))
def test_drawn_floats_have_three_significant_digits_and_stay_in_range(drawn):
    value = RATE.value(drawn)
    assert RATE.low <= value <= RATE.high
    assert value in (float(f"{drawn:.3g}"), RATE.low, RATE.high)
    assert RATE.value(value) == value


def test_parameters_become_the_edited_recipe_and_come_back_from_it():
    dimensions = (RATE, SLICES, EPOCHS, SHARE)
    drawn = {RATE.path: 0.00123456, SLICES.path: 1, EPOCHS.path: 3, SHARE.path: 0.33333}
    recipe = apply(dimensions, drawn, BASE)
    assert recipe.at("data.slices") == ("gold", "hard")
    assert recipe.at("strategy.format") == "answer"
    assert parameters_of(recipe, dimensions) == {**drawn, RATE.path: 0.00123, SHARE.path: 0.333}
    assert apply(dimensions, parameters_of(recipe, dimensions) or {}, BASE) == recipe


@pytest.mark.parametrize(
    "dimension",
    [
        LogUniform("hyperparameters.learning_rate", 0.01, 0.1),
        Uniform("data.hard_share", 0.5, 1.0),
        Integer("hyperparameters.epochs", 2, 3),
        Categorical("strategy.format", ("steps",)),
        Categorical("hyperparameters.epochs", (True,)),
    ],
)
def test_a_recipe_outside_the_ranges_has_no_parameters(dimension):
    assert parameters_of(BASE, (dimension,)) is None


def test_one_and_true_are_two_choices():
    choices = Categorical("hyperparameters.epochs", (True, 1))
    assert (choices.parameter(1.0), choices.parameter(True)) == (1, 0)


def test_dimensions_that_fit_the_recipe_pass():
    check((RATE, SLICES, EPOCHS, SHARE, Categorical("strategy", ({"format": "steps"},))), BASE)


@pytest.mark.parametrize(
    ("dimensions", "said"),
    [
        ((), "no dimensions"),
        ((Categorical("data.replay_share", (0, 1)),), "has no 'data.replay_share'; it has: data.hard_share"),
        ((Uniform("strategy.format", 0, 1),), "has 'answer'; expected a number"),
        ((Integer("data.hard_share", 0, 1), Uniform("data.hard_share", 0, 1)), "change the same thing"),
        ((Categorical("data", ({},)), Uniform("data.hard_share", 0, 1)), "'data' and 'data.hard_share'"),
    ],
)
def test_dimensions_that_do_not_fit_the_recipe_are_refused(dimensions, said):
    with pytest.raises(SearchError, match=said):
        check(dimensions, BASE)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Uniform("x", 1, 1), "expected low < high"),
        (lambda: LogUniform("x", 0.0, 1.0), "log scale from 0.0"),
        (lambda: Integer("x", 0, 8, log=True), "log scale from 0"),
        (lambda: Categorical("x", ()), "one or more"),
        (lambda: Categorical("x", (1, 1.0)), "each once"),
        (lambda: Categorical("x", (b"1",)), "expected a JSON value"),
    ],
)
def test_ranges_that_hold_nothing_to_draw_are_refused(make, said):
    with pytest.raises(SearchError, match=said):
        make()


def test_the_first_unknown_recipe_is_found_until_all_are_known():
    dimensions = (SLICES, EPOCHS)
    known: dict[str, Recipe] = {}
    while (recipe := first_unknown(dimensions, BASE, known)) is not None:
        assert recipe.key not in known
        known[recipe.key] = recipe
    assert len(known) == 3 * 4


def test_recipes_of_a_continuous_range_cannot_be_listed():
    assert first_unknown((EPOCHS, RATE), BASE, {}) is None
