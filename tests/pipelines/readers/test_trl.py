from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.formats import recognised
from pipelines.readers import Unreadable
from pipelines.readers.conversations import Alpaca, ShareGPT
from pipelines.readers.trl import Trl

READER = Trl()
SYSTEM = {"role": "system", "content": "s"}


def asked(words: str) -> dict[str, Any]:
    return {"role": "user", "content": words}


def answered(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": words}


def words_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row["messages"]]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [asked("q")], "chosen": [answered("a")], "rejected": [answered("b")]},
        {"prompt": [asked("q")], "chosen": "a", "rejected": [answered("b")]},
        {"chosen": [asked("q"), answered("a")], "rejected": [asked("q"), answered("b")]},
        {"prompt": "q", "chosen": [asked("q"), answered("a")], "rejected": [asked("q"), answered("b")]},
    ],
    ids=["texts", "messages", "both", "no prompt", "the prompt again"],
)
def test_of_a_preference_the_chosen_passed_and_corrects_the_rejected(record: dict[str, Any]):
    assert READER.recognises(record)
    rows = READER.read(record)
    assert [words_of(row) for row in rows] == [[("user", "q")]] * 2
    assert [(row["response"], row["verdict"], row.get("correction")) for row in rows] == [
        ("a", "pass", None),
        ("b", "fail", "a"),
    ]
    assert all("generator" not in row for row in rows)  # the line does not say who wrote them


def test_a_prompt_that_is_said_again_in_more_words_is_one():
    chosen = [SYSTEM, asked("q"), answered("a")]
    (row, _) = READER.read({"prompt": "q", "chosen": chosen, "rejected": chosen})
    assert words_of(row) == [("system", "s"), ("user", "q")]


def test_what_a_completion_says_before_its_answer_was_asked_after_the_prompt():
    more = [answered("a"), asked("why?"), answered("b")]
    (row,) = READER.read({"prompt": "q", "completion": more})
    assert words_of(row) == [("user", "q"), ("assistant", "a"), ("user", "why?")]
    assert row["response"] == "b"


@pytest.mark.parametrize(
    ("label", "verdict", "extra"),
    [
        (True, "pass", {}),
        (False, "fail", {}),
        (None, "unstated", {"record": {"label": None}}),
        (1, "unstated", {"record": {"label": 1}}),
    ],
)
def test_a_label_of_true_or_false_is_a_verdict_and_any_other_is_kept(
    label: object, verdict: str, extra: dict[str, Any]
):
    (row,) = READER.read({"prompt": "q", "completion": "a", "label": label})
    assert (row["response"], row["verdict"]) == ("a", verdict)
    assert json.loads(row["extra"] or "{}") == extra


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "q"}, "no_completion"),
        ({"prompt": "q", "chosen": "a"}, "no_completion"),
        ({"chosen": "q a", "rejected": "q b"}, "no_prompt"),
        ({"prompt": "q", "completion": []}, "no_answer"),
        ({"prompt": "q", "completion": [asked("a")]}, "no_answer"),
        ({"prompt": 7, "completion": "a"}, "no_messages"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(record: dict[str, Any], reason: str):
    with pytest.raises(Unreadable) as caught:
        READER.read(record)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "q", "chosen": "a", "rejected": "b", "prompt": "q"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": [answered("a")],
            "rejected": [answered("b")],
        },
    ],
)
def test_siblings_that_also_choose_keep_their_lines(record: dict[str, Any]):
    assert READER.recognises(record) is None
    assert ShareGPT().recognises(record) or Alpaca().recognises(record)


def test_a_preference_with_its_conversation_beside_it_is_a_preference():
    chosen, rejected = [asked("q"), answered("a")], [asked("q"), answered("b")]
    line = json.dumps({"prompt": "q", "messages": chosen, "chosen": chosen, "rejected": rejected}).encode()
    assert recognised("file:///preferences.jsonl", line + b"\n").reader == READER
