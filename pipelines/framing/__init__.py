"""How a source's bytes are cut into records, whichever format the records are of.

    lines.py      JSON lines: one object a line
    values.py     a JSON array of objects, or JSON values one after the other, pretty-printed or not
    delimited.py  CSV: a header, then records whose quoted fields may span lines
    parquet.py    rows, row group by row group

What is cut leads back to the source: a span names the record's bytes, and whatever lies in no span is a
separator (white space, commas and brackets between values, line ends, the header of a CSV file).

Only lines and row groups can be found from the middle of a source, so those are read by many workers; values
and CSV by one, from the beginning, with a record or a little more of the source in memory.
"""

from __future__ import annotations

import json
from typing import Literal

from pipelines.framing._framed import BOM, Framed
from pipelines.framing.delimited import frame_csv
from pipelines.framing.lines import frame_lines
from pipelines.framing.parquet import RowGroup, frame_parquet, row_groups
from pipelines.framing.values import frame_values

__all__ = [
    "Framed",
    "Framing",
    "RowGroup",
    "frame_csv",
    "frame_lines",
    "frame_parquet",
    "frame_values",
    "framing_of",
    "row_groups",
    "without_compression",
]

Framing = Literal["lines", "values", "csv", "parquet"]

_PARQUET = b"PAR1"
_COMPRESSED = (".gz", ".bz2", ".zst")
_LOOKED_AT = 20  # lines


def framing_of(name: str, head: bytes) -> Framing:
    """How a source is cut, from its file name and its first 64 KiB, decompressed."""
    if head.startswith(_PARQUET):
        return "parquet"
    if without_compression(name).lower().endswith((".csv", ".tsv")):
        return "csv"
    start = head.removeprefix(BOM).lstrip()
    if start.startswith(b"["):
        return "values"
    *lines, _ = start.split(b"\n")  # without any line end in 64 KiB it is one long record, and a line
    if not lines or not lines[0].startswith(b"{") or any(_is_object(line) for line in lines[:_LOOKED_AT]):
        return "lines"  # the first line may be broken, and the others not
    return "values"


def without_compression(name: str) -> str:
    """A file's name without the ending that says how it is compressed."""
    return next((name[: -len(end)] for end in _COMPRESSED if name.lower().endswith(end)), name)


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
