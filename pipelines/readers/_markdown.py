"""The structure of a Markdown file that rows are cut by: its front matter, and where its headings stand.

CommonMark's rules as far as they decide what is a heading; tests hold them against markdown-it.
Lines inside fenced code, HTML comments, lists and quotations are no headings.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

DEEPEST = 3  # headings of deeper levels stay in the text of their section

_MOST_FRONT_MATTER = 64 * 1024  # characters
_MOST_VALUES = 10_000  # ten lines of aliases can stand for gigabytes
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}(?=[^`]*$)|~{3,})")
_NO_PARAGRAPH = re.compile(r"(?: {4}|\t| {0,3}(?:>|[-*+](?:[ \t]|$)|\d{1,9}[.)](?:[ \t]|$)|<[A-Za-z/!?]))")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_HTML = (  # what begins a stretch of HTML that only its end ends, and that end
    (re.compile(r" {0,3}<!--"), re.compile(r"-->")),
    (
        re.compile(r" {0,3}<(?:pre|script|style|textarea)(?:[ \t>]|$)", re.I),
        re.compile(r"</(?:pre|script|style|textarea)>", re.I),
    ),
)
_ATTRIBUTES = re.compile(r"[ \t]*\{[#.:][^{}]*\}$")  # `## Heading {#anchor}`
# What PyYAML raises on some texts of no meaning, besides its own errors.
_BROKEN = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3: its words, and the lines it takes."""

    level: int
    words: str
    first: int
    end: int


@dataclass(frozen=True)
class FrontMatter:
    """The YAML before a document's text: the lines it takes, its fields as plain JSON, or what is wrong."""

    lines: int
    fields: dict[str, Any]
    broken: str | None = None


def front_matter(lines: Sequence[str]) -> FrontMatter | None:
    """The front matter of a document, broken or not; None where there is none."""
    if not lines or lines[0].rstrip() != "---":
        return None
    end = next((index for index, line in enumerate(lines) if index and line.rstrip() in ("---", "...")), None)
    if end is None:
        return None
    text = "".join(lines[1:end])
    if len(text) > _MOST_FRONT_MATTER:
        return FrontMatter(end + 1, {}, f"longer than {_MOST_FRONT_MATTER} characters")
    try:
        fields = _plain(yaml.safe_load(text), itertools.count())
        json.dumps(fields, ensure_ascii=False).encode()  # lone surrogates, numbers of thousands of digits
    except _BROKEN as error:
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 2}" if mark else ""
        return FrontMatter(end + 1, {}, f"no YAML{at}")
    if not isinstance(fields, dict):
        return FrontMatter(end + 1, {}, None if fields is None else "no mapping")
    return FrontMatter(end + 1, fields)


def headings(lines: Sequence[str], first: int = 0) -> Iterator[Heading]:
    """The headings of level 1 to 3 from a line on, in order."""
    paragraph: int | None = None  # the line where the paragraph began that an underline would make a heading
    ending: re.Pattern[str] | None = None  # what ends the fenced code or HTML that we are in
    is_nested = False  # in a list or a quotation, that a line of text goes on
    for number in range(first, len(lines)):
        line = lines[number].rstrip("\r\n")
        if ending is not None:
            ending = None if ending.search(line) else ending
        elif found := _opened(line):
            ending, paragraph, is_nested = found, None, False
            ending = None if ending.search(line, len(line) - len(line.lstrip()) + 3) else ending
        elif not line.strip():
            paragraph, is_nested = None, False
        elif atx := _ATX.match(line):
            paragraph, is_nested = None, False
            if len(atx[1]) <= DEEPEST:
                yield Heading(len(atx[1]), _words(atx[2] or ""), number, number + 1)
        elif paragraph is not None and (under := _UNDERLINE.match(line)):
            text = " ".join(each.strip() for each in lines[paragraph:number])
            yield Heading(1 if under[1][0] == "=" else 2, _words(text), paragraph, number + 1)
            paragraph = None
        elif _RULE.match(line):
            paragraph, is_nested = None, False
        elif paragraph is None:
            is_nested = is_nested or _NO_PARAGRAPH.match(line) is not None
            paragraph = None if is_nested else number
        elif _interrupts(line):
            paragraph, is_nested = None, True


def _opened(line: str) -> re.Pattern[str] | None:
    """What ends the fenced code or HTML that a line begins."""
    if fence := _FENCE.match(line):
        return re.compile(rf"^[ \t]*{fence[1][0]}{{{len(fence[1])},}}[ \t]*$")
    return next((end for start, end in _HTML if start.match(line)), None)


def _interrupts(line: str) -> bool:
    """Whether a line ends the paragraph before it by beginning a list, a quotation or HTML."""
    return (
        re.match(r" {0,3}(?:>|[-*+][ \t]+\S|1[.)][ \t]+\S|<(?:/?[a-z][\w-]*[\s/>]|[!?]))", line) is not None
    )


def _words(text: str) -> str:
    return _ATTRIBUTES.sub("", text.strip().rstrip()).strip()


def _plain(value: Any, counted: Iterator[int]) -> Any:
    """What YAML can say and JSON cannot, as text. Raises ValueError for too much of it."""
    if next(counted) > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES} values")
    if isinstance(value, dict):
        return {str(_plain(key, counted)): _plain(item, counted) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, counted) for item in value]
    if isinstance(value, set):
        return sorted(str(_plain(item, counted)) for item in value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
