"""Great Expectations by block: what it measures of each block, merged exactly, and its own judgement of that.

    plan = Plan.of(suite)
    measured = [plan.measure(view) for view in views]      on workers
    results = plan.judge(merged(measured), whole=...)      in one place

Great Expectations validates one frame in memory and merges nothing. But it first computes metrics, then
judges by them: counts of the blocks add up, lists of failing rows follow one another, counts of values are
counted together. Whatever is judged by such metrics alone is measured by block. Any other rule is measured on
its own columns of all blocks, brought together.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from expectations.gx import columns_of, quiet

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.validator.metric_configuration import MetricConfiguration

SHOWN = 20  # failing rows that a result names
RESULT_FORMAT = {
    "result_format": "SUMMARY",  # all counts and the first failing rows; COMPLETE would list each
    "partial_unexpected_count": SHOWN,
    "unexpected_index_column_names": ["row_id"],
    "return_unexpected_index_query": False,
    "include_unexpected_rows": False,
}

ROW_WISE = frozenset(
    {
        *(f"column_values.{name}" for name in ("nonnull", "null", "hold", "between", "in_set", "not_in_set")),
        *(f"column_values.{name}" for name in ("match_regex", "not_match_regex", "match_regex_list")),
        *("column_values.value_length.equals", "column_values.value_length.between"),
        *("column_pair_values.equal", "column_pair_values.a_greater_than_b", "column_pair_values.in_set"),
        "multicolumn_values.stated",
    }
)
"""Conditions that a row meets by itself, whatever the others are."""

_PLACES = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
"""Of all failing rows their places: naming each, as RESULT_FORMAT would before it is cut, takes 60 µs."""

_INDEX = "unexpected_index_list"
_SUMS = ("unexpected_count", "filtered_row_count", "row_count")
_LISTS = ("unexpected_values", _INDEX)
_COUNTERS = ("column.label_counts",)


class TimedOut(BaseException):
    """A rule took longer than it may. No Exception: Great Expectations would take it for the rule's own."""


@dataclass(frozen=True)
class Measured:
    """What one rule asks of some rows."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Great Expectations' metrics by name."""

    crash: str = ""
    """What it died of, in one line."""

    rows: int = 0
    failing: npt.NDArray[np.int64] = field(default_factory=partial(np.empty, 0, np.int64))
    """Of the rows the places, from 0, of all that break it, in order; of none where it is about no rows."""


@dataclass(frozen=True)
class _Planned:
    """One rule, and what it asks for."""

    expectation: Expectation
    columns: tuple[str, ...]
    asked: Mapping[str, MetricConfiguration]
    """By name, as its judgement wants them."""

    places: Mapping[str, MetricConfiguration]
    """The same for those of them that would name each failing row."""

    crash: str = ""
    """What it died of when it was asked."""

    @property
    def wanted(self) -> Mapping[str, MetricConfiguration]:
        """What is computed of it."""
        return {**self.asked, **self.places}

    @property
    def by_block(self) -> bool:
        return not self.crash and all(map(_is_mergeable, self.asked))


@dataclass(frozen=True)
class Plan:
    """A suite's rules, and which of them can be measured by block."""

    rules: Sequence[_Planned]
    seconds: float
    """That a rule may take on one block."""

    @classmethod
    def of(cls, rules: Sequence[Expectation], *, seconds: float = 60.0) -> Plan:
        """Looks at what each rule would measure, without any rows."""
        with quiet():
            engine = _engine()
            return cls(tuple(_planned(rule, engine) for rule in rules), seconds)

    @property
    def by_block(self) -> list[bool]:
        """Of each rule, in order: is it measured by block?"""
        return [rule.by_block for rule in self.rules]

    def measure(self, view: pd.DataFrame) -> list[Measured | None]:
        """What each rule asks of one block, indexed from 0; None of those that ask for all blocks."""
        found = iter(_measured([rule for rule in self.rules if rule.by_block], view, self.seconds))
        return [next(found) if rule.by_block else None for rule in self.rules]

    def measure_all(self, view: pd.DataFrame) -> list[Measured]:
        """What every rule asks of a view that is in memory as a whole."""
        return both(self.measure(view), self.measure_whole(view))

    def columns_of_whole(self) -> list[str]:
        """The columns that have to be brought together."""
        names = [rule.columns for rule in self.rules if not rule.by_block]
        return list(dict.fromkeys(chain(["row_id"], *names))) if names else []

    def measure_whole(self, view: pd.DataFrame) -> list[Measured | None]:
        """What the other rules ask, of their columns of all blocks."""
        return [None if rule.by_block else _measured([rule], view, self.seconds)[0] for rule in self.rules]

    def judge(self, measured: Sequence[Measured]) -> list[ExpectationValidationResult]:
        """Great Expectations' own results, in the order of the rules."""
        with quiet():
            engine = _engine()
            return [_judged(rule, each, engine) for rule, each in zip(self.rules, measured, strict=True)]


def both(by_block: Sequence[Measured | None], whole: Sequence[Measured | None]) -> list[Measured]:
    """What was measured of each rule, either way."""
    none = Measured(crash="it was not measured")
    return [one or other or none for one, other in zip(by_block, whole, strict=True)]


def merged(of_blocks: Sequence[Sequence[Measured | None]]) -> list[Measured | None]:
    """What the rules ask of all blocks: exactly what they would ask of one frame with all their rows."""
    return [_together(each) for each in zip(*of_blocks, strict=True)]


