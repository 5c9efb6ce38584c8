"""Which texts are nearest to an exchange: first by the runs of words they share with it, then by meaning.

Pure, on plain data. It says what is *similar*; whether a text was the cause of an answer it cannot say.

    words  a run of words in common is looked for in all texts at once: the runs of n words that the exchange
           and a text share are those of n-1 words that go on alike; with each word fewer texts are left
    bits   a run weighs log(texts / texts that hold it): what everybody says weighs nothing
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

VERBATIM = 4
"""Words in a run that is called verbatim, if it is a third of the exchange or of the text; of a shorter
exchange all of it. A run of twice as many words is verbatim whatever stands around it."""

LONGEST = 32
"""Words of a run that are counted; a longer one counts as this long."""

READ = 20_000
"""Characters of a text that are compared."""

EMBEDDED = 1_000
"""Texts whose meaning is compared at most: those with the weightiest words in common."""

_GRAM = 3  # words: the unit in which overlap is weighed
_RARE = 0.01  # share of the texts; a run that more of them hold is a turn of phrase and no copy
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # scripts without spaces: each character is a word
_WORD = re.compile(f"[{_ALONE}]|[^\\W{_ALONE}]+(?:['\u2019][^\\W{_ALONE}]+)*")


@dataclass(frozen=True)
class Exchange:
    """What a model was asked, and what it answered; either may be empty."""

    request: str
    answer: str


@dataclass(frozen=True)
class Near:
    """A text that is near to the exchange, and how that is known."""

    position: int
    """Which of the texts."""

    by: Literal["verbatim", "similarity", "words"]
    longest: int
    """Words of the longest run in common."""

    shared: str
    """That run; of several equally long ones the one that fewest texts hold."""

    overlap: float
    """Share of the exchange's runs of three words that the text holds, by weight."""

    answered: float
    """The same of the answer alone; 0 where there is no answer."""

    similarity: float | None
    """Of meaning, -1 to 1; None where it was not compared."""

    @property
    def how(self) -> str:
        """The reason as a person reads it."""
        if self.by == "verbatim":
            return f"verbatim {self.longest}-gram"
        return f"similarity {self.similarity:.2f}" if self.by == "similarity" else "words in common"


def nearest(
    exchange: Exchange,
    texts: Sequence[str],
    *,
    top: int,
    similarity: Callable[[Sequence[int]], np.ndarray] | None = None,
) -> list[Near]:
    """The nearest texts, nearest first; at most `top`.

    What shares a rare run of words with the exchange comes first, the weightiest overlap ahead. The rest has
    the order of `similarity`: float (n,) for n positions, asked about at most EMBEDDED of them and only where
    runs of words did not fill the list. Without it words in common decide; a text without any is left out.
    """
    asked = [words(exchange.request), words(exchange.answer)]
    found = _compare(asked, texts)
    least = min(VERBATIM, max(2, *map(len, asked)))
    much = np.minimum(found.lengths, max(map(len, asked))) / 3
    verbatim = (found.rare >= least) & ((found.rare >= much) | (found.rare >= 2 * VERBATIM))
    copies = np.flatnonzero(verbatim)
    copies = copies[np.lexsort((copies, -found.rare[copies], -found.bits[copies]))][:top]
    near = [_near(found, int(position), "verbatim", None) for position in copies]
    wanted = top - len(near)
    if not wanted:
        return near
    rest = np.flatnonzero(~verbatim)
    rest = rest[np.lexsort((rest, -found.words[rest]))]
    if similarity is not None and len(rest):
        some = rest[:EMBEDDED]
        values = similarity(some.tolist())
        order = np.lexsort((some, -values))[:wanted]
        return near + [_near(found, int(some[i]), "similarity", float(values[i])) for i in order]
    return near + [
        _near(found, int(position), "words", None) for position in rest[:wanted] if found.words[position]
    ]


