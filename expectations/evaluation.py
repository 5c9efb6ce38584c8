"""Hold one frame against one suite, with Great Expectations, and say how each rule came out. No lake, no Ray.

    rules = evaluate(frame, suite)

A trap of Great Expectations is dealt with here: a crashed expectation looks like a failed one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from expectations.gx import quiet
from expectations.measuring import Measured, Plan
from lineage.verdicts import Rule, RuleOutcome

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite

Result = dict[str, Any]
"""A validation result as Great Expectations' JSON: what Data Docs are made of."""


def evaluate(frame: pd.DataFrame, suite: ExpectationSuite) -> list[Rule]:
    """How each rule came out on the frame, in the suite's order. The frame has `row_id` in hex."""
    return [rule for rule, _ in evaluate_rows(frame, suite)]


def evaluate_rows(frame: pd.DataFrame, suite: ExpectationSuite) -> list[tuple[Rule, list[str]]]:
    """The same, each rule with the ids (hex) of all rows that break it; none where it is about no rows."""
    plan = Plan.of(suite.expectations)
    measured = plan.measure_all(frame)
    at = dt.datetime.fromtimestamp(0, dt.UTC)
    rules = rules_of(as_result(plan, measured, suite, batch="frame", run="none", at=at), suite)
    ids = frame["row_id"].to_numpy()
    return [(rule, list(ids[found.failing])) for rule, found in zip(rules, measured, strict=True)]


def as_result(
    plan: Plan,
    measured: Sequence[Measured],
    suite: ExpectationSuite,
    *,
    batch: str,
    run: str,
    at: dt.datetime,
) -> Result:
    """What was measured, as Great Expectations would say it of one frame with all rows.

    Batch, run and time are what Data Docs will show.
    """
    with quiet():
        from great_expectations.core import ExpectationSuiteValidationResult, RunIdentifier
        from great_expectations.validator.validation_statistics import calc_validation_statistics

        results = plan.judge(measured)
        statistics = calc_validation_statistics(results)
        result = ExpectationSuiteValidationResult(
            success=statistics.success,
            results=results,
            suite_name=suite.name,
            statistics={
                "evaluated_expectations": statistics.evaluated_expectations,
                "successful_expectations": statistics.successful_expectations,
                "unsuccessful_expectations": statistics.unsuccessful_expectations,
                "success_percent": statistics.success_percent,
            },
            meta={
                "great_expectations_version": version("great_expectations"),
                "active_batch_definition": {"datasource_name": "lake", "data_asset_name": batch},
                "run_id": RunIdentifier(run_name=run, run_time=at).to_json_dict(),
                "validation_time": at.isoformat(),
            },
        )
        return cast(Result, result.to_json_dict())


def rules_of(result: Result, suite: ExpectationSuite) -> list[Rule]:
    """The result in our words. A rule that Great Expectations says nothing about is an error."""
    found = {name_of(entry): entry for entry in result["results"]}
    return [_rule(name, found.get(name, {})) for name in _names(suite)]


def crash(entry: Mapping[str, Any]) -> str | None:
    """What an expectation died of, in one line, or None where it came to an end.

    Its `exception_info` has three shapes: flat; a mapping of metric ids to flat ones; an ExceptionInfo, which
    `to_json_dict` makes flat. One that neither passed nor left anything behind did not come to an end either.
    """
    info = entry.get("exception_info") or {}
    flat = [info] if "raised_exception" in info else list(info.values())
    for part in flat:
        if part.get("raised_exception", True):
            lines = str(part.get("exception_message") or "").strip().splitlines()
            return lines[0] if lines else "an exception without a message"
    if not entry.get("success") and not entry.get("result"):
        return "no result"
    return None


def outcome_of(entry: Mapping[str, Any]) -> RuleOutcome:
    """pass, fail, or error where the expectation crashed."""
    if crash(entry) is not None:
        return "error"
    return "pass" if entry["success"] else "fail"


def overall(rules: Iterable[Rule]) -> RuleOutcome:
    """fail if a rule failed that is no warning and not waived, else error if one crashed, else pass."""
    found = {rule.outcome for rule in rules if rule.refuses}
    return "fail" if "fail" in found else "error" if "error" in found else "pass"


def name_of(entry: Mapping[str, Any]) -> str:
    """The rule behind an entry of a result; a foreign suite's expectation goes by its type."""
    config = entry["expectation_config"]
    return config["meta"].get("rule") or config["type"]


def _names(suite: ExpectationSuite) -> list[str]:
    return [name_of({"expectation_config": e.configuration.to_json_dict()}) for e in suite.expectations]


def _rule(name: str, entry: Mapping[str, Any]) -> Rule:
    config = entry.get("expectation_config", {})
    sentence = config.get("description") or name
    outcome = outcome_of(entry)
    severity = "fail" if config.get("severity", "critical") == "critical" else "warn"
    if outcome == "error":
        return Rule(name, outcome, f"{sentence}; the rule crashed: {crash(entry)}", severity=severity)
    found = entry["result"]
    kwargs = {key: value for key, value in config["kwargs"].items() if key in _THRESHOLDS}
    if "unexpected_count" not in found:
        observed = found.get("observed_value")
        detail = f" ({_short(found['details'])})" if found.get("details") else ""
        told = f"{sentence}; found {_short(observed)}{detail}"
        return Rule(name, outcome, told, observed, kwargs or None, severity=severity)
    concerned = found["element_count"] - (found.get("missing_count") or 0)
    failing = found["unexpected_count"]
    share = round(1 - failing / concerned, 4) if concerned else None
    told = f"{failing:,} of {concerned:,} rows break it" if concerned else "it is about none of the rows"
    ids = [str(row["row_id"]) for row in found.get("partial_unexpected_index_list") or []]
    threshold = kwargs.get("mostly", 1.0)
    examples = tuple(ids[:20])
    return Rule(name, outcome, f"{sentence}; {told}", share, threshold, failing, examples, severity)


_THRESHOLDS = (
    *("mostly", "min_value", "max_value", "min_share", "max_share", "max_count", "max_ratio"),
    *("ranges", "tolerance"),
)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return "nothing that it is about" if value is None else str(value)
