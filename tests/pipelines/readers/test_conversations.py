from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.conversations import Alpaca, ShareGPT


def turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": who, "value": words} for who, words in said]


def test_the_last_answer_is_the_response_and_what_follows_it_is_kept():
    said = turns(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"), ("human", "e"))
    (row,) = ShareGPT().read({"conversations": said})
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "user"]
    assert row["response"] == "d"
    assert json.loads(row["extra"]) == {"after_the_answer": [said[-1]]}


def test_a_function_call_becomes_a_tool_call_and_one_in_no_form_stays_as_words():
    said = turns(
        ("human", "a"), ("function_call", '{"name": "f", "arguments": {"x": 1}}'), ("observation", "1")
    )
    (row,) = ShareGPT().read({"conversations": [*said, *turns(("function_call", "f(2)"))]})
    (call,) = json.loads(row["messages"][1]["tool_calls"])
    assert call["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert (row["response"], row["response_tool_calls"]) == ("f(2)", None)


def test_turns_with_a_role_and_a_content_are_read_as_chat_messages_are():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    said = [
        {"role": "developer", "content": "s"},
        {"role": "human", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "c"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "thanks"},
    ]
    assert ShareGPT().recognises({"conversations": said}) == "'conversations' of 'role' and 'content'"
    (row,) = ShareGPT().read({"conversations": said})
    assert [message["role"] for message in row["messages"]] == ["developer", "user", "assistant", "tool"]
    (called,) = json.loads(row["messages"][2]["tool_calls"])
    assert called["function"] == {"name": "f", "arguments": '{"x": 1}'}  # text, whatever it was
    assert (row["messages"][3]["tool_call_id"], row["response"]) == ("c", "b")
    assert json.loads(row["extra"]) == {"after_the_answer": [said[-1]]}


def test_a_turn_in_the_role_of_a_function_call_is_a_tool_call():
    called = {"role": "function_call", "content": '{"name": "f", "arguments": {"x": 1}}'}
    (row,) = ShareGPT().read({"conversations": [{"role": "user", "content": "a"}, called]})
    assert json.loads(row["response_tool_calls"])[0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (turns(("human", "a")), "no_answer"),
        (turns(("narrator", "a")), "unknown_role"),
        ("hello", "no_conversations"),
    ],
)
def test_a_conversation_that_cannot_be_read_says_why(said: object, reason: str):
    with pytest.raises(Unreadable) as caught:
        ShareGPT().read({"conversations": said})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("tag", "verdict"), [(True, "pass"), (False, "fail"), (None, "unstated"), (1, "unstated")]
)
def test_a_tag_of_true_or_false_is_a_verdict(tag: object, verdict: str):
    said = turns(("human", "a"), ("gpt", "b"))
    (shared,) = ShareGPT().read({"conversations": said, "kto_tag": tag})
    (taught,) = Alpaca().read({"instruction": "a", "output": "b", "kto_tag": tag})
    assert shared["verdict"] == taught["verdict"] == verdict


def test_history_and_system_come_before_the_instruction():
    record = {"instruction": "c", "input": "d", "output": "e", "system": "s", "history": [["a", "b"]]}
    (row,) = Alpaca().read(record)
    assert [(m["role"], m["content"]) for m in row["messages"]] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c\nd"),
    ]


def test_no_model_is_named_that_the_source_does_not_name():
    (row,) = Alpaca().read({"instruction": "a", "output": "b"})
    assert (row["model_requested"], row["model_answered"], row["trace_key"]) == ("unstated",) * 3
    assert "generator" not in row


@pytest.mark.data
@pytest.mark.parametrize(("name", "rows"), [("ARC-Challenge_train", 1119), ("ARC-Easy_train", 2251)])
def test_multiple_choice_questions_are_read_as_instructions(data: Path, name: str, rows: int):
    records = json.loads(gzip.decompress((data / "arc_challenge_train" / f"{name}.json.gz").read_bytes()))
    assert all(Alpaca().recognises(record) and ShareGPT().recognises(record) is None for record in records)
    found = [row for record in records for row in Alpaca().read(record)]
    assert len(found) == len(records) == rows
    assert {len(row["messages"]) for row in found} == {1}
    answers = [json.loads(row["extra"])["record"]["answer"] for row in found]
    assert {"answer1", "answer2", "answer3", "answer4"} <= set(answers)
    told = [f"the correct answer is {answer}" for answer in answers]
    assert [row["response"] for row in found] == told
