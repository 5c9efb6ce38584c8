"""Langfuse's traces, observations and scores, and real exports of a dozen frameworks."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.langfuse import Langfuse

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "langfuse"


def golden() -> list[dict[str, Any]]:
    return json.loads((GOLDEN / "input.json").read_text(encoding="utf-8"))


def generation(number: int = 1, **more: Any) -> dict[str, Any]:
    about = {
        "id": f"o{number}",
        "traceId": "t",
        "type": "GENERATION",
        "startTime": f"2026-03-01T10:00:0{number}Z",
    }
    return {**about, "model": "m", "input": [{"role": "user", "content": "hi"}], "output": "hello", **more}


def score(name: str, value: Any, source: str = "EVAL", **more: Any) -> dict[str, Any]:
    return {
        "id": f"{name}-{source}",
        "name": name,
        "value": value,
        "source": source,
        "dataType": "NUMERIC",
        **more,
    }


def read(*observations: dict[str, Any], scores: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    return Langfuse().read({"id": "t", "observations": list(observations), "scores": scores or []})


def test_a_score_of_the_trace_goes_to_the_generation_that_began_last():
    rows = read(generation(2), generation(1), scores=[score("correctness", 1)])
    assert [(row["trace_key"], row["verdict"]) for row in rows] == [("t/o1", "unstated"), ("t/o2", "pass")]


def test_a_score_of_an_observation_goes_to_that_generation():
    first, second = read(generation(1), generation(2), scores=[score("correctness", 0, observationId="o1")])
    assert (first["verdict"], first["scorer"]) == ("fail", "correctness")
    assert "scorer" not in second


def test_a_score_of_a_span_is_kept_beside_the_last_generation():
    tool = {"id": "x", "traceId": "t", "type": "TOOL", "parentObservationId": "o1", "startTime": "2026"}
    given = score("correctness", 0, observationId="x")
    (row,) = read(generation(1), tool, scores=[given])
    assert row["verdict"] == "unstated"
    assert json.loads(row["extra"])["other_scores"] == [given]


def test_an_annotation_overrides_the_judge():
    person = score("correctness", 1, "ANNOTATION", authorUserId="ann")
    (row,) = read(generation(1), scores=[score("correctness", 0), person])
    assert (row["verdict"], row["score"], row["scorer"]) == ("pass", 0.0, "correctness")
    assert (row["review"], row["reviewer"]) == ("overridden", "ann")


def test_a_correction_that_repeats_the_answer_corrects_nothing():
    given = score(
        "output", 0, "ANNOTATION", dataType="CORRECTION", longStringValue="hello", authorUserId="ann"
    )
    (row,) = read(generation(1), scores=[given])
    assert row["verdict"] == "unstated"
    assert "correction" not in row
    (row,) = read(generation(1), scores=[{**given, "longStringValue": "good day"}])
    assert (row["verdict"], row["correction"], row["reviewer"]) == ("fail", "good day", "ann")


def test_a_number_under_a_name_that_is_no_verdict_is_a_score_alone():
    (row,) = read(generation(1), scores=[score("toxicity", 0)])
    assert (row["scorer"], row["score"], row["verdict"]) == ("toxicity", 0.0, "unstated")


def test_messages_in_attributes_are_read_where_the_input_has_none():
    attributes = {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "hi",
        "llm.input_messages.1.message.role": "assistant",
        "llm.input_messages.1.message.tool_calls.0.tool_call.id": "c1",
        "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "look",
        "llm.input_messages.1.message.tool_calls.0.tool_call.function.arguments": "{}",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "hello",
    }
    (row,) = read(generation(1, input=None, output=None, metadata={"attributes": attributes}))
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert json.loads(row["messages"][1]["tool_calls"]) == [call]
    assert row["response"] == "hello"


def test_an_answer_that_is_json_stays_as_it_was_written():
    (row,) = read(generation(1, output='{"b": 1,  "a": [2]}'))
    assert row["response"] == '{"b": 1,  "a": [2]}'


def test_a_long_image_is_kept_by_reference():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
    asked = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}]
    (row,) = read(generation(1, input=asked))
    message = row["messages"][0]
    assert message["content"] == "what is it?"
    assert json.loads(message["extra"])["content"][1]["image_url"]["url"]["bytes"] == 3000


def test_what_is_no_generation_gives_no_row():
    assert read({"id": "s", "traceId": "t", "type": "SPAN", "startTime": "2026-03-01T10:00:00Z"}) == []
    assert Langfuse().read(golden()[-1]) == []


def test_what_is_not_of_langfuse_is_refused():
    with pytest.raises(Unreadable, match="not_of_langfuse"):
        Langfuse().read({"id": 1})
    with pytest.raises(Unreadable, match="bad_observation"):
        Langfuse().read({"trace": {}, "observations": [7]})
    with pytest.raises(Unreadable, match="ids_only"):
        Langfuse().read({"id": "t", "observations": ["o1"], "scores": []})
    assert Langfuse().recognises({"messages": []}) is None
    assert Langfuse().recognises({"run_type": "llm", "id": "1", "trace_id": "2"}) is None
    assert Langfuse().recognises({"observations": ["ok"], "actions": []}) is None


GENERATIONS = {
    "agno-2025-06-11": 4,
    "autogen-2025-06-06": 1,
    "claude-agent-2025-12-22": 4,
    "crewai-2025-07-11": 1,
    "google-adk-2025-08-28": 2,
    "google-gemini-2025-08-01": 1,
    "langgraph-python-2025-08-22": 2,
    "llamaindex-2025-06-05": 1,
    "openai-agents-2025-09-30": 2,
    "pydantic-ai-2025-06-06": 1,
    "pydantic-ai-tools-2025-06-06": 1,
    "pydantic-ai-tools-2025-12-04": 4,
    "vertex-ai-2025-08-01": 1,
}
# Langfuse's own view has no messages that are text alone, and of OpenAI's choices no more than a wrapper.
NOT_COMPARED = {"agno-2025-06-11", "pydantic-ai-2025-06-06", "pydantic-ai-tools-2025-06-06"}


@pytest.mark.data
def test_real_traces_of_frameworks_are_read(data):
    rows: dict[str, list[dict[str, Any]]] = {}
    asked = answered = 0
    with tarfile.open(data / "langfuse_framework_traces" / "traces.tar.gz") as archive:
        files = {Path(each.name).name: archive.extractfile(each) for each in archive if each.isfile()}
        loaded = {name: json.load(file) for name, file in files.items() if file is not None}
    assert len(loaded) == 26
    for name, record in sorted(loaded.items()):
        framework, kind = name.split(".")[:2]
        if kind == "chatml":
            assert Langfuse().recognises(record) is None
            continue
        assert Langfuse().recognises(record) == "a trace with 'observations'"
        rows[framework] = Langfuse().read(record)
        for row in rows[framework]:
            normal = loaded[f"{framework}.chatml.json"][row["trace_key"].split("/")[1]]
            asked += _agrees(row["messages"], normal["input"], framework)
            answer = {"content": row["response"], "tool_calls": row["response_tool_calls"]}
            answered += _agrees([{"role": "assistant", **answer}], normal["output"], framework)
    assert {name: len(several) for name, several in rows.items()} == GENERATIONS
    assert (asked, answered) == (13, 16)

    judged = rows["claude-agent-2025-12-22"][-1]
    assert (judged["verdict"], judged["score"]) == ("fail", 0.0)
    assert judged["scorer"] == "correctness/f41f3331-fea7-4447-aeb3-edfd022bcec0"
    assert [row["verdict"] for row in rows["claude-agent-2025-12-22"][:-1]] == ["unstated"] * 3
    agents = rows["openai-agents-2025-09-30"][1]
    assert [each["role"] for each in agents["messages"]] == ["system", "user", "assistant", "tool"]
    assert agents["model_answered"] == "gpt-4.1-2025-04-14"
    graph = rows["langgraph-python-2025-08-22"][0]
    assert (graph["model_requested"], graph["model_answered"]) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert json.loads(graph["extra"])["input"]["tools"][0]["function"]["name"] == "Web-Search"
    corrected = rows["pydantic-ai-2025-06-06"][0]  # its correction is its answer, word for word
    assert corrected["verdict"] == "unstated"
    assert "correction" not in corrected


def _agrees(ours: list[dict[str, Any]], theirs: dict[str, Any], framework: str) -> bool:
    """Whether Langfuse's ChatML has these messages; it has none where it could not make sense of them."""
    if not theirs["success"] or framework in NOT_COMPARED:
        return False
    expected = [_plain(each) for each in theirs["data"]]
    found = [_plain(each) for each in ours]
    if found[0][0] == "system" and expected[0][0] != "system":
        found = found[1:]  # it stands in the answer alone: OpenAI's `instructions`
    assert found == expected, framework
    return True


def _plain(message: dict[str, Any]) -> tuple[str, str, list[tuple[Any, Any, Any]], str | None]:
    """(role, words, calls, what it answers): what both say in their own words."""
    role = "assistant" if message.get("role") in (None, "model") else message["role"]
    role = "user" if role == "tool" else role  # Gemini sends results of tools as the user's
    calls = message.get("tool_calls") or []
    calls = json.loads(calls) if isinstance(calls, str) else calls
    words = message.get("content")
    if isinstance(words, list):
        calls += [
            {**each, "arguments": json.dumps(each["input"])} for each in words if each["type"] == "tool_use"
        ]
        words = "".join(each["text"] for each in words if each["type"] == "text")
    named = [(each.get("id") or None, each.get("function", each)) for each in calls]
    told = [(call_id, call["name"], json.loads(call["arguments"])) for call_id, call in named]
    return role, (words or "").replace('": "', '":"'), told, message.get("tool_call_id") or None
