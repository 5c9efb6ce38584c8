"""How a source's bytes are cut into records, whichever format the records are of.

    lines     JSON lines: one object a line
    values    a JSON array of objects, or JSON values one after the other, pretty-printed or not
    csv       a header, then records whose quoted fields may span lines
    parquet   rows, row group by row group

What is cut leads back to the source: a span names the record's bytes, and whatever lies in no span is a
separator (white space, commas and brackets between values, line ends, the header of a CSV file).
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lineage.parquet_rows import plain
from lineage.rows import canonical_json
from pipelines.readers import Unreadable
from pipelines.readers.json_lines import decode_json_object

Framing = Literal["lines", "values", "csv", "parquet"]

_BOM = b"\xef\xbb\xbf"
_PARQUET = b"PAR1"
_COMPRESSED = (".gz", ".bz2", ".zst")
_DELIMITERS = ",;\t|"
_SNIFFED = 20  # records that a delimiter is judged by
_LONGEST_FIELD = 2**31 - 1  # the csv module's own limit is 128 KiB; traces hold longer texts
_UNPAIRED_QUOTES = 100  # each costs a look at the rest of the file
_BATCH = 1024  # rows that are decoded at once
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_COMMAS = re.compile(r"[ \t\n\r,]*")
_AT_LINE_START = ""


@dataclass(frozen=True)
class Framed:
    """One record of a source, decoded, or why it cannot be."""

    position: int
    """First byte in the decompressed source; the row's index in Parquet."""

    span: str
    """bytes:FIRST-END, or row:N: where the record is found again."""

    record: bytes
    """Exactly the bytes of the span; of a Parquet row its canonical JSON."""

    value: Any = None
    """The JSON object."""

    unreadable: Unreadable | None = None


def framing_of(name: str, head: bytes) -> Framing:
    """How a source is cut, from its file name and its first 64 KiB, decompressed."""
    if head.startswith(_PARQUET):
        return "parquet"
    if without_compression(name).lower().endswith((".csv", ".tsv")):
        return "csv"
    start = head.removeprefix(_BOM).lstrip()
    if start.startswith(b"["):
        return "values"
    *lines, _ = start.split(b"\n")  # without any line end in 64 KiB it is one long record, and a line
    if not lines or not lines[0].startswith(b"{") or any(_is_object(line) for line in lines[:_SNIFFED]):
        return "lines"  # the first line may be broken, and the others not
    return "values"


def without_compression(name: str) -> str:
    """A file's name without the ending that says how it is compressed."""
    return next((name[: -len(end)] for end in _COMPRESSED if name.lower().endswith(end)), name)


def frame_lines(content: bytes, first: int = 0) -> Iterator[Framed]:
    """The lines of a stretch of whole lines that are not blank. `first`: where it begins in the source."""
    position = first
    for line in content.split(b"\n"):
        record = line.rstrip(b"\r")
        if record.strip():
            try:
                yield _framed(position, record, value=decode_json_object(record))
            except Unreadable as error:
                yield _framed(position, record, unreadable=error)
        position += len(line) + 1


def frame_values(content: bytes) -> Iterator[Framed]:
    """The elements of a top-level JSON array, or JSON values with white space between them.

    Commas between elements are not counted: one too few or too many loses nothing. A broken element reaches
    to the next line that begins as elements begin here; where that cannot be told, to the end of the source.
    """
    text = _Text(content)
    at, in_array, indent = 0, False, _AT_LINE_START
    while True:
        gap = text.gap(at, _COMMAS if in_array else _SPACE)
        at += len(gap)
        if at == len(text.text):
            return
        if text.text[at] == ("]" if in_array else "["):
            at, in_array, indent = at + 1, not in_array, None if not in_array else _AT_LINE_START
            continue
        _, newline, own_line = gap.rpartition("\n")
        if (newline or at == len(gap)) and not own_line.strip(" \t"):
            indent = own_line
        value, end, error = _value_at(text.text, at, indent)
        stop = (
            end if error is None or error.reason == "not_an_object" else text.without_end(at, end, in_array)
        )
        yield text.framed(at, stop, value, error)
        at = end


