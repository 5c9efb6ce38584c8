"""Records of CSV and its relatives."""

from __future__ import annotations

import csv
import itertools
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.framing._framed import BOM, Framed, framed_at, not_utf8
from pipelines.readers import Unreadable

_DELIMITERS = ",;\t|"
_SNIFFED_BYTES, _SNIFFED_ROWS = 64 * 1024, 20  # that a delimiter is judged by
_LONGEST_FIELD = 64 * 1024 * 1024  # the csv module's own limit is 128 KiB; traces hold longer texts
_UNPAIRED_QUOTES = 100  # each costs a look at as much as the longest field, or at the rest of the source
_WINDOW = 1024 * 1024


def frame_csv(source: BinaryIO, *, delimiter: str | None = None) -> Iterator[Framed]:
    """The records after the header, each an object of strings by the header's names.

    The delimiter is the one of , ; tab | that cuts the first records most evenly. A name that the header has
    twice becomes `name_2`. A quote that is never closed spoils its first line alone. The first line that is
    not blank is the header; where that cannot be read, it and every record are unreadable.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    head = source.read(_SNIFFED_BYTES)
    skipped = len(BOM) if head.startswith(BOM) else 0
    lines = _Lines(head[skipped:], source, first=skipped)
    header: list[str] | None = None
    bad_header: Unreadable | None = None
    for position, record, fields, error in _records(lines, delimiter or _sniffed(head[skipped:])):
        if bad_header is not None:
            yield framed_at(position, record, unreadable=bad_header)
        elif header is not None and error is None and len(fields) == len(header):
            yield framed_at(position, record, value=dict(zip(header, fields, strict=True)))
        elif header is not None:
            detail = f"{len(fields)} fields, the header has {len(header)}"
            yield framed_at(
                position, record, unreadable=error or Unreadable("wrong_number_of_fields", detail)
            )
        elif error is None:
            header = _named_once(fields)
        else:
            bad_header = Unreadable(error.reason, f"the header: {error.detail}")
            yield framed_at(position, record, unreadable=bad_header)


class _Lines:
    """A source's lines as text. Those of a record are kept as bytes until the next begins."""

    def __init__(self, head: bytes, source: BinaryIO, *, first: int) -> None:
        self.position = first
        """First byte of the record."""
        self.taken: list[bytes] = []
        """The lines of the record so far."""
        self._coming = _lines_of(head, source)
        self._ahead: deque[bytes] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._coming)
        self.taken.append(line)
        return line.decode("utf-8", "surrogateescape")

    def are_all_taken(self) -> bool:
        if not self._ahead and (line := next(self._coming, None)) is not None:
            self._ahead.append(line)
        return not self._ahead

    def keep_first(self) -> None:
        """The record is its first line alone; the others come again."""
        self._ahead.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def begin_record(self) -> None:
        self.position += sum(map(len, self.taken))
        self.taken = []


def _lines_of(head: bytes, source: BinaryIO) -> Iterator[bytes]:
    rest, piece = b"", head
    while piece:
        lines = (rest + piece).splitlines(keepends=True)
        rest = lines.pop()  # it may go on in the next piece, if only by the "\n" of an "\r\n"
        yield from lines
        piece = source.read(max(_WINDOW, len(rest)))
    yield from rest.splitlines(keepends=True)


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, bytes, list[str], Unreadable | None]]:
    """(first byte, bytes without the line end, fields, what is wrong) of each record that is not blank."""
    unpaired = 0
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.begin_record()
        error, fields = None, []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as broken:
            error = Unreadable("not_csv", str(broken))
        is_too_long = error is not None and len(lines.taken) > 1 and "field limit" in error.detail
        if is_too_long or (error is None and lines.are_all_taken() and _is_open(lines.taken, delimiter)):
            error = Unreadable("unpaired_quote", "a quote opens a field and nothing closes it")
            unpaired += 1
            if unpaired <= _UNPAIRED_QUOTES:
                lines.keep_first()
                reader = csv.reader(lines, delimiter=delimiter)
        record = b"".join(lines.taken).rstrip(b"\r\n")
        if record.strip(b" \t"):
            yield lines.position, record, fields, error or not_utf8(record)


def _is_open(lines: list[bytes], delimiter: str) -> bool:
    """Whether a line after these would still be part of their record."""
    text = [line.decode("utf-8", "surrogateescape") for line in lines]
    text[-1] = text[-1].rstrip("\r\n") + "\n"
    return sum(1 for _ in csv.reader([*text, "x"], delimiter=delimiter)) == 1


def _sniffed(head: bytes) -> str:
    lines = head.splitlines(keepends=True)
    text = [line.decode("utf-8", "surrogateescape") for line in lines]

    def evenness(delimiter: str) -> tuple[float, int]:
        rows = csv.reader(text, delimiter=delimiter)
        widths = [len(row) for row in itertools.islice((row for row in rows if row), _SNIFFED_ROWS)]
        if not widths or widths[0] < 2:
            return 0.0, 0
        return sum(width == widths[0] for width in widths) / len(widths), widths[0]

    return max(_DELIMITERS, key=evenness)  # the first of equals: a comma


def _named_once(names: list[str]) -> list[str]:
    once: list[str] = []
    for name in names:
        tried = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
        once.append(next(each for each in tried if each not in once))
    return once
