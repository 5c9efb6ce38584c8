"""Bootstraps that draw counts say what drawing every item says."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lineage.spans import Span
from training.metrics import (
    bootstrap,
    bootstrap_interval,
    ece,
    ece_interval,
    entity_counts,
    entity_f1,
    entity_f1_interval,
    macro_f1,
    macro_f1_interval,
    paired_difference,
    resampling,
)
from training.recipe import TrainingError

CLOSE = 0.012  # of an interval's ends from 2,000 resamples, beside another 2,000 of another stream


def labelled(n: int, *, seed: int = 0):
    draw = np.random.default_rng(seed)
    truth = draw.choice(list("abcdef"), n, p=[0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    return truth, np.where(draw.random(n) < 0.7, truth, draw.choice(list("abcdefg"), n))


def by_items(metric, n: int) -> tuple[float, float]:
    """The interval as it is defined: every item drawn."""
    draws = np.random.default_rng(99).integers(0, n, (2000, n))
    return tuple(np.quantile([metric(drawn) for drawn in draws], [0.025, 0.975]))


def test_macro_f1_moves_as_if_every_item_were_drawn():
    truth, guess = labelled(250)
    expected = by_items(lambda drawn: macro_f1(truth[drawn], guess[drawn]), 250)
    assert macro_f1_interval(truth, guess, seed=0) == pytest.approx(expected, abs=CLOSE)


def test_the_calibration_error_moves_as_if_every_item_were_drawn():
    draw = np.random.default_rng(0)
    for n in (200, 3000):  # few enough to be told apart, and grouped
        confidence = draw.beta(5, 2, n)
        correct = draw.random(n) < confidence**2
        expected = by_items(lambda drawn: ece(confidence[drawn], correct[drawn]), n)  # noqa: B023
        assert ece_interval(confidence, correct, seed=0) == pytest.approx(expected, abs=CLOSE)


def test_entity_f1_moves_as_if_every_text_were_drawn():
    draw = np.random.default_rng(0)
    texts = [[Span(s, s + 2, "a") for s in range(0, 10, 3) if draw.random() < 0.5] for _ in range(200)]
    found = [[span for span in text if draw.random() < 0.7] for text in texts]
    counts = entity_counts(texts, found)
    expected = by_items(lambda drawn: entity_f1([texts[i] for i in drawn], [found[i] for i in drawn]).f1, 200)
    assert entity_f1_interval(counts, seed=0) == pytest.approx(expected, abs=CLOSE)


def test_a_mean_of_scores_of_any_kind_moves_as_if_every_item_were_drawn():
    draw = np.random.default_rng(0)
    for scores in (draw.beta(2, 5, 400), draw.beta(2, 5, 4000), np.append(draw.random(1000), 500.0)):
        n = len(scores)
        expected = by_items(lambda drawn: scores[drawn].mean(), n)  # noqa: B023
        spread = CLOSE if scores.max() <= 1 else 0.15
        assert bootstrap_interval(scores, seed=0) == pytest.approx(expected, abs=spread)


def test_the_spread_of_grouped_scores_is_that_of_the_scores():
    scores = np.random.default_rng(0).gamma(2.0, size=50_000)
    low, high = bootstrap_interval(scores, seed=0, n=10_000)
    assert (high - low) / 2 == pytest.approx(1.96 * scores.std() / np.sqrt(50_000), rel=0.03)


@pytest.mark.parametrize("cells", [1, 64, 10_000_000])
def test_how_resamples_are_cut_changes_nothing(monkeypatch, cells):
    truth, guess = labelled(80)
    hit, confidence = truth == guess, np.linspace(0, 1, 80)
    made = [
        lambda: bootstrap_interval(hit, seed=0, n=50),
        lambda: macro_f1_interval(truth, guess, seed=0, n=50),
        lambda: ece_interval(confidence, hit, seed=0, n=50),
    ]
    whole = [make() for make in made]
    monkeypatch.setattr(resampling, "CELLS", cells)
    assert [make() for make in made] == whole


def test_one_seed_is_one_interval_and_zero_is_a_seed():
    truth, guess = labelled(100)
    for make in (
        lambda seed: macro_f1_interval(truth, guess, seed=seed),
        lambda seed: ece_interval(np.linspace(0, 1, 100), truth == guess, seed=seed),
        lambda seed: entity_f1_interval(np.arange(300).reshape(-1, 3), seed=seed),
    ):
        assert make(0) == make(0)
        assert make(0) != make(1)


def test_any_number_that_is_made_of_counts_has_an_interval():
    pairs = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    often = np.array([40, 10, 10, 40])

    def agreement(drawn: np.ndarray) -> np.ndarray:
        return drawn @ (pairs[:, 0] == pairs[:, 1]) / drawn.sum(axis=1)

    of_items = bootstrap_interval([True] * 80 + [False] * 20, seed=1)
    assert bootstrap(often, agreement, seed=0) == pytest.approx(of_items, abs=0.02)


def test_one_label_alone_has_an_interval_of_no_width():
    assert macro_f1_interval(["a"] * 9, ["a"] * 9, seed=0) == (1.0, 1.0)
    assert macro_f1_interval(["a"] * 9, ["b"] * 9, seed=0) == (0.0, 0.0)


def test_macro_f1_agrees_with_scikit_learn_on_random_labels():
    draw = np.random.default_rng(0)
    for labels in (1, 2, 3, 20):
        truth, guess = draw.integers(0, labels, (2, 60))
        expected = f1_score(truth, guess, average="macro", zero_division=0)
        assert macro_f1(truth, guess) == pytest.approx(expected)


def test_what_cannot_be_resampled_is_refused():
    for make in (
        lambda: macro_f1_interval([], [], seed=0),
        lambda: ece_interval([], [], seed=0),
        lambda: entity_f1_interval(np.zeros((0, 3)), seed=0),
        lambda: bootstrap(np.array([0, 0]), lambda drawn: drawn.sum(axis=1), seed=0),
    ):
        with pytest.raises(TrainingError, match="metric of no items"):
            make()
    with pytest.raises(TrainingError, match="1 of 2 scores are not finite, such as nan of item 1"):
        bootstrap_interval([0.5, float("nan")], seed=0)
    with pytest.raises(TrainingError, match="are not finite"):
        paired_difference([0.5, 0.5], [0.5, float("inf")], seed=0)
    with pytest.raises(TrainingError, match="0 resamples"):
        bootstrap_interval([0.5], seed=0, n=0)
    with pytest.raises(TrainingError, match="level = 95"):
        bootstrap_interval([0.5], seed=0, level=95)
