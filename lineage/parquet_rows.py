"""A row of a Parquet file as JSON can say it: the record that a span `row:N` leads back to."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import StorageError, open_source
from lineage.rows import canonical_json

_BUFFER_BYTES = 1024 * 1024  # without it a row group's columns are read whole


def opened(source: BinaryIO) -> pq.ParquetFile:
    """The file behind a stream; one that cannot be sought, such as a compressed member, is read whole."""
    return pq.ParquetFile(
        source if source.seekable() else pa.BufferReader(source.read()), buffer_size=_BUFFER_BYTES
    )


def read_row(uri: str, number: int) -> bytes:
    """The canonical JSON of a file's row, counted from 0. Raises StorageError where it cannot be had."""
    with open_source(uri) as source:
        try:
            file = opened(source)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if number < rows:
                    return canonical_json(plain(file.read_row_group(group).slice(number, 1).to_pylist()[0]))
                number -= rows
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StorageError(f"source '{uri}' cannot be read as Parquet: {error}") from error
    raise StorageError(f"source '{uri}' has fewer rows than it had")


def plain(value: Any) -> Any:
    """A value of Arrow's as JSON can say it: bytes in hex, times in ISO 8601, NaN as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else str(value)  # "inf": canonical JSON has no word for it
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | str) else str(value)
