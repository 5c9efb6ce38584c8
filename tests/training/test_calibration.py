"""Confidences are mended and thresholds chosen on validation rows, and are refused on those."""

import numpy as np
import pytest

from training.metrics import calibrated, ece, fit_calibration, fit_threshold, sweep
from training.recipe import TrainingError


def answers(n: int, *, seed: int):
    """Two labels told with the same confidence: "easy" is right as often as said, "hard" half as often."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(["easy", "hard"], n)
    confidence = draw.uniform(0.8, 1.0, n)
    correct = draw.random(n) < np.where(labels == "easy", confidence, confidence / 2)
    return confidence, labels.tolist(), correct


def test_a_confidence_moves_to_the_accuracy_of_its_label():
    mended = calibrated([0.9, 0.9, 0.9], ["a", "b", "new"], {"a": 0.5, "b": 1.0}, 0.25)
    assert mended == pytest.approx([0.8, 0.925, 0.9])
    assert calibrated([0.9], ["a"], {"a": 0.5}, 0.0) == pytest.approx([0.9])


def test_an_overconfident_label_falls_and_the_calibration_error_with_it():
    calibration = fit_calibration(*answers(2000, seed=0), fitted_on="validation")
    confidence, labels, correct = answers(2000, seed=1)
    mended = calibration.apply(confidence, labels, rows_of="gate")
    hard = np.array(labels) == "hard"
    assert mended[hard].mean() < confidence[hard].mean() - 0.2
    assert abs(mended[~hard].mean() - confidence[~hard].mean()) < 0.05
    assert ece(mended, correct) < ece(confidence, correct) / 4
    assert (calibration.fitted_on, calibration.n) == ("validation", 2000)


def test_a_label_accuracy_that_says_nothing_gets_no_weight():
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0, 1, 4000)  # right exactly as often as said, and each label is seen once
    correct = draw.random(4000) < confidence
    calibration = fit_calibration(confidence, [str(n) for n in range(4000)], correct, fitted_on="validation")
    assert calibration.w < 0.1


def test_a_label_seen_once_is_not_taken_for_perfect():
    calibration = fit_calibration([0.9] * 5, list("aaaab"), [True, False, False, True, True], fitted_on="v")
    assert calibration.label_accuracy["b"] < 1.0


def test_the_threshold_is_where_keeping_gains_most():
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.3, 1.0, 20_000)
    correct = draw.random(20_000) < confidence  # right as often as said: keep from c / (1 + c) on
    for cost, best in ((1.5, 0.6), (4.0, 0.8), (9.0, 0.9)):
        threshold = fit_threshold(confidence, correct, fitted_on="validation", wrong_cost=cost)
        assert threshold.value == pytest.approx(best, abs=0.04)
    kept = threshold.kept([0.99, 0.5, threshold.value], rows_of="gate")
    assert kept.tolist() == [True, False, True]


def test_of_thresholds_that_gain_the_same_the_lowest_is_taken():
    threshold = fit_threshold([0.95, 0.7, 0.4], [True, True, False], fitted_on="v", wrong_cost=1.0)
    assert threshold.value == 0.5


def test_a_sweep_tells_coverage_and_accuracy_from_half_to_almost_sure():
    points = sweep([0.5, 0.75, 0.99, 0.2], [False, True, True, True])
    assert [p.value for p in points] == pytest.approx(np.arange(0.5, 0.995, 0.01))
    at = {p.value: (p.coverage, p.accuracy) for p in points}
    assert at[0.5] == (0.75, pytest.approx(2 / 3))
    assert at[0.51] == (0.5, 1.0)
    assert at[0.99] == (0.25, 1.0)


def test_what_was_fitted_on_rows_is_refused_on_them():
    threshold = fit_threshold([0.9, 0.6], [True, False], fitted_on="rows-a", wrong_cost=1.0)
    with pytest.raises(TrainingError, match="fitted on rows-a and would be applied there"):
        threshold.kept([0.9], rows_of="rows-a")
    calibration = fit_calibration([0.9, 0.6], ["a", "b"], [True, False], fitted_on="rows-a")
    with pytest.raises(TrainingError, match="fitted on rows-a and would be applied there"):
        calibration.apply([0.9], ["a"], rows_of="rows-a")
    with pytest.raises(TrainingError, match="fitted_on is empty"):
        fit_threshold([0.9, 0.6], [True, False], fitted_on=" ", wrong_cost=1.0)


def test_what_gains_nothing_is_said_rather_than_fitted():
    with pytest.raises(TrainingError, match=r"no threshold from 0\.5 to 0\.99 gains anything on v"):
        fit_threshold([0.9, 0.8], [False, False], fitted_on="v", wrong_cost=1.0)
    for cost in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(TrainingError, match="expected a number above 0"):
            fit_threshold([0.9], [True], fitted_on="v", wrong_cost=cost)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_confidence_that_is_no_probability_is_named(wrong):
    with pytest.raises(TrainingError, match=r"1 of 2 confidences are no probabilities.*of item 1"):
        ece([0.5, wrong], [True, False])
    with pytest.raises(TrainingError, match="no probabilities"):
        calibrated([wrong], ["a"], {}, 0.5)
