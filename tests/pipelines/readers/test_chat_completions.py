from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.chat_completions import ChatCompletions

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
