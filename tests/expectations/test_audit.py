from __future__ import annotations

import json
from dataclasses import replace

import pytest

from expectations.audit import counterfactual, coverage, drift, history
from expectations.audit.corruptions import CORRUPTIONS
from expectations.audit.coverage import RuleOf
from expectations.audit.drift import Point
from expectations.audit.fates import hold, judged
from expectations.audit.mutations import mutations
from expectations.audit.page import audit_html
from expectations.audit.report import audit
from expectations.audit.sample import from_lake
from expectations.audit.sample import toy as made
from expectations.evaluation import evaluate
from expectations.gate import admit
from expectations.suites import SUITES, Suite
from expectations.thresholds import DEFAULTS, Thresholds
from infra import cli
from lineage.schemas import EXAMPLE, TRACE


def stemma(lake, *words: str) -> int:
    return cli.run("audit", [*words, "--lake", lake.settings.lake])


def chosen(*names: str):
    found = [each for each in CORRUPTIONS if each.name in names]
    assert len(found) == len(names)
    return found


@pytest.fixture
def judged_lake(lake, toy):
    """Three batches of traces: one of sound rows, one refused for a score, one of sound rows."""
    for source, changes in (("log-a", {}), ("log-b", {"score": 7.0}), ("log-c", {})):
        admit(lake.runtime, lake.store(toy.traces(source=source, **changes), TRACE, key=source))
    return lake


@pytest.fixture
def partly_rejected(lake, toy):
    """A batch of examples of which one was too long and lies in `rejected`, and that one's id in hex."""
    rows = toy.examples(11)  # "log-a: question 10" has one character more than the others
    thresholds = Thresholds(max_text_characters=17)
    stored = lake.store(rows, EXAMPLE, key="mixed")
    verdict = admit(lake.runtime, stored, thresholds=thresholds, on_fail="reject_rows")
    assert (verdict.outcome, verdict.routed) == ("pass", 1)
    return lake, rows["row_id"][10].as_py().hex()


def without(suite: Suite, *names: str) -> Suite:
    return replace(
        suite, rules=lambda thresholds: [r for r in suite.rules(thresholds) if r.meta["rule"] not in names]
    )


# mutations


def test_damage_that_a_rule_notices_is_caught_by_name_and_other_damage_slips_through():
    found = mutations(corruptions=chosen("traces.score_negative", "traces.typo", "curricula.member_unknown"))
    fates = {m.corruption.name: (m.fate, m.rules) for m in found.mutants}
    assert fates["traces.score_negative"] == ("caught", ("score_in_range",))
    assert fates["traces.typo"] == ("slipped", ())
    assert "members_admitted" in fates["curricula.member_unknown"][1]
    assert (found.score, found.raw_score) == (1.0, pytest.approx(2 / 3, abs=1e-3))
    assert "score_in_range" not in found.idle["traces"]
    assert "messages_not_empty" in found.idle["traces"]


def test_a_suite_without_the_rule_lets_the_damage_through():
    blunt = {"traces": without(SUITES["traces"], "score_in_range")}
    found = mutations(corruptions=chosen("traces.score_negative"), suites=blunt)
    assert [m.corruption.name for m in found.missing] == ["traces.score_negative"]
    assert found.score == 0.0


def test_holding_only_the_rules_that_the_damage_can_reach_finds_what_holding_all_finds():
    names = (
        "examples.score_negative",
        "examples.split_unknown",
        "examples.rows_twice",
        "examples.row_no_twice",
    )
    table = SUITES["examples"]
    for mutant in mutations(corruptions=chosen(*names)).mutants:
        damaged = mutant.corruption.planted(made("examples"))
        rules = evaluate(table.frame(damaged, made("examples").lake), table.build(DEFAULTS))
        named = [
            f"{rule.name} (warns)" if rule.severity == "warn" else rule.name
            for rule in rules
            if rule.outcome == "fail"
        ]
        assert mutant.rules == tuple(named) != ()


