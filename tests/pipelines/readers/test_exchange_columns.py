from __future__ import annotations

import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineage.schemas import TRACE
from pipelines.readers import Unreadable
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.readers.json_lines import decode_json_object

READER = ChatCompletions()
ODD: tuple[Any, ...] = (
    None,
    "",
    "x",
    "2026-01-01T00:00:00Z",
    True,
    False,
    0,
    1,
    2,
    -3,
    0.5,
    1.0,
    10**20,
    float("nan"),
)
ODD += (
    [],
    [1],
    {},
    {"a": 1},
    [{"role": "user"}],
    [{"type": "text", "text": "t"}],
    "ü😀",
    "a@2",
    "pass",
    "FAIL",
)


def exchange(number: int) -> dict[str, Any]:
    """A plain exchange with fields of every kind."""
    return {
        "id": f"c{number}",
        "request": {
            "model": "router",
            "temperature": 0.5,
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{number}"}],
            "metadata": {"prompt_name": "router", "prompt_version": "1", "team": "it"},
        },
        "response": {
            "id": f"r{number}",
            "model": "router@1",
            "created": 1_760_000_000 + number,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        },
        "verdict": {"value": "pass", "judge": "j", "judge_version": "1", "score": 1.0, "threshold": 0.5},
        "review": {"reviewer": "ann", "correction": None},
        "client": "c",
    }


def one_by_one(line: bytes) -> dict[str, Any] | None:
    """What `read` makes of a line, every column named; None where it cannot read it."""
    try:
        (row,) = READER.read(decode_json_object(line))
    except Unreadable:
        return None
    return pa.Table.from_pylist([row], schema=TRACE.derivable).to_pylist()[0]


def told_apart(row: dict[str, Any]) -> str:
    return repr(row)  # NaN equals itself, 1 and 1.0 do not


def check(lines: list[bytes]) -> int:
    """Whatever came as columns is what `read` gives; how many lines did."""
    rows, taken = READER.read_columns(lines, keep_extra=True)
    assert rows.schema == TRACE.derivable
    for number, row in zip(taken.tolist(), rows.to_pylist(), strict=True):
        expected = one_by_one(lines[number])
        assert expected is not None
        assert told_apart(row) == told_apart(expected), lines[number]
    assert len(set(taken.tolist())) == len(taken) == rows.num_rows
    return len(taken)


def changed(record: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The record with a value somewhere in it replaced, left out, or put beside another."""
    at: Any = record
    while True:
        key = draw.choice(list(at)) if isinstance(at, dict) else draw.randrange(len(at))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.3:
            break
        at = inner
    how = draw.random()
    if how < 0.2 and isinstance(at, dict):
        del at[key]
    elif how < 0.35 and isinstance(at, dict):
        at["more"] = draw.choice(ODD)
    else:
        at[key] = draw.choice(ODD)
    return record


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 7, 300]), st.sampled_from([0.0, 0.02, 0.5]))
def test_columns_say_what_reading_line_by_line_says(seed: int, count: int, share: float):
    draw = random.Random(seed)
    kind = draw.choice(list(KINDS.values()))
    records = [kind(exchange(number)) for number in range(count)]
    records = [changed(each, draw) if draw.random() < share else each for each in records]
    check([json.dumps(each, ensure_ascii=draw.random() < 0.5).encode() for each in records])


def _with(path: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def of(record: dict[str, Any]) -> dict[str, Any]:
        *places, last = path.split(".")
        at: Any = record
        for place in places:
            at = at[int(place) if place.isdigit() else place]
        at[last] = value
        return record

    return of


KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "plain": lambda record: record,
    "flags as verdicts": _with("verdict.value", True),
    "numbers as verdicts": _with("verdict.value", 0),
    "whole scores": _with("verdict.score", 1),
    "times as text": _with("response.created", "2026-01-01T00:00:00+02:00"),
    "milliseconds": _with("response.created", 1_760_000_000_123),
    "microseconds": _with("response.created", 1_760_000_000_123_456),
    "times with a fraction": _with("response.created", 1_760_000_000.25),
    "versions as numbers": _with("request.metadata.prompt_version", 3),
    "versions like dates": _with("request.metadata.prompt_version", "2026-01-01"),
    "corrected": _with("review.correction", "b"),
    "no review": lambda record: {name: value for name, value in record.items() if name != "review"},
    "no message": _with("request.messages", []),
    "large numbers": _with("client", 10**30),
    "images in what has no column": _with("client", "iVBORw0K" * 200),
    "speech in the answer": _with("response.choices.0.message.audio", {"data": "UklGRiQA" * 200}),
    "an error beside the answer": _with("error", {"message": "a tool failed"}),
}


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"no message"}))
def test_each_kind_of_plain_exchange_comes_as_columns(kind: str):
    lines = [json.dumps(KINDS[kind](exchange(number))).encode() for number in range(300)]
    assert check(lines) == 300


def test_odd_lines_cost_no_other_line_its_columns(toys: SimpleNamespace):
    lines = [json.dumps(exchange(number)).encode() for number in range(2000)]
    lines[700], lines[1500] = b'{"cut": ', b'{"id": 1, "id": 2}'
    lines[900] = json.dumps(toys.lesson("q", "a")).encode()
    assert check(lines) > 1700


@pytest.mark.parametrize("levels", [100, 200, 400])
def test_a_line_nested_deeply_is_as_when_it_is_read_alone(levels: int):
    deep: Any = 1
    for _ in range(levels):
        deep = [{"a": deep}]
    lines = [json.dumps(exchange(number)).encode() for number in range(3)]
    check([*lines, json.dumps(exchange(3) | {"deep": deep}).encode()])


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1}{"b": 2}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'\xef\xbb\xbf{"request": {"messages": []}}',
        b"[1]",
        b"7",
        b'{"request": {"messages": [null]}, "response": {"choices": [{"message": {}}]}}',
    ],
)
def test_a_line_that_columns_cannot_say_is_left_to_reading(line: bytes):
    assert check([line]) == 0
    assert check([line, *(json.dumps(exchange(number)).encode() for number in range(400))]) >= 200
