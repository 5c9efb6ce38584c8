"""The arithmetic task's files: readable as traces, right where they say so, and apart from each other."""

import json
from pathlib import Path

import pytest

from examples.arithmetic.files import Sizes, make
from training.tiny.problems import stated

SIZES = Sizes(lessons=40, log=60, evaluation=30)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    paths = make(tmp_path_factory.mktemp("sums"), sizes=SIZES)
    return {name: [json.loads(line) for line in path.open()] for name, path in paths.items()}


def question(record: dict) -> str:
    return record.get("request", record)["messages"][0]["content"]


def total(record: dict) -> int:
    return sum(int(word.strip("?.")) for word in question(record).split() if word.strip("?.").isdigit())


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path):
    first, again, other = (
        {name: path.read_bytes() for name, path in make(tmp_path / folder, seed=seed, sizes=SIZES).items()}
        for folder, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_no_question_is_in_two_files_but_those_answered_both_ways(files):
    asked = {name: {question(record) for record in records} for name, records in files.items()}
    assert {name: len(each) for name, each in asked.items()} == {
        "lessons.jsonl": 40,
        "direct.jsonl": 40,
        "log.jsonl": 60,
        "evaluation.jsonl": 30,
    }
    assert asked["lessons.jsonl"] == asked["direct.jsonl"]
    assert not asked["lessons.jsonl"] & asked["log.jsonl"]
    assert not (asked["lessons.jsonl"] | asked["log.jsonl"]) & asked["evaluation.jsonl"]


def test_lessons_are_right(files):
    for name in ("lessons.jsonl", "direct.jsonl", "evaluation.jsonl"):
        for record in files[name]:
            answer = record["messages"][1]["content"]
            assert stated(answer) == total(record)
            assert ("ones" in answer) == (name != "direct.jsonl")


def test_the_log_says_what_was_wrong_and_what_would_be_right(files):
    verdicts = []
    for record in files["log.jsonl"]:
        answered = stated(record["response"]["choices"][0]["message"]["content"])
        verdicts.append(record["verdict"]["value"])
        if verdicts[-1] == "pass":
            assert answered == total(record)
            assert "review" not in record
        else:
            assert answered is not None
            assert answered != total(record)
            assert stated(record["review"]["correction"]) == total(record)
    assert verdicts.count("fail") > verdicts.count("pass") > 0
