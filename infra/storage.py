"""Sources of bytes behind one URI: local files, compressed or not.

What is read is what lineage can show again.
Spans count bytes of the *decompressed* content, so that a compressed copy of a file holds the same rows.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlparse

BLOCK_BYTES = 32 * 1024 * 1024  # what one task reads; at 32 MB parsing outweighs the task's own cost

_BROKEN = (OSError, EOFError, zlib.error)  # what a damaged file or archive raises while it is read


class StorageError(Exception):
    """A source that cannot be read; the message says which and what to do."""


@dataclass(frozen=True)
class Block:
    """A stretch of whole lines of one source."""

    uri: str
    first: int
    """First byte in the decompressed content."""

    end: int
    lines_before: int
    lines: int


@dataclass(frozen=True)
class SourceFile:
    """One source as it is now: its content's digest, its first record, and its stretches of lines."""

    uri: str
    revision: str
    first_record: bytes
    blocks: tuple[Block, ...]

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return sum(block.lines for block in self.blocks)


def expand(sources: Sequence[str]) -> list[str]:
    """Absolute file URIs of files, of what lies in folders, and of what globs match; sorted, each once."""
    found: set[Path] = set()
    for source in sources:
        text = unquote(urlparse(source).path) if source.startswith("file://") else source
        if "://" in text:
            raise StorageError(
                f"source '{source}' is not a local file; object stores are read through a mounted path"
            )
        path = Path(text).expanduser()
        if path.is_dir():
            inside = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
        elif path.is_file():
            inside = [path]
        else:
            inside = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]
        if not inside:
            raise StorageError(
                f"source '{source}' names no file; expected a file, a folder or a glob that matches"
            )
        found.update(p.absolute() for p in inside)
    return [path.as_uri() for path in sorted(found)]


def survey(uri: str, *, block_bytes: int = BLOCK_BYTES) -> SourceFile:
    """Read a source once: its digest, and where its lines may be cut.

    Raises StorageError for an empty source.
    """
    digest = hashlib.sha256()
    blocks: list[Block] = []
    first_record = b""
    first = lines_before = 0
    for chunk in _chunks_of_lines(uri, block_bytes):
        digest.update(chunk)
        if not first_record:
            first_record = next((line.strip() for line in chunk.split(b"\n") if line.strip()), b"")
        lines = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
        blocks.append(Block(uri, first, first + len(chunk), lines_before, lines))
        first += len(chunk)
        lines_before += lines
    if not first_record:
        raise StorageError(f"source '{uri}' is empty; expected at least one record")
    return SourceFile(uri, f"sha256:{digest.hexdigest()}", first_record, tuple(blocks))


def records(block: Block) -> Iterator[tuple[int, int, bytes]]:
    """(line number in the source, first byte, bytes) of each line of a block that is not blank.

    The bytes come without the line end.
    """
    position = block.first
    for offset, line in enumerate(read_span(block.uri, block.first, block.end).split(b"\n")):
        record = line.rstrip(b"\r")
        if record.strip():
            yield block.lines_before + offset, position, record
        position += len(line) + 1


def read_span(uri: str, first: int, end: int) -> bytes:
    """The bytes [first, end) of a source's decompressed content."""
    with open_source(uri) as source:
        try:
            source.seek(first)
            return source.read(end - first)
        except _BROKEN as error:
            raise StorageError(f"source '{uri}' cannot be read to byte {end}: {error}") from error


def first_record(uri: str) -> bytes:
    """The first line of a source that is not blank, as `survey` finds it; nothing where there is none."""
    with open_source(uri) as source:
        try:
            return next((line.strip() for line in source if line.strip()), b"")
        except _BROKEN as error:
            raise StorageError(f"source '{uri}' cannot be read: {error}") from error


def open_source(uri: str) -> BinaryIO:
    """The source's decompressed content as a stream. Raises StorageError if it is gone or cannot be read."""
    path = Path(unquote(urlparse(uri).path))
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        if path.suffix == ".bz2":
            return bz2.open(path, "rb")  # type: ignore[return-value]
        return path.open("rb")
    except OSError as error:
        raise StorageError(f"source '{uri}' cannot be read: {error.strerror}") from error


def _chunks_of_lines(uri: str, size: int) -> Iterator[bytes]:
    with open_source(uri) as source:
        rest = io.BytesIO()
        try:
            while chunk := source.read(size):
                cut = chunk.rfind(b"\n") + 1
                if not cut:
                    rest.write(chunk)
                    continue
                yield rest.getvalue() + chunk[:cut]
                rest = io.BytesIO()
                rest.write(chunk[cut:])
        except _BROKEN as error:
            raise StorageError(f"source '{uri}' cannot be read to its end: {error}") from error
        if rest.getvalue():
            yield rest.getvalue()
