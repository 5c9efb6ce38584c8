from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lineage.schemas import TRACE
from pipelines.readers import Unreadable
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.readers.field_map import FieldMap, FieldMapError

READER = ChatCompletions()


def test_an_exchange_keeps_prompt_model_judge_and_reviewer(toys: SimpleNamespace):
    (row,) = READER.read(toys.exchange("my door is stuck", "facilities", verdict="fail", correction="access"))
    assert row.keys() <= set(TRACE.schema.names)
    wanted = {
        "prompt_name": "router",
        "prompt_version": "1",
        "generator": "router",
        "generator_revision": "1",
        "scorer": "exact-match",
        "scorer_revision": "1",
        "score": 0.0,
        "threshold": 0.5,
        "verdict": "fail",
        "correction": "access",
        "review": "overridden",
        "reviewer": "ann",
        "response": "facilities",
    }
    assert {name: row[name] for name in wanted} == wanted


def test_what_has_no_column_is_kept_as_extra(toys: SimpleNamespace):
    record = toys.exchange("a", "b")
    record["client_id"] = "c7"
    record["request"]["temperature"] = 0.3
    record["request"]["metadata"]["team"] = "it"
    record["response"]["choices"][0]["logprobs"] = {"content": []}
    record["response"]["choices"][0]["message"]["refusal"] = "no"
    extra = json.loads(READER.read(record)[0]["extra"])
    assert extra == {
        "record": {"client_id": "c7"},
        "request": {"temperature": 0.3},
        "metadata": {"team": "it"},
        "choice": {"logprobs": {"content": []}},
        "message": {"refusal": "no"},
    }


def test_tool_calls_of_any_shape_keep_one_schema(toys: SimpleNamespace):
    record = toys.exchange("a", "b")
    calls = [{"id": "1", "function": {"name": "f", "arguments": '{"x": [1, {"y": null}]}'}}]
    record["request"]["messages"].append({"role": "assistant", "content": None, "tool_calls": calls})
    record["request"]["messages"].append({"role": "tool", "content": "ok", "tool_call_id": "1"})
    (row,) = READER.read(record)
    assert json.loads(row["messages"][1]["tool_calls"]) == calls
    assert row["messages"][2]["tool_call_id"] == "1"


def test_text_parts_are_joined_and_other_parts_kept():
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    parts = [{"type": "text", "text": "what is "}, {"type": "text", "text": "this?"}, image]
    line = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a cat"}]}
    message = READER.read(line)[0]["messages"][0]
    assert message["content"] == "what is this?"
    assert json.loads(message["extra"])["content"][2] == image


def test_a_supervised_line_gives_its_last_message_as_the_response(toys: SimpleNamespace):
    (row,) = READER.read(toys.lesson("where is my badge", "access"))
    assert (row["response"], row["verdict"], len(row["messages"])) == ("access", "unstated", 1)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "not_a_chat_completion"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no_answer"),
        ({"messages": [{"content": "a"}]}, "bad_message"),
        ({"request": {"messages": "hello"}, "response": {"choices": [{}]}}, "no_messages"),
        ({"request": {"messages": []}, "response": {"choices": []}}, "no_choice"),
        ({"request": {"messages": []}, "response": "gone"}, "bad_shape"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(record: dict, reason: str):
    with pytest.raises(Unreadable) as caught:
        READER.read(record)
    assert caught.value.reason == reason


MAP = """
[map]
input = "q"
response = "{key}.out"
verdict = "{key}.ok"
correction = "truth"
[constant]
scorer = "exact"
scorer_revision = "2"
model_answered = "gpt-{key}"
[for_each]
keys = ["a", "b"]
"""


def test_a_field_map_gives_a_row_per_key(tmp_path: Path):
    path = tmp_path / "map.toml"
    path.write_text(MAP)
    record = {
        "q": "1+1?",
        "truth": "2",
        "a": {"out": "3", "ok": False},
        "b": {"out": "{key}", "ok": True},
        "lang": "en",
    }
    rows = FieldMap.load(path).read(record)
    assert [(r["model_answered"], r["response"], r["verdict"], r["score"]) for r in rows] == [
        ("gpt-a", "3", "fail", 0.0),
        ("gpt-b", "{key}", "pass", 1.0),
    ]
    assert json.loads(rows[0]["extra"]) == {"lang": "en"}


def test_another_map_is_another_reader(tmp_path: Path):
    path, other = tmp_path / "map.toml", tmp_path / "other.toml"
    path.write_text(MAP)
    other.write_text(MAP.replace('"exact"', '"judge"'))
    assert FieldMap.load(path).fingerprint.encode() != FieldMap.load(other).fingerprint.encode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[map]\ninput = 'q'", "must say where"),
        ("[map]\nqustion = 'q'", "unknown 'qustion'"),
        ("[map", "cannot be read"),
    ],
)
def test_a_wrong_field_map_is_one_sentence(tmp_path: Path, text: str, sentence: str):
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(FieldMapError, match=sentence):
        FieldMap.load(path)


@pytest.mark.parametrize(
    ("said", "correction", "verdict"),
    [
        (True, None, "pass"),
        ("PASS ", None, "pass"),
        (0, None, "fail"),
        ("incorrect", "b", "fail"),
        (None, "b", "fail"),
        ("pass", "b", "fail"),
        (None, None, "unstated"),
    ],
)
def test_a_verdict_is_read_however_it_is_put_and_a_correction_wins(
    toys: SimpleNamespace, said: object, correction: str | None, verdict: str
):
    record = toys.exchange("q", "a", correction=correction)
    record["verdict"]["value"] = said
    assert READER.read(record)[0]["verdict"] == verdict


def test_a_verdict_that_nobody_knows_goes_to_quarantine(toys: SimpleNamespace):
    record = toys.exchange("q", "a")
    record["verdict"]["value"] = "meh"
    with pytest.raises(Unreadable, match="unknown_verdict"):
        READER.read(record)


@pytest.mark.parametrize(
    "created", [1_760_000_000, 1_760_000_000_000, "2025-10-09T08:53:20Z", "2025-10-09T08:53:20"]
)
def test_a_time_is_read_in_any_common_unit(toys: SimpleNamespace, created: object):
    record = toys.exchange("q", "a")
    record["response"]["created"] = created
    assert READER.read(record)[0]["happened_at"].isoformat() == "2025-10-09T08:53:20+00:00"
