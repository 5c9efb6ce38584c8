"""The answer of a tagging example: entity spans of its text, as JSON text in one form only.

    [{"end":5,"label":"person","start":0},{"end":12,"label":"city","start":8}]

Positions count characters of the text; a span ends before `end`. Spans are sorted, hold a character at least,
and do not overlap; an empty list says that the text holds no entity.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from lineage.rows import canonical_json


class SpanError(ValueError):
    """An answer is no list of entity spans of its text; the message says what was found."""


@dataclass(frozen=True, order=True)
class Span:
    """One entity: characters `start` up to `end`, exclusive, and what it is."""

    start: int
    end: int
    label: str


def parse_spans(answer: str, text: str) -> tuple[Span, ...]:
    """The spans that an answer names in a text, sorted. Raises SpanError."""
    return _parse(answer, len(text))


def read_spans(answer: str) -> tuple[Span, ...]:
    """The same where the text is not at hand, and so without holding the spans against it."""
    return _parse(answer, sys.maxsize)


def _parse(answer: str, length: int) -> tuple[Span, ...]:
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise SpanError(f"{answer[:80]!r} is not JSON; expected a list of spans") from error
    if not isinstance(said, list):
        raise SpanError(f"{answer[:80]!r} is no list; expected a list of spans")
    spans = tuple(sorted(_span(each, length) for each in said))
    for before, after in pairwise(spans):
        if after.start < before.end:
            raise SpanError(f"{after} overlaps {before}; expected spans that lie apart")
    return spans


def write_spans(spans: Iterable[Span]) -> str:
    """The one form in which spans are an answer."""
    return canonical_json([asdict(span) for span in sorted(spans)]).decode()


def as_answer(said: str, example: Mapping[str, Any]) -> str:
    """What a person says is right, in the form that it has as an answer of this example (`task`, `text`).

    Only spans have another form than what is said; what cannot be read as spans stays as it is.
    """
    if example["task"] != "tagging":
        return said
    try:
        return write_spans(parse_spans(said, example["text"]))
    except SpanError:
        return said


def _span(said: Any, length: int) -> Span:
    if not isinstance(said, dict) or said.keys() != {"start", "end", "label"}:
        raise SpanError(f"{said!r} is no span; expected start, end and label")
    start, end, label = said["start"], said["end"], said["label"]
    if type(start) is not int or type(end) is not int:  # true is an int to isinstance
        raise SpanError(f"{said!r} starts or ends at no whole number")
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        raise SpanError(f"{said!r} has no label that can be printed")
    if not 0 <= start < end <= length:
        raise SpanError(f"{said!r} holds no characters of a text of {length}")
    return Span(start, end, label)