def test_what_crashes_a_suite_is_not_caught():
    found = mutations(corruptions=chosen("traces.row_id_null"))
    assert found.mutants[0].fate in ("crashed", "caught")  # a suite may learn to judge rows without an id
    broken = {"traces": replace(SUITES["traces"], facts=lambda keys, admitted: 1 / 0)}
    with pytest.raises(ZeroDivisionError):  # not even the sound rows can be judged: no score is made up
        mutations(corruptions=chosen("traces.typo"), suites=broken)


def test_a_table_without_a_suite_catches_nothing_and_a_rule_that_fails_on_sound_rows_is_blind():
    found = mutations(corruptions=chosen("predictions.batch_empty"), suites={})
    assert found.mutants[0].fate == "no suite"
    assert found.score == 0.0
    strict = Thresholds(min_rows=10_000)
    blind = mutations(corruptions=chosen("traces.batch_empty"), thresholds=strict)
    assert blind.blind["traces"] == ("batch_not_empty",)
    assert blind.mutants[0].fate == "slipped"


def test_damage_is_planted_in_the_rows_of_the_newest_admitted_batch(judged_lake):
    sample = from_lake(judged_lake.settings, "traces")
    assert (sample.origin, sample.batch.num_rows) == ("traces@4", 6)
    found = mutations(
        corruptions=chosen("traces.row_id_admitted"),
        sample_of=lambda table: from_lake(judged_lake.settings, table),
    )
    assert found.mutants[0].rules == ("row_id_new",)
    assert from_lake(judged_lake.settings, "examples").origin == "made"


# history


def test_a_changed_suite_shows_in_the_history_with_its_rules_and_thresholds(judged_lake, toy):
    other = {"traces": without(SUITES["traces"], "verdict_known")}
    version = judged_lake.store(toy.traces(source="log-d"), TRACE, key="log-d")
    admit(
        judged_lake.runtime, version, suites=other, thresholds=Thresholds(min_prompt_stated=0.5, min_rows=2)
    )
    first, second = history.changes(judged_lake.settings, "traces")
    assert (first["verdicts"], first["outcomes"]) == (3, {"pass": 2, "fail": 1})
    assert second["rules_removed"] == ["verdict_known"]
    assert second["thresholds_changed"]["prompt_version_stated"] == [0.95, 0.5]


def test_old_batches_held_against_another_suite_show_which_rows_fare_otherwise(judged_lake):
    assert history.replayed(judged_lake.settings, "traces") == []  # the same suite, the same fates
    blunt = {"traces": without(SUITES["traces"], "score_in_range")}
    (entry,) = history.replayed(judged_lake.settings, "traces", suites=blunt)
    assert (entry["batch"], entry["was"], entry["would_be"]) == ("traces@2", "fail", "pass")
    assert len(entry["passed"]["score_in_range"]) == 6
    assert entry["all_known"]


def test_an_old_batch_is_held_by_the_thresholds_of_its_verdict(lake, answers):
    again = admit(lake.runtime, "examples@1", thresholds=Thresholds(max_text_characters=5))
    assert again.outcome == "fail"
    assert history.replayed(lake.settings, "examples") == []


def test_an_old_batch_is_held_without_the_rows_that_its_gate_moved(partly_rejected, toy):
    lake, _ = partly_rejected
    assert history.replayed(lake.settings, "examples") == []
    blunt = {"examples": without(SUITES["examples"], "batch_not_empty")}
    assert history.replayed(lake.settings, "examples", suites=blunt) == []
    later = toy.examples(1, source="log-b", split="gate", text="log-a: question 10", condition="clean")
    stored = lake.store(later, EXAMPLE, key="later")
    assert admit(lake.runtime, stored, thresholds=Thresholds(min_labels=1)).passed  # its double was moved
    assert history.replayed(lake.settings, "examples") == []


