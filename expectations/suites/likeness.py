"""How like two texts are: near-duplicates by MinHash, and what is scored on inside what is trained on.

    words(texts)             64 bits for each word; letters and digits count, case and marks do not
    signatures(words)        120 bytes a text: two agree in the share of the words that both texts have
    nearest(...)             of each text how like it the likest other text is
    Scored.shares_in(words)  of each text the share of a scored text's runs of 8 words that it holds

Word sets are compared, as D9 defines a near-duplicate (Jaccard >= 0.8), so that a text with a word more, a
word less or its words in another order is found whatever its length. All of it is arrays: a million short
texts take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HASHES = 120
"""Of a signature, one byte each. Agreement has a standard error of (0.8 * 0.2 / 120)**0.5 = 0.04 at 0.8."""

_ROWS = 6  # of a band: 20 bands of 6 bytes find 0.998 of what is alike by 0.8, 0.61 by 0.6, 0.01 by 0.3
RUN = 8
"""Words of a run: the shortest that GPT-3's decontamination takes (Brown et al. 2020, app. C: 8 to 13)."""

_MARKS = r"[^\pL\pN\pM]+"
_LONE = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"  # written without blanks
_CHUNK = 4096  # texts whose signatures are made at a time
_FACTORS = np.random.Generator(np.random.PCG64(13)).integers(0, 2**63, HASHES, np.uint64) * 2 + np.uint64(1)
_STEP = np.uint64(0x9E3779B97F4A7C15)  # of a run's rolling hash: odd, 2**64 divided by the golden ratio

Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Words:
    """The words of some texts, one text after the other."""

    hashes: Numbers
    counts: Places
    """Words of each text."""

    @property
    def starts(self) -> Places:
        """Where each text's words begin."""
        return np.cumsum(self.counts) - self.counts


def words(texts: pa.Array | pa.ChunkedArray) -> Words:
    """The words of each text; none of a null."""
    import pandas as pd

    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    folded = pc.utf8_lower(pc.utf8_normalize(pc.fill_null(array, ""), form="NFKC"))
    foreign = pc.invert(pc.string_is_ascii(folded))
    if pc.any(foreign).as_py():
        apart = pc.replace_substring_regex(folded.filter(foreign), _LONE, r" \1 ")
        folded = pc.replace_with_mask(folded, foreign, apart)
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(folded, _MARKS, " "))
    split = pc.split_pattern(plain, " ")
    counts = np.where(pc.equal(plain, "").to_numpy(False), 0, pc.list_value_length(split).to_numpy(False))
    said = pc.dictionary_encode(pc.list_flatten(split.filter(pa.array(counts > 0))))
    hashed = pd.util.hash_array(said.dictionary.to_numpy(False).astype(object), categorize=False)
    codes = said.indices.to_numpy(False)
    return Words(hashed[codes] if len(codes) else np.empty(0, np.uint64), counts.astype(np.int64))


def signatures(talk: Words) -> npt.NDArray[np.uint8]:
    """One row of HASHES bytes for each text; all 0 where it has no words.

    Each byte is the lowest of a hash of all its words, cut to 8 bits: two texts agree in it as often as their
    sets of words overlap (Broder 1997), and once in 256 by chance (b-bit MinHash, Li and Koenig 2010).
    """
    found = np.zeros((len(talk.counts), HASHES), np.uint8)
    starts = talk.starts
    for first in range(0, len(talk.counts), _CHUNK):
        counts = talk.counts[first : first + _CHUNK]
        begin, end = starts[first], starts[first] + counts.sum()
        different, codes = np.unique(talk.hashes[begin:end], return_inverse=True)
        hashed = ((different[:, None] * _FACTORS) >> np.uint64(48)).astype(np.uint16)
        longest = np.argsort(-counts, kind="stable")
        at, left = starts[first + longest] - begin, counts[longest]
        lowest = np.full((len(counts), HASHES), 65535, np.uint16)
        for word in range(left[0]):  # the word of this number of all texts that have so many
            having = np.searchsorted(-left, -word, side="left")
            np.minimum(lowest[:having], hashed[codes[at[:having] + word]], out=lowest[:having])
        lowest[left == 0] = 0
        found[first + longest] = lowest.astype(np.uint8)
    return found


