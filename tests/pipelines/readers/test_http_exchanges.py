from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.http_exchanges import HttpExchanges

READER = HttpExchanges()
CHAT = "https://api.example.org/v1/chat/completions"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
HI = {"id": "c", "model": "m-1", "choices": [{"message": {"role": "assistant", "content": "hi"}}]}


def exchange(sent: Any, received: Any, *, uri: str = CHAT, status: Any = 200, **more: Any) -> dict[str, Any]:
    request = {"method": "POST", "uri": uri, "body": sent, **more}
    return {"request": request, "response": {"status": status, "body": received}}


def test_credentials_are_not_stored_and_what_was_held_back_is_named():
    secret = "sk-4711"
    headers = {"Authorization": f"Bearer {secret}", "X-Api-Key": [secret], "Accept": "*/*"}
    record = exchange(HELLO | {"api_key": secret}, HI, uri=f"{CHAT}?key={secret}", headers=headers)
    record["response"]["headers"] = {"Set-Cookie": secret, "x-request-id": "r1"}
    (row,) = READER.read(record)
    assert secret not in json.dumps(row, default=str)
    extra = json.loads(row["extra"])
    assert extra["shortened"] == [
        "request.headers: Authorization",
        "request.headers: X-Api-Key",
        "request.uri: query (key)",
        "response.headers: Set-Cookie",
    ]
    assert extra["http"]["headers"] == {"Accept": "*/*"}
    assert extra["http"]["response_headers"] == {"x-request-id": "r1"}


@pytest.mark.parametrize("status", [200, {"code": 200, "message": "OK"}])
@pytest.mark.parametrize("received", [HI, json.dumps(HI), {"string": json.dumps(HI)}])
def test_a_body_is_read_however_it_was_recorded(received: Any, status: Any):
    (row,) = READER.read(exchange(json.dumps(HELLO), received, status=status))
    assert (row["response"], row["model_requested"], row["model_answered"]) == ("hi", "m", "m-1")


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_refused_call_is_a_row_without_a_response(status: int):
    (row,) = READER.read(exchange(HELLO, {"error": {"code": "busy"}}, status=status))
    assert (row["response"], row["finish_reason"], row["messages"][0]["content"]) == (None, "error", "hello")
    assert json.loads(row["extra"])["error"] == {"code": "busy"}


def test_a_refusal_in_no_json_is_kept_as_it_is():
    (row,) = READER.read(exchange(HELLO, "<html>Bad Gateway</html>", status=502))
    assert json.loads(row["extra"])["error"] == {"body": "<html>Bad Gateway</html>"}


def test_an_error_in_place_of_the_answer_is_a_refusal_too():
    (row,) = READER.read(exchange(HELLO, {"error": {"code": "filtered"}}))
    assert row["finish_reason"] == "error"


@pytest.mark.parametrize(
    ("sent", "received", "path"),
    [
        ({"model": "e", "input": "a"}, {"data": [{"embedding": [0.1]}]}, "/v1/embeddings"),
        ({"model": "e", "input": "a"}, {"error": {"code": "busy"}}, "/v1/embeddings"),
        ({"model": "i", "prompt": "a cat"}, {"data": [{"url": "x"}]}, "/v1/images/generations"),
        ({"input": "a"}, {"pass": True}, "/guardrails/execute"),
        (None, {"data": [{"id": "m"}]}, "/v1/models"),
    ],
)
def test_what_does_not_answer_in_words_gives_no_row(sent: Any, received: Any, path: str):
    assert READER.read(exchange(sent, received, uri=f"https://api.example.org{path}")) == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"request": "GET /"}, "no_exchange"),
        ({"request": {"body": {}}, "response": {}}, "no_uri"),
        (exchange(HELLO, {"weather": "clear"}), "unknown_answer"),
        (exchange(HELLO, 'data: {"cut'), "bad_stream"),
        (exchange({"messages": "hello"}, HI), "bad_shape"),
    ],
)
def test_an_exchange_that_cannot_be_read_says_why(record: dict[str, Any], reason: str):
    with pytest.raises(Unreadable) as caught:
        READER.read(record)
    assert caught.value.reason == reason


def test_a_line_separator_inside_of_a_stream_does_not_end_an_event():
    events = [{"choices": [{"index": 0, "delta": {"content": words}}]} for words in ("a\u2028b", "\x85c")]
    stream = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n" for event in events)
    assert READER.read(exchange(HELLO, stream))[0]["response"] == "a\u2028b\x85c"


def test_a_long_image_is_kept_by_reference():
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 4096}}
    sent = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, image]}]}
    (message,) = READER.read(exchange(sent, HI))[0]["messages"]
    (kept,) = json.loads(message["extra"])["content"]
    assert (message["content"], kept["source"]["data"]["bytes"]) == ("?", 3072)


def recorded(data: Path, name: str) -> list[dict[str, Any]]:
    text = gzip.decompress((data / name / "exchanges.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "exchanges", "rows", "errors"),
    [("llm_api_log_openllmetry", 582, 563, 4), ("llm_api_log_otel_contrib", 113, 113, 7)],
)
def test_every_recorded_exchange_is_read(data: Path, name: str, exchanges: int, rows: int, errors: int):
    records = recorded(data, name)
    assert all(READER.recognises(record) for record in records)
    found = [READER.read(record) for record in records]
    assert (len(records), sum(map(len, found))) == (exchanges, rows)
    flat = [row for several in found for row in several]
    assert Counter(row["finish_reason"] for row in flat)["error"] == errors
    assert all(row["model_requested"] != "unstated" and row["trace_key"] != "unstated" for row in flat)
    wordless = [r["request"]["uri"] for r, several in zip(records, found, strict=True) if not several]
    kinds = ("/images/", "/predictions", "/embeddings", "/guardrails/")
    assert all(any(kind in uri for kind in kinds) for uri in wordless)


@pytest.mark.data
def test_what_the_recordings_say_is_what_the_rows_say(data: Path):
    records = recorded(data, "llm_api_log_openllmetry")
    streamed = READER.read(records[34])[0]  # Anthropic, text and two tool calls in pieces
    assert streamed["trace_key"] == "msg_0138UNF3YbNp49KkqZtUBWqz"
    assert (streamed["input_tokens"], streamed["output_tokens"]) == (506, 153)
    calls = [call["function"] for call in json.loads(streamed["response_tool_calls"])]
    assert [call["name"] for call in calls] == ["get_weather", "get_time"]
    assert json.loads(calls[1]["arguments"]) == {"timezone": "America/Los_Angeles"}
    planned = READER.read(records[83])[0]  # Cohere, a plan and two tool calls in pieces
    assert json.loads(planned["extra"])["message"]["tool_plan"].startswith("I will search for the current")
    filtered = READER.read(records[236])[0]  # Azure kept the answer back
    assert (filtered["finish_reason"], filtered["response"], filtered["output_tokens"]) == (
        "content_filter",
        None,
        19,
    )
    guarded = READER.read(records[59])[0]  # Bedrock: the path alone names the model
    assert guarded["model_requested"] == "amazon.titan-text-express-v1"
    assert (guarded["model_answered"], guarded["finish_reason"]) == ("unstated", "guardrail_intervened")
    summed = READER.read(records[544])[0]  # watsonx counts anew in each event
    assert (summed["input_tokens"], summed["output_tokens"]) == (8, 11)
