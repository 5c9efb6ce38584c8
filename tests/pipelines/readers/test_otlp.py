"""OpenTelemetry's spans and log records, on the wire and as SDKs export them."""

from __future__ import annotations

import datetime as dt
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.otlp import Otlp

READER = Otlp()


def span(attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "trace_id": "t",
        "span_id": "s",
        "name": "call",
        "start_time": 1,
        "attributes": attributes,
        **more,
    }


def read(attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    (row,) = READER.read(span({"gen_ai.operation.name": "chat"} | attributes, **more))
    return row


def extra(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(row["extra"])


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "hi"}]},
        {"conversations": [{"from": "human", "value": "hi"}]},
        {"info": {"trace_id": "tr-1"}, "data": {"spans": []}},
        {"trace_id": "t", "span_id": "s", "attributes": {"mlflow.spanInputs": "{}"}},
        {"id": "o", "traceId": "t", "type": "GENERATION", "input": "x"},
        {"id": "r", "trace_id": "t", "run_type": "llm", "inputs": {}, "dotted_order": "1"},
        {"uuid": "u", "sessionId": "s", "type": "assistant", "message": {}},
    ],
)
def test_records_of_other_formats_are_not_claimed(record: dict[str, Any]):
    assert READER.recognises(record) is None
    with pytest.raises(Unreadable, match="not_a_span"):
        READER.read(record)


@pytest.mark.parametrize(
    ("attributes", "rows"),
    [
        ({"gen_ai.operation.name": "text_completion"}, 1),
        ({"gen_ai.operation.name": "generate_content"}, 1),
        ({"gen_ai.operation.name": "embeddings"}, 0),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.input.messages": '[{"role": "user"}]'}, 0),
        ({"openinference.span.kind": "RETRIEVER"}, 0),
        ({"openinference.span.kind": "LLM"}, 1),
        ({"llm.request.type": "rerank"}, 0),
        ({"gen_ai.prompt.0.content": "hi"}, 1),
        ({"http.method": "POST"}, 0),
    ],
)
def test_only_calls_of_a_model_are_rows(attributes: dict[str, Any], rows: int):
    assert len(READER.read(span(attributes))) == rows


def test_a_span_without_content_is_a_row_that_still_tells_model_and_usage():
    row = read({"gen_ai.request.model": "m", "gen_ai.usage.output_tokens": 4})
    assert (row["messages"], row["response"]) == ([], None)
    told = (row["model_requested"], row["model_answered"], row["output_tokens"], row["generator"])
    assert told == ("m", "unstated", 4, None)


def test_messages_may_be_events_of_a_span_with_their_content_in_attributes():
    events = [
        {"name": "gen_ai.user.message", "attributes": {"gen_ai.system": "x", "content": "hi"}},
        {
            "name": "gen_ai.choice",
            "attributes": {"index": 0, "message": '{"content": "ho"}', "finish_reason": "stop"},
        },
    ]
    row = read({}, events=events)
    assert [(each["role"], each["content"]) for each in row["messages"]] == [("user", "hi")]
    assert (row["response"], row["finish_reason"]) == ("ho", "stop")
    assert extra(row)["events"] == [
        {"name": "gen_ai.user.message", "time": None, "attributes": {"gen_ai.system": "x"}}
    ]


def test_nested_openinference_is_read_as_flat():
    nested = {"input_messages": [{"message": {"role": "user", "content": "hi"}}], "model_name": "m"}
    row = read({"openinference": {"span": {"kind": "LLM"}}, "llm": nested})
    assert (row["messages"][0]["content"], row["model_answered"]) == ("hi", "m")


def test_reasoning_of_an_answer_is_kept_beside_it():
    parts = [{"type": "reasoning", "content": "because"}, {"type": "text", "content": "yes"}]
    row = read({"gen_ai.output.messages": [{"role": "assistant", "parts": parts}]})
    assert row["response"] == "yes"
    assert extra(row)["answer"] == {"parts": {"0": parts[0]}}


def test_long_base64_is_kept_by_reference():
    blob = {"type": "blob", "mime_type": "image/png", "content": "AAAA" * 1000}
    row = read({"gen_ai.input.messages": [{"role": "user", "parts": [blob]}]})
    assert json.loads(row["messages"][0]["extra"])["parts"]["0"]["content"]["bytes"] == 3000


def test_messages_cut_short_stay_in_extra_and_give_way_to_the_next_source():
    row = read({"gen_ai.input.messages": '[{"role": "us', "input.value": "hi"})
    assert [each["content"] for each in row["messages"]] == ["hi"]
    assert extra(row)["attributes"]["gen_ai.input.messages"] == '[{"role": "us'


