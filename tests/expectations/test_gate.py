from __future__ import annotations

import json
from dataclasses import replace

import pytest

from expectations.gate import NotGated, admit, exit_code, reason
from expectations.reports import as_text
from expectations.suites import SUITES, Suite, told
from expectations.thresholds import Thresholds
from lineage import tables, verdicts
from lineage.fsck import fsck
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import CURRICULUM, EXAMPLE, RUN, TRACE, VERDICT
from lineage.tables import AlreadyStored, UnknownTable
from lineage.tables.reads import withdrawn


def test_a_sound_batch_is_admitted_and_its_rows_are_read(lake, toy):
    version = lake.store(toy.traces(), TRACE, key="a")
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 0
    verdict = admit(lake.runtime, str(version))
    assert (verdict.outcome, verdict.rows, exit_code(verdict)) == ("pass", 6, 0)
    assert {rule.outcome for rule in verdict.rules} == {"pass"}
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 6
    assert verdicts.latest(lake.settings, version) == verdict


def test_the_whole_way_from_traces_to_a_curriculum_is_admitted(lake, toy):
    train, gate = toy.examples(), toy.examples(source="log-b", split="gate")
    for rows, into, key in (
        (toy.traces(), TRACE, "a"),
        (train, EXAMPLE, "train"),
        (gate, EXAMPLE, "gate"),
        (toy.curriculum(train), CURRICULUM, "curriculum"),
    ):
        assert admit(lake.runtime, lake.store(rows, into, key=key)).passed
    leaking = toy.curriculum(gate, run_id="curriculum-2")
    refused = admit(lake.runtime, lake.store(leaking, CURRICULUM, key="leaking"))
    assert reason(refused) == "members_admitted, no_leakage"


def test_a_refused_batch_is_withdrawn_unread_and_still_to_be_seen(lake, toy):
    version = lake.store(toy.traces(scorer="unstated"), TRACE, key="a")
    verdict = admit(lake.runtime, version)
    assert (verdict.outcome, exit_code(verdict), failed(verdict)) == ("fail", 1, ["judgement_whole"])
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 0
    assert tables.read(lake.settings, TRACE).num_rows == 0
    assert tables.read(lake.settings, version).num_rows == 6
    assert withdrawn(lake.settings, TRACE) == {str(version): "judgement_whole"}
    with pytest.raises(verdicts.NotAdmitted, match="refused"):
        verdicts.require(lake.settings, version)


def test_the_same_source_can_come_again_after_it_was_refused(lake, toy, change):
    refused = lake.store(toy.traces(scorer="unstated"), TRACE, key="source-a")
    with pytest.raises(AlreadyStored):
        lake.store(toy.traces(), TRACE, key="source-a")
    assert not admit(lake.runtime, refused).passed
    again = lake.store(change(toy.traces(), "run_id", "ingest-log-a-2"), TRACE, key="source-a")
    assert admit(lake.runtime, again).passed
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 6


def test_an_empty_batch_is_refused(lake):
    empty = lake.store(TRACE.schema.empty_table(), TRACE, key="nothing")
    assert failed(admit(lake.runtime, empty)) == ["batch_not_empty"]


def test_exactly_the_rows_of_the_commit_are_judged(lake, toy):
    lake.store(toy.traces(scorer="unstated"), TRACE, key="a")
    sound = lake.store(toy.traces(4, source="log-b"), TRACE, key="b")
    verdict = admit(lake.runtime, sound)
    assert (verdict.outcome, verdict.rows) == ("pass", 4)


def test_what_is_admitted_already_is_not_admitted_twice_but_a_refused_batch_blocks_nobody(lake, toy, change):
    first = lake.store(toy.traces(), TRACE, key="a")
    copy = lake.store(change(toy.traces(), "run_id", "ingest-copy-1"), TRACE, key="b")
    assert admit(lake.runtime, first).passed
    assert failed(admit(lake.runtime, copy)) == ["row_id_new", "row_no_new", "source_span_new"]


def test_gating_twice_gives_one_verdict(lake, toy):
    sound = lake.store(toy.traces(), TRACE, key="a")
    broken = lake.store(toy.traces(source="log-b", scorer="unstated"), TRACE, key="b")
    for version in (sound, broken):
        assert admit(lake.runtime, version) == admit(lake.runtime, version)
    assert tables.read(lake.settings, VERDICT).num_rows == 2


def test_other_thresholds_judge_an_admitted_batch_again_and_itself_is_no_double(lake, toy):
    version = lake.store(toy.traces(), TRACE, key="a")
    first = admit(lake.runtime, version)
    other = admit(lake.runtime, version, thresholds=Thresholds(max_empty_responses=0))
    assert first.passed
    assert other.passed
    assert other.suite_digest != first.suite_digest
    assert admit(lake.runtime, version).suite_digest == first.suite_digest, "and back"
    assert verdicts.latest(lake.settings, version) == first


