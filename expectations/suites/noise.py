"""What is wrong with a text by itself: noise of tools, broken encodings, an answer that repeats itself.

    noise(texts)          the first kind of noise found in each text, or NONE
    is_decoded(texts)     no sign of bytes that were read in the wrong encoding
    sizes(texts)          words of each text
    bigram_repetition     how much of a text it said before

The patterns are run by RE2, in time linear in the text: none of them can backtrack.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
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

_MAY_HOLD = r"(?i)[<\x00\x07\x08\x1b@\[]|notification"
_FEW_WORDS = 10  # D1: a response has at least 10 tokens; below that, repetition means nothing
# UTF-8 read as Latin-1 or Windows-1252, and what a decoder puts in place of what it cannot read.
_SECOND = (
    r"\x{0080}-\x{00BF}\x{0152}\x{0153}\x{0160}\x{0161}\x{0178}\x{017D}\x{017E}\x{0192}\x{02C6}\x{02DC}"
    r"\x{2013}\x{2014}\x{2018}-\x{201E}\x{2020}-\x{2022}\x{2026}\x{2030}\x{2039}\x{203A}\x{20AC}\x{2122}"
)
_BROKEN = (
    rf"\x{{FFFD}}|[\x{{00C3}}\x{{00C2}}][{_SECOND}]|\x{{00E2}}\x{{20AC}}[{_SECOND}]"
    r"|\x{00EF}\x{00BB}\x{00BF}"
)


def noise(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The first kind of noise found in each text, or NONE; null of a null."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    may_hold = pc.match_substring_regex(array, _MAY_HOLD)  # one look at each byte says so of most
    likely = array.filter(may_hold)
    kinds = pa.array([NONE] * len(likely), pa.string())
    for kind, pattern in reversed(NOISE.items()):
        kinds = pc.if_else(pc.match_substring_regex(likely, pattern), kind, kinds)
    found = pc.if_else(pc.is_valid(array), NONE, pa.scalar(None, pa.string()))
    return pc.replace_with_mask(found, pc.fill_null(may_hold, False), kinds)


def is_decoded(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Is each text free of U+FFFD and of what UTF-8 looks like in another encoding? True of a null."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    foreign = pc.invert(pc.fill_null(pc.string_is_ascii(array), True))
    broken = pc.match_substring_regex(array.filter(foreign), _BROKEN)
    return pc.invert(pc.replace_with_mask(pa.array(np.zeros(len(array), np.bool_)), foreign, broken))


def sizes(texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Words of each text, as blanks part them; 0 of a null or blank one."""
    plain = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    blanks = pc.count_substring_regex(plain, r"\s+").to_numpy(zero_copy_only=False)
    return np.where(pc.equal(plain, "").to_numpy(zero_copy_only=False), 0, blanks + 1).astype(np.int64)


def bigram_repetition(text: str) -> float | None:
    """Share of the word pairs that occurred before in the text; None below ten words."""
    words = text.split()
    if len(words) < _FEW_WORDS:
        return None
    pairs = list(pairwise(words))
    return 1 - len(set(pairs)) / len(pairs)
