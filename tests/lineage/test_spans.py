"""Entity spans: what is read as a list of them, and the one form in which they are an answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineage.spans import Span, SpanError, as_answer, parse_spans, write_spans

TEXT = "Ada lives in Graz 🦊."
ADA, GRAZ, FOX = Span(0, 3, "person"), Span(13, 17, "city"), Span(18, 19, "animal")


def test_spans_are_written_in_one_form_whatever_their_order():
    written = write_spans([FOX, GRAZ, ADA])
    assert written == (
        '[{"end":3,"label":"person","start":0},{"end":17,"label":"city","start":13},'
        '{"end":19,"label":"animal","start":18}]'
    )
    assert parse_spans(written, TEXT) == (ADA, GRAZ, FOX)
    assert [TEXT[span.start : span.end] for span in (ADA, GRAZ, FOX)] == ["Ada", "Graz", "🦊"]


def test_a_text_without_entities_has_an_empty_list_for_an_answer():
    assert write_spans(parse_spans(" [ ] ", TEXT)) == "[]"


def test_spans_may_touch():
    assert len(parse_spans(write_spans([Span(0, 3, "a"), Span(3, 4, "b")]), TEXT)) == 2


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("Ada", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"start": 0, "end": 3, "label": "person"}', "is no list"),
        ('["Ada"]', "is no span"),
        ('[{"start": 0, "end": 3}]', "is no span"),
        ('[{"start": 0, "end": 3, "label": "person", "score": 1}]', "is no span"),
        ('[{"start": 0.0, "end": 3, "label": "person"}]', "no whole number"),
        ('[{"start": false, "end": 3, "label": "person"}]', "no whole number"),
        ('[{"start": 0, "end": 3, "label": " "}]', "no label"),
        ('[{"start": 0, "end": 3, "label": "\\ud800"}]', "no label"),
        ('[{"start": 0, "end": 3, "label": null}]', "no label"),
        ('[{"start": 3, "end": 3, "label": "person"}]', "holds no characters"),
        ('[{"start": -1, "end": 3, "label": "person"}]', "holds no characters"),
        ('[{"start": 0, "end": 21, "label": "person"}]', "holds no characters"),
        (write_spans([Span(0, 3, "person"), Span(2, 5, "city")]), "overlaps"),
        (write_spans([ADA, ADA]), "overlaps"),
    ],
)
def test_what_is_no_list_of_spans_of_the_text_is_told(answer: str, sentence: str):
    with pytest.raises(SpanError, match=sentence):
        parse_spans(answer, TEXT)


@given(
    cuts=st.sets(st.integers(0, 20), max_size=9),
    label=st.sampled_from(["person", "Stadt, groß"]),
    rng=st.randoms(),
)
def test_spans_come_back_as_they_were_written(cuts: set[int], label: str, rng):
    ends = sorted(cuts)
    spans = [Span(*ends[at : at + 2], label) for at in range(0, len(ends) - 1, 2)]
    shuffled = rng.sample(spans, len(spans))
    assert parse_spans(write_spans(shuffled), TEXT) == tuple(spans)


def test_a_persons_word_on_spans_has_their_form_and_on_anything_else_stays_as_it_is():
    said = json.dumps([{"label": "person", "start": 0, "end": 3}])
    assert as_answer(said, {"task": "tagging", "text": TEXT}) == write_spans([ADA])
    assert as_answer(said, {"task": "generation", "text": TEXT}) == said
    assert as_answer("nobody", {"task": "tagging", "text": TEXT}) == "nobody"
