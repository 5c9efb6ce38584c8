"""Rows are packed whole, each once, into the fullest sequence that still has room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.packing import pack


@given(lengths=st.lists(st.integers(1, 32), max_size=60))
def test_every_row_lies_in_one_sequence_and_none_is_over_full(lengths):
    packs = pack(lengths, capacity=32)
    assert sorted(position for each in packs for position in each) == list(range(len(lengths)))
    assert all(sum(lengths[position] for position in each) <= 32 for each in packs)


@given(lengths=st.lists(st.integers(1, 32), max_size=60))
def test_a_row_goes_where_the_least_room_is_left(lengths):
    room: list[int] = []
    expected: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
        fitting = [left for left in room if left >= lengths[position]]
        if fitting:
            expected[room.index(min(fitting))].append(position)
            room[room.index(min(fitting))] -= lengths[position]
        else:
            room.append(32 - lengths[position])
            expected.append([position])
    packs = pack(lengths, capacity=32)
    fullness = sorted(sum(lengths[position] for position in each) for each in packs)
    assert fullness == sorted(sum(lengths[position] for position in each) for each in expected)


def test_a_row_that_fits_nowhere_is_refused():
    with pytest.raises(ValueError, match="a row of 9 tokens does not fit into 8"):
        pack([3, 9], capacity=8)