def test_no_gate_takes_back_what_was_admitted_and_rows_may_stand_on(lake, toy, crashing):
    traces = toy.traces(source="log-a")
    version = lake.store(traces, TRACE, key="a")
    first = admit(lake.runtime, version)
    assert admit(lake.runtime, lake.store(toy.examples(), EXAMPLE, key="e")).passed
    strict = {"thresholds": Thresholds(min_rows=100)}
    crash = {"suites": {"traces": crashing(SUITES["traces"])}}
    routed = {"on_fail": "reject_rows", "suites": {"traces": never_true(SUITES["traces"])}}
    for asked, code in ((strict, 1), (strict, 1), (crash, 2), (routed, 1)):
        verdict = admit(lake.runtime, version, **asked)
        assert (exit_code(verdict), verdict.stands, verdict.routed) == (code, True, 0)
        assert "stays admitted" in as_text(verdict, lake.settings)
    assert verdicts.latest(lake.settings, version) == first
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 6
    assert withdrawn(lake.settings, TRACE) == {}
    closure = next(check for check in fsck(lake.settings) if check.name == "closure")
    assert not closure.found
    refused = lake.store(toy.traces(source="log-b", scorer="unstated"), TRACE, key="b")
    assert not admit(lake.runtime, refused).passed
    assert not admit(lake.runtime, refused, thresholds=Thresholds(min_rows=2)).passed, "refused stays refused"


def never_true(suite: Suite) -> Suite:
    """The suite with a rule that every row breaks."""

    def rules(thresholds):
        import great_expectations.expectations as gxe

        rule = gxe.ExpectColumnValuesToBeInSet(
            column="verdict", value_set=["odd"], **told("odd", "it is odd", why="a test")
        )
        return [*suite.rules(thresholds), rule]

    return replace(suite, rules=rules)


def test_a_crashed_rule_decides_nothing_and_the_batch_can_be_judged_again(lake, toy, crashing):
    version = lake.store(toy.traces(), TRACE, key="a")
    for _ in range(2):
        verdict = admit(lake.runtime, version, suites={"traces": crashing(SUITES["traces"])})
        assert (verdict.outcome, exit_code(verdict)) == ("error", 2)
        assert [rule.name for rule in verdict.rules if rule.outcome == "error"] == ["crashes"]
        assert "A crash decides nothing" in as_text(verdict, lake.settings)
        assert withdrawn(lake.settings, TRACE) == {}
        assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 0
    assert admit(lake.runtime, version).passed, "the rule is mended"
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 6


def test_a_gate_killed_between_verdict_and_withdrawal_withdraws_when_it_runs_again(lake, twin, toy):
    for place in (lake, twin):
        version = place.store(toy.traces(scorer="unstated"), TRACE, key="a")
    given = admit(twin.runtime, version)
    verdicts.record(
        lake.runtime, given, batch_run="ingest-log-a-1", run_id="killed-1"
    )  # and here it was killed
    assert withdrawn(lake.settings, TRACE) == {}
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 0

    assert admit(lake.runtime, version) == given
    assert withdrawn(lake.settings, TRACE) == withdrawn(twin.settings, TRACE)
    assert tables.read(lake.settings, VERDICT).num_rows == 1


def test_a_gate_is_a_run_that_says_what_it_read_and_decided(lake, toy):
    version = lake.store(toy.traces(), TRACE, key="a")

    def ingest(run: Run) -> Outcome:
        admit(lake.runtime, version, parent=run)
        return Outcome((str(version),))

    parent = carry_out(lake.runtime, "ingest", config={}, inputs=[], work=ingest)
    gates = [
        event for event in tables.read(lake.settings, RUN).sort_by("at").to_pylist() if event["job"] == "gate"
    ]
    assert [event["status"] for event in gates] == ["START", "COMPLETE"]
    assert gates[-1]["inputs"] == f'["{version}"]'
    assert gates[0]["parent_run"] == parent.run_id
    assert '"in": 6' in gates[-1]["counts"]


def test_what_cannot_be_gated_is_refused_with_a_sentence(lake, toy):
    with pytest.raises(UnknownTable, match="names no table"):
        admit(lake.runtime, "nonsense@1")
    with pytest.raises(UnknownTable, match="never written"):
        admit(lake.runtime, "traces@1")
    version = lake.store(toy.traces(), TRACE, key="a")
    with pytest.raises(UnknownTable, match="newest version is traces@1"):
        admit(lake.runtime, "traces@7")
    with pytest.raises(NotGated, match="did not store a batch"):
        admit(lake.runtime, "traces@0")
    tables.reserve(lake.settings, 1, run_id="ingest-1")
    with pytest.raises(NotGated, match="no suite"):
        admit(lake.runtime, "leases")
    assert admit(lake.runtime, version).passed
    tables.withdraw(lake.settings, version, run_id="recall-1", reason="banned")
    with pytest.raises(NotGated, match="withdrawn \\(banned\\)"):
        admit(lake.runtime, version)


def failed(verdict) -> list[str]:
    return [rule.name for rule in verdict.rules if rule.outcome == "fail"]


