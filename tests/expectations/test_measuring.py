"""What is measured by block and merged is what Great Expectations says of the whole frame."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.evaluation import as_result, evaluate, evaluate_rows
from expectations.gx import open_context, quiet
from expectations.measuring import RESULT_FORMAT, Plan, both, merged
from expectations.suites import SUITES
from expectations.thresholds import DEFAULTS

with quiet():
    import great_expectations.expectations as gxe
    from great_expectations import ExpectationSuite, ValidationDefinition
    from great_expectations.expectations.expectation import Expectation

    from expectations.custom import (
        ExpectColumnValuesToHold,
        ExpectFewValuesFarAboveMedian,
        ExpectLabelRatioToBeAtMost,
        ExpectMeasureToBeBetween,
        ExpectProvenanceToBeComplete,
        ExpectShareOfValueToBeBetween,
        ExpectSliceSharesToBeWithin,
        ExpectValueCountsToBeAtMost,
    )

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WORDS = st.sampled_from(["a", "bb", "ccc", "x1", "", " ", None])
NUMBERS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 7.0, float("nan")])
ROWS = st.lists(st.tuples(WORDS, WORDS, NUMBERS, st.sampled_from([True, False, None])), max_size=40)


def rules() -> list[Expectation]:
    """One of every kind that our suites use, and some that a user may."""
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=3),
        ExpectProvenanceToBeComplete(column_list=["word", "other"]),
        gxe.ExpectColumnValueLengthsToEqual(column="word", value=2, mostly=0.5),
        gxe.ExpectColumnValuesToBeBetween(column="number", min_value=0, max_value=1, mostly=0.7),
        gxe.ExpectColumnValuesToBeInSet(column="word", value_set=["a", "bb", "ccc"]),
        gxe.ExpectColumnValuesToMatchRegex(column="word", regex="^[a-c]+$"),
        ExpectColumnValuesToHold(column="holds", mostly=0.6),
        ExpectLabelRatioToBeAtMost(column="word", max_ratio=3.0),
        ExpectSliceSharesToBeWithin(column="word", ranges={"a": [0.1, 0.5], "bb": [0.1, 0.5]}),
        ExpectValueCountsToBeAtMost(column="word", max_count=3),
        ExpectShareOfValueToBeBetween(column="word", value="a", min_share=0.1, max_share=0.5, min_rows=3),
        ExpectMeasureToBeBetween(column="number", max_value=0.8),
        ExpectFewValuesFarAboveMedian(column="number", times=3, max_share=0.1),
        gxe.ExpectColumnValuesToNotBeInSet(column="word", value_set=["x1"]),
        gxe.ExpectColumnValuesToBeNull(column="word", mostly=0.2),
        gxe.ExpectColumnValuesToNotBeNull(column="other", mostly=0.9),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="word", column_B="other", mostly=0.5),
        *whole(),
    ]


def whole() -> list[Expectation]:
    """Of which no part says anything."""
    return [
        gxe.ExpectColumnValuesToBeUnique(column="word"),
        gxe.ExpectColumnMeanToBeBetween(column="number", min_value=0, max_value=0.8),
        gxe.ExpectColumnMedianToBeBetween(column="number", min_value=0, max_value=0.8),
        gxe.ExpectColumnDistinctValuesToBeInSet(column="word", value_set=["a", "bb", "ccc", "x1"]),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["word", "other"]),
    ]


def frame(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    kinds = {"word": object, "other": object, "number": float, "holds": object}
    found = {
        name: pd.Series(list(c), dtype=kind) for (name, kind), c in zip(kinds.items(), columns, strict=True)
    }
    return pd.DataFrame({"row_id": [f"{number:032x}" for number in range(len(rows))], **found})


def plain(view: pd.DataFrame, suite: ExpectationSuite) -> list[dict[str, Any]]:
    """Great Expectations by itself."""
    with quiet():
        context = open_context()
        asset = context.data_sources.add_pandas("p").add_dataframe_asset("a")
        definition = ValidationDefinition(
            name="v", data=asset.add_batch_definition_whole_dataframe("b"), suite=context.suites.add(suite)
        )
        result = definition.run(batch_parameters={"dataframe": view}, result_format=RESULT_FORMAT)
    found = {entry["expectation_config"]["meta"]["n"]: entry for entry in result.to_json_dict()["results"]}
    return [found[number] for number in range(len(suite.expectations))]


def by_block(view: pd.DataFrame, suite: ExpectationSuite, cuts: Sequence[int]) -> list[dict[str, Any]]:
    plan = Plan.of(suite.expectations)
    ends = sorted({min(cut, len(view)) for cut in cuts} | {len(view)})
    blocks = [view.iloc[first:end] for first, end in zip([0, *ends], ends, strict=False)]
    parts = [plan.measure(block.reset_index(drop=True)) for block in blocks]
    together = both(merged(parts), plan.measure_whole(view[plan.columns_of_whole()]))
    return as_result(plan, together, suite, batch="b", run="r", at=AT)["results"]


def suite_of(rules: Sequence[Expectation]) -> ExpectationSuite:
    for number, rule in enumerate(rules):
        rule.meta = {"n": number}
    return ExpectationSuite("s", expectations=list(rules))


def said(entries: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(e["expectation_config"]["type"], e["success"], e["result"]) for e in entries]


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_blocks_say_what_the_whole_frame_says(rows: list[tuple[Any, ...]], cuts: list[int]):
    view = frame(rows)
    for one, other in zip(
        said(by_block(view, suite_of(rules()), cuts)), said(plain(view, suite_of(rules()))), strict=True
    ):
        assert repr(one) == repr(other)


def test_what_no_part_says_anything_of_is_judged_of_all_rows():
    plan = Plan.of(rules())
    assert plan.by_block == [rule.configuration.type not in kinds(whole()) for rule in rules()]
    assert plan.columns_of_whole() == ["row_id", "word", "number", "other"]


def kinds(some: Sequence[Expectation]) -> set[str]:
    return {rule.configuration.type for rule in some}


@pytest.mark.parametrize("name", SUITES)
def test_every_rule_of_our_own_suites_is_measured_by_block(name: str):
    plan = Plan.of(SUITES[name].build(DEFAULTS).expectations)
    assert all(plan.by_block)
    assert plan.columns_of_whole() == []
    assert kinds([rule.expectation for rule in plan.rules]) <= kinds(rules())


def test_a_rule_of_a_column_that_is_not_there_crashes_alone():
    asked = [gxe.ExpectColumnValuesToNotBeNull(column="gone"), gxe.ExpectColumnMeanToBeBetween(column="gone")]
    held = ExpectColumnValuesToHold(column="holds")
    found = evaluate(frame([("a", "a", 1.0, True)]), suite_of([*asked, held]))
    assert [rule.outcome for rule in found] == ["error", "error", "pass"]
    assert "gone" in found[0].sentence


def test_a_pattern_that_never_comes_to_an_end_is_an_error_and_not_a_wait():
    endless = gxe.ExpectColumnValuesToMatchRegex(column="word", regex=r"^(?=a)(a+)+$")
    rows = [("a" * 60 + "!", "a", 1.0, True)]
    view, suite = frame(rows), suite_of([endless, ExpectColumnValuesToHold(column="holds")])
    plan = Plan.of(suite.expectations, seconds=0.5)
    found = plan.measure(view)
    assert [part.crash if part else None for part in found] == ["it took more than 0.5 s on one block", ""]
    assert [
        entry["success"] for entry in as_result(plan, found, suite, batch="b", run="r", at=AT)["results"]
    ] == [
        False,
        True,
    ]


def test_beside_many_rules_it_takes_no_longer(toy, admitted_of):
    endless = gxe.ExpectColumnValuesToMatchRegex(column="row_id", regex=r"^(?=[0-9a-f])([0-9a-f]+)+$")
    view = SUITES["traces"].frame(toy.traces(), admitted_of()).assign(row_id="a" * 60 + "!")
    plan = Plan.of([*SUITES["traces"].build(DEFAULTS).expectations, endless], seconds=1.0)
    since = time.monotonic()
    found = plan.measure(view)
    assert time.monotonic() - since < 15  # of 53 rules; a second each would be a minute
    assert [part.crash for part in found if part and part.crash] == ["it took more than 1 s on one block"]


def test_an_expectation_that_dies_of_one_block_is_an_error_of_the_whole():
    suite = suite_of([gxe.ExpectColumnValuesToBeBetween(column="number", min_value=0)])
    plan = Plan.of(suite.expectations)
    odd = frame([("a", "a", 1.0, True)]).assign(number=["a word"])
    parts = [plan.measure(frame([("a", "a", 1.0, True)])), plan.measure(odd)]
    assert [bool(part and part.crash) for part in merged(parts)] == [True]


DEFECTS = {
    "traces": {
        "provenance_complete": ("prompt_name", " "),
        "row_id_has_16_bytes": ("row_id", b"short"),
        "row_no_leased": ("row_no", -1),
        "derivation_known": ("derivation", "guessed"),
        "source_span_well_formed": ("source_span", "line 4"),
        "source_revision_is_digest": ("source_revision", "today"),
        "code_revision_is_digest": ("code_revision", "dirty"),
        "review_known": ("review", "maybe"),
        "score_in_range": ("score", 7.0),
        "verdict_known": ("verdict", "perhaps"),
        "messages_not_empty": ("messages", []),
    },
    "examples": {"kind_known": ("kind", "odd"), "answer_not_empty": ("answer", "")},
}


@pytest.mark.parametrize(("table", "rule"), [(t, r) for t, rules in DEFECTS.items() for r in rules])
def test_exactly_the_rows_with_the_defect_break_the_rule(table, rule, toy, change, admitted_of):
    rows = toy.traces(40) if table == "traces" else toy.examples(40)
    column, value = DEFECTS[table][rule]
    values = rows[column].to_pylist()
    for place in range(0, 40, 2):
        values[place] = value
    view = SUITES[table].frame(change(rows, column, values), admitted_of())
    suite = SUITES[table].build(DEFAULTS)
    broken, found = next(each for each in evaluate_rows(view, suite) if each[0].name == rule)
    assert found == view["row_id"].tolist()[::2]
    assert (broken.failing, list(broken.examples)) == (len(found), found[: len(broken.examples)])


def test_both_rows_of_a_pair_break_uniqueness_and_a_rule_about_the_whole_names_none(toy, change, admitted_of):
    rows = toy.traces(4)
    view = SUITES["traces"].frame(change(rows, "row_no", [1, 2, 2, 3]), admitted_of())
    suite = SUITES["traces"].build(DEFAULTS)
    found = {rule.name: row_ids for rule, row_ids in evaluate_rows(view, suite)}
    assert found["row_no_unique"] == view["row_id"].tolist()[1:3]
    assert found["batch_not_empty"] == []
