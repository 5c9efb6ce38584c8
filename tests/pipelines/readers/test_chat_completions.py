from __future__ import annotations

import base64
import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from lineage.schemas import TRACE
from pipelines.readers import Unreadable
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.steps.judged import ExampleFromTrace

READER = ChatCompletions()


def chunk(delta: dict[str, Any], *, index: int = 0, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m@2", "choices": [choice]}


def test_streamed_pieces_make_one_answer():
    last = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 3}}
    chunks = [
        chunk({"role": "assistant", "content": "He"}),
        chunk({"content": "llo"}),
        chunk({}, finish="stop"),
    ]
    (row,) = READER.read({"chunks": [*chunks, last]})
    wanted = {"response": "Hello", "finish_reason": "stop", "input_tokens": 3, "generator_revision": "2"}
    assert {name: row[name] for name in wanted} == wanted
    assert (row["messages"], row["model_requested"]) == ([], "unstated")


def test_pieces_of_tool_calls_are_put_together_by_their_index():
    first, second = {"index": 0, "id": "a"}, {"index": 1, "id": "b"}
    pieces = [
        [first | {"function": {"name": "f", "arguments": "{"}}],
        [second | {"function": {"name": "g", "arguments": "[1"}}],
        [{"index": 0, "function": {"arguments": "}"}}, {"index": 1, "function": {"arguments": "]"}}],
    ]
    (row,) = READER.read({"chunks": [chunk({"tool_calls": piece}) for piece in pieces]})
    calls = json.loads(row["response_tool_calls"])
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("a", "f", "{}"),
        ("b", "g", "[1]"),
    ]


def test_a_second_streamed_choice_is_kept_beside_the_first():
    chunks = [chunk({"content": "a"}, index=1), chunk({"content": "b"}), chunk({"content": "c"}, index=1)]
    (row,) = READER.read({"response": chunks})
    assert row["response"] == "b"
    assert json.loads(row["extra"])["other_choices"][0]["message"]["content"] == "ac"


def test_what_the_answer_to_learn_says_besides_its_text_is_kept():
    answer = {"role": "assistant", "content": "b", "weight": 0}
    (row,) = READER.read(
        {"messages": [{"role": "user", "content": "a"}, answer], "functions": [{"name": "f"}]}
    )
    assert json.loads(row["extra"]) == {"functions": [{"name": "f"}], "message": {"weight": 0}}


def test_a_chunk_that_is_no_object_is_no_stream():
    with pytest.raises(Unreadable, match="bad_stream"):
        READER.read({"chunks": ["hello"]})


def test_chunks_beside_a_response_are_not_the_answer(toys: SimpleNamespace):
    record = toys.exchange("a", "b") | {"chunks": ["retrieved, not streamed"]}
    (row,) = READER.read(record)
    assert row["response"] == "b"
    assert json.loads(row["extra"])["record"] == {"chunks": ["retrieved, not streamed"]}


def extra_in(record: dict[str, Any]) -> dict[str, Any]:
    (row,) = ChatCompletions().read(record)
    return json.loads(row["extra"] or "{}")


def test_what_of_a_line_cannot_be_read_or_has_no_column_is_kept(toys: SimpleNamespace):
    record = toys.exchange("q", "a") | {"metadata": {"tenant": "acme"}, "rate": float("nan")}
    record["verdict"] |= {"score": "high", "threshold": "0.5"}
    record["response"] |= {"created": "yesterday", "usage": {"prompt_tokens": "12"}}
    assert extra_in(record) == {
        "record": {"metadata": {"tenant": "acme"}, "rate": "nan"},
        "unread": {"score": "high", "created": "yesterday", "prompt_tokens": "12"},
    }
    lesson = toys.lesson("q", "a") | {"verdict": {"value": "fail"}, "review": {"correction": "right"}}
    assert extra_in(lesson) == {"verdict": {"value": "fail"}, "review": {"correction": "right"}}


def test_a_score_that_is_written_as_text_is_read(toys: SimpleNamespace):
    record = toys.exchange("q", "a")
    record["verdict"]["score"] = "0.25"
    assert ChatCompletions().read(record)[0]["score"] == 0.25


