"""LangSmith's runs: of LangChain and of OpenAI's client, with what people and programs said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.langsmith import Langsmith


def run(**more: Any) -> dict[str, Any]:
    about = {"id": "r", "trace_id": "r", "run_type": "llm", "start_time": "2026-03-01T10:00:00"}
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    return {**about, "inputs": asked, "outputs": {"role": "assistant", "content": "hello"}, **more}


def feedback(score: Any, kind: str, key: str = "correctness", **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "score": score,
        "feedback_source": {"type": kind, "user_id": more.pop("by", None)},
        **more,
    }


def test_a_person_in_the_app_overrides_the_evaluator():
    (row,) = Langsmith().read(run(feedback=[feedback(0, "model"), feedback(1, "app", by="ann")]))
    assert (row["verdict"], row["scorer"], row["score"]) == ("pass", "correctness", 0.0)
    assert (row["review"], row["reviewer"]) == ("overridden", "ann")


def test_an_evaluator_that_ran_through_the_api_is_no_person():
    given = feedback(0, "api")
    given["feedback_source"]["metadata"] = {"__run": {"run_id": "e"}}
    (row,) = Langsmith().read(run(feedback=[given]))
    assert (row["verdict"], row["scorer"]) == ("fail", "correctness")
    assert "review" not in row


@pytest.mark.parametrize(
    "correction", ["good day", {"answer": "good day"}, {"role": "ai", "content": "good day"}]
)
def test_a_correction_is_the_right_answer(correction):
    (row,) = Langsmith().read(run(feedback=[feedback(None, "app", by="ann", correction=correction)]))
    assert (row["verdict"], row["correction"]) == ("fail", "good day")
    assert (row["review"], row["reviewer"]) == ("overridden", "ann")


def test_feedback_on_a_run_that_is_no_call_is_kept():
    tool = {"id": "t", "trace_id": "r", "run_type": "tool", "start_time": "2026"}
    given = feedback(0, "model", run_id="t")
    (row,) = Langsmith().read(run(id="x", child_runs=[{**tool, "feedback": [given]}]))
    assert row["verdict"] == "unstated"
    assert json.loads(row["extra"])["other_feedback"] == [given]


def test_json_text_of_a_bulk_export_is_read_like_objects():
    texts = {key: json.dumps(value) for key, value in run().items() if key in ("inputs", "outputs")}
    (row,) = Langsmith().read(run(**texts))
    assert (row["messages"][0]["content"], row["response"]) == ("hi", "hello")


def test_the_last_answer_among_messages_is_the_response():
    outputs = {
        "messages": [{"type": "human", "content": "hi"}, {"type": "ai", "content": "hello", "id": "m"}]
    }
    (row,) = Langsmith().read(run(outputs=outputs))
    assert row["response"] == "hello"


def test_what_is_no_run_is_refused():
    with pytest.raises(Unreadable, match="not_a_run"):
        Langsmith().read({"run_type": "llm"})
    with pytest.raises(Unreadable, match="bad_run"):
        Langsmith().read(run(child_runs=[1]))
    assert Langsmith().recognises({"messages": []}) is None
    assert Langsmith().recognises({"id": "1", "traceId": "2", "type": "GENERATION"}) is None
