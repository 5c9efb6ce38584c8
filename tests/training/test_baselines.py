"""The baselines learn what is easy, so that a score beside theirs says something."""

import pytest

from infra.models import resolve
from lineage.spans import Span
from training.baselines import linear_probe, linear_tagger, tfidf_svm
from training.metrics import entity_f1

TIMER = ["set a timer", "start the timer for tea", "a timer for ten minutes", "cancel my timer"]
BREAD = ["what is bread in french", "say bread in thai", "bread in spanish please", "the word for bread"]
CITIES = ["Paris", "London", "Berlin", "Madrid", "Rome", "Vienna"]


@pytest.fixture(scope="module")
def base():
    return resolve("all-MiniLM-L6-v2")


@pytest.mark.parametrize("baseline", ["probe", "svm"])
def test_texts_of_two_topics_are_told_apart(baseline, base):
    given = ([*TIMER, *BREAD], ["timer"] * 4 + ["bread"] * 4)
    asked = ["how is bread called in thai", "stop the timer"]
    said = linear_probe(base, *given, asked) if baseline == "probe" else tfidf_svm(*given, asked)
    assert said == ["bread", "timer"]


def test_a_linear_tagger_finds_a_city_that_it_never_saw(base):
    texts = [f"she flew to {city} yesterday" for city in CITIES] + ["she ate bread yesterday"]
    cities = [[Span(12, 12 + len(city), "city")] for city in CITIES]
    said = linear_tagger(base, texts, [*cities, []], ["she flew to Lisbon yesterday", "", "bread"])
    assert entity_f1([[Span(12, 18, "city")], [], []], said).f1 == 1.0