def test_an_old_batch_that_a_new_suite_cannot_read_is_told_and_does_not_end_the_audit(judged_lake):
    broken = {"traces": replace(SUITES["traces"], keys=lambda batch: batch["gone"])}
    found = history.replayed(judged_lake.settings, "traces", suites=broken)
    assert [each["would_be"] for each in found] == ["error"] * 3
    assert "gone" in found[0]["error"]


def test_the_commits_that_changed_a_suite_are_told_with_its_rules():
    found = history.commits("examples")
    if not found:
        pytest.skip("this code lies in no git repository")
    assert {"commit", "at", "by", "subject", "rules_added"} <= found[0].keys()
    assert "batch_not_empty" in found[-1]["rules_added"]


# coverage


def test_a_column_that_no_rule_depends_on_is_named_and_others_are_not():
    suite = SUITES["examples"]
    rules = coverage.rules_of(suite.build(DEFAULTS))
    assert not {"split", "answer", "source_span", "row_id"} & coverage.uncovered(suite, rules).keys()
    about = {"condition", "condition_fits_split", "is_duplicate_free", "empty_column"}
    blind = [rule for rule in rules if not about & set(rule.columns)]
    found = coverage.uncovered(suite, blind)
    assert {"condition", "condition_fits_split"} <= set(found["condition"]["shown_in"])
    assert "is_duplicate_free" in found[""]["shown_in"]


def between(name: str, column: str, low, high, **more) -> RuleOf:
    kwargs = {"column": column, "min_value": low, "max_value": high, **more}
    return RuleOf(name, "expect_column_values_to_be_between", kwargs)


def within(name: str, column: str, *values, **more) -> RuleOf:
    return RuleOf(
        name, "expect_column_values_to_be_in_set", {"column": column, "value_set": list(values), **more}
    )


def test_rules_that_cannot_fail_are_told_apart_from_those_that_never_did(judged_lake):
    rules = [
        between("open", "score", None, float("inf")),
        between("lax", "score", 0, 1, mostly=0.0),
        RuleOf("any", "expect_column_values_to_match_regex", {"column": "a", "regex": ".*"}),
        RuleOf("rows", "expect_table_row_count_to_be_between", {"min_value": 0}),
        between("fine", "score", 0, 1),
        RuleOf("counted", "expect_table_row_count_to_be_between", {"min_value": 1}),
    ]
    found = coverage.vacuous(rules, [])
    assert [each["rule"] for each in found] == ["open", "lax", "any", "rows"]
    verdicts = judged(judged_lake.settings, "traces") * 2  # six verdicts
    named = {
        each["rule"]: each
        for each in coverage.vacuous(coverage.rules_of(SUITES["traces"].build(DEFAULTS)), verdicts)
    }
    assert named["verdict_known"]["failed"] == 0
    assert not named["verdict_known"]["cannot_fail"]
    assert "score_in_range" not in named


def test_rules_that_contradict_or_repeat_one_another_are_paired():
    rules = [
        between("low", "score", 0, 0.4),
        between("high", "score", 0.6, 1),
        between("backwards", "length", 9, 3),
        within("colours", "slice", "red"),
        within("metals", "slice", "gold"),
        between("some", "score", 0.6, 1, mostly=0.3),
    ]
    assert [each["rules"] for each in coverage.quarrels(rules)] == [
        ["backwards"],
        ["low", "high"],
        ["low", "some"],  # no three in ten rows can, where all hold the other
        ["colours", "metals"],
    ]
    half = [between("low", "score", 0, 0.4, mostly=0.5), between("high", "score", 0.6, 1, mostly=0.5)]
    assert coverage.quarrels(half) == []
    again = [between("one", "score", 0, 1), between("two", "score", 0, 1), between("wide", "score", -1, 2)]
    assert [each["rules"] for each in coverage.twins(again)] == [
        ["one", "two"],
        ["one", "wide"],
        ["two", "wide"],
    ]


