"""Labelled spans become tags of tokens and come back the same, and a tagger finds them in texts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.inference import AdapterRecord, Predictor, TaggedSpan, Tagger, load_tuned
from infra.models import (
    ModelError,
    adapter_digest,
    bio_labels,
    encode_tags,
    load_classifier,
    load_tokenizer,
    resolve,
)
from infra.models.tagging import Word, spans_of, split_words
from tests.infra.toys import toy_tokenizer

KINDS = ("name", "place")
LABELS = bio_labels(KINDS)


@pytest.fixture(scope="module")
def base():
    return resolve("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


def read_back(tokenizer, text: str, tag_ids: list[int], *, max_length: int) -> list[tuple[int, int, str]]:
    """The spans of a tagger that answers with exactly these tags."""
    _, (words,), _ = split_words(tokenizer, [text], max_length=max_length)
    spans = spans_of(words, [LABELS[tag_ids[word.token]] for word in words], [1.0] * len(words))
    return [(span.start, span.end, span.label) for span in spans]


def test_tags_are_outside_and_a_beginning_and_an_inside_of_each_kind():
    assert LABELS == ("O", "B-name", "I-name", "B-place", "I-place")
    for kinds in ([], ["same", "same"]):
        with pytest.raises(ModelError, match="one or more distinct kinds"):
            bio_labels(kinds)


def test_the_first_token_of_each_word_bears_its_tag_and_others_bear_no_loss(tokenizer):
    text = "Annabellina lives in New York"
    ids, tags, truncated = encode_tags(
        tokenizer, [text], [[(0, 11, "name"), (21, 29, "place")]], LABELS, max_length=32
    )
    tokens = tokenizer.convert_ids_to_tokens(ids[0])
    borne = {token: LABELS[tag] for token, tag in zip(tokens, tags[0], strict=True) if tag != -100}
    assert tokens[1:4] == ["anna", "##bell", "##ina"]
    assert borne == {"anna": "B-name", "lives": "O", "in": "O", "new": "B-place", "york": "I-place"}
    assert truncated == 0


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(max_size=60)
    | st.lists(st.sampled_from(["Ann", "x-ray", "naïve,", " ", "日本", "\n", "u.s.a"])).map("".join),
    data=st.data(),
)
def test_spans_of_whole_words_come_back_the_same(tokenizer, text, data):
    _, (words,), _ = split_words(tokenizer, [text], max_length=256)
    spans, first = [], 0
    while first < len(words):
        last = data.draw(st.integers(first, len(words) - 1))
        spans.append((words[first].start, words[last].end, data.draw(st.sampled_from(KINDS))))
        first = last + 1 + data.draw(st.integers(0, 3))
    _, (tags,), _ = encode_tags(tokenizer, [text], [spans], LABELS, max_length=256)
    assert read_back(tokenizer, text, tags, max_length=256) == spans


def test_a_byte_level_tokenizer_does_not_count_the_blank_before_a_word_to_it():
    tokenizer, text = toy_tokenizer(), "The capital  of\nFrance."
    spans = [(4, 11, "name"), (16, 22, "place")]
    _, (tags,), _ = encode_tags(tokenizer, [text], [spans], LABELS, max_length=64)
    assert read_back(tokenizer, text, tags, max_length=64) == spans


def test_a_span_that_ends_inside_a_word_is_widened_to_it_and_counted(tokenizer, caplog):
    text = "skiing in Switzerland"
    _, (tags,), _ = encode_tags(
        tokenizer, [text], [[(0, 3, "name"), (8, 8 + 5, "place")]], LABELS, max_length=32
    )
    assert read_back(tokenizer, text, tags, max_length=32) == [(0, 6, "name"), (7, 21, "place")]
    assert "2 spans were widened" in caplog.text


def test_what_lies_behind_the_cut_has_no_tags_and_is_counted(tokenizer):
    texts = ["Ann met Bob", "Ann"]
    spans = [[(0, 3, "name"), (8, 11, "name")], [(0, 3, "name")]]
    ids, tags, n_cut = encode_tags(tokenizer, texts, spans, LABELS, max_length=4)
    assert [len(row) for row in ids] == [len(row) for row in tags] == [4, 3]
    assert ids[0][-1] == tokenizer.sep_token_id
    assert n_cut.tolist() == [1, 0]
    assert read_back(tokenizer, texts[0], tags[0], max_length=4) == [(0, 3, "name")]
    *nothing, of_nothing = encode_tags(tokenizer, [], [], LABELS, max_length=4)
    assert (nothing, of_nothing.tolist()) == ([[], []], [])


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([(0, 4, "name")], "expected spans inside the text"),
        ([(1, 1, "name")], "expected spans inside the text"),
        ([(0, 2, "name"), (1, 3, "place")], "do not overlap"),
        ([(0, 3, "date")], "'date', which is none of the tags"),
    ],
)
def test_spans_that_cannot_be_tags_are_refused(tokenizer, spans, reason):
    with pytest.raises(ModelError, match=reason):
        encode_tags(tokenizer, ["Ann"], [spans], LABELS, max_length=8)


def test_an_inside_without_a_beginning_begins_a_span():
    words = [Word(n + 1, 2 * n, 2 * n + 1) for n in range(6)]
    tags = ["I-name", "I-name", "I-place", "O", "I-place", "B-place"]
    spans = spans_of(words, tags, [1.0, 0.5, 1.0, 1.0, 1.0, 1.0])
    assert spans == [
        TaggedSpan(0, 3, "name", 0.75),
        TaggedSpan(4, 5, "place", 1.0),
        TaggedSpan(8, 9, "place", 1.0),
        TaggedSpan(10, 11, "place", 1.0),
    ]


@pytest.fixture(scope="module")
def trained_whole(base, tmp_path_factory) -> Path:
    """A tagger trained in every weight, as training saves it."""
    folder = tmp_path_factory.mktemp("tagger")
    model, _ = load_classifier(base, LABELS, quantization=None, seed=3)
    model.save_pretrained(folder)
    AdapterRecord(
        labels=LABELS,
        max_length=16,
        base_model=base.name,
        base_digest=base.digest,
        method="full",
        quantization=None,
        adapter_digest=adapter_digest(folder),
        objective="token_classification",
    ).write(folder)
    return folder


def test_a_tagger_gives_the_same_spans_alone_and_in_company(base, trained_whole):
    tagger = Tagger.load(base, trained_whole, batch_size=3)
    texts = ["Ann lives in New York", "", "hello", "word " * 40, "Bob and Carla met in Lima, twice.", "Oslo"]
    together = tagger.tag(texts)
    assert [tagger.tag([text])[0] for text in texts] == together
    assert tagger.tag([]) == []
    assert together[1] == []
    assert sum(map(len, together)) > 3
    for text, spans in zip(texts, together, strict=True):
        borders = [border for span in spans for border in (span.start, span.end)]
        assert borders == sorted(borders)
        assert all(text[s.start : s.end].strip() == text[s.start : s.end] != "" for s in spans)
        assert all(s.label in KINDS and 1 / len(LABELS) < s.confidence <= 1 for s in spans)
    assert max(span.end for span in together[3]) <= len("word " * 14)


def test_a_model_trained_whole_comes_from_its_folder_head_included(base, trained_whole):
    model, _, record = load_tuned(base, trained_whole)
    expected, _ = load_classifier(base, LABELS, quantization=None, seed=3)
    assert torch.equal(model.classifier.weight, expected.classifier.weight)
    assert record.method == "full"


def test_a_model_trained_whole_without_its_head_is_refused(base, trained_whole, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(trained_whole / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "classifier" not in name},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    (tmp_path / "config.json").write_bytes((trained_whole / "config.json").read_bytes())
    record = AdapterRecord.read(trained_whole)
    dataclasses.replace(record, adapter_digest=adapter_digest(tmp_path)).write(tmp_path)
    with pytest.raises(ModelError, match=r"lacks 2 weights .* first classifier\.bias"):
        Tagger.load(base, tmp_path)


def test_a_tagger_is_no_classifier_of_texts(base, trained_whole):
    with pytest.raises(ModelError, match='objective = "token_classification", expected sequence_class'):
        Predictor.load(base, trained_whole)