def test_text_and_tool_calls_in_two_messages_are_one_answer():
    row = read(
        {
            "llm.output_messages.0.message.content": "I look.",
            "llm.output_messages.1.message.tool_calls.0.tool_call.function.name": "look",
        }
    )
    assert row["response"] == "I look."
    assert json.loads(row["response_tool_calls"])[0]["function"]["name"] == "look"


def annotated(*fields: dict[str, Any]) -> dict[str, Any]:
    return read(
        {f"annotations.{n}.annotation.{key}": each[key] for n, each in enumerate(fields) for key in each}
    )


def test_a_score_alone_is_no_verdict():
    row = annotated(
        {"name": "hallucination", "score": 1, "annotator_kind": "LLM", "identifier": "judge@2026-01"}
    )
    told = (row["verdict"], row["score"], row["scorer"], row["scorer_revision"])
    assert told == ("unstated", 1.0, "judge", "2026-01")


@pytest.mark.parametrize(
    ("program", "person", "review"),
    [("pass", "fail", "overridden"), ("pass", "pass", "approved"), ("fail", "fail", "rejected")],
)
def test_a_person_has_the_last_word(program: str, person: str, review: str):
    row = annotated(
        {"name": "a", "label": person, "annotator_kind": "HUMAN", "identifier": "ann"},
        {"name": "a", "label": program, "annotator_kind": "CODE", "identifier": "regex"},
    )
    told = (row["verdict"], row["review"], row["reviewer"], row["scorer"])
    assert told == (person, review, "ann", "regex")


def test_a_broken_carrier_is_refused_with_its_reason():
    for record, reason in (
        ({"resourceSpans": [1]}, "bad_shape"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": 3}]}]}]}, "bad_attributes"),
        (span({}, span_id=7), "bad_id"),
    ):
        with pytest.raises(Unreadable, match=reason):
            READER.read(record)


def records_in(archive: Path) -> dict[str, list[dict[str, Any]]]:
    with tarfile.open(archive) as opened:
        found = {each.name: opened.extractfile(each) for each in opened.getmembers() if each.isfile()}
        decoded = {name.rpartition("/")[2]: json.load(file) for name, file in found.items() if file}
    return {name: value if isinstance(value, list) else [value] for name, value in decoded.items()}


@pytest.mark.data
def test_real_spans_are_all_read(data: Path):
    files = records_in(data / "otel_genai_spans" / "spans.tar.gz")
    assert all(READER.recognises(record) for records in files.values() for record in records)
    rows = {name: [r for each in records for r in READER.read(each)] for name, records in files.items()}
    assert {name: len(found) for name, found in sorted(rows.items())} == {
        "claude_adot_spans.json": 0,  # its agents carry messages; none of its spans is a call of a model
        "claude_live_spans.json": 0,
        "openai_agents_genai_adot_spans.json": 3,
        "openai_agents_genai_live_spans.json": 8,
        "openai_agents_openinference_adot_spans.json": 3,
        "openai_agents_openinference_live_spans.json": 5,
        "openinference_adot_spans.json": 3,
        "openinference_live_spans.json": 2,
        "otel_genai_convention_spans.json": 2,
    }
    third = rows["openai_agents_genai_live_spans.json"][2]
    assert third["trace_key"] == "9fa516c6d3cd456d5b2bf8349dcfa39b/f63d38771c89fc24"
    assert [each["role"] for each in third["messages"]] == ["system", "user", "assistant", "tool"]
    assert third["messages"][3]["content"] == "AMZN: $240.98"
    assert third["response"] == "The current stock price of Amazon (AMZN) is $240.98."
    assert (third["input_tokens"], third["output_tokens"], third["finish_reason"]) == (174, 18, "stop")
    assert third["model_answered"] == "gpt-4o-mini-2024-07-18"
    assert third["model_requested"] == "unstated"
    assert third["happened_at"] == dt.datetime(2026, 8, 14, 16, 29, 43, 183052, tzinfo=dt.UTC)
    (call,) = json.loads(rows["openinference_adot_spans.json"][0]["response_tool_calls"])
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Alaska"}'}


@pytest.mark.data
def test_the_wire_formats_own_examples_hold_no_call_of_a_model(data: Path):
    files = records_in(data / "otlp_json_examples" / "otlp_examples.tar.gz")
    assert len(files) == 4
    assert all(READER.recognises(record) for records in files.values() for record in records)
    assert [row for records in files.values() for each in records for row in READER.read(each)] == []
