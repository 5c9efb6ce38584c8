"""The gate promotes a gain, refuses noise, and refuses a gain that is paid for with too many losses."""

import numpy as np
import pytest

from training.promotion import Decision, Evidence, Gate, decide
from training.recipe import TrainingError


def evidence(
    *, passes: int, lost: int, gained: int, null_lost: int, items: int = 400, overlap: int = 0
) -> Evidence:
    """The champion passes the first `passes` items; the others lose from the first on and gain after them."""
    champion = np.arange(items) < passes
    candidate = champion & (np.arange(items) >= lost)
    candidate[passes : passes + gained] = True
    null = champion & (np.arange(items) >= null_lost)
    null[passes : passes + null_lost] = True
    return Evidence(champion.tolist(), candidate.tolist(), [null.tolist()], overlap)


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_a_clear_gain_without_more_losses_than_a_retrain_is_promoted():
    decision = decide(evidence(passes=300, lost=8, gained=60, null_lost=12), seed=0)
    assert decision.promoted
    assert decision.reasons == tuple(check.text for check in decision.checks)


def test_a_gain_inside_the_noise_is_refused():
    decision = decide(evidence(passes=300, lost=10, gained=14, null_lost=12), seed=0)
    assert not decision.promoted
    assert failed(decision) == ["better"]
    assert "no gain beyond the noise" in decision.reasons[0]


def test_a_gain_that_loses_more_than_a_retrain_is_refused():
    decision = decide(evidence(passes=300, lost=30, gained=90, null_lost=8), seed=0)
    assert failed(decision) == ["regressions"]
    assert "loses 30 (10.0%)" in decision.reasons[0]
    assert "lost 8 of 300" in decision.reasons[0]


def test_one_evaluated_item_among_the_training_rows_is_enough_to_refuse():
    decision = decide(evidence(passes=300, lost=0, gained=60, null_lost=0, overlap=1), seed=0)
    assert failed(decision) == ["overlap"]


def test_a_category_below_its_floor_is_refused():
    sound = evidence(passes=300, lost=0, gained=60, null_lost=0)
    marked = Evidence(
        sound.champion, sound.candidate, sound.nulls, 0, categories=["travel"] * 360 + ["work"] * 40
    )
    gate = Gate(floors={"travel": 0.9, "work": 0.5, "music": 0.1})
    assert failed(decide(marked, seed=0, gate=gate)) == ["floor:music", "floor:work"]


def test_the_regression_test_agrees_with_fishers_exact_test():
    fisher = pytest.importorskip("scipy.stats").fisher_exact
    for lost, null_lost in [(0, 0), (9, 9), (20, 11), (25, 9), (60, 9)]:
        p = fisher([[lost, 300 - lost], [null_lost, 300 - null_lost]], alternative="greater").pvalue
        decision = decide(evidence(passes=300, lost=lost, gained=100, null_lost=null_lost), seed=0)
        assert ("regressions" in failed(decision)) == (p < 0.05)


def test_a_null_retrain_is_hardly_ever_promoted():
    draw = np.random.default_rng(3)
    promoted = 0
    for trial in range(400):
        difficulty = draw.beta(4, 1, 300)  # how likely each item is passed by one training of this recipe
        champion, candidate, null = (draw.random((3, 300)) < difficulty).tolist()
        promoted += decide(Evidence(champion, candidate, [null], 0), seed=trial).promoted
    assert promoted / 400 <= 0.04


def test_a_truly_better_candidate_is_mostly_promoted():
    draw = np.random.default_rng(4)
    promoted = 0
    for trial in range(100):
        difficulty = draw.beta(4, 1, 600)
        champion, null = (draw.random((2, 600)) < difficulty).tolist()
        candidate = (draw.random(600) < 1 - (1 - difficulty) / 2).tolist()  # half the errors
        promoted += decide(Evidence(champion, candidate, [null], 0), seed=trial).promoted
    assert promoted >= 95


def test_the_same_seed_decides_the_same():
    facts = evidence(passes=300, lost=10, gained=24, null_lost=12)
    assert decide(facts, seed=0) == decide(facts, seed=0)


def test_evidence_that_cannot_decide_is_refused_with_a_sentence():
    with pytest.raises(TrainingError, match="gate set is empty"):
        decide(Evidence([], [], [[]], 0), seed=0)
    with pytest.raises(TrainingError, match="no null retrain"):
        decide(Evidence([True], [True], [], 0), seed=0)
    with pytest.raises(TrainingError, match="null retrain 1 has 2 items, the champion 1"):
        decide(Evidence([True], [True], [[True], [True, True]], 0), seed=0)
