"""Whether rules hold as often as they used to, version by version.

A version drifts in a rule about rows when its share lies outside the range of all earlier ones and chance
does not explain it: an exact binomial test of its rows against the earlier ones taken together, p below 0.01
divided by the versions tested. In a rule about the whole batch: outside that range by more than three times
the median distance from the median. Fewer than four earlier versions say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from expectations.audit.fates import Judged

FEWEST = 4
"""Earlier versions that a version is held against at least."""

LEVEL = 0.01
SPREADS = 3.0
_SPREAD = 1.4826  # median distance from the median, times this: the standard deviation of a bell curve


@dataclass(frozen=True)
class Point:
    """How one rule came out on one version."""

    version: int
    value: float
    rows: int
    """Rows that the share is of; 0 for a number about the whole batch."""


def series(verdicts: Sequence[Judged]) -> dict[str, list[Point]]:
    """Rule -> its points, oldest version first; crashed rules and those about no row have none there."""
    found: dict[str, list[Point]] = {}
    for verdict in sorted(verdicts, key=lambda each: each.batch.version):
        for rule in verdict.rules:
            observed = rule["observed"]
            if rule["outcome"] == "error" or isinstance(observed, bool | Mapping | str | list):
                continue
            if observed is not None:
                about_rows = isinstance(rule["threshold"], float)
                rows = verdict.rows if about_rows else 0
                if about_rows and rule["failing"] and observed < 1:
                    rows = round(rule["failing"] / (1 - observed))  # those that the rule is about
                point = Point(verdict.batch.version, float(observed), rows)
                found.setdefault(rule["name"], []).append(point)
    return found


def drifts(points: Mapping[str, Sequence[Point]]) -> list[dict[str, Any]]:
    """What left the range of the earlier versions: rule, version, value, low, high, p, versions.

    `p` is null for numbers about a whole batch. Newest version first.
    """
    found = []
    for rule, line in points.items():
        tested = len(line) - FEWEST
        for at in range(FEWEST, len(line)):
            entry = _left(rule, line[:at], line[at], LEVEL / tested)
            if entry is not None:
                found.append(entry)
    return sorted(found, key=lambda each: (-each["version"], each["rule"]))


def _left(rule: str, earlier: Sequence[Point], now: Point, level: float) -> dict[str, Any] | None:
    values = [point.value for point in earlier]
    low, high = min(values), max(values)
    if low <= now.value <= high:
        return None
    p = None
    if now.rows and all(point.rows for point in earlier):
        p = _chance(earlier, now)
        if p >= level:
            return None
    else:
        middle = median(values)
        spread = _SPREAD * median(abs(value - middle) for value in values)
        if min(abs(now.value - low), abs(now.value - high)) <= SPREADS * spread:
            return None
    return {
        "rule": rule,
        "version": now.version,
        "value": now.value,
        "low": low,
        "high": high,
        "p": p,
        "versions": len(earlier),
    }


def _chance(earlier: Sequence[Point], now: Point) -> float:
    """How likely rows like the earlier ones are to come out at least as unlike them as these."""
    from scipy.stats import binomtest

    rows = sum(point.rows for point in earlier)
    held = round(sum(point.value * point.rows for point in earlier))
    share = (held + 0.5) / (rows + 1)  # never 0 or 1: one failure after none is no proof
    return float(binomtest(round(now.value * now.rows), now.rows, share).pvalue)
