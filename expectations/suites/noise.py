"""What is wrong with a text by itself: noise of tools, broken encodings, an answer that repeats itself.

    noise(texts)          the first kind of noise of tools found in each text, or NONE
    oddity(texts)         the first kind of damage or danger found in each text, or NONE
    is_decoded(texts)     no sign of bytes that were read in the wrong encoding
    sizes(texts)          words of each text
    repetition(texts)     how much of each text it said before
    view(name, texts)     all of that as columns, which the rules of a text read

The patterns are run by RE2, in time linear in the text: none of them can backtrack.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

NONE = "none"
NOISE = {
    # Names with a dash or underscore are no HTML; neither are these names of what agents are told and answer.
    "markup": (
        r"(?:^|[^\w])</?[a-zA-Z]+(?:[-_:][a-zA-Z0-9]+)+(?:\s[^<>\n]{0,200})?/?>"
        r"|</?(?:invoke|parameter|thinking|think|toolcall|observation|stdout|stderr)(?:\s[^<>\n]{0,200})?>"
        r"|<\?xml\b|<!\[CDATA\["
    ),
    "terminal": (
        r"\x1b[\[\]][0-9;?]{0,20}[A-Za-z]"  # colours, cursors, titles
        r"|[\x00\x07\x08]"
        r"|(?m:^[\w.-]{1,64}@[\w.-]{1,64}:[^\s$#]{1,200}[$#] )"  # user@host:~/work$
    ),
    "notification": r"(?i)\btask[- ]notification\b|\[request interrupted by user|<local-command-",
}
"""Kinds of noise that a generated answer is stripped of (D1: XML, terminal, task notifications)."""

# UTF-8 read as Latin-1 or Windows-1252, and what a decoder puts in place of what it cannot read.
_SECOND = (
    r"\x{0080}-\x{00BF}\x{0152}\x{0153}\x{0160}\x{0161}\x{0178}\x{017D}\x{017E}\x{0192}\x{02C6}\x{02DC}"
    r"\x{2013}\x{2014}\x{2018}-\x{201E}\x{2020}-\x{2022}\x{2026}\x{2030}\x{2039}\x{203A}\x{20AC}\x{2122}"
)
_BROKEN = (
    rf"\x{{FFFD}}|[\x{{00C3}}\x{{00C2}}][{_SECOND}]|\x{{00E2}}\x{{20AC}}[{_SECOND}]"
    r"|\x{00EF}\x{00BB}\x{00BF}"
)
SECRET, PERSONAL = "secret", "personal"
_TAGS = (
    "a|b|i|u|p|br|hr|div|span|font|table|tbody|tr|td|th|ul|ol|li|html|head|body|style|script|blockquote|img"
)
_MASHED = (  # two such words near each other
    r"(?:[a-z]*[bcdfghjklmnpqrstvwxz]{5,}[a-z]*|[a-z0-9;]*[a-z][0-9;]+[a-z][a-z0-9;]*|[0-9;][a-z]{3,})"
)
ODDITIES = NOISE | {
    SECRET: (
        r"(?i:(?:secret|token|api[_-]?key|passw(?:or)?d)[a-z_]{0,20}\s{0,3}[=:]\s{0,3}[\"']?[\w+/.-]{16,})"
        r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}"
        r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY"
    ),
    PERSONAL: (
        r"\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{2,}){1,4}\b"  # an address
        r"|(?:^|[\s(:])\+[1-9][0-9]{0,2}[ -]?(?:[0-9]{2,4}[ -]?){2,4}[0-9]{2,4}\b"  # a number to call
        r"|\b(?:[0-9]{4}[ -]){3}[0-9]{4}\b"  # and one to pay with
    ),
    "invisible": r"[\x{200B}\x{2060}\x{202A}-\x{202E}\x{2066}-\x{2069}]|[\x01-\x08\x0b\x0e-\x1a\x7f]",
    "broken encoding": _BROKEN,
    "traceback": r"Traceback \(most recent call last\)|(?m:^\s+at [\w.$]+\([\w.]+:\d+\))",
    "html": rf"(?i)</?(?:{_TAGS})(?:\s[^<>\n]{{0,200}})?/?>|&(?:nbsp|amp|lt|gt|quot|#[0-9]{{2,5}});",
    "no value": r"^(?i:\s*(?:null|nan|none|undefined)\s*)$",
    "tag of a system": (
        r"(?i)\[?(?:ticket|case|msg|message|session|trace|request|ref)[_ -]?(?:id)?\s?[:=#]\s?#?"
        r"[\w-]*[0-9]{4,}"
        r"|^\{\"[a-z_]+\": ?[^{}\n]{1,200}\} \S|\S \{\"[a-z_]+\": ?[^{}\n]{1,200}\}$"
    ),
    "orders": (
        r"(?i)\b(?:ignore|disregard|forget|override|reveal|print)\b[^.\n]{0,40}"
        r"\b(?:instructions?|prompt|above|everything|previous)\b"
        r"|\bnew instructions\b|\bsystem:|### ?(?:assistant|user|system)"
    ),
    "mashed keys": rf"(?i)(?:^|\s){_MASHED}(?:\s+\S+){{0,5}}?\s+{_MASHED}(?:\s|$)",
}
"""Kinds of damage and danger, of which D9 counts 7.6 % in traffic, those of repetition included."""

REFUSAL = (
    r"^(?i:\s*(?:i['\x{2019}]?m sorry|sorry|i can(?:not|['\x{2019}]t)|as an ai|i am unable|i am not able)\b)"
)

_FEW_WORDS = 10  # D1: a response has at least 10 tokens; below that, repetition means nothing


def view(name: str, texts: pa.ChunkedArray, *, but: Collection[str] = ()) -> dict[str, Any]:
    """The columns that the rules read of one column of text; `but`: oddities that are none here."""
    words, repeated = sizes_and_repetition(texts)
    return {
        f"{name}_oddity": oddity(texts, but=but).to_pandas(),
        f"{name}_repetition": pd.Series(repeated).astype(object).where(~np.isnan(repeated), None),
        f"{name}_words": pd.Series(words).where(pc.is_valid(texts).to_pandas()),
    }


def noise(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The first kind of noise found in each text, or NONE; null of a null."""
    return _first_of(texts, NOISE)


