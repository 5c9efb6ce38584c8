from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from expectations.evaluation import crash, evaluate
from expectations.suites import SUITES, digest
from expectations.suites.__main__ import SNAPSHOTS, snapshots
from expectations.suites.noise import repetition
from expectations.thresholds import DEFAULTS, Thresholds
from lineage.inputs import inputs
from lineage.schemas import TABLES
from lineage.verdicts import Rule

Change = Callable[[pa.Table, str, Any], pa.Table]


def judge(table: str, batch: pa.Table, admitted: Any, thresholds: Thresholds = DEFAULTS) -> list[Rule]:
    suite = SUITES[table]
    return evaluate(suite.frame(batch, admitted), suite.build(thresholds))


def failed(rules: list[Rule]) -> set[str]:
    crashed = [rule.sentence for rule in rules if rule.outcome == "error"]
    assert not crashed
    return {rule.name for rule in rules if rule.outcome == "fail"}


def broken(rules: list[Rule]) -> set[str]:
    return failed(rules) - warnings()


def warned(rules: list[Rule]) -> set[str]:
    return failed(rules) & warnings()


@cache
def warnings() -> set[str]:
    built = [rule for suite in SUITES.values() for rule in suite.build(DEFAULTS).expectations]
    return {rule.meta["rule"] for rule in built if rule.severity == "warning"}


@pytest.mark.parametrize("table", ["traces", "examples", "curricula", "documents"])
def test_an_empty_batch_fails_on_its_row_count_alone(table, admitted_of):
    empty = judge(table, TABLES[table].schema.empty_table(), admitted_of())
    assert broken(empty) == {"batch_not_empty"}


def test_a_sound_batch_breaks_no_rule(toy, admitted_of):
    assert broken(judge("traces", toy.traces(), admitted_of())) == set()
    assert broken(judge("examples", toy.examples(), admitted_of())) == set()
    examples = toy.examples()
    assert broken(judge("curricula", toy.curriculum(examples), admitted_of({"examples": examples}))) == set()


TRACE_DEFECTS = {
    "provenance_complete": ("generator", " "),
    "row_id_has_16_bytes": ("row_id", [bytes([i]) for i in range(6)]),
    "row_id_unique": ("row_id", b"0" * 16),
    "row_no_leased": ("row_no", [-1, 1, 2, 3, 4, 5]),
    "row_no_unique": ("row_no", 7),
    "derivation_known": ("derivation", "copied"),
    "parents_fit_derivation": ("parents", [[b"p" * 16]] * 6),
    "source_span_well_formed": ("source_span", "bytes:9-9"),
    "source_revision_is_digest": ("source_revision", "/logs/today.jsonl"),
    "code_revision_is_digest": ("code_revision", "main"),
    "review_known": ("review", "maybe"),
    "score_in_range": ("score", 80.0),
    "verdict_known": ("verdict", "good"),
    "judgement_whole": ("scorer", "unstated"),
    "prompt_version_stated": ("prompt_version", "unstated"),
    "responses_not_empty": ("response", "  "),
    "messages_not_empty": ("messages", [[]] * 6),
}


@pytest.mark.parametrize("rule", TRACE_DEFECTS)
def test_a_defect_planted_in_traces_is_named_by_its_rule(rule, toy, change: Change, admitted_of):
    column, value = TRACE_DEFECTS[rule]
    assert rule in broken(judge("traces", change(toy.traces(), column, value), admitted_of()))


def test_a_scorer_that_is_named_gave_a_score_or_a_verdict(toy, admitted_of):
    judged = {"verdict": "fail", "reader": "otlp"}
    lost = {"score": None, "threshold": None}
    assert broken(judge("traces", toy.traces(**judged, **lost), admitted_of())) == set()
    lost["verdict"] = "unstated"
    assert broken(judge("traces", toy.traces(**lost), admitted_of())) == {"scorer_gave_score"}


