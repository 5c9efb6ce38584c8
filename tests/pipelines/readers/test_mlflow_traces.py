"""MLflow's traces: what the library itself writes, what older versions wrote, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.mlflow_traces import MlflowTraces

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "mlflow"


def golden() -> list[dict[str, Any]]:
    return json.loads((GOLDEN / "input.json").read_text(encoding="utf-8"))


def trace(*spans: dict[str, Any], **info: Any) -> dict[str, Any]:
    return {"info": {"trace_id": "tr-1", **info}, "data": {"spans": list(spans)}}


def span(number: int, *, parent: int | None = None, kind: str = "CHAT_MODEL", **attributes: Any):
    named = {f"mlflow.{key}": json.dumps(value) for key, value in attributes.items()}
    return {
        "span_id": f"{number:016x}",
        "parent_span_id": None if parent is None else f"{parent:016x}",
        "name": f"span {number}",
        "start_time_unix_nano": 1_772_359_200_000_000_000 + number,
        "attributes": {"mlflow.spanType": json.dumps(kind), **named},
    }


def feedback(name: str, value: Any, kind: str, by: str, **more: Any) -> dict[str, Any]:
    source = {"source_type": kind, "source_id": by}
    return {"assessment_name": name, "source": source, "feedback": {"value": value}, **more}


ASKED = {"spanInputs": {"messages": [{"role": "user", "content": "hi"}]}, "spanOutputs": "hello"}


def test_the_order_of_spans_and_assessments_does_not_matter():
    record = golden()[0]
    turned = json.loads(json.dumps(record))
    turned["data"]["spans"].reverse()
    turned["info"]["assessments"].reverse()
    assert MlflowTraces().read(turned) == MlflowTraces().read(record)


def test_a_person_who_disagrees_with_the_scorer_overrides_it():
    said = [
        feedback("correctness", True, "CODE", "rules"),
        feedback("correctness", False, "HUMAN", "ann"),
    ]
    (row,) = MlflowTraces().read(trace(span(1, **ASKED), assessments=said))
    assert (row["verdict"], row["scorer"], row["score"]) == ("fail", "rules", 1.0)
    assert (row["review"], row["reviewer"]) == ("overridden", "ann")


def test_a_person_who_agrees_with_the_scorer_approves():
    said = [
        feedback("correctness", "yes", "CODE", "rules"),
        feedback("correctness", True, "HUMAN", "ann"),
    ]
    (row,) = MlflowTraces().read(trace(span(1, **ASKED), assessments=said))
    assert (row["verdict"], row["review"], row["reviewer"]) == ("pass", "approved", "ann")


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("correctness", 0, "fail"),
        ("is_correct", "yes", "pass"),
        ("toxicity", True, "unstated"),
        ("incorrect", True, "unstated"),
        ("not_helpful", True, "unstated"),
        ("toxicity", "pass", "pass"),
        ("correctness", 0.4, "unstated"),
    ],
)
def test_a_verdict_is_read_only_from_what_is_plain(name, value, verdict):
    record = trace(span(1, **ASKED), assessments=[feedback(name, value, "CODE", "rules")])
    assert MlflowTraces().read(record)[0]["verdict"] == verdict


def test_feedback_that_a_later_one_replaced_says_nothing():
    said = [feedback("correctness", False, "CODE", "rules", valid=False)]
    (row,) = MlflowTraces().read(trace(span(1, **ASKED), assessments=said))
    assert row["verdict"] == "unstated"
    assert json.loads(row["extra"])["assessments"] == said


def test_an_expected_response_is_the_correction_and_no_verdict():
    expected = {
        "assessment_name": "expected_response",
        "source": {"source_type": "HUMAN", "source_id": "ann"},
        "expectation": {"value": "good day"},
    }
    (row,) = MlflowTraces().read(trace(span(1, **ASKED), assessments=[expected]))
    assert (row["correction"], row["verdict"]) == ("good day", "unstated")
    (row,) = MlflowTraces().read(
        trace(span(1, **ASKED), assessments=[expected, feedback("correctness", "no", "LLM_JUDGE", "judge")])
    )
    assert (row["verdict"], row["correction"], row["reviewer"]) == ("fail", "good day", "ann")


def test_other_expectations_are_no_corrections():
    facts = {"assessment_name": "expected_facts", "expectation": {"value": "Paris"}}
    (row,) = MlflowTraces().read(trace(span(1, **ASKED), assessments=[facts]))
    assert "correction" not in row


def test_the_prompt_is_that_of_the_nearest_span():
    far, near = [{"name": "agent", "version": "1"}], [{"name": "tool", "version": "7"}]
    record = trace(
        span(1, kind="AGENT", linkedPrompts=far),
        span(2, parent=1, kind="CHAIN", linkedPrompts=near),
        span(3, parent=2, **ASKED),
        span(4, parent=1, **ASKED),
    )
    rows = MlflowTraces().read(record)
    assert [(row["prompt_name"], row["prompt_version"]) for row in rows] == [("tool", "7"), ("agent", "1")]


def test_of_two_prompts_none_is_named_and_both_are_kept():
    both = [{"name": "a", "version": "1"}, {"name": "b", "version": "2"}]
    (row,) = MlflowTraces().read(trace(span(1, linkedPrompts=both, **ASKED)))
    assert row["prompt_name"] is None
    assert json.loads(row["extra"])["prompts"] == both


def test_messages_that_older_versions_kept_beside_the_inputs_are_read():
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    told = {"chat.messages": talk, "spanInputs": {"texts": ["hi"], "k": 1}, "spanOutputs": "hello"}
    (row,) = MlflowTraces().read(trace(span(1, **told)))
    assert [(each["role"], each["content"]) for each in row["messages"]] == [("user", "hi")]
    assert json.loads(row["extra"])["input"] == {"inputs": told["spanInputs"]}


def test_a_chat_of_langchain_is_read_like_any_other():
    asked = [[{"type": "system", "content": "Be brief."}, {"type": "human", "content": "hi"}]]
    message = {"type": "ai", "content": "hello", "response_metadata": {"model_name": "gpt-4o-2024-08-06"}}
    answered = {"generations": [[{"text": "hello", "message": message}]], "llm_output": None}
    (row,) = MlflowTraces().read(trace(span(1, spanInputs=asked, spanOutputs=answered)))
    assert [each["role"] for each in row["messages"]] == ["system", "user"]
    assert (row["response"], row["generator"]) == ("hello", "gpt-4o-2024-08-06")


def test_a_trace_without_spans_and_without_inputs_gives_no_row():
    assert MlflowTraces().read(trace()) == []


def test_what_is_no_trace_is_refused_with_a_reason():
    with pytest.raises(Unreadable, match="not_an_mlflow_trace"):
        MlflowTraces().read({"info": {}, "data": {"spans": []}})
    with pytest.raises(Unreadable, match="bad_spans"):
        MlflowTraces().read({"info": {"trace_id": "tr-1"}, "data": {"spans": [1]}})


def test_it_does_not_take_other_formats_for_its_own():
    reader = MlflowTraces()
    assert reader.recognises({"messages": []}) is None
    assert reader.recognises({"resourceSpans": []}) is None
    assert reader.recognises({"info": {"exit_status": "ok"}, "data": {"spans": []}}) is None