def frame_csv(content: bytes, *, delimiter: str | None = None) -> Iterator[Framed]:
    """The records after the header, each an object of strings by the header's names.

    The delimiter is the one of , ; tab | that cuts the first records most evenly. A name that the header has
    twice becomes `name_2`. A quote that is never closed spoils its first line alone. The first line that is
    not blank is the header; where it is no UTF-8, the whole source is unreadable.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    skipped = len(_BOM) if content.startswith(_BOM) else 0
    lines = _Lines(content, skipped)
    records = _records(lines, delimiter or _sniffed(content[skipped:]))
    header: list[str] | None = None
    for position, record, fields, error in records:
        if header is None:
            if error is not None:
                yield _framed(0, content, unreadable=Unreadable(error.reason, f"the header: {error.detail}"))
                return
            header = _named_once(fields)
        elif error is not None:
            yield _framed(position, record, unreadable=error)
        elif len(fields) != len(header):
            detail = f"{len(fields)} fields, the header has {len(header)}"
            yield _framed(position, record, unreadable=Unreadable("wrong_number_of_fields", detail))
        else:
            yield _framed(position, record, value=dict(zip(header, fields, strict=True)))


def frame_parquet(source: BinaryIO) -> Iterator[Framed]:
    """The rows of a Parquet file, as JSON can say them: bytes in hex, times in ISO 8601, NaN as null.

    Raises Unreadable where the file is none. A damaged row group is one unreadable record.
    """
    try:
        file = pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable("not_parquet", str(error)) from error
    first = 0
    for group in range(file.num_row_groups):
        done = 0
        try:
            for batch in file.iter_batches(_BATCH, row_groups=[group]):
                yield from _rows(batch, first + done)
                done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            found = Unreadable("damaged_row_group", f"row group {group} after {done} of its rows: {error}")
            yield Framed(first + done, f"row:{first + done}", b"", unreadable=found)
        first += file.metadata.row_group(group).num_rows


def _framed(
    position: int, record: bytes, *, value: Any = None, unreadable: Unreadable | None = None
) -> Framed:
    span = f"bytes:{position}-{position + len(record)}"
    return Framed(position, span, record, value, unreadable)


def _is_object(line: bytes) -> bool:
    """Is it an object from the first byte to the last? Inside a pretty-printed value lines are indented."""
    if not line.startswith(b"{"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


def _value_at(text: str, at: int, indent: str | None) -> tuple[Any, int, Unreadable | None]:
    """(object, its end, None), or (None, where the next element may begin, what is wrong)."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as broken:
        error, after = Unreadable("not_json", str(broken)), max(at + 1, broken.pos)
    except ValueError as broken:  # a number of thousands of digits
        error, after = Unreadable("not_json", str(broken)), at + 1
    except RecursionError:
        error, after = Unreadable("too_deep", "nested too deeply"), at + 1
    else:
        if isinstance(value, dict):
            return value, end, None
        return None, end, Unreadable("not_an_object", f"a JSON {type(value).__name__}, expected an object")
    return None, _resume(text, after, indent), error


def _resume(text: str, at: int, indent: str | None) -> int:
    """Where the next element begins: on a line of its own, as far in as the ones before. Else the text's end.

    What is nested in a broken element stands further in, so none of it is taken for an element.
    """
    if indent is None:
        return len(text)
    start = re.compile(rf"(?<=\n){re.escape(indent)}\{{")
    found = start.search(text, max(at - len(indent), 0))
    return found.end() - 1 if found else len(text)


