"""What a suite does not look at, and which of its rules say nothing, the opposite of another, or the same.

    uncovered(suite)           columns of the table that no rule's verdict depends on
    vacuous(rules, verdicts)   rules that cannot fail, and those that never did
    quarrels(rules)            rules that contradict one another;   twins(rules)   rules that repeat one

Whether a column is looked at is found out, not declared: it is changed in sound rows, and whatever column of
the suite's frame changes with it has seen it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from expectations.audit.fates import Judged
from expectations.audit.planting import put
from expectations.audit.sample import Sample, toy
from expectations.gx import columns_of
from expectations.suites import Suite, as_json
from lineage.schemas import TABLES

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite

_FEWEST = 5
"""Verdicts before a rule that never failed is worth a word."""

_ROW_COUNT = "expect_table_row_count"
_NULL, _NOT_NULL = "expect_column_values_to_be_null", "expect_column_values_to_not_be_null"


@dataclass(frozen=True)
class RuleOf:
    """A rule as a suite states it."""

    name: str
    type: str
    kwargs: Mapping[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the frame that it reads."""
        return columns_of(self.kwargs)

    @property
    def mostly(self) -> float:
        """The share of rows that must hold it."""
        return float(self.kwargs.get("mostly", 1.0))

    @property
    def range(self) -> tuple[float, float] | None:
        """The values it lets through, where it is about a range."""
        if not {"min_value", "max_value"} & self.kwargs.keys():
            return None
        low, high = self.kwargs.get("min_value"), self.kwargs.get("max_value")
        return _number(low, -math.inf), _number(high, math.inf)


def rules_of(suite: ExpectationSuite) -> list[RuleOf]:
    """The rules of a suite, in its order."""
    return [
        RuleOf((entry["meta"] or {}).get("rule", entry["type"]), entry["type"], entry["kwargs"])
        for entry in as_json(suite)["expectations"]
    ]


def uncovered(
    suite: Suite, rules: Sequence[RuleOf], sample: Sample | None = None
) -> dict[str, dict[str, Any]]:
    """The table's columns that no rule sees: column -> the frame's columns that show it, without a rule.

    Under `""` the frame's own columns that no rule reads.
    """
    sample = sample or toy(suite.name)
    read = {name for rule in rules for name in rule.columns}
    frame = suite.frame(sample.batch, sample.lake)
    found: dict[str, dict[str, Any]] = {}
    for column in TABLES[suite.name].columns:
        shown = _shown(suite, sample, frame, column.name)
        if shown is not None and not shown & read:
            found[column.name] = {"shown_in": sorted(shown), "meaning": column.meaning}
    idle = sorted(set(map(str, frame.columns)) - read - {"row_id"} - {name for name in found})
    return found | (
        {"": {"shown_in": idle, "meaning": "columns of the frame without a rule"}} if idle else {}
    )


def _shown(suite: Suite, sample: Sample, frame: pd.DataFrame, name: str) -> set[str] | None:
    """The frame's columns that change with a column; None where the frame cannot be made without it."""
    shown: set[str] = set()
    for changed in _changed(sample.batch, name):
        try:
            other = suite.frame(changed, sample.lake)
        except Exception:  # the frame leans on it: whatever the damage, no batch gets past
            return None
        shown |= {str(each) for each in frame.columns if not frame[each].equals(other[each])}
    return shown


def _changed(rows: pa.Table, name: str) -> Iterable[pa.Table]:
    values = rows[name].to_pylist()
    yield put(rows, name, values[1:] + values[:1])
    yield put(rows, name, [values[0]] * len(values))
    yield put(rows, name, [None] * len(values))


def vacuous(
    rules: Sequence[RuleOf], verdicts: Sequence[Judged], frame: pd.DataFrame | None = None
) -> list[dict[str, Any]]:
    """Rules that cannot fail (with the reason), then those that never failed in five verdicts or more.

    rule, cannot_fail, why, verdicts, failed.
    """
    seen: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for verdict in verdicts:
        for each in verdict.rules:
            seen[each["name"]] += 1
            failed[each["name"]] += each["outcome"] == "fail"
    found = []
    for rule in rules:
        why = _cannot_fail(rule, frame)
        if why or (seen[rule.name] >= _FEWEST and not failed[rule.name]):
            told = why or f"held in all {seen[rule.name]} verdicts"
            found.append(
                {
                    "rule": rule.name,
                    "cannot_fail": bool(why),
                    "why": told,
                    "verdicts": seen[rule.name],
                    "failed": failed[rule.name],
                }
            )
    return sorted(found, key=lambda each: not each["cannot_fail"])


