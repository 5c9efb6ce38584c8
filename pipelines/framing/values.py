"""JSON values one after the other, or in an array."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipelines.framing._framed import BOM, Framed, framed_at, not_utf8
from pipelines.readers import Unreadable

_WINDOW = 1024 * 1024  # bytes read at once, at least
_LONGEST_TOKEN = 16  # an error nearer to the window's end may be the window's
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_COMMAS = re.compile(r"[ \t\n\r,]*")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)  # strings are passed over
_PAIRS = {"{": "}", "[": "]"}
_WORD = re.compile(r'[^,"{}\[\]\s]*')
_NEXT = re.compile(r"[ \t\n\r]*(,|\]|\{|$)")


def frame_values(source: BinaryIO) -> Iterator[Framed]:
    """The elements of a top-level JSON array, or JSON values with white space between them.

    Commas between elements are not counted: one too few or too many loses nothing. A broken element reaches
    to where its bracket is closed, or to the next line that begins as its own does; where neither can be
    told, to the end of the source.
    """
    text = _Text(source)
    in_array = False
    while True:
        is_beginning = text.position == text.beginning
        gap = text.gap(_COMMAS if in_array else _SPACE)
        if not (head := text.head):
            return
        if head == ("]" if in_array else "["):
            text.take(1)
            in_array = not in_array
            continue
        _, newline, own_line = gap.rpartition("\n")
        indent = own_line if newline or is_beginning else None
        value, length, error = text.value(indent)
        position, found = text.position, text.take(length)
        if error is None or error.reason == "not_an_object":
            record = found.encode("utf-8", "surrogateescape")
        else:  # what stands between it and the next is not its own
            separators = " \t\n\r," if in_array else " \t\n\r"
            record = (found.rstrip(separators) or found).encode("utf-8", "surrogateescape")
        if error is None and not record.isascii():
            error = not_utf8(record)
        yield framed_at(position, record, value=value, unreadable=error)


class _Text:
    """A source as text, of which only the window that is looked at is in memory."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        # A bad byte becomes a surrogate, so that it spoils its own element alone.
        self._decoded = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._is_whole = "", 0, False
        self.beginning = self.position = 0
        """The first byte, and the byte looked at."""
        while not self._text and self._more():
            pass
        if self._text.startswith("\ufeff"):
            self._at = 1
            self.beginning = self.position = len(BOM)

    @property
    def head(self) -> str:
        """The character looked at; empty at the end."""
        return self._text[self._at : self._at + 1]

    def take(self, count: int) -> str:
        """The next characters."""
        taken = self._text[self._at : self._at + count]
        self._at += len(taken)
        self.position += len(taken) if taken.isascii() else len(taken.encode("utf-8", "surrogateescape"))
        return taken

    def gap(self, separators: re.Pattern[str]) -> str:
        """What stands before the next element, taken."""
        gap = ""
        while True:
            found = separators.match(self._text, self._at)
            gap += self.take(len(found[0]) if found else 0)
            if self.head or not self._more():
                return gap

    def value(self, indent: str | None) -> tuple[Any, int, Unreadable | None]:
        """The element looked at: (object, characters, None), or (None, characters to the next, the error)."""
        while True:
            value, end, error, is_certain = _value_at(self._text, self._at, indent)
            if (end is not None and end < len(self._text) and is_certain) or not self._more():
                break
        return value, (len(self._text) if end is None else end) - self._at, error

    def _more(self) -> bool:
        """Let the window go on, by as much as it holds; False at the source's end."""
        if self._is_whole:
            return False
        self._text, self._at = self._text[self._at :], 0
        piece = self._source.read(max(_WINDOW, len(self._text)))
        self._is_whole = not piece
        self._text += self._decoded(piece, final=not piece)
        return True


def _value_at(text: str, at: int, indent: str | None) -> tuple[Any, int | None, Unreadable | None, bool]:
    """(object or None, where the next element may begin, what is wrong, whether more text changes nothing).

    The end is None where the text does not show it.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as broken:
        error, after = (
            Unreadable("not_json", f"{broken.msg}: character {broken.pos - at} of the record"),
            max(at + 1, broken.pos),
        )
        is_open = broken.msg.startswith("Unterminated string")
        is_certain = not is_open and broken.pos + _LONGEST_TOKEN < len(text)
    except ValueError as broken:  # a number of thousands of digits
        error, after, is_certain = Unreadable("not_json", str(broken)), at + 1, True
    except RecursionError:
        error, after, is_certain = Unreadable("too_deep", "nested too deeply"), at + 1, True
    else:
        error = None
        if not isinstance(value, dict):
            error = Unreadable("not_an_object", f"a JSON {type(value).__name__}, expected an object")
        return None if error else value, end, error, True
    line = None if indent is None else _next_line(text, after, indent)
    closed = _closed(text, at, before=len(text) if line is None else line)
    return None, line if closed is None else closed, error, is_certain


def _next_line(text: str, at: int, indent: str) -> int | None:
    """Where the next element begins: on a line of its own, as far in as the ones before.

    What is nested in a broken element stands further in, so none of it is taken for an element.
    """
    start = re.compile(rf"(?<=\n){re.escape(indent)}\{{")
    found = start.search(text, max(at - len(indent), 0))
    return found.end() - 1 if found else None


def _closed(text: str, at: int, before: int) -> int | None:
    """Where the bracket that stands at a place is closed again, if an element may end there."""
    opening = text[at]
    if opening not in _PAIRS:
        return None if opening == '"' else max(_WORD.match(text, at).end(), at + 1)  # type: ignore[union-attr]
    closing, depth = _PAIRS[opening], 0
    for token in _BRACKETS.finditer(text, at, before):
        depth += (token[0] == opening) - (token[0] == closing)
        if not depth:
            return token.end() if _NEXT.match(text, token.end()) else None
    return None
