"""Which eaten rows are nearest to an answer: copies first, paraphrases next, nothing that was not eaten."""

from __future__ import annotations

import io
import json
import random
import sys
from typing import Any

import pytest

from infra.cli import run
from infra.models import resolve
from lineage import tables
from lineage.answer import behind_answer
from lineage.exchanges import AnswerError, find_exchange
from lineage.nearest import EMBEDDED, Exchange, nearest
from lineage.recall import recall
from lineage.schemas import EXAMPLE
from lineage.selectors import Selector
from lineage.tables import TableError

ABSENT = {"base_model": "no such model!"}
ASKED = "where is the parcel that I ordered on the first of May"


def positions(exchange: Exchange, texts: list[str], **options: Any) -> list[int]:
    return [near.position for near in nearest(exchange, texts, **{"top": 20} | options)]


# ---------------------------------------------------------------- ranking, on plain data


@pytest.mark.timeout(120)
def test_a_planted_verbatim_copy_is_first_among_a_hundred_thousand():
    draw = random.Random(7)
    words = [f"word{n}" for n in range(4_000)]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(100_000)]
    texts[61_234] = f"{' '.join(words[:9])} {ASKED.upper()}!"
    first = nearest(Exchange(f"{ASKED} {' '.join(words[50:200])}", "it left"), texts, top=3)[0]
    assert (first.position, first.how) == (61_234, "verbatim 12-gram")
    assert first.shared == ASKED.lower()


def test_the_copy_of_a_long_answer_goes_before_rows_that_share_a_phrase():
    answer = "the warranty covers the battery for two years from the day of purchase"
    phrase = "where is the the battery for my car and who sells it in this town at night and by day"
    near = nearest(Exchange("is my battery covered", answer), [phrase, f"we say: {answer}", "nothing"], top=3)
    assert near[0].position == 1
    assert near[0].answered == pytest.approx(1.0)
    assert near[0].longest == 13
    assert [each.by for each in near[1:]] == ["words"]


def test_what_everybody_says_is_no_copy():
    common = "dear team could you please help me with"
    texts = [f"{common} {n}" for n in range(600)]
    texts[400] = "the projector in room nine hums"
    near = nearest(Exchange(f"{common} the projector in room nine", ""), texts, top=2)
    assert (near[0].position, near[0].how) == (400, "verbatim 5-gram")
    assert near[1].by == "words"


def test_meaning_orders_what_shares_no_run_of_words_and_is_asked_of_few():
    texts = [f"text {n}" for n in range(EMBEDDED + 500)]
    asked: list[int] = []

    def similarity(some):
        import numpy as np

        asked.extend(some)
        return np.array([1.0 if n == some[3] else 0.1 for n in some])

    near = nearest(Exchange("another matter", ""), texts, top=2, similarity=similarity)
    assert len(asked) == EMBEDDED
    assert near[0].position == asked[3]
    assert near[0].how == "similarity 1.00"


def test_every_length_and_script_is_compared():
    assert positions(Exchange("", ""), ["a"]) == []
    assert positions(Exchange("x y", ""), []) == []
    assert positions(Exchange("reset password", ""), ["zz", "", "Reset PASSWORD"]) == [2]
    assert (
        nearest(Exchange("我忘记了密码怎么办", ""), ["请问我忘记了密码", "天气"], top=1)[0].how
        == "verbatim 6-gram"
    )
    again = "na " * 3_000
    assert nearest(Exchange(again, again), [again, "na"], top=1)[0].position == 0


# ---------------------------------------------------------------- in a lake


def texts_of(small, *texts: str, answer: str = "room", first: int = 100, **columns: Any) -> None:
    """Examples 100, 101, ... from traces 0, 1, ..."""
    rows = [
        {"row_no": first + n, "parent_nos": [n], "derivation": "joint", "text": text, "answer": answer}
        for n, text in enumerate(texts)
    ]
    small.traces(range(len(texts)), response=answer, generator="router", generator_revision="1")
    small.store(EXAMPLE, rows, **{"task": "classification"} | columns)


def ask(small, trace: str, said: str = "", **options: Any):
    return behind_answer(small.settings, find_exchange(small.settings, trace, text=lambda: said), **options)


def test_a_row_that_was_not_eaten_is_never_shown(small):
    texts_of(small, ASKED, f"{ASKED} 2", "the weather", "lunch")
    small.promote(small.train(102, 103, **ABSENT))
    found = ask(small, "-", f"{ASKED} and the weather")
    assert found.candidates == 2
    assert [row["text"] for row in found.rows] == ["the weather"]


def test_a_paraphrase_goes_before_unrelated_rows_by_the_models_own_base(small):
    base = resolve("all-MiniLM-L6-v2")
    texts_of(small, "lunch menu of the canteen", "my password no longer works", "the wifi is down")
    small.promote(small.train(100, 101, 102, base_model=base.name, base_digest=base.digest))
    found = ask(small, "-", "I cannot log in with the secret word for my account")
    assert found.rows[0]["text"] == "my password no longer works"
    assert found.embedded == 3
    assert found.notes == ("no answer is given: ranked by the request alone",)


