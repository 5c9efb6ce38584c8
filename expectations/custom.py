"""Our own expectations: what Great Expectations' gallery cannot say. Importing this module registers them.

    ExpectProvenanceToBeComplete         no provenance column of a row is null or blank
    ExpectColumnValuesToHold             a condition that the frame computed is true of the row
    ExpectLabelRatioToBeAtMost           no label far more frequent than another
    ExpectSliceSharesToBeWithin          the slices of a curriculum are in proportion
    ExpectValueCountsToBeAtMost          no value in too many rows
    ExpectShareOfValueToBeBetween        a value in neither too few nor too many rows
    ExpectMeasureToBeBetween             a number that was measured of the batch as a whole
    ExpectFewValuesFarAboveMedian        few numbers many times as great as the median

A null means "the rule is not about this row"; all but the first pass what they are not about. Each class has
`examples`, which are tests, too: docs/expectations.md is made of them. Importing costs seconds (Great
Expectations), so suites import this module when they are built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, ClassVar

import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.execution_engine import ExecutionEngine, PandasExecutionEngine
from great_expectations.expectations.expectation import (
    ColumnAggregateExpectation,
    ColumnMapExpectation,
    ExpectationConfiguration,
    MulticolumnMapExpectation,
)
from great_expectations.expectations.metrics import (
    ColumnAggregateMetricProvider,
    ColumnMapMetricProvider,
    column_aggregate_value,
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider import MulticolumnMapMetricProvider
from great_expectations.expectations.metrics.map_metric_provider.multicolumn_condition_partial import (
    multicolumn_condition_partial,
)
from great_expectations.render import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer
from great_expectations.render.renderer_configuration import RendererConfiguration, RendererValueType

METADATA: dict[str, Any] = {"maturity": "production", "tags": ["stemma"], "contributors": ["stemma"]}


class ValuesStated(MulticolumnMapMetricProvider):
    """Is every one of these columns something other than null, an empty text or blanks?"""

    condition_metric_name = "multicolumn_values.stated"
    condition_domain_keys = (
        "batch_id",
        "table",
        "column_list",
        "row_condition",
        "condition_parser",
        "ignore_row_if",
    )
    condition_value_keys = ()

    @multicolumn_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_list: pd.DataFrame, **_: Any) -> pd.Series:
        stated = pd.Series(True, index=column_list.index)
        for name in column_list.columns:
            values = column_list[name]
            # Few different values in many rows: each is looked at once.
            blank = [value for value in values.dropna().unique() if not str(value).strip()]
            stated &= values.notna() & ~values.isin(blank)
        return stated


class ValuesHold(ColumnMapMetricProvider):
    """Is the value true?"""

    condition_metric_name = "column_values.hold"

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, **_: Any) -> pd.Series:
        return column.astype(bool)


class LabelCounts(ColumnAggregateMetricProvider):
    """How often does each value occur? In order of value, nulls left out."""

    metric_name = "column.label_counts"

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, **_: Any) -> dict[str, int]:
        found: Counter[str] = Counter()
        for label, count in column.dropna().value_counts(sort=False).items():
            found[str(label)] += int(count)
        return dict(sorted(found.items()))


class _Spoken:
    """How a rule without a description of its own reads in Data Docs."""

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        raise NotImplementedError

    @classmethod
    def _prescriptive_template(cls, renderer_configuration: RendererConfiguration) -> RendererConfiguration:
        told = cls.sentence(renderer_configuration.kwargs)
        renderer_configuration.add_param(name="told", param_type=RendererValueType.STRING, value=told)
        renderer_configuration.template_str = "$told"
        return renderer_configuration

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls,
        configuration: ExpectationConfiguration | None = None,
        result: ExpectationValidationResult | None = None,
        runtime_configuration: dict[str, Any] | None = None,
    ) -> list[RenderedStringTemplateContent]:
        about = configuration or (result.expectation_config if result is not None else None)
        told = cls.sentence(about.kwargs if about is not None else {})
        template = {"template": "$told", "params": {"told": told}}
        return [RenderedStringTemplateContent(content_block_type="string_template", string_template=template)]


def _example(title: str, data: dict[str, list[Any]], *, holds: bool, **kwargs: Any) -> dict[str, Any]:
    """As Great Expectations keeps examples of an expectation."""
    test = {"title": title, "in": kwargs, "out": {"success": holds}}
    return {"data": data, "tests": [test | {"exact_match_output": False, "include_in_gallery": True}]}


def _mostly(kwargs: Mapping[str, Any]) -> str:
    share = kwargs.get("mostly")
    return "" if share is None or share == 1 else f", in at least {share:.0%} of the rows"


class ExpectProvenanceToBeComplete(_Spoken, MulticolumnMapExpectation):
    """Expect every one of these columns to say something: no null, no empty text, no blanks.

    Where nothing is known a row says so (`unstated`). Arguments: column_list, mostly.
    """

    map_metric: ClassVar[str] = "multicolumn_values.stated"
    ignore_row_if: str = "never"  # type: ignore[assignment]
    library_metadata: ClassVar[dict[str, Any]] = METADATA
    examples: ClassVar[list[dict[str, Any]]] = [
        _example(
            "what is not known is said to be unstated",
            {"scorer": ["judge", "unstated"], "prompt": ["intent", "intent"]},
            holds=True,
            column_list=["scorer", "prompt"],
        ),
        _example(
            "a blank says nothing",
            {"scorer": ["judge", " "], "prompt": ["intent", "intent"]},
            holds=False,
            column_list=["scorer", "prompt"],
        ),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        return f"every one of {', '.join(kwargs.get('column_list') or ())} says something{_mostly(kwargs)}"


class ExpectColumnValuesToHold(_Spoken, ColumnMapExpectation):
    """Expect a true value in every row that the rule is about: where the column is null, it is not.

    Arguments: column, mostly.
    """

    map_metric: ClassVar[str] = "column_values.hold"
    library_metadata: ClassVar[dict[str, Any]] = METADATA
    examples: ClassVar[list[dict[str, Any]]] = [
        _example("the second row is not asked", {"is_new": [True, None, True]}, holds=True, column="is_new"),
        _example("one row breaks it", {"is_new": [True, None, False]}, holds=False, column="is_new"),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        return f"{kwargs.get('column')} is true{_mostly(kwargs)}"


class _LabelExpectation(_Spoken, ColumnAggregateExpectation):
    """An expectation on how often each label occurs."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ("column.label_counts",)
    library_metadata: ClassVar[dict[str, Any]] = METADATA

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,
        execution_engine: ExecutionEngine | None = None,
    ) -> dict[str, Any]:
        holds, observed, details = self.held_against(metrics["column.label_counts"])
        result = {"observed_value": observed}
        return {"success": holds, "result": result | ({"details": details} if details else {})}

    def held_against(self, counts: Mapping[str, int]) -> tuple[bool, Any, dict[str, Any]]:
        """(does it hold, what was observed, more about it) for values and how often they occur."""
        raise NotImplementedError