@pytest.mark.parametrize("table", list(SUITES))
def test_no_shipped_rule_is_without_force_or_at_odds_with_another(table):
    sample = made(table)
    frame = SUITES[table].frame(sample.batch, sample.lake)
    rules = coverage.rules_of(SUITES[table].build(DEFAULTS))
    assert len(rules) >= 10
    assert [each for each in coverage.vacuous(rules, [], frame) if each["cannot_fail"]] == []
    assert coverage.quarrels(rules) == []
    assert coverage.twins(rules) == []


# drift


def test_a_share_that_falls_out_of_its_range_drifts_and_one_that_chance_explains_does_not():
    steady = [Point(v, 0.95 + 0.005 * (v % 3), 1000) for v in range(8)]
    assert drift.drifts({"a": steady}) == []
    assert drift.drifts({"a": [*steady, Point(8, 0.944, 1000)]}) == []  # outside, and within chance
    (found,) = drift.drifts({"a": [*steady, Point(8, 0.80, 1000)]})
    assert (found["version"], found["low"], found["versions"]) == (8, 0.95, 8)
    assert found["p"] < 1e-6
    assert drift.drifts({"a": [*steady[:3], Point(8, 0.10, 1000)]}) == []  # three earlier ones say nothing
    sizes = [Point(v, 100 + v % 2, 0) for v in range(6)]
    assert drift.drifts({"n": [*sizes, Point(6, 102, 0)]}) == []
    assert [each["version"] for each in drift.drifts({"n": [*sizes, Point(6, 5000, 0)]})] == [6]


def test_one_failure_after_many_rows_without_is_no_drift():
    clean = [Point(v, 1.0, 200) for v in range(6)]
    assert drift.drifts({"a": [*clean, Point(6, 0.995, 200)]}) == []
    assert len(drift.drifts({"a": [*clean, Point(6, 0.9, 200)]})) == 1


def test_the_series_of_a_rule_counts_the_rows_that_it_is_about(judged_lake):
    points = drift.series(judged(judged_lake.settings, "traces"))
    assert [point.value for point in points["score_in_range"]] == [1.0, 0.0, 1.0]
    assert [point.rows for point in points["score_in_range"]] == [6, 6, 6]
    assert [point.rows for point in points["batch_not_empty"]] == [0, 0, 0]


# another threshold


@pytest.fixture
def answers(lake, toy):
    """Training examples that tell, one of them repeating a third of its word pairs; admitted."""
    fine = " ".join(f"word{i}" for i in range(20))
    repeating = " ".join([*(f"word{i}" for i in range(14)), *(f"word{i}" for i in range(7))])
    rows = toy.examples(20, task="generation")
    said = [repeating if i == 4 else f"{fine} number{i}" for i in range(20)]
    rows = rows.set_column(rows.schema.get_field_index("answer"), "answer", [said])
    assert admit(lake.runtime, lake.store(rows, EXAMPLE, key="answers")).passed
    return rows


def test_the_rows_that_a_stricter_threshold_would_refuse_are_listed_with_what_they_are(lake, answers):
    found = counterfactual.what_if(lake.settings, "bigram_repetition=0.25")
    assert "examples.answers_do_not_repeat" in found.rules
    assert "traces.question_does_not_repeat" in found.rules
    warned, flip = found.flips  # of answers and of generated ones
    assert (warned.row_id, warned.would, warned.severity) == (flip.row_id, "break", "warn")
    assert (flip.batch, flip.would, flip.severity) == ("examples@1", "break", "fail")
    assert flip.row_id == answers["row_id"][4].as_py().hex()
    assert 0.25 < flip.value < 0.4
    assert (found.was, found.would_be) == (0.4, 0.25)
    assert found.batches == ()  # one row in twenty may repeat itself


def test_a_threshold_between_the_old_and_the_new_flips_rows_back(lake, answers):
    admit(lake.runtime, "examples@1", thresholds=Thresholds(max_bigram_repetition=0.25))
    found = counterfactual.what_if(lake.settings, "max_bigram_repetition=0.4")
    assert {(flip.row_id, flip.would) for flip in found.flips} == {
        (answers["row_id"][4].as_py().hex(), "keep")
    }
    assert (found.was, found.looked_at) == (0.25, 1)