def test_formats_are_not_asked_for_what_they_have_no_place_for(toy, admitted_of):
    pair = {"verdict": "pass", "scorer": "unstated", "score": None, "threshold": None}
    assert broken(judge("traces", toy.traces(reader="trl", **pair), admitted_of())) == set()
    assert broken(judge("traces", toy.traces(**pair), admitted_of())) == {"judgement_whole"}
    unversioned = {"prompt_name": "intent", "prompt_version": "unstated"}
    assert broken(judge("traces", toy.traces(reader="otlp", **unversioned), admitted_of())) == set()
    answers = {"messages": [], "model_requested": "unstated"}
    assert broken(judge("traces", toy.traces(reader="openai_batch", **answers), admitted_of())) == set()
    failed = {"response": None, "finish_reason": "error"}
    assert broken(judge("traces", toy.traces(**failed), admitted_of())) == set()
    rating = {"score": 4.5, "threshold": None}
    assert broken(judge("traces", toy.traces(**rating), admitted_of())) == set()


def test_what_was_redacted_is_asked_the_same(toy, admitted_of):
    traces = toy.traces(reader="chat_completions+redacted", scorer="unstated")
    assert broken(judge("traces", traces, admitted_of())) == {"judgement_whole"}


EXAMPLE_DEFECTS = {
    "task_known": {"task": "ranking"},
    "split_known": {"split": "test"},
    "kind_known": {"kind": "gold"},
    "condition_known": {"condition": "loud"},
    "answer_not_empty": {"answer": " "},
    "text_length": {"text": "x" * 20_001},
    "labels_differ": {"answer": "balance"},
    "no_duplicates": {"text": "Same  Question", "answer": "balance"},
    "answers_do_not_repeat": {"task": "generation", "answer": "no no " * 10},
    "tool_calls_listed": {"task": "generation", "answer_tool_calls": '{"name": "weather"}'},
    "rejected_fits_task": {"rejected": "another"},
    "spans_fit_text": {"task": "tagging", "answer": '[{"start": 0, "end": 99, "label": "log"}]'},
}


@pytest.mark.parametrize("rule", EXAMPLE_DEFECTS)
def test_a_defect_planted_in_examples_is_named_by_its_rule(rule, toy, admitted_of):
    assert rule in broken(judge("examples", toy.examples(**EXAMPLE_DEFECTS[rule]), admitted_of()))


@pytest.mark.parametrize(("score", "threshold"), [(0.4, 0.5), (None, 0.5), (1.0, None)])
def test_a_training_row_needs_a_score_that_reaches_its_threshold(
    score, threshold, toy, change: Change, admitted_of
):
    weak = change(change(toy.examples(), "score", score), "threshold", threshold)
    assert "train_score_reaches_threshold" in broken(judge("examples", weak, admitted_of()))
    scored_on = change(change(toy.examples(split="gate"), "scorer", "unstated"), "score", None)
    assert "train_score_reaches_threshold" not in broken(judge("examples", scored_on, admitted_of()))


def test_a_document_needs_text_and_a_known_kind(toy, admitted_of):
    documents = toy.documents(kind="poem", text=" \n")
    assert broken(judge("documents", documents, admitted_of())) == {"kind_known", "text_not_empty"}


def test_rows_name_themselves_when_they_break_a_rule(toy, change: Change, admitted_of):
    traces = change(toy.traces(), "score", [1.0, 1.0, 7.0, 1.0, 1.0, 1.0])
    rule = next(rule for rule in judge("traces", traces, admitted_of()) if rule.name == "score_in_range")
    assert rule.examples == (traces["row_id"][2].as_py().hex(),)
    assert rule.failing == 1
    assert rule.observed == pytest.approx(5 / 6, abs=1e-3)


def test_an_exporter_that_lost_the_prompt_version_is_refused_from_one_row_in_twenty_on(
    toy, change, admitted_of
):
    traces = toy.traces(40)
    for lost, refused in ((2, False), (3, True)):
        versions = ["unstated"] * lost + ["v3"] * (40 - lost)
        found = broken(judge("traces", change(traces, "prompt_version", versions), admitted_of()))
        assert ("prompt_version_stated" in found) is refused
    nameless = toy.traces(prompt_name="unstated", prompt_version="unstated")
    assert broken(judge("traces", nameless, admitted_of())) == {"prompt_version_stated"}


def test_sources_that_cannot_state_a_prompt_are_not_asked_for_one(toy, admitted_of):
    unstated = {"prompt_name": "unstated", "prompt_version": "unstated"}
    supervised = toy.traces(verdict="unstated", scorer="unstated", score=None, threshold=None, **unstated)
    own_field_map = toy.traces(reader="field_map", **unstated)
    assert broken(judge("traces", supervised, admitted_of())) == set()
    assert broken(judge("traces", own_field_map, admitted_of())) == set()