def warning(suite: Suite, rule: str) -> Suite:
    """The suite with one of its rules as a warning."""

    def rules(thresholds):
        made = suite.rules(thresholds)
        for each in made:
            if each.meta["rule"] == rule:
                each.severity = "warning"
        return made

    return replace(suite, rules=rules)


def test_a_warning_is_shown_and_does_not_refuse(lake, toy):
    version = lake.store(toy.traces(scorer="unstated"), TRACE, key="a")
    verdict = admit(lake.runtime, version, suites={"traces": warning(SUITES["traces"], "judgement_whole")})
    assert (verdict.outcome, exit_code(verdict)) == ("pass", 0)
    (rule,) = (rule for rule in verdict.rules if rule.outcome == "fail")
    assert (rule.name, rule.severity, rule.failing) == ("judgement_whole", "warn", 6)
    assert "WARNED judgement_whole" in as_text(verdict, lake.settings)
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 6


def test_every_row_that_broke_a_rule_is_on_record_and_the_verdict_names_twenty(lake, toy):
    rows = toy.traces(50, scorer="unstated")
    verdict = admit(lake.runtime, lake.store(rows, TRACE, key="a"))
    (rule,) = (rule for rule in verdict.rules if rule.refuses)
    assert (rule.failing, len(rule.examples)) == (50, 20)
    book = verdicts.unexpected(lake.settings, verdict, rule="judgement_whole")
    assert sorted(book["row_id"].to_pylist()) == sorted(rows["row_id"].to_pylist())
    assert set(book["rule"].to_pylist()) == {"judgement_whole"}


def test_rows_that_a_rule_may_lose_are_on_record_though_it_passes(lake, toy, change):
    rows = change(toy.traces(40), "response", [None, *["balance"] * 39])
    verdict = admit(lake.runtime, lake.store(rows, TRACE, key="a"))
    assert verdict.passed
    book = verdicts.unexpected(lake.settings, verdict).to_pylist()
    assert [(row["rule"], row["row_id"]) for row in book] == [
        ("responses_not_empty", rows["row_id"][0].as_py())
    ]


def test_a_verdict_says_which_thresholds_were_in_force(lake, toy):
    version = lake.store(toy.traces(), TRACE, key="a")
    chosen = Thresholds(max_empty_responses=0.5, gold_share=(0.1, 0.2))
    verdict = admit(lake.runtime, version, thresholds=chosen)
    assert Thresholds.model_validate(verdict.thresholds) == chosen
    assert verdicts.latest(lake.settings, version).thresholds == verdict.thresholds


def test_a_book_of_before_thresholds_were_written_down_is_read_as_it_is(lake, twin, toy, change):
    for place in (lake, twin):
        version = place.store(toy.traces(), TRACE, key="a")
    given = admit(twin.runtime, version)
    younger = ("thresholds", "routed")
    older = replace(VERDICT, own=tuple(each for each in VERDICT.own if each.name not in younger))
    (row,) = tables.read(twin.settings, VERDICT, columns=older.schema.names).to_pylist()
    rules = [
        {name: rule[name] for name in rule if name not in ("severity", "waived")}
        for rule in json.loads(row["rules"])
    ]
    tables.record(lake.settings, [row | {"rules": json.dumps(rules)}], into=older)
    told = replace(given, thresholds={}, rules=tuple(replace(rule, severity="fail") for rule in given.rules))
    assert verdicts.latest(lake.settings, version) == told
    assert admit(lake.runtime, version) == told
    rows = change(toy.traces(source="log-b"), "scorer", ["unstated", *["judge"] * 5])
    second = admit(lake.runtime, lake.store(rows, TRACE, key="b"), on_fail="reject_rows")
    assert second.routed == 1
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 11
    assert len(verdicts.all_routed(lake.settings, TRACE)) == 1


def test_what_is_committed_while_a_batch_is_judged_changes_nothing_of_its_verdict(lake, twin, toy, change):
    copied = change(toy.traces(), "run_id", "ingest-copy-1")
    for each in (lake, twin):
        assert admit(each.runtime, each.store(toy.traces(3, source="log-b"), TRACE, key="b")).passed
        each.store(toy.traces(), TRACE, key="a")
    expected = admit(twin.runtime, "traces@2")

    def facts(keys, admitted):
        before = SUITES["traces"].facts(keys, admitted)
        batch = lake.store(copied, TRACE, key="copy")  # the same rows, admitted at once
        verdicts.record(lake.runtime, replace(expected, batch=batch), batch_run="ingest-copy-1", run_id="g-1")
        for version in (tables.resolve(lake.settings, f"traces@{n}") for n in (1, 2)):
            tables.withdraw(lake.settings, version, run_id="g-1", reason="meanwhile")
        again = SUITES["traces"].facts(keys, admitted)
        assert again.equals(before)
        return again

    judged = admit(lake.runtime, "traces@2", suites={"traces": replace(SUITES["traces"], facts=facts)})
    assert judged == expected
    admitted_now = verdicts.admitted(lake.settings, TRACE)
    assert "ingest-log-a-1" not in admitted_now, "a withdrawn batch stays withdrawn, whatever its verdict"
