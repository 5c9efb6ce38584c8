"""What stands in the messages of rows, seen in whole columns: who speaks, and what the user said last."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def roles_are_known(messages: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Of each row whether all its messages are of one of ROLES."""
    said, row, count = _flat(messages)
    known = pc.is_in(pc.struct_field(said, "role"), value_set=pa.array(ROLES)).to_numpy(False)
    return np.bincount(row[~known], minlength=count) == 0


def last_of_user(messages: pa.ChunkedArray) -> pa.Array:
    """Of each row what the last message of a user says; null where there is none."""
    said, row, count = _flat(messages)
    by_user = np.flatnonzero(pc.equal(pc.struct_field(said, "role"), "user").to_numpy(False).astype(bool))
    last = np.full(count, -1)
    last[row[by_user]] = by_user  # of several of a row the last one is written last
    return pc.struct_field(said, "content").take(pa.array(last, mask=last < 0))


def is_asked_last(messages: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Of each row whether its last message is not the model's own; true where there is none."""
    said, _, count = _flat(messages)
    counts = pc.fill_null(pc.list_value_length(messages.combine_chunks()), 0).to_numpy(False)
    last = pc.struct_field(said, "role").take(pa.array((np.cumsum(counts) - 1)[counts > 0]))
    asked = np.ones(count, np.bool_)
    asked[counts > 0] = pc.fill_null(pc.not_equal(last, "assistant"), True).to_numpy(False)
    return asked


def joined(messages: pa.ChunkedArray) -> pa.Array:
    """Of each row all that was said, by whom, as one text."""
    lists = messages.combine_chunks()
    parts = [pc.fill_null(pc.struct_field(pc.list_flatten(lists), name), "") for name in _SAID]
    lines = pc.binary_join_element_wise(*parts, "\x1f")
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(False)
    offsets = pa.array(np.r_[0, np.cumsum(counts)].astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, lines), "\x1e")


_SAID = ("role", "content", "tool_calls", "tool_call_id")


def _flat(messages: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int64], int]:
    """(all messages, the row of each, number of rows)"""
    lists = messages.combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(False)
    return pc.list_flatten(lists), np.repeat(np.arange(len(lists)), counts), len(lists)
