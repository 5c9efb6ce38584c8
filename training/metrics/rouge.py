"""How much of a reference text another one repeats: ROUGE-1, ROUGE-2 and ROUGE-L, as F1.

What the package rouge-score 0.1.2 computes without a stemmer: tokens are runs of a-z and 0-9 in lower case,
so a text in another script has none, and scores 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_TOKEN = re.compile(r"[a-z0-9]+")


def rouge_n(reference: str, said: str, *, n: int) -> float:
    """F1 over the runs of n tokens that both texts hold; repeated ones count as often as in both."""
    wanted, found = _runs(_tokens(reference), n), _runs(_tokens(said), n)
    return _f1((wanted & found).total(), of=(wanted.total(), found.total()))


def rouge_l(reference: str, said: str) -> float:
    """F1 over the longest sequence of tokens that both texts hold in one order, gaps allowed."""
    wanted, found = _tokens(reference), _tokens(said)
    return _f1(_longest_common(wanted, found), of=(len(wanted), len(found)))


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def _runs(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bits: one row of the table is one integer.

    Hyyro 2004, "Bit-parallel LCS-length computation revisited": a cleared bit is a step of the row.
    """
    where: dict[str, int] = {}
    for at, token in enumerate(left):
        where[token] = where.get(token, 0) | 1 << at
    full = (1 << len(left)) - 1
    row = full
    for token in right:
        common = row & where.get(token, 0)
        row = ((row + common) | (row - common)) & full
    return len(left) - row.bit_count()


def _f1(hits: int, *, of: tuple[int, int]) -> float:
    if hits == 0:
        return 0.0
    recall, precision = hits / of[0], hits / of[1]
    return 2 * precision * recall / (precision + recall)
