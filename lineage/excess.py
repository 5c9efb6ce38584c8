"""More failures than chance explains: one value's rows against all others, within strata. Numbers only.

    comparisons   codes per row     -> per value a table of (rows, failures, others' rows, others' failures)
    Comparison    one such table    -> failures expected, excess with its interval, exact p
    telling       least p per test  -> which tests can say anything at all
    holm          p per test        -> p adjusted for asking all of them
Everything is computed from the counts: no draws, no seeds, the same answer every time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from scipy.special import gammaln

_Z = NormalDist().inv_cdf(0.975)  # 95 % intervals, two-sided
_DEVIATIONS = 20  # how far from its mean a count is followed; beyond lies less than 1e-80


@dataclass(frozen=True)
class Comparison:
    """One value's rows beside all others', stratum by stratum; every stratum has rows of both, and failures.

    The arrays are of one length, int64. Without a stratum there is nothing to compare with.
    """

    rows: np.ndarray
    failures: np.ndarray
    other_rows: np.ndarray
    other_failures: np.ndarray

    @property
    def expected(self) -> float:
        """Failures that these rows would have at the others' rates."""
        return float((self.rows * self.other_failures / self.other_rows).sum())

    @property
    def excess(self) -> float:
        """Failures beyond the expected ones; negative where there are fewer."""
        return float(self.failures.sum() - self.expected)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the excess.

        Wilson's score interval of each rate, differences by Newcombe's hybrid score method (1998, Statistics
        in Medicine 17:873, method 10), and the sum over strata by the same rule: the distances to the limits
        add up as squares (Zou and Donner 2008, ibid. 27:1693). Agresti's and Caffo's added successes would be
        added in every stratum, so that their sum drifts when there are many small ones.
        """
        rate, low, high = _wilson(self.failures, self.rows)
        other, other_low, other_high = _wilson(self.other_failures, self.other_rows)
        down = np.sqrt((self.rows**2 * ((rate - low) ** 2 + (other_high - other) ** 2)).sum())
        up = np.sqrt((self.rows**2 * ((high - rate) ** 2 + (other - other_low) ** 2)).sum())
        most = self.rows.sum()
        return float(max(self.excess - down, -most)), float(min(self.excess + up, most))

    @cached_property
    def p(self) -> float:
        """How often chance alone gives these rows as many failures or more.

        The exact conditional test of the Cochran-Mantel-Haenszel hypothesis (Agresti, Categorical Data
        Analysis, 2013, section 7.3.5): given how many of a stratum's rows failed, the failures among this
        value's rows are hypergeometric, and their sum over strata is a convolution. Right for any counts.
        """
        chances, first = np.ones(1), 0
        for n, x, m, y in zip(self.rows, self.failures, self.other_rows, self.other_failures, strict=True):
            some, start = _hypergeometric(int(n), int(x + y), int(n + m))
            chances, first = np.convolve(chances, some), first + start
        tail = max(int(self.failures.sum()) - first, 0)
        return float(min(chances[tail:].sum() / chances.sum(), 1.0))

    @cached_property
    def least_p(self) -> float:
        """The p there would be if as many of these rows as can had failed, whichever did."""
        total = self.rows + self.other_rows
        failing = self.failures + self.other_failures
        return float(np.exp(_log_chance(np.minimum(self.rows, failing), self.rows, failing, total).sum()))


def comparisons(
    values: np.ndarray, strata: np.ndarray, failed: np.ndarray, repeats: np.ndarray
) -> dict[int, Comparison]:
    """Per value code its rows against all others, sorted by code; rows of code -1 are only compared with.

    Of the rows of one value and stratum that are repeats of each other (the same code) the first stands for
    all: a request that comes a hundred times, and fails a hundred times, is one piece of evidence. Strata in
    which all or none failed, or that hold one value alone, say nothing and are left out.
    """
    codes, strata = values.astype(np.int64) + 1, strata.astype(np.int64)
    width, length = int(strata.max(initial=0)) + 1, int(repeats.max(initial=0)) + 1
    first = np.unique((codes * width + strata) * length + repeats, return_index=True)[1]
    codes, strata, failed = codes[first], strata[first], failed[first].astype(np.int64)
    totals = np.bincount(strata, minlength=width)
    failing = np.bincount(strata, weights=failed, minlength=width).astype(np.int64)
    cells, which = np.unique(codes * width + strata, return_inverse=True)
    rows = np.bincount(which, minlength=len(cells))
    failures = np.bincount(which, weights=failed, minlength=len(cells)).astype(np.int64)
    of, within = cells // width, cells % width
    telling = (totals[within] > rows) & (failing[within] > 0) & (failing[within] < totals[within])
    found: dict[int, Comparison] = {}
    starts = np.searchsorted(of, np.unique(of))
    for start, end in pairwise([*starts, len(of)]):
        if of[start] == 0:
            continue
        at = np.arange(start, end)[telling[start:end]]
        n, x, s = rows[at], failures[at], within[at]
        found[int(of[start]) - 1] = Comparison(n, x, totals[s] - n, failing[s] - x)
    return found


def telling(least: Sequence[float], *, alpha: float) -> list[int]:
    """Which tests can come out significant at all, given the least p that each can have.

    Tarone (1990, Biometrics 46:515): a test that cannot pass even alone needs no correction for, so a
    thousand sources of three rows each do not drown the one that is bad. The choice looks only at the
    margins, never at where the failures lie.
    """
    ordered = sorted(least)
    tests = next((k for k in range(1, len(least) + 1) if bisect_right(ordered, alpha / k) <= k), 1)
    return [index for index, p in enumerate(least) if p <= alpha / tests]


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p: below alpha with a chance of at most alpha, for however many true nulls among the tests.

    Holm (1979, Scandinavian Journal of Statistics 6:65); needs no independence, which provenance never has.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _wilson(failures: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rate and its score interval."""
    rate = failures / rows
    middle = (failures + _Z**2 / 2) / (rows + _Z**2)
    half = _Z / (rows + _Z**2) * np.sqrt(rows * rate * (1 - rate) + _Z**2 / 4)
    return rate, np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _hypergeometric(drawn: int, failing: int, total: int) -> tuple[np.ndarray, int]:
    """Chances of each count of failures among `drawn` of `total` rows, and the count that the first is of."""
    mean = drawn * failing / total
    spread = np.sqrt(mean * (1 - failing / total) * (total - drawn) / max(total - 1, 1))
    reach = _DEVIATIONS * spread + _DEVIATIONS
    low = max(0, drawn + failing - total, int(mean - reach))
    high = min(drawn, failing, int(mean + reach) + 1)
    counts = np.arange(low, high + 1)
    return np.exp(_log_chance(counts, drawn, failing, total)), low


def _log_chance(
    count: np.ndarray, drawn: np.ndarray | int, failing: np.ndarray | int, total: np.ndarray | int
) -> np.ndarray:
    return (
        _log_choose(failing, count)
        + _log_choose(np.subtract(total, failing), np.subtract(drawn, count))
        - _log_choose(total, drawn)
    )


def _log_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
    return gammaln(np.add(n, 1)) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n, k) + 1)
