"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lineage.parquet_rows import opened, plain
from lineage.rows import canonical_json
from pipelines.framing._framed import Framed
from pipelines.readers import Unreadable

_MOST_ROWS = 1024  # decoded at once
_BATCH_BYTES = 8 * 1024 * 1024  # encoded; what is decoded at once is about this, or one row


@dataclass(frozen=True)
class RowGroup:
    """A stretch of rows that can be read without the others."""

    first_row: int
    rows: int
    encoded_bytes: int
    """Decompressed."""


def row_groups(source: BinaryIO) -> list[RowGroup]:
    """The row groups of a file, from its footer. Raises Unreadable where the file is no Parquet."""
    metadata = _opened(source).metadata
    found: list[RowGroup] = []
    first = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        found.append(RowGroup(first, group.num_rows, group.total_byte_size))
        first += group.num_rows
    return found


def frame_parquet(source: BinaryIO, first: int = 0, end: int | None = None) -> Iterator[Framed]:
    """The rows of the row groups that begin in [first, end), as JSON can say them.

    Bytes come in hex, times in ISO 8601, NaN as null. Raises Unreadable where the file is no Parquet. A
    damaged row group is one unreadable record.
    """
    file = _opened(source)
    row = 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        if first <= row and (end is None or row < end):
            yield from _rows_of_group(file, number, row)
        row += group.num_rows


def _opened(source: BinaryIO) -> pq.ParquetFile:
    try:
        return opened(source)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable("not_parquet", str(error)) from error


def _rows_of_group(file: pq.ParquetFile, number: int, first: int) -> Iterator[Framed]:
    group = file.metadata.row_group(number)
    bytes_per_row = max(group.total_byte_size // max(group.num_rows, 1), 1)
    done = 0
    try:
        at_once = min(max(_BATCH_BYTES // bytes_per_row, 1), _MOST_ROWS)
        for batch in file.iter_batches(at_once, row_groups=[number]):
            yield from _rows(batch, first + done)
            done += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        found = Unreadable("damaged_row_group", f"row group {number} after {done} of its rows: {error}")
        yield Framed(first + done, f"row:{first + done}", b"", unreadable=found)


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