def _together(parts: Sequence[Measured | None]) -> Measured | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if crash := next((part.crash for part in known if part.crash), ""):
        return Measured(crash=crash)
    names = known[0].metrics
    firsts = accumulate((part.rows for part in known), initial=0)
    return Measured(
        {name: _merge(name, [part.metrics[name] for part in known]) for name in names},
        rows=sum(part.rows for part in known),
        failing=np.concatenate([part.failing + first for part, first in zip(known, firsts, strict=False)]),
    )


def _merge(name: str, values: Sequence[Any]) -> Any:
    if name.endswith(_SUMS):
        return sum(values)
    if name.endswith(_LISTS):
        return list(islice(chain.from_iterable(value or () for value in values), SHOWN))
    if name in _COUNTERS:
        return dict(sorted(sum(map(Counter, values), Counter()).items()))
    return None  # the text of a query, which pandas has none of


def _is_mergeable(name: str) -> bool:
    if name in (*_COUNTERS, "table.row_count"):
        return True
    condition, _, what = name.rpartition(".")
    return condition in ROW_WISE and what in (*_SUMS, *_LISTS, "unexpected_index_query")


def _planned(rule: Expectation, engine: PandasExecutionEngine) -> _Planned:
    columns = columns_of(rule.configuration.kwargs)
    try:
        asked = rule.get_validation_dependencies(
            execution_engine=engine, runtime_configuration={"result_format": dict(RESULT_FORMAT)}
        ).metric_configurations
        named = {name: _as_places(metric) for name, metric in asked.items() if name.endswith(_INDEX)}
        return _Planned(rule, columns, asked, named)
    except Exception as error:
        return _Planned(rule, columns, {}, {}, _line(error))


def _measured(rules: Sequence[_Planned], view: pd.DataFrame, seconds: float) -> list[Measured]:
    """All at once, which shares what they have in common; one by one where that takes as long as one may."""
    with quiet():
        engine = _engine()
        engine.load_batch_data("block", view)
        try:
            with _within(seconds):
                return _computed(rules, view, engine)
        except TimedOut:
            return [_alone(rule, view, engine, seconds) for rule in rules]


def _alone(rule: _Planned, view: pd.DataFrame, engine: PandasExecutionEngine, seconds: float) -> Measured:
    try:
        with _within(seconds):
            return _computed([rule], view, engine)[0]
    except TimedOut:
        return Measured(crash=f"it took more than {seconds:g} s on one block")


def _computed(rules: Sequence[_Planned], view: pd.DataFrame, engine: PandasExecutionEngine) -> list[Measured]:
    from great_expectations.validator.metrics_calculator import MetricsCalculator

    found, died = MetricsCalculator(engine, show_progress_bars=False).compute_metrics(
        [metric for rule in rules for metric in rule.wanted.values()],
        runtime_configuration={"catch_exceptions": True, "result_format": RESULT_FORMAT},
    )
    measured: list[Measured] = []
    for rule in rules:
        if rule.crash:
            measured.append(Measured(crash=rule.crash))
        elif all(metric.id in found for metric in rule.wanted.values()):
            measured.append(_found(rule, found, view))
        elif len(rules) > 1:  # which of all that died it needed is seen where it is alone
            measured += _computed([rule], view, engine)
        else:
            infos = [info["exception_info"] for info in died.values()]
            measured.append(
                Measured(crash=_first_line(infos[0]["exception_message"]) if infos else "no result")
            )
    return measured


def _found(rule: _Planned, found: Mapping[Any, Any], view: pd.DataFrame) -> Measured:
    """Its metrics, and all its failing rows; the first of them named as Great Expectations names them."""
    metrics = {name: found[metric.id] for name, metric in rule.wanted.items()}
    failing = next((found[metric.id] for metric in rule.places.values()), ())
    names = list(dict.fromkeys([*rule.columns[:1], "row_id", *rule.columns]))
    for name in rule.places:
        first = view.loc[metrics[name][:SHOWN], names]
        metrics[name] = [{column: first.at[at, column] for column in names} for at in first.index]
    return Measured(metrics, rows=len(view), failing=np.asarray(failing, np.int64))


def _as_places(metric: MetricConfiguration) -> MetricConfiguration:
    from great_expectations.validator.metric_configuration import MetricConfiguration

    asked = {**metric.metric_value_kwargs, "result_format": _PLACES}
    return MetricConfiguration(metric.metric_name, metric.metric_domain_kwargs, asked)


def _judged(rule: _Planned, measured: Measured, engine: PandasExecutionEngine) -> ExpectationValidationResult:
    from great_expectations.core import ExpectationValidationResult

    crash = measured.crash
    if not crash:
        try:
            return rule.expectation.metrics_validate(
                metrics={metric.id: measured.metrics[name] for name, metric in rule.asked.items()},
                execution_engine=engine,
                runtime_configuration={"result_format": dict(RESULT_FORMAT)},
            )
        except Exception as error:
            crash = _line(error)
    return ExpectationValidationResult(
        success=False,
        expectation_config=rule.expectation.configuration,
        exception_info={"raised_exception": True, "exception_message": crash, "exception_traceback": None},
    )


def _engine() -> PandasExecutionEngine:
    from great_expectations.execution_engine import PandasExecutionEngine

    import expectations.custom  # noqa: F401  registers ours

    return PandasExecutionEngine()


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimedOut in what takes longer. Only a process's main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimedOut

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)  # somebody else's, perhaps
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, max(left - time.monotonic() + began, 1e-3) if left else 0)
        signal.signal(signal.SIGALRM, before)


def _line(error: Exception) -> str:
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
