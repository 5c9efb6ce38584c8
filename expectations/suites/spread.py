"""How rows lie together: copies, lengths beside the target's lengths, patterns of a label.

All from numbers of a few bytes a row, and exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LEAST = 100
"""Rows on either side below which nothing is said of a distribution: D5's smallest curriculum."""

PATTERN_WORDS = 3
"""First words that make up the surface pattern of a text."""

_LABEL_ROWS = 10  # of a label below which its patterns are not counted: few rows cannot have many


def distance(some: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> float | None:
    """Kolmogorov and Smirnov's distance of two samples of whole numbers, from their histograms.

    The greatest difference of their cumulative shares, 0 to 1. None where either has fewer than LEAST.
    """
    if min(len(some), len(others)) < LEAST:
        return None
    values = np.unique(np.concatenate([some, others]))
    shares = (np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (some, others))
    one, other = shares
    return round(float(np.abs(one - other).max()), 6)


def hashed(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """64 bits of each text, the same on every machine: of a million, two share it once in 10**7 times."""
    import pandas as pd

    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    return pa.array(pd.util.hash_array(array.to_numpy(False).astype(object), categorize=False), pa.uint64())


def is_first(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Of each value whether no equal one comes before it; null of nulls."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    codes = pc.dictionary_encode(array).indices
    known = np.flatnonzero(pc.is_valid(codes).to_numpy(False))
    first = np.zeros(len(codes), np.bool_)
    _, at = np.unique(codes.drop_null().to_numpy(False), return_index=True)
    first[known[at]] = True
    return pc.if_else(pc.is_valid(array), pa.array(first), pa.scalar(None, pa.bool_()))


def pattern(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The surface pattern of each text: its first PATTERN_WORDS words in lower case, digits alike."""
    plain = pc.utf8_trim_whitespace(pc.utf8_lower(texts))
    cut = pc.replace_substring_regex(plain, rf"^((?:\S+\s+){{{PATTERN_WORDS - 1}}}\S+)(?s:.*)$", r"\1")
    return pc.replace_substring_regex(pc.replace_substring_regex(cut, r"[0-9]+", "0"), r"\s+", " ")


def fewest_patterns(labels: pa.ChunkedArray, patterns: pa.ChunkedArray) -> int | None:
    """The number of patterns of the label that has fewest; None where no label has rows enough."""
    known = pa.table({"label": labels, "pattern": patterns}).filter(pc.is_valid(patterns))
    counts = known.group_by("label").aggregate([("pattern", "count_distinct"), ("label", "count")])
    asked = counts.filter(pc.greater_equal(counts["label_count"], _LABEL_ROWS))
    return pc.min(asked["pattern_count_distinct"]).as_py()