def test_a_span_or_row_that_is_admitted_already_is_not_stored_again(toy, change: Change, admitted_of):
    first = toy.traces()
    assert {"row_id_new", "row_no_new", "source_span_new"} <= broken(
        judge("traces", first, admitted_of({"traces": first}))
    )
    another_reader = toy.traces(reader="field_map")  # other ids, same spans
    found = broken(
        judge("traces", change(another_reader, "row_no", range(6)), admitted_of({"traces": first}))
    )
    assert found == {"source_span_new"}


def test_a_source_or_an_input_stands_on_one_split_only(toy, admitted_of):
    gate = toy.examples(source="log-b", split="gate")
    assert broken(judge("examples", gate, admitted_of({"examples": toy.examples()}))) == set()
    same_source = toy.examples(source="log-b", text="asked only here", answer="card")
    assert "source_on_one_split" in broken(judge("examples", same_source, admitted_of({"examples": gate})))
    same_text = toy.examples(1, source="log-c", text="LOG-B:   question 1")
    found = broken(judge("examples", same_text, admitted_of({"examples": gate}), Thresholds(min_labels=1)))
    assert found == {"input_on_one_split"}
    both = pa.concat_tables([toy.examples(), toy.examples(split="gate")])
    assert {"source_on_one_split", "input_on_one_split"} <= broken(judge("examples", both, admitted_of()))


def test_turns_of_one_conversation_are_different_inputs_although_they_share_the_last_user_message(toy):
    asked = [{"role": "user", "content": "Fix it"}]
    later = [
        *asked,
        {"role": "assistant", "content": None, "tool_calls": "[1]"},
        {"role": "tool", "content": "done"},
    ]
    shared = {"task": "generation", "text": "Fix it"}
    first, second = (inputs(toy.examples(1, messages=messages, **shared))[0] for messages in (asked, later))
    assert first != second
    system = [{"role": "system", "content": "Be brief."}, *asked]
    assert inputs(toy.examples(1, messages=system, **shared)) == [first]


CURRICULUM_DEFECTS = {
    "members_admitted": {"row_id": b"x" * 16},
    "members_quoted": {"answer": "something else"},
    "input_once": {"row_id": b"x" * 16, "text": "again"},
    "slice_known": {"slice": "silver"},
    "weights_positive": {"weight": 0.0},
    "members_unique": {"row_id": b"x" * 16},
}


@pytest.mark.parametrize("rule", CURRICULUM_DEFECTS)
def test_a_defect_planted_in_a_curriculum_is_named_by_its_rule(rule, toy, admitted_of):
    examples = toy.examples()
    curriculum = toy.curriculum(examples, **CURRICULUM_DEFECTS[rule])
    assert rule in broken(judge("curricula", curriculum, admitted_of({"examples": examples})))


def test_what_is_scored_on_is_not_trained_on(toy, admitted_of):
    train, gate = toy.examples(), toy.examples(source="log-b", split="gate")
    stored = admitted_of({"examples": pa.concat_tables([train, gate])})
    assert "members_admitted" in broken(judge("curricula", toy.curriculum(gate), stored))
    leaking = toy.examples(1, source="log-c", text="log-b: Question 0")
    stored = admitted_of({"examples": pa.concat_tables([leaking, gate])})
    alone = Thresholds(min_labels=1)
    assert broken(judge("curricula", toy.curriculum(leaking), stored, alone)) == {"no_leakage"}


def test_slices_are_in_proportion_only_where_all_three_are_there(toy, admitted_of):
    examples = toy.examples(60)
    stored = admitted_of({"examples": examples})
    even = toy.curriculum(examples, ["gold", "hard", "replay"])
    assert broken(judge("curricula", even, stored)) == {"slices_in_proportion"}
    for shares in (["gold"] * 10 + ["hard"] * 7 + ["replay"] * 3, ["gold"], ["gold", "hard"]):
        assert broken(judge("curricula", toy.curriculum(examples, shares), stored)) == set()


