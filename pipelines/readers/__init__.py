"""One module per trace format. A reader turns records of a source into rows, or says why it cannot.

A reader is a frozen value: its name, declared revision and parameters identify its work. It never sees a
path, a run or a clock. There are two kinds, told apart by what they are handed:

    RecordReader     one decoded record: a JSON object, whichever way the source is cut (lines, an array,
                     one value, CSV, Parquet)
    DocumentReader   the whole source, where one record alone means nothing: a session, a Markdown file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lineage.rows import Fingerprint
from lineage.schemas import TableSpec


class Unreadable(Exception):
    """A record that the reader cannot read; it goes to quarantine with the reason."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Reader(Protocol):
    writes: ClassVar[TableSpec]

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, declared revision, parameters. The name is the format's name on the command line."""
        ...


class RecordReader(_Reader, Protocol):
    """Reads records of one format, one at a time."""

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """What shows that a record is of the format, in a few words; None where nothing does."""
        ...

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one record: payload, and the provenance that the record states.

        At most as many as the record's JSON has objects, in an order that follows from the record alone.
        An empty list: the record is of the format and says nothing that is a row (a span of a database call,
        a heartbeat). Raises Unreadable.
        """
        ...


@dataclass(frozen=True)
class Part:
    """A stretch of a document and the rows in it, or why there are none."""

    first: int
    """First byte in the document."""

    end: int
    rows: Sequence[dict[str, Any]] = ()
    unreadable: Unreadable | None = None


class DocumentReader(_Reader, Protocol):
    """Reads whole sources of one format."""

    def recognises_document(self, name: str, content: bytes) -> str | None:
        """What shows that a source is of the format. `name`: the file's name; `content`: its first 64 KiB."""
        ...

    def read_document(self, name: str, content: bytes) -> list[Part]:
        """All of a document's parts, in the order of their ends. Parts may overlap: branches of a session do.

        Raises Unreadable where the document as a whole cannot be read.
        """
        ...


Reader = RecordReader | DocumentReader