def oddity(texts: pa.Array | pa.ChunkedArray, *, but: Collection[str] = ()) -> pa.Array:
    """The first of ODDITIES found in each text, or NONE; null of a null. `but` is not looked for."""
    return _first_of(texts, {kind: pattern for kind, pattern in ODDITIES.items() if kind not in but})


def _first_of(texts: pa.Array | pa.ChunkedArray, patterns: Mapping[str, str]) -> pa.Array:
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    found = pc.if_else(pc.is_valid(array), NONE, pa.scalar(None, pa.string()))
    for kind, pattern in reversed(list(patterns.items())):  # one by one: all in one pattern take RE2 tenfold
        found = pc.if_else(pc.match_substring_regex(array, pattern), kind, found)
    return found


def is_decoded(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Is each text free of U+FFFD and of what UTF-8 looks like in another encoding? True of a null."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    foreign = pc.invert(pc.fill_null(pc.string_is_ascii(array), True))
    broken = pc.match_substring_regex(array.filter(foreign), _BROKEN)
    return pc.invert(pc.replace_with_mask(pa.array(np.zeros(len(array), np.bool_)), foreign, broken))


def sizes(texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Words of each text, as blanks part them; 0 of a null or blank one."""
    return _split(texts)[0]


def repetition(texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Of each text the share of its word pairs that occurred before in it; NaN below ten words."""
    return sizes_and_repetition(texts)[1]


def sizes_and_repetition(
    texts: pa.Array | pa.ChunkedArray,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Both, for one splitting of the texts."""
    counts, said = _split(texts)
    enough = counts >= _FEW_WORDS
    codes = pc.dictionary_encode(said).indices.to_numpy(zero_copy_only=False).astype(np.uint64)
    text = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    asked = np.repeat(enough, counts)
    codes, text = codes[asked], text[asked]
    inside = text[1:] == text[:-1]
    pairs = (codes[:-1] * _ODD_NUMBER + codes[1:])[inside] * _ODD_NUMBER >> np.uint64(24)  # 40 bits of a hash
    keys = np.sort(text[1:][inside] << np.uint64(40) | pairs)  # of up to 16 million texts
    again = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(40)
    repeated = np.bincount(again.astype(np.int64), minlength=len(counts))
    return counts, np.where(enough, repeated / np.maximum(counts - 1, 1), np.nan)


_ODD_NUMBER = np.uint64(0x9E3779B97F4A7C15)


def _split(texts: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """(words of each text, all words)"""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    plain = pc.utf8_trim_whitespace(pc.fill_null(array, ""))
    split = pc.utf8_split_whitespace(plain)
    blank = pc.equal(plain, "")
    counts = np.where(blank.to_numpy(False), 0, pc.list_value_length(split).to_numpy(False))
    return counts.astype(np.int64), pc.list_flatten(split.filter(pc.invert(blank)))
