"""What of people and of secrets stands in texts: found in whole columns at once, replaced by pseudonyms.

    column -> one pass of RE2 says which rows may hold something -> Python looks at those rows alone

A find must be told from what looks like it: version numbers, times, UUIDs, hashes, order numbers, IP
addresses and code are no phone numbers; a payment card passes Luhn's check; a key must look random.
"""

from __future__ import annotations

import bisect
import hashlib
import hmac
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

KINDS = (
    "private_key",
    "jwt",
    "aws_key",
    "github_token",
    "api_key",
    "google_key",
    "slack_token",
    "secret",
    "email",
    "card",
    "phone",
)
"""What is looked for; where two finds overlap, the kind that stands first here wins."""

_PSEUDONYM_DIGITS = 8  # 16**8: two of 10,000 values share one with a chance of 1 in 86
_RANDOM = (
    3.0  # bits a character: words and paths of an alphabet of their own stay below, random keys of 20 above
)


def found_in(text: str) -> dict[str, int]:
    """How many finds of each kind a text holds; kinds without a find are left out."""
    return dict(Counter(find.kind for find in _finds(text)))


def detect(columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[dict[str, int] | None]:
    """Per row the finds of all its columns, None where there are none. Columns: strings, of one length."""
    rows: list[dict[str, int] | None] = [None] * (len(columns[0]) if columns else 0)
    for column in columns:
        # The pass that costs: one look at each byte, whatever is looked for.
        may_hold = pc.fill_null(pc.match_substring_regex(column, _MAY_HOLD), False)
        indices = pc.indices_nonzero(may_hold)
        for index, text in zip(indices.to_pylist(), column.filter(may_hold).to_pylist(), strict=True):
            if found := found_in(text):
                rows[index] = dict(Counter(rows[index] or {}) + Counter(found))
    return rows


def redacted(text: str, *, key: bytes) -> tuple[str, dict[str, int]]:
    """The text with a pseudonym for each find, such as <email:3f9a2c41>, and how many there were of each.

    Under one key the same value always gets the same pseudonym, however it is written: capitals in an address
    and the spaces of a number do not count. Without the key nobody can try values out.
    """
    parts, at = [], 0
    finds = _finds(text)
    for find in finds:
        parts += [text[at : find.first], _pseudonym(find, text[find.first : find.end], key)]
        at = find.end
    return "".join([*parts, text[at:]]), dict(Counter(find.kind for find in finds))


@dataclass(frozen=True)
class _Find:
    first: int
    end: int
    kind: str


def _pseudonym(find: _Find, value: str, key: bytes) -> str:
    if find.kind == "email":
        value = value.lower()
    elif find.kind in ("card", "phone"):
        value = re.sub(r"\D", "", value)
    digest = hmac.new(
        key, f"{find.kind}:{value}".encode("utf-8", "surrogatepass"), hashlib.sha256
    ).hexdigest()
    return f"<{find.kind}:{digest[:_PSEUDONYM_DIGITS]}>"


def _finds(text: str) -> list[_Find]:
    """Finds in order of place, none overlapping another or a pseudonym."""
    pseudonyms = _PSEUDONYM.finditer(text) if "<" in text else ()
    kept = [_Find(*found.span(), _PSEUDONYMOUS) for found in pseudonyms]
    for kind in KINDS:
        for first, end in _LOOKS[kind](text):
            at = bisect.bisect_left(kept, end, key=lambda find: find.first)
            if at == 0 or kept[at - 1].end <= first:
                kept.insert(at, _Find(first, end, kind))
    return [find for find in kept if find.kind != _PSEUDONYMOUS]


_PSEUDONYMOUS = "pseudonym"
_Spans = Iterator[tuple[int, int]]
_PSEUDONYM = re.compile(rf"<(?:{'|'.join(KINDS)}):[0-9a-f]{{{_PSEUDONYM_DIGITS}}}>")


_START = r"(?:(?<![\w-])|(?<=\\[nrt]))"  # JSON text writes a line's end as two characters


def _before(text: str, first: int, most: int) -> str:
    """The characters before a find; none of them where it begins a line of a text inside JSON."""
    before = text[max(0, first - most) : first]
    return "" if before.endswith(("\\n", "\\r", "\\t")) else before


def _pattern(
    pattern: str, *literals: str, holds: Callable[[str], bool] = lambda value: True
) -> Callable[[str], _Spans]:
    """A look for a pattern's group 1, in texts that hold one of some literals."""
    compiled = re.compile(pattern)

    def look(text: str) -> _Spans:
        if any(literal in text for literal in literals):
            yield from (found.span(1) for found in compiled.finditer(text) if holds(found[1]))

    return look


def _entropy(value: str) -> float:
    """Bits a character."""
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares)