def test_labels_of_a_curriculum_stand_at_most_three_to_one_and_answers_of_generation_are_no_labels(
    toy, admitted_of
):
    for most, found in ((3, set()), (4, {"labels_balanced"})):
        examples = pa.concat_tables(
            [toy.examples(most, source="a", answer="balance"), toy.examples(1, source="b", answer="card")]
        )
        stored = admitted_of({"examples": examples})
        assert broken(judge("curricula", toy.curriculum(examples), stored)) == found
    generated = pa.concat_tables(
        [
            toy.examples(4, source="a", task="generation", answer="42"),
            toy.examples(1, source="b", task="generation", answer="43"),
        ]
    )
    texts = [[{"role": "user", "content": str(i)}] for i in range(5)]
    generated = generated.set_column(
        generated.schema.get_field_index("messages"),
        generated.schema.field("messages"),
        pa.array(texts, generated.schema.field("messages").type),
    )
    assert (
        broken(judge("curricula", toy.curriculum(generated), admitted_of({"examples": generated}))) == set()
    )


def test_repetition_is_the_share_of_word_pairs_seen_before():
    texts = ["too short to say", "one two three four five six seven eight nine ten", "no " * 11, None]
    assert repetition(pa.array(texts)).tolist() == pytest.approx(
        [float("nan"), 0, 0.9, float("nan")], nan_ok=True
    )


def test_a_rule_that_crashes_is_an_error_and_takes_no_other_rule_with_it(toy, admitted_of):
    suite = SUITES["traces"]
    frame = suite.frame(toy.traces(), admitted_of()).drop(columns=["is_asked"])
    frame["judged_score"] = ["a word"] * 6
    rules = {rule.name: rule for rule in evaluate(frame, suite.build(DEFAULTS))}
    crashed = {name for name, rule in rules.items() if rule.outcome == "error"}
    assert crashed == {"messages_not_empty", "score_in_range"}
    assert "is_asked" in rules["messages_not_empty"].sentence
    assert all(rule.outcome == "pass" for name, rule in rules.items() if name not in crashed)


@pytest.mark.parametrize(
    ("entry", "died_of"),
    [
        (
            {"success": False, "exception_info": {"raised_exception": True, "exception_message": "flat"}},
            "flat",
        ),
        (
            {
                "success": False,
                "exception_info": {"m": {"raised_exception": True, "exception_message": "deep"}},
            },
            "deep",
        ),
        ({"success": False, "exception_info": {"raised_exception": False}, "result": {}}, "no result"),
        (
            {
                "success": False,
                "exception_info": {"raised_exception": False},
                "result": {"observed_value": 1},
            },
            None,
        ),
        ({"success": True, "exception_info": {"raised_exception": False}, "result": {}}, None),
        ({}, "no result"),
    ],
)
def test_every_shape_of_a_crash_is_told_from_a_failure(entry, died_of):
    assert crash(entry) == died_of


def test_evaluating_a_frame_twice_gives_the_same_and_prints_nothing(toy, admitted_of, capfd):
    suite = SUITES["examples"]
    frame, rules = suite.frame(toy.examples(), admitted_of()), suite.build(DEFAULTS)
    assert evaluate(frame, rules) == evaluate(frame, rules)
    assert capfd.readouterr() == ("", "")
    assert isinstance(frame, pd.DataFrame)


def test_the_snapshots_are_what_the_code_comes_to():
    found = snapshots()
    assert (
        set(found) == {path.name for path in SNAPSHOTS.glob("*.json")} == {f"{name}.json" for name in SUITES}
    )
    for name, content in found.items():
        stored = (SNAPSHOTS / name).read_text(encoding="utf-8")
        assert stored == content, (
            f"{name} differs; review the change, then run: python -m expectations.suites"
        )


def test_every_rule_has_a_name_of_its_own_a_sentence_and_a_reason():
    for suite in SUITES.values():
        built = suite.build(DEFAULTS).expectations
        names = [expectation.meta["rule"] for expectation in built]
        assert len(names) == len(set(names)) > 5
        assert all(expectation.description and expectation.notes for expectation in built)


def test_a_threshold_changes_the_digest_of_the_suites_that_use_it_and_no_other():
    digests = {name: digest(suite.build(DEFAULTS)) for name, suite in SUITES.items()}
    changed = {name: digest(suite.build(Thresholds(max_label_ratio=5))) for name, suite in SUITES.items()}
    assert {name for name in SUITES if digests[name] != changed[name]} == {"curricula", "examples"}


@pytest.mark.parametrize("wrong", [{"min_rows": 0}, {"max_label_ratoi": 2}, {"gold_share": (0.6, 0.4)}])
def test_thresholds_refuse_what_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Thresholds(**wrong)