def test_each_batch_starts_from_the_thresholds_that_it_was_judged_by(lake, toy):
    verdicts = [
        admit(
            lake.runtime,
            lake.store(toy.examples(source=source, text=f"a text of {source}, so long"), EXAMPLE, key=source),
            thresholds=Thresholds(max_text_characters=most),
        )
        for source, most in (("log-a", 15), ("log-b", 18), ("log-d", 100))
    ]
    for question in ("text_characters.max=20", "max_text_characters=20"):
        found = counterfactual.what_if(lake.settings, question)
        broken = {flip.row_id for flip in found.flips if flip.batch == str(verdicts[2].batch)}
        assert {(flip.batch, flip.would) for flip in found.flips} == {(str(verdicts[2].batch), "break")}
        assert len(broken) == 6  # those of the others break it as they did
        assert found.looked_at == 3
    assert found.was == [15, 18, 100]
    ends = counterfactual.what_if(lake.settings, "text_characters.max=20").was
    assert ends["examples.text_length"]["max_value"] == [15, 18, 100]
    same = counterfactual.what_if(lake.settings, "text_characters.max=100", names=["examples"])
    assert {flip.would for flip in same.flips} == {"keep"}
    assert len(same.flips) == 12


def test_what_is_in_force_already_flips_nothing(lake, answers):
    for question in ("text_characters.max=20000", "max_text_characters=20000"):
        found = counterfactual.what_if(lake.settings, question)
        assert (found.flips, found.batches) == ((), ())
    assert found.was == 20_000


def test_rows_that_were_moved_flip_and_decide_nothing_of_their_batch(partly_rejected):
    lake, gone = partly_rejected
    looser = counterfactual.what_if(lake.settings, "max_text_characters=30")
    assert [(flip.row_id, flip.would, flip.rule) for flip in looser.flips] == [(gone, "keep", "text_length")]
    assert (looser.was, looser.batches) == (17, ())
    stricter = counterfactual.what_if(lake.settings, "max_text_characters=10")
    assert len(stricter.flips) == 10  # the one that was moved breaks it as it did
    (batch,) = stricter.batches
    assert (batch["was"], batch["would_be"], batch["rules"]) == (
        "pass",
        "fail",
        {"text_length": ["pass", "fail"]},
    )


def test_a_batch_whose_outcome_would_be_another_is_told(lake, answers):
    found = counterfactual.what_if(lake.settings, "min_unrepetitive_answers=1")
    assert found.flips == ()  # no row fares otherwise: how many may break the rule does
    assert counterfactual.what_if(lake.settings, "min_rows=21", names=["examples"]).batches == (
        {
            "batch": "examples@1",
            "rows": 20,
            "was": "pass",
            "would_be": "fail",
            "rules": {"batch_not_empty": ["pass", "fail"]},
        },
    )


def test_a_column_of_the_frame_can_be_asked_about_at_either_end(lake, answers):
    found = counterfactual.what_if(lake.settings, "answer_characters=140")
    assert {flip.rule for flip in found.flips} == {"answer_not_empty"}
    assert all(flip.value < 140 for flip in found.flips)
    with pytest.raises(counterfactual.WhatIfError, match=r"say judged_score\.min or judged_score\.max"):
        counterfactual.what_if(lake.settings, "judged_score=0.5")
    shorter = counterfactual.what_if(lake.settings, "text_characters.max=5")
    assert len(shorter.flips) == 20


def test_stored_scores_are_held_against_another_threshold(lake, answers):
    assert counterfactual.what_if(lake.settings, "threshold=0.9").flips == ()
    higher = counterfactual.what_if(lake.settings, "threshold=1.1")
    assert len(higher.flips) == 20
    assert higher.was == [0.5]


