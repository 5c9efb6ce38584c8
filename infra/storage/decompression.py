"""Content out of compressed bytes, and the watch on how much of it comes out."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO

import pyarrow as pa

from infra.storage.problems import StorageError

READ_BYTES = 1024 * 1024  # fits in a core's second cache beside what is done with it


@dataclass(frozen=True)
class Limits:
    """How much a source may turn out to be. Beyond it lie mistakes and attacks."""

    max_ratio: int = 200
    """Bytes out per stored byte, beyond `free_bytes`. Repetitive logs reach 50, gzip at most 1032."""

    free_bytes: int = 64 * 1024 * 1024
    """What may come out whatever the ratio: so much harms nobody, and small things compress best."""

    max_bytes: int = 1 << 40
    """Of one source, and of one archive while it is read through: 1 TiB."""

    max_member_bytes: int = 64 << 30
    """Of one member of an archive: 64 GiB."""

    max_line_bytes: int = 256 << 20
    """Of one line, which is in memory at once: 256 MiB."""

    def allow(self, decompressed: int, stored: int) -> bool:
        """Is it no bomb that so much came out of so few bytes?"""
        return decompressed <= self.free_bytes + self.max_ratio * stored

    def bomb(self, uri: str, decompressed: int, stored: int) -> str:
        """The sentence about what is one."""
        return (
            f"source '{uri}' is refused as a decompression bomb: {decompressed} bytes came out of {stored}, "
            f"allowed are {self.max_ratio} for each beyond the first {self.free_bytes}; if it is what it "
            "should be, decompress it first"
        )

    def too_large(self, uri: str, size: int, most: int) -> str:
        """The sentence about what is larger than it may be."""
        return f"source '{uri}' has {size} bytes or more, allowed are {most}; split it"


LIMITS = Limits()


def codec_of(name: str) -> str | None:
    """The ending that says how something is compressed, or None: plain."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in (".gz", ".bz2", ".zst") else None


def decompressed(stored: io.RawIOBase | IO[bytes], codec: str) -> BinaryIO:
    """The content of compressed bytes, streamed; truncated or damaged bytes raise where they are read."""
    if codec == ".gz":
        return gzip.GzipFile(fileobj=stored, mode="rb")  # type: ignore[return-value]
    if codec == ".bz2":
        return bz2.BZ2File(stored)  # type: ignore[return-value]
    return pa.CompressedInputStream(stored, "zstd")  # type: ignore[return-value]


class Watched(io.RawIOBase):
    """Content that is read forward, counted, and refused when it is more than the limits allow."""

    def __init__(
        self,
        content: io.RawIOBase | IO[bytes],
        *,
        uri: str,
        limits: Limits,
        most: int,
        stored: Callable[[], int] | None = None,
    ):
        """`stored` says how many stored bytes the content so far came out of; None: it is not compressed."""
        self._content, self._uri, self._limits, self._most = content, uri, limits, most
        self._stored = stored
        self._count = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As io.RawIOBase. Raises StorageError for too much."""
        count: int = self._content.readinto(buffer)  # type: ignore[attr-defined]
        self._count += count
        if self._count > self._most:
            raise StorageError(self._limits.too_large(self._uri, self._count, self._most))
        if self._stored is not None and not self._limits.allow(self._count, stored := self._stored()):
            raise StorageError(self._limits.bomb(self._uri, self._count, stored))
        return count


class Section(io.RawIOBase):
    """A stretch of stored bytes, in which one may seek. Raises EOFError where it is shorter than it says."""

    def __init__(self, stored: BinaryIO, first: int, size: int):
        self._stored, self._first, self._size = stored, first, size
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As io.RawIOBase."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As io.RawIOBase."""
        wanted = min(len(buffer), max(0, self._size - self._position))
        if not wanted:
            return 0
        self._stored.seek(self._first + self._position)
        count: int = self._stored.readinto(memoryview(buffer)[:wanted])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"it ends at byte {self._position} of {self._size}")
        self._position += count
        return count


class Stream(io.BufferedReader):
    """Content that closes, when it is closed, what it comes from."""

    def __init__(self, content: io.RawIOBase, closing: ExitStack):
        super().__init__(content, READ_BYTES)
        self.closing = closing

    def close(self) -> None:
        """As io.BufferedReader."""
        try:
            super().close()
        finally:
            self.closing.close()
