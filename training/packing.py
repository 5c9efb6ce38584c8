"""Puts rows into sequences of a fixed length so that little of what is computed is padding.

    lengths --longest first--> the fullest sequence that still has room --> sequences

Best-fit decreasing: at most 11/9 of the fewest sequences possible, and a few (Johnson 1974).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int] | np.ndarray, *, capacity: int) -> list[list[int]]:
    """Positions of the rows of each sequence, in the order they were put there; each position exactly once.

    Rows of equal length go in the order they come. Raises ValueError for a row longer than `capacity` tokens.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and sizes.max() > capacity:
        raise ValueError(f"a row of {sizes.max()} tokens does not fit into {capacity}")
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # tokens left -> sequences, last come first used
    rooms = 0  # bit n is set where a sequence has n tokens left
    for position in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[position])
        fitting = rooms >> size
        if not fitting:
            room, chosen = capacity, len(packs)
            packs.append([])
        else:
            room = size + (fitting & -fitting).bit_length() - 1  # the least that suffices
            chosen = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        packs[chosen].append(position)
        left = room - size
        if left:
            with_room.setdefault(left, []).append(chosen)
            rooms |= 1 << left
    return packs