def _is_random(value: str) -> bool:
    """Letters and digits mixed within one stretch, in no pattern that a name or a sentence has."""
    runs = re.findall(r"[A-Za-z0-9]{10,}", value)
    mixed = any(len(re.findall(r"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])", run)) >= 3 for run in runs)
    return mixed and _entropy(value) >= _RANDOM


def _is_key(block: str) -> bool:
    return (
        len(re.findall(r"[A-Za-z0-9+/]", block.partition("KEY")[2])) >= 80
    )  # the shortest, Ed25519, has 64 + END


_PRIVATE_KEY = (
    r"(-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,16384}-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\\\s]{64,}))"
)
_NAMES = (
    *("api_key", "api-key", "apikey", "access_key", "access-key", "accesskey", "account_key", "accountkey"),
    *("secret", "token", "passwd", "password", "pwd", "credential", "bearer"),
)
_ASSIGNED = re.compile(
    r"[\w-]{0,20}(?:(?:\\?[\"'])?\s{0,3}(?::=|=>|[:=])\s{0,3}|\s)(?:\\?[\"'`])?(?:[Bb]earer\s)?"
    r"([A-Za-z0-9+/_.~-]{16,512}={0,2})(?![\w(\[])"
)


def _assigned(text: str) -> _Spans:
    found = _after(text, _NAMES, _ASSIGNED)
    yield from dict.fromkeys(each.span(1) for each in found if _is_random(each[1]))


