"""The numbers behind `stemma suspects`: exact where that can be checked, right on average elsewhere."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st
from scipy.stats import fisher_exact, hypergeom

from lineage.excess import Comparison, comparisons, holm, telling


def compared(*strata: tuple[int, int, int, int]) -> Comparison:
    """Strata as (rows, failures, others' rows, others' failures)."""
    return Comparison(*(np.array(column) for column in zip(*strata, strict=True)))


@st.composite
def stratum(draw: st.DrawFn, most: int = 12) -> tuple[int, int, int, int]:
    rows, others = draw(st.integers(1, most)), draw(st.integers(1, most))
    return rows, draw(st.integers(0, rows)), others, draw(st.integers(0, others))


def rows(count: int, *, values: int, strata: int, seed: int) -> tuple[np.ndarray, ...]:
    """Value, stratum, chance of failing (by stratum alone) and request of some rows."""
    rng = np.random.default_rng(seed)
    within = rng.integers(strata, size=count)
    hardness = np.array([0.05, 0.3, 0.7])[within % 3]
    return rng.integers(values, size=count), within, hardness, np.arange(count)


@given(stratum(most=40))
def test_one_stratum_is_fishers_exact_test(one: tuple[int, int, int, int]):
    n, x, m, y = one
    assert compared(one).p == pytest.approx(fisher_exact([[x, n - x], [y, m - y]], "greater").pvalue)


@given(st.lists(stratum(most=6), min_size=2, max_size=3))
def test_several_strata_are_the_sum_over_every_way_they_could_have_come_out(strata: list[tuple[int, ...]]):
    seen = sum(x for _, x, _, _ in strata)
    expected = 0.0
    for ways in product(*(range(n + 1) for n, *_ in strata)):
        if sum(ways) >= seen:
            chances = (
                hypergeom.pmf(k, n + m, x + y, n) for k, (n, x, m, y) in zip(ways, strata, strict=True)
            )
            expected += prod(chances)
    assert compared(*strata).p == pytest.approx(expected, abs=1e-12)


@given(st.lists(stratum(), min_size=1, max_size=4))
def test_the_least_p_is_that_of_the_most_failures_and_the_interval_holds_the_excess(strata):
    found = compared(*strata)
    worst = compared(*((n, min(n, x + y), m, x + y - min(n, x + y)) for n, x, m, y in strata))
    assert found.least_p == pytest.approx(worst.p) == pytest.approx(worst.least_p)
    assert found.least_p <= found.p * (1 + 1e-9)
    low, high = found.interval
    assert low <= found.excess <= high


def test_large_counts_keep_small_chances():
    one = (200_000, 20_500, 800_000, 80_000)
    assert compared(one).p == pytest.approx(hypergeom.sf(20_499, 1_000_000, 100_500, 200_000), rel=1e-4)


def test_what_fails_more_only_by_standing_where_all_fail_more_has_no_excess():
    easy, hard = (10, 1, 90, 9), (90, 54, 10, 6)
    found = compared(easy, hard)
    assert found.excess == pytest.approx(0)
    assert found.p > 0.4
    lumped = compared((100, 55, 100, 15))
    assert lumped.p < 1e-8


@run_with(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_under_permuted_outcomes_no_more_than_alpha_of_all_lakes_have_a_false_suspect(seed: int):
    alpha, lakes, wrong = 0.05, 100, 0
    values, strata, hardness, requests = rows(300, values=5, strata=3, seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(lakes):
        failed = rng.random(300) < hardness
        tests = list(comparisons(values, strata, failed, requests).values())
        kept = telling([test.least_p for test in tests], alpha=alpha)
        wrong += min(holm([tests[index].p for index in kept]), default=1.0) < alpha
    # Binomial(100, 0.05) is above 15 once in 30,000 times
    assert wrong <= 15


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng, held, times = np.random.default_rng(7), 0, 1000
    n, m = np.array([40, 25, 8]), np.array([90, 30, 50])
    bad, other = np.array([0.3, 0.6, 0.2]), np.array([0.1, 0.5, 0.02])
    truth = (n * (bad - other)).sum()
    for _ in range(times):
        low, high = Comparison(n, rng.binomial(n, bad), m, rng.binomial(m, other)).interval
        held += low <= truth <= high
    assert 0.935 <= held / times <= 0.985


def test_a_planted_bad_value_has_the_least_p_and_about_its_excess():
    values, strata, hardness, requests = rows(1500, values=6, strata=3, seed=3)
    rng = np.random.default_rng(4)
    failed = rng.random(1500) < hardness + np.where(values == 2, 0.2, 0)
    found = comparisons(values, strata, failed, requests)
    assert min(found, key=lambda value: found[value].p) == 2
    assert found[2].p < 1e-4
    low, high = found[2].interval
    assert low < 0.2 * (values == 2).sum() < high


def test_repeats_of_one_request_to_one_value_are_one_piece_of_evidence():
    values = np.array([0] * 50 + [1] * 50)
    failed = np.array([True] * 50 + [False] * 49 + [True])
    nowhere = np.zeros(100, int)
    apart = comparisons(values, nowhere, failed, np.arange(100))[0]
    assert (apart.rows.tolist(), apart.p < 1e-20) == ([50], True)
    again = comparisons(values, nowhere, failed, np.where(values == 0, 0, np.arange(100)))[0]
    assert (again.rows.tolist(), again.failures.tolist()) == ([1], [1])
    assert again.p == pytest.approx(2 / 51)


def test_a_value_without_others_or_without_other_outcomes_has_nothing_to_be_compared_with():
    three = np.array([0, 0, 0])
    failed = np.array([True, False, True])
    assert comparisons(three, three, failed, np.arange(3))[0].rows.size == 0
    apart = comparisons(np.array([0, 1, 1]), np.array([0, 1, 1]), failed, np.arange(3))
    assert [test.rows.size for test in apart.values()] == [0, 0]
    all_failed = comparisons(np.array([0, 1, 1]), three, np.array([True] * 3), np.arange(3))
    assert [test.rows.size for test in all_failed.values()] == [0, 0]


def test_rows_that_say_nothing_are_compared_with_and_not_suspected():
    found = comparisons(
        np.array([-1, -1, 0, 0]), np.zeros(4, int), np.array([False, False, True, True]), np.arange(4)
    )
    assert list(found) == [0]
    assert (found[0].other_rows.tolist(), found[0].p) == ([2], pytest.approx(1 / 6))


def test_no_rows_are_no_comparisons():
    nothing = np.zeros(0, int)
    assert comparisons(nothing, nothing, nothing.astype(bool), nothing) == {}
    assert (telling([], alpha=0.05), holm([])) == ([], [])


def test_tests_that_cannot_tell_anything_do_not_cost_those_that_can():
    assert telling([0.2] * 1000 + [1e-9], alpha=0.05) == [1000]
    assert telling([0.04, 0.04], alpha=0.05) == []
    assert telling([0.02, 0.02], alpha=0.05) == [0, 1]


def test_adjusted_p_are_holms():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