@pytest.mark.parametrize(
    ("machine", "person", "stands"),
    [
        ("pass", "fail", ("fail", "overridden")),
        ("pass", "pass", ("pass", "approved")),
        (None, "fail", ("fail", "rejected")),
    ],
)
def test_a_persons_verdict_beats_the_machines(
    toys: SimpleNamespace, machine: str | None, person: str, stands: tuple[str, str]
):
    record = toys.exchange("q", "a") | {"review": {"reviewer": "bob", "verdict": person}}
    record["verdict"]["value"] = machine
    (row,) = ChatCompletions().read(record)
    assert (row["verdict"], row["review"], row["reviewer"]) == (*stands, "bob")


def test_what_stands_under_the_name_of_a_secret_is_hidden(toys: SimpleNamespace):
    record = toys.exchange("q", "a") | {"headers": {"Authorization": "Bearer abc", "host": "x"}}
    record["request"]["api_key"] = "sk-123"
    assert extra_in(record) == {
        "record": {"headers": {"Authorization": "(redacted)", "host": "x"}},
        "request": {"api_key": "(redacted)"},
    }
    rows, _ = ChatCompletions().read_columns([json.dumps(record).encode()], keep_extra=True)
    assert json.loads(rows["extra"][0].as_py()) == extra_in(record)


# ---------------------------------------------------------------- images, audio, files