def _cannot_fail(rule: RuleOf, frame: pd.DataFrame | None) -> str:
    kwargs = rule.kwargs
    if rule.mostly <= 0:
        return "mostly is 0: no row has to hold it"
    if rule.range == (-math.inf, math.inf):
        return "its range has no ends"
    if rule.type.startswith(_ROW_COUNT) and rule.range and rule.range[0] <= 0 and rule.range[1] == math.inf:
        return "no table has fewer than 0 rows"
    if kwargs.get("regex") in ("", ".*", "^.*$", "^", "$"):
        return "its pattern fits every text"
    for name in ("max_ratio", "max_share", "max_distance"):
        if _number(kwargs.get(name), 0.0) == math.inf:
            return f"{name} has no end"
    allowed = kwargs.get("value_set")
    if allowed is not None and {True, False} <= set(map(_as_truth, allowed)):
        values = None if frame is None or rule.columns[0] not in frame else frame[rule.columns[0]].dropna()
        if values is not None and all(isinstance(value, bool) for value in values):
            return "its set holds true and false, and the column nothing else"
    return ""


def quarrels(rules: Sequence[RuleOf]) -> list[dict[str, Any]]:
    """Rules that no row, or too few, can hold at once: rules (one or two names), column, why."""
    found = []
    for rule in rules:
        if rule.range and rule.range[0] > rule.range[1]:
            found.append(_quarrel((rule,), f"min {rule.range[0]:g} is above max {rule.range[1]:g}"))
        if rule.kwargs.get("value_set") == []:
            found.append(_quarrel((rule,), "its set is empty"))
    for one, other in combinations(rules, 2):
        if one.columns != other.columns or one.mostly + other.mostly <= 1:
            continue  # each row may hold one of them
        why = _contradiction(one, other) or _contradiction(other, one)
        if why:
            found.append(_quarrel((one, other), why))
    return found


def _contradiction(one: RuleOf, other: RuleOf) -> str:
    if one.type == _NULL and other.type == _NOT_NULL:
        return "one wants nulls, the other none"
    if one.range and other.range and one.type == other.type and one.range[1] < other.range[0]:
        return f"at most {one.range[1]:g}, and at least {other.range[0]:g}"
    allowed, others = one.kwargs.get("value_set"), other.kwargs.get("value_set")
    if allowed and others and one.type == other.type == "expect_column_values_to_be_in_set":
        return "" if set(map(str, allowed)) & set(map(str, others)) else "their sets have nothing in common"
    if (
        allowed
        and others
        and (one.type, other.type)
        == (
            "expect_column_values_to_be_in_set",
            "expect_column_values_to_not_be_in_set",
        )
    ):
        return "all that one allows the other forbids" if set(allowed) <= set(others) else ""
    numbers = [value for value in allowed or () if isinstance(value, int | float)]
    if (
        numbers
        and len(numbers) == len(allowed or ())
        and other.range
        and other.type == "expect_column_values_to_be_between"
    ):
        outside = all(not other.range[0] <= value <= other.range[1] for value in numbers)
        return "no value of the set lies in the range" if outside else ""
    return ""


def twins(rules: Sequence[RuleOf]) -> list[dict[str, Any]]:
    """Rules that repeat another, or are implied by it: rules (two names), column, why."""
    found = []
    for one, other in combinations(rules, 2):
        if one.name == other.name:
            found.append(_quarrel((one, other), "two rules have the same name: a verdict shows one of them"))
        if one.type != other.type or one.columns != other.columns:
            continue
        rest = [
            {key: value for key, value in each.kwargs.items() if key not in ("min_value", "max_value")}
            for each in (one, other)
        ]
        if one.kwargs == other.kwargs:
            found.append(_quarrel((one, other), "they ask for the same"))
        elif one.range and other.range and rest[0] == rest[1] and one.columns:
            narrow, wide = (one, other) if _within(one.range, other.range) else (other, one)
            if narrow.range and wide.range and _within(narrow.range, wide.range):
                found.append(_quarrel((one, other), f"{wide.name} holds wherever {narrow.name} does"))
    return found


def _quarrel(rules: tuple[RuleOf, ...], why: str) -> dict[str, Any]:
    return {"rules": [rule.name for rule in rules], "column": ", ".join(rules[0].columns), "why": why}


def _within(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return other[0] <= one[0] and one[1] <= other[1]


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else otherwise


def _as_truth(value: Any) -> Any:
    return value if isinstance(value, bool) else None
