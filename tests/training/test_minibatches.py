"""The cut of a step into forward passes: every row once, and never dearer than it need be."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.minibatches import cut


def cost(lengths, passes, pass_tokens):
    return sum(len(part) * max(lengths[i] for i in part) + pass_tokens for part in passes)


@given(st.lists(st.integers(1, 64), max_size=40), st.integers(1, 12))
def test_every_row_is_in_one_pass_and_no_pass_is_too_large(lengths, most):
    passes = cut(lengths, most=most)
    assert sorted(np.concatenate([*passes, np.empty(0, dtype=int)])) == list(range(len(lengths)))
    assert all(1 <= len(part) <= most for part in passes)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8), st.sampled_from([0, 7, 50]))
def test_no_other_cut_of_the_sorted_rows_is_cheaper(lengths, pass_tokens):
    order, size = np.argsort(lengths, kind="stable"), len(lengths)
    others = [
        np.split(order, list(places)) for cuts in range(size) for places in combinations(range(1, size), cuts)
    ]
    found = cost(lengths, cut(lengths, most=size, pass_tokens=pass_tokens), pass_tokens)
    assert found == min(cost(lengths, other, pass_tokens) for other in others)


def test_one_long_row_among_short_ones_goes_alone():
    passes = cut([8, 64, 8, 9, *[8] * 20], most=32, pass_tokens=100)
    assert [len(part) for part in passes] == [23, 1]
    assert passes[-1].tolist() == [1]


@pytest.mark.parametrize(("lengths", "expected"), [([], []), ([5], [[0]]), ([5, 5, 5], [[0, 1, 2]])])
def test_rows_of_one_length_share_a_pass(lengths, expected):
    assert [part.tolist() for part in cut(lengths, most=8)] == expected
