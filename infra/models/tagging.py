"""Labelled spans of characters as BIO tags of tokens, and back: what a tagger learns and what it answers.

    "Ann lives in New York"   spans (0, 3, name) (13, 21, place)
     Ann    lives  in  New      York         words, as the tokenizer cuts them
     B-name O      O   B-place  I-place      one tag per word, on its first token; its others bear no loss

A word is what the tokenizer's pre-tokenizer leaves whole, without blanks around it. A span is made of whole
words: one that begins or ends inside a word is widened to it.

Errors: ModelError, where spans or labels cannot be tags.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from infra.models.resolving import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

NO_LOSS = -100  # the index that torch's cross_entropy ignores
OUTSIDE = "O"


class Word(NamedTuple):
    """A word of a text: the position of its first token, and its characters."""

    token: int
    start: int
    end: int


@dataclass(frozen=True)
class TaggedSpan:
    """Characters `start` to `end` of a text, their label, and the mean probability of their words' tags."""

    start: int
    end: int
    label: str
    confidence: float


def bio_labels(kinds: Iterable[str]) -> tuple[str, ...]:
    """The tags for spans of these kinds, in their order: O, B-first, I-first, B-second, ..."""
    kinds = list(kinds)
    if not kinds or len(set(kinds)) != len(kinds):
        raise ModelError(f"tags need one or more distinct kinds of spans, got {kinds[:5]}")
    return (OUTSIDE, *(f"{begin}-{kind}" for kind in kinds for begin in "BI"))


def encode_tags(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    spans_per_text: Sequence[Sequence[tuple[int, int, str]]],
    labels: Sequence[str],
    *,
    max_length: int,
) -> tuple[list[list[int]], list[list[int]], np.ndarray]:
    """Token ids and tag ids of each text, aligned, and how many tokens it lost to `max_length` (int32).

    A tag id is an index into `labels` (`bio_labels`) on the first token of each word, elsewhere -100. What
    was widened to whole words, or lies behind the cut, is logged with its count. Raises ModelError for a
    span outside its text, spans that overlap, and a label without tags.
    """
    index = {label: position for position, label in enumerate(labels)}
    input_ids, words_per_text, n_cut = split_words(tokenizer, texts, max_length=max_length)
    tag_ids, widened, lost = [], 0, 0
    for row, (text, spans) in enumerate(zip(texts, spans_per_text, strict=True)):
        words = words_per_text[row]
        tags = [NO_LOSS] * len(input_ids[row])
        for word in words:
            tags[word.token] = index[OUTSIDE]
        last = 0
        for start, end, label in sorted(spans):
            if not last <= start < end <= len(text):
                raise ModelError(
                    f"text {row} of {len(text)} characters has a span from {start} to {end} behind one that "
                    f"ends at {last}; expected spans inside the text that do not overlap"
                )
            if f"B-{label}" not in index:
                raise ModelError(f"text {row} has a span '{label}', which is none of the tags {list(labels)}")
            last = end
            # a word that an earlier span took keeps its tag
            inside = [
                word
                for word in words
                if word.start < end and start < word.end and tags[word.token] == index[OUTSIDE]
            ]
            for word in inside:
                tags[word.token] = index[f"{'B' if word is inside[0] else 'I'}-{label}"]
            lost += not inside
            widened += bool(inside) and (inside[0].start < start or end < inside[-1].end)
        tag_ids.append(tags)
    if widened or lost:
        log.warning("%d spans were widened to whole words, %d hold none that was read", widened, lost)
    return input_ids, tag_ids, n_cut


def split_words(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int
) -> tuple[list[list[int]], list[list[Word]], np.ndarray]:
    """Token ids of each text, special tokens included, its words in order, and how many tokens it lost."""
    if not texts:
        return [], [], np.zeros(0, np.int32)
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} does not tell where its tokens lie; use a fast tokenizer"
        )
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_offsets_mapping=True)
    words_per_text = []
    for row, text in enumerate(texts):
        words: dict[int, Word] = {}
        places = zip(encoded.word_ids(row), encoded["offset_mapping"][row], strict=True)
        for token, (number, (start, end)) in enumerate(places):
            if number is not None:
                first = words.get(number, Word(token, start, end))
                words[number] = first._replace(end=max(first.end, end))
        stripped = (_without_blanks(word, text) for word in words.values())
        words_per_text.append([word for word in stripped if word.start < word.end])
    overflowing = (
        (part.special_tokens_mask for part in each.overflowing) for each in encoded.encodings or ()
    )
    n_cut = [sum(mask.count(0) for mask in masks) for masks in overflowing]
    return encoded["input_ids"], words_per_text, np.array(n_cut, dtype=np.int32)


def spans_of(words: Sequence[Word], tags: Sequence[str], confidences: Sequence[float]) -> list[TaggedSpan]:
    """The spans that one tag per word describes. An I- behind another kind, or behind none, begins a span."""
    found: list[list[tuple[Word, float]]] = []
    kinds: list[str] = []
    before: str | None = None
    for word, tag, confidence in zip(words, tags, confidences, strict=True):
        begin, _, kind = tag.partition("-")
        if begin == "B" or (begin == "I" and before != kind):
            found.append([])
            kinds.append(kind)
        if begin != OUTSIDE:
            found[-1].append((word, confidence))
        before = kind if begin != OUTSIDE else None
    return [
        TaggedSpan(span[0][0].start, span[-1][0].end, kind, sum(c for _, c in span) / len(span))
        for span, kind in zip(found, kinds, strict=True)
    ]


def _without_blanks(word: Word, text: str) -> Word:
    """A byte-level tokenizer counts the blank before a word to it."""
    said = text[word.start : word.end]
    start = word.start + len(said) - len(said.lstrip())
    return Word(word.token, start, start + len(said.strip()))
