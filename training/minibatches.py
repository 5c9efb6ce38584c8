"""Cuts rows into forward passes so that little of what is computed is padding.

    lengths --sorted--> runs of rows of like length, each padded to its longest row

A step's loss is a sum over its rows, so the cut changes the time and nothing else. One long row among short
ones would pad all of them to its length: of the demo's steps of 32 rows more than half was padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PASS_TOKENS = 100
"""What one more pass costs on a CPU, in tokens of work: every 4-bit layer is dequantised again, twice."""
FEWEST_PASSES = 2**31
"""For a GPU, which starts a pass more slowly than it pads: as few passes as `most` allows."""


def cut(
    lengths: Sequence[int] | np.ndarray, *, most: int, pass_tokens: int = PASS_TOKENS
) -> list[np.ndarray]:
    """Positions of the rows of each pass, shortest rows first, at most `most` rows in a pass.

    The cheapest of all cuts of the sorted rows, where a pass of n rows costs n times its longest row plus
    `pass_tokens`. No rows give no pass.
    """
    order = np.argsort(lengths, kind="stable")
    sizes = np.asarray(lengths, dtype=np.int64)[order]
    cheapest = np.zeros(len(sizes) + 1, dtype=np.int64)  # of the first n rows
    begin_of = np.zeros(len(sizes) + 1, dtype=np.int64)  # where the last pass of that cut begins
    for end in range(1, len(sizes) + 1):
        begins = np.arange(max(0, end - most), end)
        costs = cheapest[begins] + (end - begins) * sizes[end - 1] + pass_tokens
        begin_of[end] = begins[costs.argmin()]
        cheapest[end] = costs.min()
    passes, end = [], len(sizes)
    while end:
        passes.append(order[begin_of[end] : end])
        end = begin_of[end]
    return passes[::-1]
