"""Rows that broke a rule go to `rejected`, the others are admitted, and a kill changes nothing of it."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable, write_deltalake

from expectations import routing
from expectations.gate import admit
from expectations.thresholds import Thresholds
from lineage import fsck, tables, verdicts
from lineage.ancestry import find_row, rejections
from lineage.lift import lift
from lineage.pins import pins
from lineage.recall import recall
from lineage.runs import latest
from lineage.schemas import EXAMPLE, REJECTED, TRACE, UNEXPECTED, VERDICT
from lineage.selectors import Selector
from lineage.tables.reads import withdrawn


class Killed(BaseException):
    """The process is gone."""


def traces(toy, change, rows=6, bad=(1, 4), **columns):
    """Traces of which some name no scorer, though they have a verdict."""
    made = toy.traces(rows, **columns)
    return change(made, "scorer", ["unstated" if n in bad else "judge" for n in range(rows)])


def state(lake):
    """All that a gate leaves, but for when it was and which go it was."""
    own = {
        spec.name: sorted(
            str({name: value for name, value in row.items() if name not in ("run_id", "at")})
            for row in tables.read(lake.settings, spec).to_pylist()
        )
        for spec in (REJECTED, UNEXPECTED, VERDICT)
    }
    return own | {spec.name: tables.read(lake.settings, spec).sort_by("row_no") for spec in (TRACE, EXAMPLE)}


def test_rows_that_broke_a_rule_are_rejected_with_its_name_and_the_others_are_admitted(lake, toy, change):
    rows = traces(toy, change)
    version = lake.store(rows, TRACE, key="a")
    verdict = admit(lake.runtime, version, on_fail="reject_rows")
    assert (verdict.outcome, verdict.rows, verdict.routed, verdict.on_fail) == ("pass", 6, 2, "reject_rows")
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 4
    gone = {rows["row_id"][n].as_py(): rows["row_no"][n].as_py() for n in (1, 4)}
    told = tables.read(lake.settings, REJECTED).to_pylist()
    assert {row["row_id"]: row["row_no"] for row in told} == gone
    assert {(row["step"], row["reason"], row["step_revision"]) for row in told} == {
        ("traces", "judgement_whole", verdict.suite_digest)
    }
    assert tables.read(lake.settings, version).num_rows == 6, "time travel still shows them"
    rule = next(rule for rule in verdict.rules if rule.name == "judgement_whole")
    assert (rule.outcome, rule.failing, set(rule.examples)) == ("pass", 2, {each.hex() for each in gone})
    assert verdicts.unexpected(lake.settings, verdict)["row_id"].to_pylist() == list(gone)


def test_of_several_rules_the_first_in_the_suites_order_is_the_reason_and_the_book_has_all(lake, toy, change):
    rows = change(traces(toy, change), "review", ["none", "odd", "none", "none", "odd", "none"])
    verdict = admit(lake.runtime, lake.store(rows, TRACE, key="a"), on_fail="reject_rows")
    assert verdict.routed == 2
    assert tables.read(lake.settings, REJECTED)["reason"].to_pylist() == ["review_known"] * 2
    book = verdicts.unexpected(lake.settings, verdict)["rule"].to_pylist()
    assert sorted(book) == ["judgement_whole"] * 2 + ["review_known"] * 2


def test_the_others_are_judged_anew_and_where_they_fail_the_whole_batch_is_refused(lake, toy, change):
    version = lake.store(traces(toy, change), TRACE, key="a")
    verdict = admit(lake.runtime, version, on_fail="reject_rows", thresholds=Thresholds(min_rows=5))
    assert (verdict.outcome, verdict.routed) == ("fail", 0)
    failed = {rule.name: rule.sentence for rule in verdict.rules if rule.outcome != "pass"}
    assert list(failed) == ["batch_not_empty", "judgement_whole"]
    assert "of the rows that would be left" in failed["batch_not_empty"]
    assert list(withdrawn(lake.settings, TRACE)) == [str(version)]
    assert tables.read(lake.settings, REJECTED).num_rows == 0, "nothing of a refused batch counts twice"


def test_what_no_row_is_to_blame_for_refuses_the_batch(lake, toy, change):
    version = lake.store(traces(toy, change), TRACE, key="a")
    verdict = admit(lake.runtime, version, on_fail="reject_rows", thresholds=Thresholds(min_rows=7))
    assert (verdict.outcome, verdict.routed) == ("fail", 0)
    assert tables.read(lake.settings, TRACE).num_rows == 0


@pytest.mark.parametrize("column", ["row_id", "row_no"])
def test_rows_that_share_a_name_are_not_moved_one_by_one(column, lake, toy, change):
    rows = toy.traces()
    twice = rows[column].to_pylist()
    version = lake.store(change(rows, column, [twice[0], *twice[:-1]]), TRACE, key="a")
    verdict = admit(lake.runtime, version, on_fail="reject_rows")
    assert (verdict.outcome, verdict.routed) == ("fail", 0)


def test_a_row_of_another_batch_under_the_same_number_stays(lake, toy, change):
    first = lake.store(toy.traces(2), TRACE, key="a")
    assert admit(lake.runtime, first).passed
    number = tables.read(lake.settings, TRACE)["row_no"][0].as_py()
    rows = toy.traces(3, source="log-b")
    second = lake.store(change(rows, "row_no", [number, *rows["row_no"].to_pylist()[1:]]), TRACE, key="b")
    verdict = admit(lake.runtime, second, on_fail="reject_rows")
    assert (verdict.routed, verdicts.read_admitted(lake.settings, TRACE).num_rows) == (1, 4)
    assert tables.read(lake.settings, TRACE, where=pads.field("row_no") == number).num_rows == 1


AFTER = {
    "unexpected": (verdicts, "record_unexpected"),
    "rejected": (tables, "replace"),
    "out of the table": (tables, "route_out"),
    "verdict": (verdicts, "record"),
}


@pytest.mark.parametrize("place", AFTER)
def test_a_gate_killed_at_any_point_leaves_the_same_when_it_runs_again(
    place, lake, twin, toy, change, monkeypatch
):
    for each in (lake, twin):
        each.store(traces(toy, change), TRACE, key="a")
    admit(twin.runtime, "traces@1", on_fail="reject_rows")
    module, name = AFTER[place]
    original = getattr(module, name)

    def then_killed(*args, **kwargs):
        original(*args, **kwargs)
        if name != "replace" or kwargs["into"] is REJECTED:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, name, then_killed)
        with pytest.raises(Killed):
            admit(lake.runtime, "traces@1", on_fail="reject_rows")
    assert (verdicts.read_admitted(lake.settings, TRACE).num_rows > 0) == (place == "verdict")
    assert admit(lake.runtime, "traces@1", on_fail="reject_rows").routed == 2
    assert state(lake) == state(twin)
    assert found(lake) == []


def test_a_row_that_a_killed_gate_has_moved_stays_out_whatever_the_next_one_goes_by(
    lake, toy, change, monkeypatch
):
    version = lake.store(traces(toy, change), TRACE, key="a")

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "record", killed)
        with pytest.raises(Killed):
            admit(lake.runtime, version, on_fail="reject_rows")
    verdict = admit(lake.runtime, version, thresholds=Thresholds(min_rows=2))
    assert (verdict.outcome, verdict.rows, verdict.routed) == ("pass", 6, 2)
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 4
    assert verdicts.routed(lake.settings, verdict)["reason"].to_pylist() == ["judgement_whole"] * 2
    assert found(lake) == []


def test_judged_again_a_batch_is_judged_by_what_is_left_of_it(lake, toy, change):
    version = lake.store(traces(toy, change), TRACE, key="a")
    assert admit(lake.runtime, version, on_fail="reject_rows").passed
    again = admit(lake.runtime, version, thresholds=Thresholds(max_empty_responses=0))
    assert (again.outcome, again.routed) == ("pass", 2)
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 4
    assert not admit(lake.runtime, version, thresholds=Thresholds(min_rows=5)).passed
    assert tables.read(lake.settings, TRACE).num_rows == 4, "what was admitted stays"
    assert found(lake) == []


def test_fsck_finds_the_lake_sound_and_the_run_balances(lake, toy, change):
    version = lake.store(traces(toy, change), TRACE, key="a")
    admit(lake.runtime, version, on_fail="reject_rows")
    run = next(run for run in latest(lake.settings) if run["job"] == "gate")
    assert json.loads(run["counts"]) == {"in": 6, "created": 0, "out": 4, "merged": 0, "rejected": 2}
    assert found(lake) == []
    assert {0, 1, 2} >= set(pins(lake.settings)["traces"]) >= {1, 2}, "a vacuum takes neither side"


def put_back(lake, rows):
    """By hand, past every job."""
    file = tables.write_file(lake.settings, rows.slice(1, 1), into=TRACE, name="back")
    tables.commit(lake.settings, [file], into=TRACE, run_id=rows["run_id"][0].as_py(), keys=["back"])


def lose_a_rejected_row(lake, rows):
    DeltaTable(lake.settings.path("tables/rejected")).delete(f"row_no = {rows['row_no'][1].as_py()}")


def lose_an_unexpected_row(lake, rows):
    held = tables.read(lake.settings, UNEXPECTED).slice(1)
    write_deltalake(lake.settings.path("tables/unexpected"), held, mode="overwrite")


@pytest.mark.parametrize(
    ("mutate", "sentences"),
    [
        (put_back, {"was moved to 'rejected' by a gate, and is admitted"}),
        (lose_a_rejected_row, {"moved 2 rows, but 'rejected' holds 1 of them", "the books hold others"}),
        (
            lose_an_unexpected_row,
            {"counts 2 rows that broke 'judgement_whole', of which 'unexpected' holds 1"},
        ),
    ],
)
def test_fsck_names_what_does_not_fit_the_verdict(mutate, sentences, lake, toy, change):
    rows = traces(toy, change)
    admit(lake.runtime, lake.store(rows, TRACE, key="a"), on_fail="reject_rows")
    mutate(lake, rows)
    tables.forget()
    said = [sentence for sentence in found(lake) if "by hand" not in sentence]
    assert len(said) == len(sentences), said
    assert all(any(each in sentence for sentence in said) for each in sentences), said


def test_the_pedigree_of_a_moved_row_says_where_it_lies_and_why(lake, toy, change):
    rows = traces(toy, change)
    admit(lake.runtime, lake.store(rows, TRACE, key="a"), on_fail="reject_rows")
    row_id = rows["row_id"][1].as_py()
    assert find_row(lake.settings, row_id.hex())[0] is TRACE
    (rejection,) = rejections(lake.settings, row_id)
    assert (rejection["step"], rejection["reason"]) == ("traces", "judgement_whole")


def test_a_recall_that_is_lifted_brings_no_moved_row_back(lake, toy, change):
    rows = traces(toy, change)
    admit(lake.runtime, lake.store(rows, TRACE, key="a"), on_fail="reject_rows")
    done = recall(lake.runtime, Selector(where="row_no >= 0"), reason="wrong", anyway=True)
    assert done.counts["rows"] == 6, "its descendants, if it had any, would fall"
    assert tables.read(lake.settings, TRACE).num_rows == 0
    assert lift(lake.runtime, done.facets["recall"], reason="right").counts["back"] == 4
    assert tables.read(lake.settings, TRACE).num_rows == 4
    assert found(lake) == []


def test_what_a_recall_took_before_the_gate_moved_it_does_not_come_back_either(lake, toy, change):
    rows = traces(toy, change)
    version = lake.store(rows, TRACE, key="a")
    done = recall(
        lake.runtime, Selector(rows=(rows["row_id"][1].as_py().hex(),)), reason="wrong", anyway=True
    )
    assert admit(lake.runtime, version, on_fail="reject_rows").routed == 2
    lift(lake.runtime, done.facets["recall"], reason="right")
    assert tables.read(lake.settings, TRACE).num_rows == 4
    assert found(lake) == []


def test_reasons_are_empty_where_a_rule_has_no_rows():
    rows = pa.table({"row_id": [b"a"], "row_no": [1]})
    rules = [verdicts.Rule("set", "fail", ""), verdicts.Rule("row", "fail", "", failing=1)]
    assert routing.reasons(rows, rules, {"row": pa.array([b"a"])}) == {}
    assert routing.reasons(rows, rules[1:], {"row": pa.array([b"a"])}) == {b"a": "row"}


def found(lake):
    """What fsck finds, but for what a toy's rows cannot have: numbers from a lease, runs that stored them."""
    return [
        sentence
        for check in fsck.fsck(lake.settings)
        for sentence in check.found
        if "are in no lease" not in sentence and "which 'runs' does not hold" not in sentence
    ]