BYTES = bytes(range(256)) * 8
BASE64 = base64.b64encode(BYTES).decode()
DIGEST = hashlib.sha256(BYTES).hexdigest()
PARTS = {
    "image": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
    "audio": {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
    "file": {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BASE64}"}},
}


def by_either_path(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a record; where it also comes as columns, it is the same."""
    (row,) = READER.read(record)
    (row,) = pa.Table.from_pylist([row], schema=TRACE.derivable).to_pylist()
    rows, _ = READER.read_columns([json.dumps(record).encode()], keep_extra=True)
    assert rows.to_pylist() in ([], [row])
    return row


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_what_a_message_holds_as_base64_is_kept_by_digest(toys: SimpleNamespace, kind: str):
    content = [{"type": "text", "text": "what is this?"}, PARTS[kind]]
    asked = toys.exchange("q", "a")
    asked["request"]["messages"] = [{"role": "user", "content": content}]
    lesson = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "a cat"}]}
    for record in (asked, lesson):
        (message,) = by_either_path(record)["messages"]
        assert message["content"] == "what is this?"
        assert BASE64 not in message["extra"]
        assert DIGEST in message["extra"]


def test_what_an_answer_holds_as_base64_is_kept_by_digest(toys: SimpleNamespace):
    drawn = toys.exchange("draw a cat", "here")
    drawn["response"]["choices"][0]["message"] |= {
        "content": [{"type": "text", "text": "here"}, PARTS["image"]]
    }
    spoken = toys.exchange("say it", "here")
    spoken["response"]["choices"][0]["message"] |= {"audio": {"data": BASE64}}
    taught = {"messages": [{"role": "user", "content": "q"}, spoken["response"]["choices"][0]["message"]]}
    for record in (drawn, spoken, taught):
        row = by_either_path(record)
        assert row["response"] == "here"
        assert BASE64 not in row["extra"]
        assert DIGEST in row["extra"]


# ---------------------------------------------------------------- lines without an answer


def unanswered(toys: SimpleNamespace, **changes: Any) -> dict[str, Any]:
    record = toys.exchange("q", "a")
    return {"id": "log-1", "request": record["request"]} | changes


ERROR = {"code": 429, "message": "slow down"}


@pytest.mark.parametrize(
    ("changes", "extra"),
    [
        ({"response": None}, {}),
        ({"response": None, "error": ERROR}, {"error": ERROR}),
        ({"error": ERROR}, {"error": ERROR}),
        ({"response": {"error": ERROR}}, {"error": ERROR}),
        (
            {"response": {"error": "slow down"}, "client": "c"},
            {"error": "slow down", "record": {"client": "c"}},
        ),
        (
            {"response": {"error": ERROR, "choices": [], "id": "r"}},
            {"error": ERROR, "response": {"choices": [], "id": "r"}},
        ),
        ({"response": {"error": ERROR}, "error": "failed"}, {"error": ERROR, "record": {"error": "failed"}}),
        ({"response": {"type": "error", "error": ERROR}}, {"error": ERROR, "response": {"type": "error"}}),
    ],
)
def test_a_call_that_failed_or_was_not_answered_is_a_row_without_an_answer(
    toys: SimpleNamespace, changes: dict[str, Any], extra: dict[str, Any]
):
    row = by_either_path(unanswered(toys, **changes))
    assert (row["trace_key"], row["model_requested"]) == ("log-1", "router")
    assert [message["content"] for message in row["messages"] if message["role"] == "user"] == ["q"]
    assert (row["response"], row["response_tool_calls"], row["model_answered"]) == (None, None, "unstated")
    assert row["finish_reason"] == ("error" if "error" in extra else None)
    assert json.loads(row["extra"] or "{}") == extra


def test_a_stream_that_broke_off_with_an_error_is_no_answer(toys: SimpleNamespace):
    row = by_either_path(unanswered(toys, response=[chunk({"content": "He"}), {"error": ERROR}]))
    assert (row["response"], row["finish_reason"]) == (None, "error")
    assert json.loads(row["extra"])["error"] == ERROR


def test_an_answer_beside_an_error_is_read(toys: SimpleNamespace):
    row = by_either_path(toys.exchange("q", "a") | {"error": "a tool failed"})
    assert row["response"] == "a"
    assert json.loads(row["extra"]) == {"record": {"error": "a tool failed"}}


@pytest.mark.parametrize("response", [{}, {"choices": []}, {"choices": [], "error": None}, {"detail": "?"}])
def test_a_response_that_nobody_can_read_is_told(toys: SimpleNamespace, response: dict[str, Any]):
    with pytest.raises(Unreadable, match="no_choice"):
        READER.read(unanswered(toys, response=response))
    with pytest.raises(Unreadable, match="no_choice"):
        READER.read(unanswered(toys))


def test_of_a_call_without_an_answer_no_example_is_made(toys: SimpleNamespace):
    rows = [READER.read(unanswered(toys, response=said))[0] for said in (None, {"error": ERROR})]
    rows = [row | {"row_id": bytes([number]) * 16} for number, row in enumerate(rows)]
    traces = pa.Table.from_pylist(rows, schema=TRACE.schema)
    made = ExampleFromTrace("generation", "train").derive(traces)
    assert made.rows.num_rows == 0
    assert [rejection.reason for rejection in made.rejected.values()] == ["no_answer"] * 2


# ---------------------------------------------------------------- answers of other providers

OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "anthropic": (
        {"system": "s", "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]},
        {"type": "message", "model": "m", "content": [{"type": "text", "text": "a"}]},
    ),
    "responses": (
        {"instructions": "s", "input": "q"},
        {"object": "response", "model": "m", "output": [{"type": "message", "content": [{"text": "a"}]}]},
    ),
    "gemini": (
        {"systemInstruction": {"parts": [{"text": "s"}]}, "contents": [{"parts": [{"text": "q"}]}]},
        {"modelVersion": "m", "candidates": [{"content": {"parts": [{"text": "a"}]}}]},
    ),
    "ollama": (
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
        {"model": "m", "message": {"role": "assistant", "content": "a"}, "done": True},
    ),
}


@pytest.mark.parametrize("provider", sorted(OTHERS))
def test_another_providers_answer_is_read_with_the_request_it_answers(toys: SimpleNamespace, provider: str):
    request, response = OTHERS[provider]
    told = {"model": "router", "metadata": {"prompt_name": "p", "team": "it"}, "temperature": 0.5}
    row = by_either_path({"request": request | told, "response": response})
    assert [(message["role"], message["content"]) for message in row["messages"]] == [
        ("system", "s"),
        ("user", "q"),
    ]
    assert (row["model_requested"], row["model_answered"], row["response"]) == ("router", "m", "a")
    assert row["prompt_name"] == "p"
    extra = json.loads(row["extra"])
    assert (extra["request"], extra["metadata"]) == ({"temperature": 0.5}, {"team": "it"})


def test_what_follows_the_last_answer_of_a_lesson_is_kept_beside_it():
    said = [{"role": role, "content": role} for role in ("user", "assistant", "tool", "user")]
    row = by_either_path({"messages": said})
    assert ([message["role"] for message in row["messages"]], row["response"]) == (["user"], "assistant")
    assert json.loads(row["extra"]) == {"after_the_answer": said[2:]}