def words(text: str) -> list[str]:
    """The words of a text: without case, marks and punctuation."""
    text = text[:READ]
    return _WORD.findall((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold())


@dataclass(frozen=True)
class _Compared:
    """Per text, what it has in common with the exchange; each an array (texts,)."""

    words: np.ndarray
    bits: np.ndarray
    overlap: np.ndarray
    answered: np.ndarray
    lengths: np.ndarray  # words
    longest: np.ndarray
    rare: np.ndarray  # words of the longest run that few texts hold
    shown: np.ndarray  # where in the exchange the run begins that is shown
    exchange: list[str]


def _compare(asked: Sequence[Sequence[str]], texts: Sequence[str]) -> _Compared:
    known: dict[str, int] = {}
    numbered = [[known.setdefault(word, len(known)) for word in side] for side in asked]
    query = np.array([*numbered[0], -1, *numbered[1], -1], np.int64)
    side = np.repeat([0, 1], [len(numbered[0]) + 1, len(numbered[1]) + 1])
    flat, owners, lengths = _numbered(texts, known)
    n = len(texts)
    longest, rare, shown = (np.zeros(n, np.int64) for _ in range(3))
    by_word, bits = np.zeros(n), np.zeros((2, n))
    total = [1e-9, 1e-9]
    for size, at, gram, asked_at, asked_gram in _runs(query, flat):
        rows = owners[at]
        pairs = np.divmod(np.unique(gram * max(1, n) + rows), max(1, n))  # each run once per text
        held = np.bincount(pairs[0], minlength=asked_gram.max() + 1)
        weight = np.log((n + 1) / (held + 0.5))
        if size == 1:
            np.add.at(by_word, pairs[1], weight[pairs[0]])
            by_word /= weight.sum() or 1
            by_word /= np.sqrt(np.maximum(1, lengths / max(1, (query >= 0).sum())))
        for one in (0, 1):
            if size == min(_GRAM, len(numbered[one])):
                mine = np.zeros(len(weight), bool)
                mine[asked_gram[side[asked_at] == one]] = True
                counted = mine[pairs[0]]
                np.add.at(bits[one], pairs[1][counted], weight[pairs[0][counted]])
                total[one] = float(weight[mine].sum())
        longest[pairs[1]] = size
        few = held <= max(3, _RARE * n)
        rare[pairs[1][few[pairs[0]]]] = size
        begins = np.zeros(len(weight), np.int64)
        begins[asked_gram[::-1]] = asked_at[::-1]  # where a gram first stands
        rarest_last = np.argsort(-held[pairs[0]], kind="stable")
        shown[pairs[1][rarest_last]] = begins[pairs[0][rarest_last]]
    exchange = [*asked[0], "", *asked[1], ""]
    answered = np.clip(bits[1] / total[1], 0, 1) if asked[1] else np.zeros(n)
    overlap = np.clip(bits.sum(0) / sum(total), 0, 1)
    return _Compared(by_word, bits.sum(0), overlap, answered, lengths, longest, rare, shown, exchange)


def _numbered(texts: Sequence[str], known: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All texts' words one after the other, each text ended by -1, as is a word that the exchange has not."""
    flat, lengths = array("q"), array("q")
    for text in texts:
        numbers = [known.get(word, -1) for word in words(text)]
        flat.extend(numbers)
        flat.append(-1)
        lengths.append(len(numbers))
    sizes = np.frombuffer(lengths, np.int64) if len(lengths) else np.zeros(0, np.int64)
    owners = np.repeat(np.arange(len(texts)), sizes + 1)
    return (np.frombuffer(flat, np.int64) if len(flat) else np.zeros(0, np.int64)), owners, sizes


def _runs(
    query: np.ndarray, flat: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """For 1, 2, ... words: where runs in common begin in the texts, which they are, and both of the exchange.

    A run that ends with a text is followed by its -1, so one place further is always there.
    """
    width = int(query.max(initial=0)) + 1
    at, asked_at = np.flatnonzero(flat >= 0), np.flatnonzero(query >= 0)
    gram, asked = flat[at], query[asked_at]
    for size in range(1, LONGEST + 1):
        if not len(asked_at):
            return
        yield size, at, gram, asked_at, asked
        on = query[asked_at + size] >= 0
        asked_at, asked = asked_at[on], asked[on]
        known, asked = np.unique(asked * width + query[asked_at + size], return_inverse=True)
        on = flat[at + size] >= 0
        at, gram = at[on], gram[on]
        if not len(known) or (not len(at) and size >= _GRAM):
            return
        wanted = gram * width + flat[at + size]
        gram = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        on = known[gram] == wanted
        at, gram = at[on], gram[on]


def _near(
    found: _Compared, position: int, by: Literal["verbatim", "similarity", "words"], similarity: float | None
) -> Near:
    first, size = int(found.shown[position]), int(found.longest[position])
    return Near(
        position,
        by,
        size,
        " ".join(found.exchange[first : first + size]),
        float(found.overlap[position]),
        float(found.answered[position]),
        similarity,
    )
