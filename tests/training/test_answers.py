"""Answers are found within generated text by the published rules, and nothing else is taken for one."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from training.metrics import (
    final_number,
    matches_alias,
    normalised_answer,
    option_letter,
    parse_calls,
    rouge_l,
    rouge_n,
    same_calls,
    same_number,
    same_text,
    same_tools,
)
from training.recipe import TrainingError

WORDS = ("the", "cat", "sat", "a", "mat,", "mat!", "Naïve", "3.5", "don't", "U.S.", "e-mail_x", "東京", "\n")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 16 - 3 = <<16-3=13>>13 eggs.\n#### 13", "13"),
        ("#### 1,234,567", "1234567"),
        ("####65,960", "65960"),
        ("#### $1,200.50.", "1200.50"),
        ("#### -5", "-5"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("#### \u22125", "-5"),
        ("#### +7", "7"),
        ("#### .5", "0.5"),
        ("#### 18.", "18"),
        ("#### 18.00", "18"),
        ("#### 25%", "25"),
        ("#### 3 apples and 4 pears", "3"),
        ("#### 12\nThat is 15 with tax", "12"),
        ("Is it #### 3? No.\n#### 4", "4"),
        ("so 2 * 9 = 18\nA: 18", "18"),
        ("#### The total is $18", "18"),
        ("#### 1e3", "1000"),
        ("18", "18"),
        (" $1,000. ", "1000"),
    ],
)
def test_the_final_number_of_a_solution(text, number):
    assert final_number(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "She makes 18 dollars",  # on the way, not said to be the answer
        "18 dollars or 20",
        "#### none",
        "#### \n18",  # the line of the mark is empty
        "#### 1/2",
        "#### x2",  # a name
        "#### v1.5.2b",
        "18\n####",
        "\u0661\u0668",  # digits of another script
    ],
)
def test_what_does_not_say_its_final_number_has_none(text):
    assert final_number(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_a_number_is_the_same_with_commas_and_a_currency(value):
    sign = "-" if value < 0 else ""
    assert same_number(f"#### {value}", f"so it is\n#### {sign}${abs(value):,}.")
    assert not same_number(f"#### {value}", f"#### {value + 1}")


def test_two_texts_without_a_number_do_not_agree():
    assert not same_number("none", "none")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(C)", "C"),
        ("(c)", "C"),
        ("D.", "D"),
        ("B) Paris", "B"),
        ("A. A cat", "A"),
        ("**C**", "C"),
        ("The answer is (B).", "B"),
        ("The answer is B because A is wrong.", "B"),
        ("The answer is A since C is wrong.", "A"),
        ("The answer is A cat", None),  # not set off as an option is
        ("Answer: d", "D"),
        ("answer: C\nas A and B are wrong", "C"),
        ("Is the answer A? No: the answer is C.", "C"),
        ("It must be (D), I think.", "D"),
        ("Either (A) or (B)", None),
        ("A cat sat there", None),
        ("I think so", None),
        ("Because", None),
        ("", None),
    ],
)
def test_the_option_that_an_answer_names(text, letter):
    assert option_letter(text) == letter


def test_an_alias_matches_as_in_trivia_qa():
    names = ["Onion", "Allium cepa", "The Onion Field", "S\u00e3o Paulo", "rock 'n' roll"]
    for said in (
        " onion. ",
        "ALLIUM_CEPA",
        "an onion",
        "onion field!",
        "s\u00e3o paulo",
        "Rock \u2018n\u2019 Roll",
    ):
        assert matches_alias(names, said)
    for said in ("", "the", "onions", "an onion or two", "sao paulo"):
        assert not matches_alias(names, said)
    assert normalised_answer("The  A-Team's (best)") == "team s best"
    assert not matches_alias(["the"], "a")  # nothing is left of either


def test_white_space_does_not_make_another_text_but_case_does():
    assert same_text("a  b\n", " a b")
    assert not same_text("a b", "A b")
    assert not same_text("ab", "a b")


@given(*[st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)] * 2)
def test_rouge_agrees_with_rouge_score_on_words(reference, said):
    assert_rouge_agrees(reference, said)


@given(st.text(max_size=60), st.text(max_size=60))
def test_rouge_agrees_with_rouge_score_on_any_text(reference, said):
    assert_rouge_agrees(reference, said)


def test_rouge_agrees_with_rouge_score_on_long_texts():
    draw = np.random.default_rng(0)
    for _ in range(20):
        reference, said = (" ".join(draw.choice(list("abcdefgh"), n)) for n in draw.integers(50, 300, 2))
        assert_rouge_agrees(reference, said)


SCORER = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)


def assert_rouge_agrees(reference: str, said: str) -> None:
    expected = SCORER.score(reference, said)
    assert rouge_n(reference, said, n=1) == pytest.approx(expected["rouge1"].fmeasure)
    assert rouge_n(reference, said, n=2) == pytest.approx(expected["rouge2"].fmeasure)
    assert rouge_l(reference, said) == pytest.approx(expected["rougeL"].fmeasure)


CALL = '{"name": "book", "arguments": {"seats": 2, "to": {"city": "Oslo", "via": ["Bergen", "Voss"]}}}'


@pytest.mark.parametrize(
    "said",
    [
        '{"arguments": {"to": {"via": ["Bergen", "Voss"], "city": "Oslo"}, "seats": 2.0}, "name": "book"}',
        '[{"type": "function", "function": {"name": "book", "arguments": '
        '"{\\"seats\\": 2, \\"to\\": {\\"city\\": \\"Oslo\\", \\"via\\": [\\"Bergen\\", \\"Voss\\"]}}"}}]',
        '{"role": "assistant", "tool_calls": [' + CALL + "]}",
    ],
)
def test_a_call_is_the_same_in_every_form(said):
    assert same_calls(CALL, said)
    assert same_tools(CALL, said)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"seats": 3, "to": {"city": "Oslo", "via": ["Bergen", "Voss"]}}',
        '{"seats": "2", "to": {"city": "Oslo", "via": ["Bergen", "Voss"]}}',
        '{"seats": 2, "to": {"city": "Oslo", "via": ["Voss", "Bergen"]}}',
        '{"seats": 2, "to": {"city": "Oslo", "via": ["Bergen", "Voss"]}, "class": null}',
        "{}",
    ],
)
def test_other_arguments_are_another_call_of_the_same_tool(arguments):
    said = f'{{"name": "book", "arguments": {arguments}}}'
    assert same_tools(CALL, said)
    assert not same_calls(CALL, said)


def test_true_is_no_number():
    one, true = (f'{{"name": "f", "arguments": {{"x": {x}}}}}' for x in ("1", "true"))
    assert not same_calls(one, true)


def test_the_order_of_calls_does_not_count_but_their_number_does():
    f, g = '{"name": "f"}', '{"name": "g", "arguments": {}}'
    assert same_calls(f"[{f},{g}]", f"[{g},{f}]")
    assert not same_calls(f"[{f},{g}]", f"[{f}]")
    assert not same_calls(f"[{f},{f}]", f)


def test_words_are_no_call_and_an_answer_in_words_is_refused():
    for said in ("I will book it", '{"name": ""}', '{"name": "f", "arguments": [1]}', "[" * 10_000, "NaN"):
        assert parse_calls(said) is None
        assert not same_tools(CALL, said)
    with pytest.raises(TrainingError, match="is no tool call"):
        same_calls("I will book it", CALL)
