"""Where a table lies, and the error of this package."""

from __future__ import annotations

import pyarrow.fs

from infra.settings import Settings
from lineage.schemas import TableSpec


class TableError(Exception):
    """Something about stored tables is not as it must be; the message says what, and what to do."""


def location(settings: Settings, spec: TableSpec) -> str:
    """The URI of a table."""
    return settings.path("tables", spec.name)


def open_filesystem(settings: Settings, uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The filesystem behind a URI, and the path in it."""
    if settings.is_local:
        return pyarrow.fs.LocalFileSystem(), uri
    return pyarrow.fs.FileSystem.from_uri(uri)