def as_column(signed: npt.NDArray[np.uint8]) -> pa.Array:
    """Signatures as keys carry them."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(HASHES), len(signed), [None, pa.py_buffer(signed.tobytes())]
    )


def from_column(values: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """The reverse."""
    array = values.combine_chunks()
    flat = np.frombuffer(array.buffers()[1], np.uint8) if len(array) else np.empty(0, np.uint8)
    return flat[array.offset * HASHES : (array.offset + len(array)) * HASHES].reshape(-1, HASHES)


def nearest(signed: npt.NDArray[np.uint8], group: Places, *, within: bool) -> npt.NDArray[np.float64]:
    """Of each text its agreement with the likest text found: of another group, or of its own group.

    Within a group only of texts that come before, so that of two copies one is told. 0 where none is found,
    and for texts without words. What is alike by less than 0.6 may not be found.
    """
    best = np.zeros(len(signed))
    said = np.flatnonzero(signed.any(axis=1))
    if len(said) < 2 or (not within and len(np.unique(group[said])) < 2):
        return best
    for number in range(HASHES // _ROWS):
        cut = np.zeros((len(said), 8), np.uint8)
        cut[:, :_ROWS] = signed[said, number * _ROWS : (number + 1) * _ROWS]
        band = cut.view(np.uint64).ravel()
        met = _shared(band)
        band, texts = band[met], said[met]
        # In a large bucket each meets the one before it, and in every other band another one, drawn anew.
        shuffled = np.arange(len(texts))
        if number % 2:
            shuffled = np.random.Generator(np.random.PCG64(number)).permutation(len(texts))
        if within:
            one, other = _neighbours(band, group[texts], shuffled)
        else:
            one, other = _across(band, group[texts], shuffled)
        one, other = texts[one], texts[other]
        agreement = np.empty(len(one))
        for first in range(0, len(one), 65536):
            part = slice(first, first + 65536)
            agreement[part] = (signed[one[part]] == signed[other[part]]).mean(axis=1)
        if within:
            np.maximum.at(best, np.maximum(one, other), agreement)
        else:
            np.maximum.at(best, one, agreement)
            np.maximum.at(best, other, agreement)
    return best


def _shared(band: Numbers) -> Places:
    """Where a band stands that stands elsewhere, too; and few others, as sorting those is all it costs."""
    ordered = np.sort(band)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    shift = np.uint64(64 - 22)
    marked = np.zeros(1 << 22, np.bool_)
    marked[((twice * _STEP) >> shift).astype(np.int64)] = True
    return np.flatnonzero(marked[((band * _STEP) >> shift).astype(np.int64)])


def _neighbours(band: Numbers, group: Places, shuffled: Places) -> tuple[Places, Places]:
    """Pairs that share band and group, each text with the next one of its bucket."""
    order = shuffled[np.lexsort((band[shuffled], group[shuffled]))]
    same = (band[order][1:] == band[order][:-1]) & (group[order][1:] == group[order][:-1])
    return order[:-1][same], order[1:][same]


def _across(band: Numbers, group: Places, shuffled: Places) -> tuple[Places, Places]:
    """Pairs that share a band but not the group: each text with one text of the next group in its bucket."""
    if not len(shuffled):
        return shuffled, shuffled
    order = shuffled[np.lexsort((group[shuffled], band[shuffled]))]
    new_band = np.r_[True, band[order][1:] != band[order][:-1]]
    new_run = new_band | np.r_[True, group[order][1:] != group[order][:-1]]
    runs, buckets = np.cumsum(new_run) - 1, np.cumsum(new_band) - 1
    first, size = np.flatnonzero(new_run), np.bincount(runs)
    bucket_of_run = buckets[first]
    following = np.r_[bucket_of_run[1:] == bucket_of_run[:-1], False]  # another group of the same bucket
    preceding = np.r_[False, following[:-1]]
    place = np.arange(len(order)) - first[runs]
    pairs = []
    for has, step in ((following, 1), (preceding, -1)):
        mine = np.flatnonzero(has[runs])
        beside = runs[mine] + step
        pairs.append((order[mine], order[first[beside] + place[mine] % size[beside]]))
    return np.concatenate([one for one, _ in pairs]), np.concatenate([other for _, other in pairs])


def runs_of(talk: Words) -> tuple[Numbers, Places]:
    """All runs of RUN words: a hash of each, and which text it stands in."""
    enough = max(len(talk.hashes) - RUN + 1, 0)
    hashed = np.zeros(enough, np.uint64)
    for offset in range(RUN):
        hashed = hashed * _STEP + talk.hashes[offset : offset + enough]
    text = np.repeat(np.arange(len(talk.counts)), talk.counts)
    inside = text[:enough] == text[len(text) - enough :]
    hashed = hashed[inside]
    return hashed ^ (hashed >> np.uint64(32)), text[:enough][inside]


@dataclass(frozen=True)
class Scored:
    """The runs of texts that models are scored on. Texts of fewer words have none: they are not asked."""

    runs: Numbers
    """In ascending order."""

    texts: Places
    """Which text each is of."""

    @classmethod
    def of(cls, runs: Numbers, texts: Places) -> Scored:
        """Each run of a text once."""
        order = np.lexsort((texts, runs))
        runs, texts = runs[order], texts[order]
        new = np.ones(len(runs), np.bool_)
        new[1:] = (runs[1:] != runs[:-1]) | (texts[1:] != texts[:-1])
        return cls(runs[new], texts[new].astype(np.int64))

    def as_metadata(self) -> dict[bytes, bytes]:
        """As the facts of a batch carry it to each block."""
        return {b"scored_runs": self.runs.tobytes(), b"scored_texts": self.texts.tobytes()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> Scored:
        """The reverse; nothing is scored where nothing is said."""
        said = metadata or {}
        runs = np.frombuffer(said.get(b"scored_runs", b""), np.uint64)
        return cls(runs, np.frombuffer(said.get(b"scored_texts", b""), np.int64))

    def shares_in(self, talk: Words) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(of each text of `talk` the greatest share of a scored text that it holds, of each scored text the
        greatest share that a text of `talk` holds); the second has as many entries as `texts` has numbers."""
        of_talk = np.zeros(len(talk.counts))
        of_scored = np.zeros(int(self.texts.max(initial=-1)) + 1)
        if not len(self.runs) or not len(talk.hashes):
            return of_talk, of_scored
        found, where = runs_of(talk)
        may_be = np.zeros(1 << 22, np.bool_)  # most runs are told apart by one look here
        may_be[(self.runs & np.uint64(may_be.size - 1)).astype(np.int64)] = True
        likely = may_be[(found & np.uint64(may_be.size - 1)).astype(np.int64)]
        found, where = found[likely], where[likely]
        first = np.searchsorted(self.runs, found)
        often = np.searchsorted(self.runs, found, side="right") - first
        entry = np.repeat(first - np.cumsum(often) + often, often) + np.arange(often.sum())
        met = np.unique(np.stack([self.texts[entry], np.repeat(where, often), entry]), axis=1)
        if not met.size:
            return of_talk, of_scored
        pairs, counts = np.unique(met[:2], axis=1, return_counts=True)
        share = counts / np.bincount(self.texts)[pairs[0]]
        np.maximum.at(of_talk, pairs[1], share)
        np.maximum.at(of_scored, pairs[0], share)
        return of_talk, of_scored
