"""One module per trace format. A reader turns one record of a source into rows, or says why it cannot.

A reader is a frozen value: its name, declared revision and parameters identify its work. It never sees a
path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from lineage.rows import Fingerprint
from lineage.schemas import TableSpec


class Unreadable(Exception):
    """A record that the reader cannot read; it goes to quarantine with the reason."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Reader(Protocol):
    """Reads records of one format."""

    writes: ClassVar[TableSpec]

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, declared revision, parameters."""
        ...

    @property
    def rows_per_record(self) -> int:
        """The most rows that one record can give; that many row numbers are reserved for it."""
        ...

    def recognises(self, record: Mapping[str, Any]) -> bool:
        """Is this what a record of the format looks like?"""
        ...

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one record: payload, and the provenance that the record states. Raises Unreadable."""
        ...