class _Text:
    """A source as text, whose characters lead back to bytes. To be asked in ascending order."""

    def __init__(self, content: bytes) -> None:
        self._byte = len(_BOM) if content.startswith(_BOM) else 0
        self._character = 0
        # A bad byte becomes a surrogate, so that it spoils its own element alone.
        self.text = content[self._byte :].decode("utf-8", "surrogateescape")
        self._is_ascii = self.text.isascii()

    def gap(self, at: int, separators: re.Pattern[str]) -> str:
        found = separators.match(self.text, at)
        return found[0] if found else ""

    def without_end(self, at: int, end: int, in_array: bool) -> int:
        """The end of a broken element without what stands between it and the next."""
        return at + (len(self.text[at:end].rstrip(" \t\n\r," if in_array else " \t\n\r")) or end - at)

    def framed(self, at: int, end: int, value: Any, error: Unreadable | None) -> Framed:
        self._byte += self._bytes(self._character, at)
        self._character = at
        record = self.text[at:end].encode("utf-8", "surrogateescape")
        if error is None and not self._is_ascii:
            error = _not_utf8(record)
        return _framed(self._byte, record, value=None if error else value, unreadable=error)

    def _bytes(self, first: int, end: int) -> int:
        return end - first if self._is_ascii else len(self.text[first:end].encode("utf-8", "surrogateescape"))


def _not_utf8(record: bytes) -> Unreadable | None:
    try:
        record.decode("utf-8")
    except UnicodeDecodeError as error:
        return Unreadable("not_utf8", f"byte {error.start} of the record is no UTF-8")
    return None


class _Lines:
    """A source's lines as text; `end` is the byte after the last one that was taken."""

    def __init__(self, content: bytes, first: int) -> None:
        self.content, self.end = content, first
        self._lines = iter(content[first:].splitlines(keepends=True))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.end += len(line)
        return line.decode("utf-8", "surrogateescape")

    def back_to(self, position: int) -> None:
        """Take what follows a position once more."""
        self.end = position
        self._lines = iter(self.content[position:].splitlines(keepends=True))


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, bytes, list[str], Unreadable | None]]:
    """(first byte, bytes without the line end, fields, what is wrong) of each record that is not blank."""
    unpaired = 0
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        first, error, fields = lines.end, None, []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as broken:
            error = Unreadable("not_csv", str(broken))
        record = lines.content[first : lines.end]
        if error is None and lines.end == len(lines.content) and _has_open_quote(record, delimiter):
            error = Unreadable("unpaired_quote", "a quote opens a field and nothing closes it")
            unpaired += 1
            if unpaired <= _UNPAIRED_QUOTES:
                record = record.splitlines(keepends=True)[0]
                lines.back_to(first + len(record))
                reader = csv.reader(lines, delimiter=delimiter)
        record = record.rstrip(b"\r\n")
        if record.strip(b" \t"):
            yield first, record, fields, error or _not_utf8(record)


def _has_open_quote(record: bytes, delimiter: str) -> bool:
    """Whether a line after it would still be part of it."""
    rows = csv.reader(_Lines(record.rstrip(b"\r\n") + b"\nx", 0), delimiter=delimiter)
    return sum(1 for _ in rows) == 1


def _sniffed(content: bytes) -> str:
    def evenness(delimiter: str) -> tuple[float, int]:
        rows = csv.reader(_Lines(content[: 64 * 1024], 0), delimiter=delimiter)
        widths = [len(row) for row in itertools.islice((row for row in rows if row), _SNIFFED)]
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


def _rows(batch: pa.RecordBatch, first: int) -> Iterator[Framed]:
    try:
        values = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:  # the year 10000, text that is no UTF-8
        if batch.num_rows > 1:  # the row that spoils it is told from the others
            for index in range(batch.num_rows):
                yield from _rows(batch.slice(index, 1), first + index)
        else:
            bad = Unreadable("bad_value", f"row {first}: {error}")
            yield Framed(first, f"row:{first}", b"", unreadable=bad)
        return
    for number, value in enumerate(map(plain, values), first):
        yield Framed(number, f"row:{number}", canonical_json(value), value)
