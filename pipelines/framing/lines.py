"""JSON lines: a record each, found from anywhere in the source."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.framing._framed import Framed, framed_at
from pipelines.readers import Unreadable
from pipelines.readers.json_lines import decode_json_object


def frame_lines(content: bytes, first: int = 0) -> Iterator[Framed]:
    """The lines of a stretch of whole lines that are not blank. `first`: where it begins in the source."""
    position = first
    for line in content.split(b"\n"):
        record = line.rstrip(b"\r")
        if record.strip():
            try:
                yield framed_at(position, record, value=decode_json_object(record))
            except Unreadable as error:
                yield framed_at(position, record, unreadable=error)
        position += len(line) + 1
