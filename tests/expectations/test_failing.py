"""All rows that break a rule, by the rule alone: as many as the whole suite counts, and the same."""

from __future__ import annotations

import pytest

from expectations.evaluation import evaluate, name_of
from expectations.failing import failing
from expectations.suites import SUITES
from expectations.thresholds import DEFAULTS

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
    frame = SUITES[table].frame(change(rows, column, values), admitted_of())
    suite = SUITES[table].build(DEFAULTS)
    broken = {each.name: each for each in evaluate(frame, suite)}[rule]
    expectation = next(
        each
        for each in suite.expectations
        if name_of({"expectation_config": each.configuration.to_json_dict()}) == rule
    )
    found = failing(frame, expectation)
    assert found == frame["row_id"].tolist()[::2]
    assert (broken.failing, list(broken.examples)) == (len(found), found[: len(broken.examples)])


def test_both_rows_of_a_pair_break_uniqueness_and_a_rule_about_the_whole_names_none(toy, change, admitted_of):
    rows = toy.traces(4)
    frame = SUITES["traces"].frame(change(rows, "row_no", [1, 2, 2, 3]), admitted_of())
    by_name = {
        name_of({"expectation_config": each.configuration.to_json_dict()}): each
        for each in SUITES["traces"].build(DEFAULTS).expectations
    }
    assert failing(frame, by_name["row_no_unique"]) == frame["row_id"].tolist()[1:3]
    assert failing(frame, by_name["batch_not_empty"]) == []
