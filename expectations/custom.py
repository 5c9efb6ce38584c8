"""Our own expectations: what Great Expectations' gallery cannot say. Importing this module registers them.

    ExpectProvenanceToBeComplete         no provenance column of a row is null or blank
    ExpectColumnValuesToHold             a condition that the frame computed is true of the row
    ExpectLabelRatioToBeAtMost           no label far more frequent than another
    ExpectSliceSharesToBeWithin          the slices of a curriculum are in proportion

A null means "the rule is not about this row"; all but the first pass what they are not about.
Importing costs seconds (Great Expectations), so suites import this module when they are built.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pandas as pd
from great_expectations.execution_engine import ExecutionEngine, PandasExecutionEngine
from great_expectations.expectations.expectation import (
    ColumnAggregateExpectation,
    ColumnMapExpectation,
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
        counts = Counter(str(label) for label in column.dropna())
        return dict(sorted(counts.items()))


class ExpectProvenanceToBeComplete(MulticolumnMapExpectation):
    """Expect every provenance column to say something, if only `unstated`."""

    map_metric: ClassVar[str] = "multicolumn_values.stated"
    ignore_row_if: str = "never"  # type: ignore[assignment]


class ExpectColumnValuesToHold(ColumnMapExpectation):
    """Expect a true value in every row that the rule is about."""

    map_metric: ClassVar[str] = "column_values.hold"


class _LabelExpectation(ColumnAggregateExpectation):
    """An expectation on how often each label occurs."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ("column.label_counts",)


class ExpectLabelRatioToBeAtMost(_LabelExpectation):
    """Expect no label to occur more than this many times as often as another."""

    max_ratio: float
    success_keys: ClassVar[tuple[str, ...]] = ("max_ratio",)

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,
        execution_engine: ExecutionEngine | None = None,
    ) -> dict[str, Any]:
        counts: dict[str, int] = metrics["column.label_counts"]
        if not counts:
            return {"success": True, "result": {"observed_value": None}}
        most, least = (
            max(counts, key=lambda label: counts[label]),
            min(counts, key=lambda label: counts[label]),
        )
        ratio = counts[most] / counts[least]
        extremes = {most: counts[most], least: counts[least]}
        return {
            "success": ratio <= self.max_ratio,
            "result": {"observed_value": round(ratio, 3), "details": extremes},
        }


class ExpectSliceSharesToBeWithin(_LabelExpectation):
    """Expect each slice's share of the rows in its range, where all the slices that have a range occur."""

    ranges: dict[str, list[float]]
    tolerance: float = 0.0
    success_keys: ClassVar[tuple[str, ...]] = ("ranges", "tolerance")

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,
        execution_engine: ExecutionEngine | None = None,
    ) -> dict[str, Any]:
        counts: dict[str, int] = metrics["column.label_counts"]
        rows = sum(counts.values())
        shares = {name: round(count / rows, 4) for name, count in counts.items()}
        applies = self.ranges.keys() <= counts.keys()
        slack = self.tolerance + 1e-9  # 0.35 + 0.02 is less than 0.37 in binary
        within = all(
            low - slack <= counts[name] / rows <= high + slack
            for name, (low, high) in self.ranges.items()
            if applies
        )
        return {"success": within, "result": {"observed_value": shares}}