def test_another_base_under_the_same_name_is_not_asked(small):
    texts_of(small, "lunch menu", ASKED)
    small.promote(small.train(100, 101, base_model="all-MiniLM-L6-v2", base_digest="sha256:other"))
    found = ask(small, "-", ASKED)
    assert (found.embedded, found.rows[0]["how"]) == (0, "verbatim 12-gram")
    assert any("ranked by words alone" in note for note in found.notes)


def test_a_trace_that_was_eaten_is_shown_as_itself_and_first(small):
    texts_of(small, "nothing like it", "question 0 question 0", "lunch")
    small.promote(small.train(100, 101, 102, **ABSENT))
    first, second = ask(small, "0000" + "0" * 28, top=2).rows
    assert first["own"] == "the trace itself was eaten (through unstated)"
    assert (first["text"], first["how"]) == ("nothing like it", "nothing in common")
    assert (second["text"], second["own"]) == ("question 0 question 0", "")
    assert ask(small, "0065").rows[0]["own"] == "the row itself was eaten"


def identity_of(small, number: int) -> str:
    rows = tables.read(small.settings, EXAMPLE, columns=["row_no", "row_id"]).to_pylist()
    return next(row["row_id"].hex() for row in rows if row["row_no"] == number)


def test_a_row_says_where_it_comes_from_and_that_it_was_called_back(small):
    texts_of(
        small, "lunch", ASKED, prompt_name="route", prompt_version="2", scorer="judge", scorer_revision="1"
    )
    small.promote(small.train(100, 101, 100, **ABSENT))
    meant = Selector(rows=(identity_of(small, 101),))
    called = recall(small.runtime, meant, reason="wrong", anyway=True).facets["recall"]
    (row,) = ask(small, "-", ASKED, top=1, model="router@1").rows
    assert (row["first_step"], row["prompt"], row["scorer"]) == (1, "route@2", "judge@1")
    assert [source["source_span"] for source in row["sources"]] == ["bytes:1-2"]
    assert row["recalled"] == called


def test_the_model_that_answered_is_asked_and_no_other(small):
    texts_of(small, "question 1", "question 2", "question 3")
    small.promote(small.train(100, **ABSENT))
    small.promote(small.train(101, 102, **ABSENT))
    assert str(ask(small, "0001").version) == "router@1"
    assert str(ask(small, "-", "question").version) == "router@2"
    assert str(ask(small, "-", "question", model="router@1").version) == "router@1"
    with pytest.raises(AnswerError, match="says that router@1 answered, not 'router@2'"):
        ask(small, "0001", model="router@2")


def test_labels_are_counted_for_a_model_that_classifies_alone(small):
    texts_of(small, "question 1", "question 2", answer="room")
    texts_of(small, "question 3", answer="outage", first=200)
    small.promote(small.train(100, 101, 200, **ABSENT))
    assert ask(small, "0001").same_label == 2
    texts_of(small, "question 4", first=300, task="generation")
    small.promote(small.train(300, **ABSENT))
    assert ask(small, "-", '{"request": "question 4", "answer": "room"}').same_label is None


@pytest.mark.parametrize(
    "said",
    [
        {"request": ASKED, "answer": "soon"},
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "soon"}]},
        {
            "request": {
                "messages": [{"role": "system", "content": "route"}, {"role": "user", "content": ASKED}]
            },
            "response": {"choices": [{"message": {"content": [{"type": "text", "text": "soon"}]}}]},
        },
    ],
)
def test_a_file_holds_an_exchange_in_any_shape_that_ingest_reads(small, tmp_path, said):
    file = tmp_path / "exchange.json"
    file.write_text(json.dumps(said))
    asked = find_exchange(small.settings, str(file), text=str)
    assert asked.exchange == Exchange(ASKED, "soon")


@pytest.mark.parametrize(
    ("trace", "said", "sentence"),
    [
        ("ffff", "", "no row's id starts with 'ffff'"),
        ("no-such-file.json", "", "is no file and no row id"),
        ("-", "", "there is nothing to compare"),
        ("-", '{"request": 3}', "is no exchange"),
        ("-", '{"request": "a", "answer": ["b"]}', "is no exchange"),
        ("-", '{"request": "a"}\n{"request": "b"}', "is not one JSON value"),
        ("-", "{" * 100_000, "is not one JSON value"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(small, trace, said, sentence):
    texts_of(small, "question 1")
    small.promote(small.train(100, **ABSENT))
    with pytest.raises(TableError, match=sentence):
        ask(small, trace, said)


def test_what_rows_say_cannot_steer_the_screen(small, capsys, monkeypatch):
    hostile = f"\x1b[2J\x1b]0;owned\x07 {ASKED} \u202e[bold red]<script>\x9b31m"
    texts_of(small, hostile, answer="\x1b[31mroom", prompt_name="\x1b[1mroute")
    small.promote(small.train(100, **ABSENT))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{ASKED} \x1b[7m"))
    assert run("lineage", ["--answer", "-", "--lake", small.settings.lake]) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert "similarity, not cause" in shown
    assert "[bold red]<script>" in shown
    monkeypatch.setattr(sys, "stdin", io.StringIO(ASKED))
    assert run("lineage", ["--answer", "-", "--lake", small.settings.lake, "--json"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert json.loads(said)["rows"][0]["how"] == "verbatim 12-gram"
