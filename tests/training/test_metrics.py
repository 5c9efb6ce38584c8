"""Metrics agree with their definitions, and their intervals cover what they promise."""

from dataclasses import asdict

import numpy as np
import pytest

from infra.models import TaggedSpan
from lineage.spans import Span
from training.metrics import (
    EntityScore,
    accuracy,
    bootstrap_interval,
    ece,
    entity_counts,
    entity_f1,
    macro_f1,
    paired_difference,
)
from training.recipe import TrainingError


def test_accuracy_is_the_share_of_hits():
    assert accuracy(["a", "b", "a", "c"], ["a", "b", "c", "c"]) == 0.75


def test_macro_f1_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    truth, guess = draw.choice(list("abcd"), 200), draw.choice(list("abce"), 200)
    expected = metrics.f1_score(truth, guess, average="macro", zero_division=0)
    assert macro_f1(truth.tolist(), guess.tolist()) == pytest.approx(expected)


def test_an_entity_is_right_with_the_same_start_end_and_label_in_the_same_text():
    ann, york = Span(0, 3, "person"), Span(13, 21, "place")
    assert entity_f1([[ann, york], []], [[york, ann], []]) == EntityScore(1.0, 1.0, 1.0)
    wrong = [Span(13, 17, "place"), Span(0, 3, "place")]  # cut short; of another kind
    assert entity_f1([[ann, york], [ann]], [[ann, *wrong], [york]]) == EntityScore(1 / 4, 1 / 3, 2 / 7)
    assert entity_f1([[ann], [york]], [[york], [ann]]).f1 == 0.0


def test_entity_f1_agrees_with_seqeval_on_random_spans():
    seqeval = pytest.importorskip("seqeval.metrics")
    draw = np.random.default_rng(0)

    def entities() -> list[Span]:
        cuts = np.sort(draw.choice(13, 6, replace=False))  # three spans that lie apart or touch
        spans = [Span(int(a), int(b), draw.choice(["PER", "LOC"])) for a, b in cuts.reshape(-1, 2)]
        return spans[: draw.integers(0, 4)]

    def tags(spans: list[Span]) -> list[str]:
        said = ["O"] * 12
        for span in spans:
            said[span.start : span.end] = [f"I-{span.label}"] * (span.end - span.start)
            said[span.start] = f"B-{span.label}"
        return said

    truth = [entities() for _ in range(300)]
    found = [text if draw.random() < 0.5 else entities() for text in truth]
    tagged = [tags(text) for text in truth], [tags(text) for text in found]
    expected = [getattr(seqeval, f"{name}_score")(*tagged) for name in ("precision", "recall", "f1")]
    assert 0.4 < expected[-1] < 0.9
    assert [*asdict(entity_f1(truth, found)).values()] == pytest.approx(expected)


def test_counts_per_text_sum_to_the_entities_of_all():
    ann, york = Span(0, 3, "person"), Span(13, 21, "place")
    counts = entity_counts([[ann, york], [], [ann]], [[ann], [york], []])
    assert counts.tolist() == [[1, 1, 2], [0, 1, 0], [0, 0, 1]]
    assert entity_counts([], []).shape == (0, 3)


def test_an_entity_counts_once_and_how_sure_it_is_does_not_count():
    sure, unsure = (TaggedSpan(0, 3, "person", confidence) for confidence in (0.9, 0.2))
    assert entity_f1([[Span(0, 3, "person")]], [[sure, unsure]]) == EntityScore(1.0, 1.0, 1.0)


def test_where_there_are_no_entities_their_score_is_zero():
    assert entity_f1([[]], [[]]) == EntityScore(0.0, 0.0, 0.0)
    assert entity_f1([[Span(0, 1, "a")]], [[]]) == EntityScore(0.0, 0.0, 0.0)
    with pytest.raises(TrainingError, match="2 texts against 1"):
        entity_f1([[], []], [[]])


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    assert ece([0.8] * 10, [True] * 8 + [False] * 2) == pytest.approx(0.0)
    assert ece([1.0] * 4, [True, True, False, False]) == pytest.approx(0.5)
    # one bin says 0.9 and is right, the other says 0.3 and is right half the time
    assert ece([0.9, 0.9, 0.3, 0.3], [True, True, True, False]) == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)


def test_the_interval_holds_the_true_accuracy_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    held = 0
    for trial in range(300):
        low, high = bootstrap_interval(draw.random(150) < 0.8, seed=trial)
        held += low <= 0.8 <= high
    assert 0.90 <= held / 300 <= 0.98


def test_seed_zero_is_a_seed_like_any_other():
    correct = [True] * 60 + [False] * 40
    assert bootstrap_interval(correct, seed=0) == bootstrap_interval(correct, seed=0)
    assert bootstrap_interval(correct, seed=0) != bootstrap_interval(correct, seed=1)


def test_a_paired_difference_sees_that_the_same_items_are_hard():
    hard = np.arange(400) % 2 == 0
    better = hard | (np.arange(400) % 20 == 1)
    gain = paired_difference(better, hard, seed=0)
    assert gain.diff == pytest.approx(0.05)
    assert 0 < gain.low < gain.diff < gain.high
    assert gain.p < 0.01


def test_equal_models_differ_by_nothing():
    same = paired_difference([True, False, True], [True, False, True], seed=0)
    assert (same.diff, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_empty_and_unequal_input_is_refused_with_a_sentence():
    with pytest.raises(TrainingError, match="metric of no items"):
        accuracy([], [])
    with pytest.raises(TrainingError, match="metric of no items"):
        bootstrap_interval([], seed=0)
    with pytest.raises(TrainingError, match="2 items against 1"):
        paired_difference([True, False], [True], seed=0)