class ExpectLabelRatioToBeAtMost(_LabelExpectation):
    """Expect no label to occur more than this many times as often as another.

    Arguments: column, max_ratio. A column without values holds.
    """

    max_ratio: float
    success_keys: ClassVar[tuple[str, ...]] = ("max_ratio",)
    examples: ClassVar[list[dict[str, Any]]] = [
        _example("two to one", {"label": ["a", "a", "b", None]}, holds=True, column="label", max_ratio=3),
        _example(
            "four to one", {"label": ["a", "b", "a", "a", "a"]}, holds=False, column="label", max_ratio=3
        ),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        ratio = kwargs.get("max_ratio")
        return f"no value of {kwargs.get('column')} occurs more than {ratio:g} times as often as another"

    def held_against(self, counts: Mapping[str, int]) -> tuple[bool, Any, dict[str, Any]]:
        """(does it hold, what was observed, more about it) for values and how often they occur."""
        if not counts:
            return True, None, {}
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        ratio = counts[most] / counts[least]
        return ratio <= self.max_ratio, round(ratio, 3), {most: counts[most], least: counts[least]}


class ExpectSliceSharesToBeWithin(_LabelExpectation):
    """Expect each slice's share of the rows in its range, where all the slices that have a range occur.

    Arguments: column, ranges (slice -> [least share, greatest share]), tolerance.
    """

    ranges: dict[str, list[float]]
    tolerance: float = 0.0
    success_keys: ClassVar[tuple[str, ...]] = ("ranges", "tolerance")
    examples: ClassVar[list[dict[str, Any]]] = [
        _example(
            "half and half",
            {"slice": ["gold", "hard"]},
            holds=True,
            column="slice",
            ranges={"gold": [0.4, 0.6], "hard": [0.4, 0.6]},
        ),
        _example(
            "too much gold",
            {"slice": ["gold", "gold", "gold", "hard"]},
            holds=False,
            column="slice",
            ranges={"gold": [0.4, 0.6], "hard": [0.4, 0.6]},
        ),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        ranges = kwargs.get("ranges") or {}
        told = ", ".join(f"{name} {low:.0%}-{high:.0%}" for name, (low, high) in ranges.items())
        return f"where all of them occur in {kwargs.get('column')}, the shares are: {told}"

    def held_against(self, counts: Mapping[str, int]) -> tuple[bool, Any, dict[str, Any]]:
        """(does it hold, what was observed, more about it) for values and how often they occur."""
        rows = sum(counts.values())
        slack = self.tolerance + 1e-9  # 0.35 + 0.02 is less than 0.37 in binary
        within = not self.ranges.keys() <= counts.keys() or all(
            low - slack <= counts[name] / rows <= high + slack for name, (low, high) in self.ranges.items()
        )
        return within, {name: round(count / rows, 4) for name, count in counts.items()}, {}


class ExpectValueCountsToBeAtMost(_LabelExpectation):
    """Expect no value to occur in more rows than this.

    Arguments: column, max_count. What is observed are the values that occur more often, up to 20 of them; or
    the most frequent value.
    """

    max_count: int
    success_keys: ClassVar[tuple[str, ...]] = ("max_count",)
    examples: ClassVar[list[dict[str, Any]]] = [
        _example("each twice", {"teacher": ["a", "b", "b", "a"]}, holds=True, column="teacher", max_count=2),
        _example("b thrice", {"teacher": ["a", "b", "b", "b"]}, holds=False, column="teacher", max_count=2),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        return f"no value of {kwargs.get('column')} occurs in more than {kwargs.get('max_count')} rows"

    def held_against(self, counts: Mapping[str, int]) -> tuple[bool, Any, dict[str, Any]]:
        """(does it hold, what was observed, more about it) for values and how often they occur."""
        often = sorted(counts, key=lambda value: (-counts[value], value))
        too_often = [value for value in often if counts[value] > self.max_count]
        shown = {value: counts[value] for value in (too_often[:20] or often[:1])}
        return not too_often, shown or None, {}


class ExpectShareOfValueToBeBetween(_LabelExpectation):
    """Expect the rows that have this value to be neither too few nor too many of all that have a value.

    Arguments: column, value, min_share (default 0), max_share (default 1), min_rows (default 1): of fewer
    rows nothing is asked; or_all (default false): all may have the value although a part of them may not.
    """

    value: str
    min_share: float = 0.0
    max_share: float = 1.0
    min_rows: int = 1
    or_all: bool = False
    success_keys: ClassVar[tuple[str, ...]] = ("value", "min_share", "max_share", "min_rows", "or_all")
    examples: ClassVar[list[dict[str, Any]]] = [
        _example(
            "half of them passed",
            {"verdict": ["pass", "fail", None]},
            holds=True,
            column="verdict",
            value="pass",
            max_share=0.9,
        ),
        _example(
            "all of them passed",
            {"verdict": ["pass", "pass", None]},
            holds=False,
            column="verdict",
            value="pass",
            max_share=0.9,
        ),
        _example(
            "too few rows to say",
            {"verdict": ["pass", "pass", None]},
            holds=True,
            column="verdict",
            value="pass",
            max_share=0.9,
            min_rows=30,
        ),
        _example(
            "nobody judged any of them",
            {"verdict": ["unstated", "unstated"]},
            holds=True,
            column="verdict",
            value="unstated",
            max_share=0.5,
            or_all=True,
        ),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        low, high = kwargs.get("min_share") or 0, kwargs.get("max_share", 1)
        return f"{low:.0%} to {high:.0%} of the rows say {kwargs.get('value')} in {kwargs.get('column')}"

    def held_against(self, counts: Mapping[str, int]) -> tuple[bool, Any, dict[str, Any]]:
        """(does it hold, what was observed, more about it) for values and how often they occur."""
        rows, mine = sum(counts.values()), counts.get(self.value, 0)
        if not rows:
            return True, None, {}
        share = mine / rows
        asked = rows >= self.min_rows and not (self.or_all and mine == rows)
        holds = not asked or self.min_share - 1e-9 <= share <= self.max_share + 1e-9
        return holds, round(share, 4), {self.value: mine, "of": rows}


class ExpectMeasureToBeBetween(_LabelExpectation):
    """Expect a number that was measured of the whole batch to lie in a range.

    The number stands in one row of the column, the other rows are null; a column without a number holds.
    Arguments: column, min_value, max_value; either may be missing.
    """

    min_value: float | None = None
    max_value: float | None = None
    success_keys: ClassVar[tuple[str, ...]] = ("min_value", "max_value")
    examples: ClassVar[list[dict[str, Any]]] = [
        _example(
            "near enough", {"distance": [0.1, None, None]}, holds=True, column="distance", max_value=0.2
        ),
        _example("too far", {"distance": [0.3, None, None]}, holds=False, column="distance", max_value=0.2),
        _example("not asked", {"distance": [None, None]}, holds=True, column="distance", max_value=0.2),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        ends = (("at least", kwargs.get("min_value")), ("at most", kwargs.get("max_value")))
        told = " and ".join(f"{word} {number:g}" for word, number in ends if number is not None)
        return f"{kwargs.get('column')}, measured of the whole batch, is {told or 'any number'}"

    def held_against(self, counts: Mapping[str, int]) -> tuple[bool, Any, dict[str, Any]]:
        """(does it hold, what was observed, more about it) for values and how often they occur."""
        found = sorted(map(float, counts))
        low = float("-inf") if self.min_value is None else self.min_value
        high = float("inf") if self.max_value is None else self.max_value
        return all(low <= number <= high for number in found), found[-1] if found else None, {}


class ExpectFewValuesFarAboveMedian(_LabelExpectation):
    """Expect few numbers to be many times as great as the median of the column.

    Arguments: column, times (of the median), max_share (of the rows that have a number). The median is exact:
    the lower of the two in the middle.
    """

    times: float
    max_share: float = 0.0
    success_keys: ClassVar[tuple[str, ...]] = ("times", "max_share")
    examples: ClassVar[list[dict[str, Any]]] = [
        _example("all alike", {"words": [8, 9, 12, None]}, holds=True, column="words", times=10),
        _example("one is endless", {"words": [8, 9, 12, 900]}, holds=False, column="words", times=10),
    ]

    @classmethod
    def sentence(cls, kwargs: Mapping[str, Any]) -> str:
        """The rule with these arguments, in words."""
        share, times = kwargs.get("max_share") or 0, kwargs.get("times")
        return f"at most {share:.0%} of {kwargs.get('column')} are more than {times:g} times the median"

    def held_against(self, counts: Mapping[str, int]) -> tuple[bool, Any, dict[str, Any]]:
        """(does it hold, what was observed, more about it) for values and how often they occur."""
        numbers = sorted((float(value), count) for value, count in counts.items())
        rows = sum(counts.values())
        if not rows:
            return True, None, {}
        reached = accumulate(count for _, count in numbers)
        median = next(
            number for (number, _), so_far in zip(numbers, reached, strict=True) if 2 * so_far >= rows
        )
        above = sum(count for number, count in numbers if number > self.times * max(median, 1))
        return (
            above <= self.max_share * rows + 1e-9,
            round(above / rows, 4),
            {"median": median, "above": above},
        )


CLASSES = (
    ExpectProvenanceToBeComplete,
    ExpectColumnValuesToHold,
    ExpectLabelRatioToBeAtMost,
    ExpectSliceSharesToBeWithin,
    ExpectValueCountsToBeAtMost,
    ExpectShareOfValueToBeBetween,
    ExpectMeasureToBeBetween,
    ExpectFewValuesFarAboveMedian,
)
"""All of ours, in the order of the docs."""