def _after(text: str, names: Sequence[str], pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Where a pattern follows one of some names, however they are capitalised."""
    lowered = text.replace("İ", "I").lower()  # the one letter that becomes two
    for name in names:
        at = lowered.find(name)
        while at >= 0:
            if found := pattern.match(text, at + len(name)):
                yield found
            at = lowered.find(name, at + 1)


_LOCAL = re.compile(r"[A-Za-z0-9À-ɏ._%+-]{1,64}\Z")
_DOMAIN = re.compile(r"@((?:[A-Za-z0-9À-ɏ-]{1,63}\.){1,8}([A-Za-zÀ-ɏ]{2,24}))(?![A-Za-z0-9À-ɏ_-])")
_CREDENTIALS = re.compile(r"://[^\s/@]*\Z")  # user:password@host, no address
_FILES = {
    "png",
    "jpg",
    "jpeg",
    "gif",
    "svg",
    "webp",
    "css",
    "js",
    "mjs",
    "ts",
    "py",
    "json",
    "yaml",
    "yml",
    "md",
}


def _emails(text: str) -> _Spans:
    if "@" not in text:
        return
    for found in _DOMAIN.finditer(text):
        before = text[max(0, found.start() - 65) : found.start()]
        local = _LOCAL.search(before)
        if local is None or found[2].lower() in _FILES:  # icon@2x.png
            continue
        name = local[0].lstrip(".%+-")
        if name[:1] in ("n", "r", "t") and before[: len(before) - len(name)].endswith("\\"):
            name = name[1:]  # \nann@example.com in JSON text
        first = found.start() - len(name)
        is_remote = name == "git" and text[found.end() : found.end() + 1] in (":", "/")  # git@host:path
        is_login = _CREDENTIALS.search(text[max(0, first - 256) : first])
        if name and not name.endswith(".") and not is_remote and not is_login:
            yield first, found.end()


_CARD = re.compile(r"(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3\d{3}([ -]?)\d{6}\2\d{5})(?![\w-])(?![.,]\d)")
_CARD_BEFORE = re.compile(r"[\w.,/+-]\Z")
_BRANDS = re.compile(
    r"(?:4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14})\Z"
)


def _cards(text: str) -> _Spans:
    for found in _CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if _CARD_BEFORE.search(_before(text, found.start(), 2)):
            continue
        if _BRANDS.match(digits) and _passes_luhn(digits) and len(set(digits)) > 1:
            yield found.span()


def _passes_luhn(digits: str) -> bool:
    doubled = (int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


_PHONES = tuple(  # each begins with a literal or a class: that is what a search is quick for
    (re.compile(pattern + r"(?![\w/=%-])(?![.,:]\d)(?! \d)"), fewest, most)
    for pattern, fewest, most in (
        # +49 30 1234567, +1 (555) 123-4567
        (r"\+[1-9]\d{0,2}(?: ?\(\d{1,5}\)[ -]?\d)?(?:[ ./-]?\d){4,14}", 10, 15),
        # 0044 20 7946 0958
        (r"00[1-9]\d{0,2}(?: ?\(\d{1,5}\))?[ /-]\d(?:[ /-]?\d){5,13}", 11, 17),
        # (555) 123-4567
        (r"\([2-9]\d\d\) ?[2-9]\d\d[ .-]\d{4}", 10, 10),
        # 555-123-4567, 555.123.4567
        (r"[2-9]\d\d([.-])[2-9]\d\d\1\d{4}", 10, 10),
        # 1-800-555-0199
        (r"1[ .-](?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}", 11, 11),
        # 020 7946 0958, 01 42 68 53 00, 030/1234567
        (r"0(?:\d{2,4} \d{3,4} \d{3,4}|[1-9](?:[ .]\d\d){4}|[1-9]\d{1,4}/ ?\d{5,8})", 9, 12),
    )
)
_NUMBER_BEFORE = re.compile(r"(?:[\w.+/=#$€£-]|[\d)] |\d,)\Z")
# tel: 1234567, phone number is 555 1234: the word makes a number of it that would else be none
_CALLS = ("tel", "telephone", "phone", "mobile", "fax", "whatsapp", "telefon", "handy")
_CALLED = re.compile(
    r"(?:[ _-]?(?:[Nn]umber|[Nn]o|[Nn]r|[Nn]um|#))?\.?\\?[\"']?(?: is|:|=| )[ \"'\\]{0,4}"
    r"(\+?\(?\d(?:[ .()/-]{0,2}\d){6,14})(?![\w/=%-])(?![.,:]\d)(?! \d)"
)
_MOMENT = re.compile(
    r"(?:19|20)\d\d[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](?:19|20)\d\d"
    r"|(?:\d{1,3}\.){3}\d{1,3}\Z"
)


def _phones(text: str) -> _Spans:
    for pattern, fewest, most in _PHONES:
        for found in pattern.finditer(text):
            is_part = _NUMBER_BEFORE.search(_before(text, found.start(), 2))
            if not is_part and _is_phone(found[0], fewest, most):
                yield found.span()
    yield from (found.span(1) for found in _after(text, _CALLS, _CALLED) if _is_phone(found[1], 7, 15))


def _is_phone(value: str, fewest: int, most: int) -> bool:
    digits = re.sub(r"\D", "", value)
    return fewest <= len(digits) <= most and len(set(digits)) > 2 and not _MOMENT.match(value)


_LOOKS: dict[str, Callable[[str], _Spans]] = {
    "private_key": _pattern(_PRIVATE_KEY, "PRIVATE KEY", holds=_is_key),
    "jwt": _pattern(_START + r"(eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})", "eyJ"),
    "aws_key": _pattern(_START + r"((?:AKIA|ASIA)[0-9A-Z]{16})(?![A-Za-z0-9])", "AKIA", "ASIA"),
    "github_token": _pattern(
        _START + r"(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{50,255})(?!\w)",
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    "api_key": _pattern(_START + r"(sk-[\w-]{20,255})", "sk-", holds=_is_random),
    "google_key": _pattern(_START + r"(AIza[\w-]{35})(?![\w-])", "AIza"),
    "slack_token": _pattern(
        _START + r"(xox[abeoprs]-[0-9A-Za-z-]{10,255})", "xox", holds=lambda v: bool(re.search(r"\d", v))
    ),
    "secret": _assigned,
    "email": _emails,
    "card": _cards,
    "phone": _phones,
}

# RE2, in no look-around: whatever a look finds holds one of these, and hardly any other text does.
_MAY_HOLD = "|".join(
    (
        "@",
        "PRIVATE KEY-|eyJ[A-Za-z0-9_-]{8}|A[KS]IA[0-9A-Z]{8}|gh[pousr]_[A-Za-z0-9]{8}|github_pat_",
        "sk-[A-Za-z0-9_-]{20}|AIza[A-Za-z0-9_-]{8}|xox[abeoprs]-",
        r"(?i:api[_-]?key|secret|token|passw(?:or)?d|pwd|acc(?:ess|ount)[_-]?key|credential|bearer)[\w-]{0,20}"
        r"(?:(?:\\?[\"'])?\s{0,3}:?[:=]>?\s{0,3}|\s)(?:\\?[\"'`])?(?:(?i:bearer)\s)?[A-Za-z0-9+/_.~-]*[A-Za-z0-9]{10}",
        r"[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}|3[0-9]{3}[ -]?[0-9]{6}[ -]?[0-9]{4}",
        r"(?:\+|00)[1-9](?:[ .()/-]{0,3}[0-9]){8}",
        r"(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[ .-][0-9]{4}",
        r"0[0-9]{2,4} [0-9]{3,4} [0-9]{3,4}|0[1-9](?:[ .][0-9]{2}){4}|0[1-9][0-9]{1,4}/ ?[0-9]{5}",
        r"(?i:tel|phone|mobile|fax|whatsapp|telefon|handy)[^0-9\n]{0,20}[0-9](?:[ .()/-]{0,2}[0-9]){6}",
    )
)