def test_stored_scores_are_those_of_examples_and_another_suite_has_none(lake, answers, capsys):
    assert stemma(lake, "traces", "--what-if", "threshold=0.9") == 2
    told = capsys.readouterr().err
    assert "was asked of traces, and stored scores are those of examples" in told
    assert "stemma audit examples --what-if threshold=0.9" in told
    assert stemma(lake, "examples", "--what-if", "threshold=0.9") == 0


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("bigram_repetition", "is no NAME=VALUE"),
        ("nothing_like_it=1", "is no threshold and no column"),
        ("max_bigram_repetition=much", "cannot be 'much'"),
        ("gold_share=0.9,0.1", "give the lower end"),
        ("answer_characters.top=3", "has the ends min and max"),
        ("threshold=nan", "'nan' is no finite number"),
        ("threshold=-inf", "'-inf' is no finite number"),
        ("text_characters.max=nan", "'nan' is no finite number"),
        ("max_times_median=inf", "'inf' is no finite number"),
        ("max_times_median=nan", "nan"),
    ],
)
def test_a_question_that_means_nothing_is_refused_with_what_there_is(question, said, lake, answers):
    with pytest.raises(counterfactual.WhatIfError, match=said):
        counterfactual.what_if(lake.settings, question)


def test_all_failing_rows_are_found_not_only_the_first_twenty(toy):
    rows = toy.traces(50, score=7.0)
    held = hold(
        SUITES["traces"].frame(rows, lambda spec, columns, where: spec.schema.empty_table()),
        SUITES["traces"].build(DEFAULTS),
    )
    assert len(held.failing["score_in_range"]) == 50
    assert held.outcome == "fail"


# the verb and the page


def test_the_verb_answers_without_a_lake_and_makes_none(lake, tmp_path, capsys):
    nowhere = str(tmp_path / "none")
    assert cli.run("audit", ["documents", "--lake", nowhere]) == 0
    assert "documents: " in capsys.readouterr().out
    assert cli.run("audit", ["--what-if", "min_rows=2", "--lake", nowhere]) == 2
    assert "there is no lake" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert stemma(lake, "poems") == 2
    assert "'poems' has no suite; there are: traces" in capsys.readouterr().err


def test_json_has_stable_keys(judged_lake, capsys):
    assert stemma(judged_lake, "traces", "--what-if", "min_rows=7", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suites"] is None
    assert found["what_if"].keys() == {
        "question",
        "was",
        "would_be",
        "rules",
        "broken",
        "kept",
        "batches",
        "looked_at",
        "unreadable",
    }
    assert stemma(judged_lake, "traces", "--json") == 0
    (suite,) = json.loads(capsys.readouterr().out)["suites"]
    assert suite.keys() == {
        "name", "suite_digest", "rules", "is_judged", "history", "commits", "replayed", "uncovered",
        "vacuous",
        "contradictory", "duplicates", "drift", "waivers",
    }  # fmt: skip
    assert suite["is_judged"] == 3


def test_a_page_escapes_whatever_a_lake_holds(judged_lake, toy, tmp_path, capsys):
    script = "<script>alert(1)</script>"
    hostile = toy.traces(source="log-x", response=script, score=0.2)
    admit(judged_lake.runtime, judged_lake.store(hostile, TRACE, key="log-x"))
    place = tmp_path / "audit.html"
    assert stemma(judged_lake, "traces", "--what-if", "judged_score.min=0.5", "--html", str(place)) == 0
    page = place.read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert script not in page
    assert page.startswith("<!doctype html>")
    assert "http://" not in page
    assert stemma(judged_lake, "traces", "--html", str(tmp_path / "no" / "a.html")) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_page_shows_what_slips_through(judged_lake):
    found = audit(judged_lake.settings, ["traces"], now=judged_lake.runtime.now())
    slipped = mutations(corruptions=chosen("traces.typo", "traces.score_negative", "traces.verdict_null"))
    page = audit_html({**found, "mutations": slipped.as_json()})
    assert "traces.typo" in page
    assert "Suite of traces" in page
    assert "score_in_range" in page
