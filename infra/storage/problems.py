"""What cannot be read: as an error where it ends the work, as a value where the others go on."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

# What a file, an archive or a store that is damaged, gone or closed to us raises while it is read.
_BROKEN = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,
    ValueError,
    pa.ArrowException,
)


class StorageError(Exception):
    """A source that cannot be read; the message says which and what to do."""


@dataclass(frozen=True)
class Problem:
    """One source that cannot be read, beside others that can."""

    uri: str
    message: str
    """A sentence that names the source."""


@contextmanager
def told(uri: str, what: str = "cannot be read") -> Iterator[None]:
    """Say of which source it is that an error speaks."""
    try:
        yield
    except _BROKEN as error:
        reason = (
            (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        )
        raise StorageError(f"source '{uri}' {what}: {reason}") from error
