"""What every framing gives: a record with its place in the source, or why it is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.readers import Unreadable

BOM = b"\xef\xbb\xbf"


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


def framed_at(
    position: int, record: bytes, *, value: Any = None, unreadable: Unreadable | None = None
) -> Framed:
    """The record that begins at a byte."""
    span = f"bytes:{position}-{position + len(record)}"
    return Framed(position, span, record, None if unreadable else value, unreadable)


def not_utf8(record: bytes) -> Unreadable | None:
    """What is wrong with a record whose bytes are no text."""
    try:
        record.decode("utf-8")
    except UnicodeDecodeError as error:
        return Unreadable("not_utf8", f"byte {error.start} of the record is no UTF-8")
    return None
