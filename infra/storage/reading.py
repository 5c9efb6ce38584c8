"""A source's content by place: spans, blocks, heads, first records."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from typing import BinaryIO

from infra.storage.archives import entries
from infra.storage.decompression import LIMITS, Limits
from infra.storage.places import join, split
from infra.storage.problems import Problem, StorageError, told
from infra.storage.streams import open_source, skip
from infra.storage.surveying import Block, SourceFile, too_long


def read_span(uri: str, first: int, end: int) -> bytes:
    """The bytes [first, end) of a source's decompressed content; fewer where it ends before."""
    with open_source(uri) as content, told(uri, f"cannot be read to byte {end}"):
        skip(content, first, position=0)
        return content.read(end - first)


@contextmanager
def open_surveyed(source: SourceFile) -> Iterator[BinaryIO]:
    """A source's content as far as it was surveyed, to be read forward.

    Reading raises StorageError where the source ends before that, or cannot be read.
    """
    with open_source(source.uri) as content:
        yield io.BufferedReader(_Surveyed(content, source))


class _Surveyed(io.RawIOBase):
    def __init__(self, content: BinaryIO, source: SourceFile) -> None:
        self._content, self._source, self._position = content, source, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._source.size - self._position
        with told(self._source.uri, f"cannot be read to byte {self._source.size}"):
            piece = self._content.read(min(len(buffer), left))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        if left and not piece and len(buffer):
            raise StorageError(_ended(self._source.uri, self._source.size, self._position))
        return len(piece)


def stream_blocks(
    source: SourceFile, blocks: Sequence[Block], *, limits: Limits = LIMITS
) -> Iterator[tuple[Block, bytes]]:
    """The content of some of a source's blocks, in their order, in one pass over the source.

    Raises StorageError where the source ends before a block does, ValueError for blocks out of order.
    """
    if not blocks:
        return
    with open_source(source.uri, limits=limits) as content:
        yield from _blocks_in(content, source.uri, blocks)


def stream_sources(
    sources: Sequence[SourceFile], *, limits: Limits = LIMITS
) -> Iterator[tuple[Block, bytes]]:
    """The content of all blocks of several sources; members of one archive that stand together in one pass.

    A source's blocks come in their order, an archive's members in the archive's. Raises as `stream_blocks`.
    """
    for container, together in groupby(sources, key=lambda source: split(source.uri)[0]):
        group = list(together)
        if split(group[0].uri)[1] is None:
            for source in group:
                yield from stream_blocks(source, source.blocks, limits=limits)
        else:
            members = {join(container, split(source.uri)[1] or ""): source for source in group}
            yield from _members_of(container, members, limits)


def first_record(uri: str, *, limits: Limits = LIMITS) -> bytes:
    """The first line of a source that is not blank, without what is blank around it; nothing where none is.

    Raises StorageError where it is longer than `limits` allow.
    """
    with open_source(uri, limits=limits) as content, told(uri):
        while line := content.readline(limits.max_line_bytes + 1):
            if len(line) > limits.max_line_bytes:
                raise StorageError(f"source '{uri}' {too_long(len(line), limits)}")
            if record := line.strip():
                return record
    return b""


def heads(
    uris: Iterable[str], size: int, *, limits: Limits = LIMITS
) -> Iterator[tuple[str, bytes | Problem]]:
    """The first bytes of each source, at most `size`; members of an archive side by side in one pass."""
    for container, together in groupby(uris, key=lambda uri: split(uri)[0]):
        group = list(together)
        if split(group[0])[1] is None:
            for uri in group:
                yield uri, _head(uri, lambda uri=uri: open_source(uri, limits=limits), size)
            continue
        left = {join(container, split(uri)[1] or ""): uri for uri in group}
        try:
            with closing(entries(container, limits=limits)) as inside:
                for entry in inside:
                    if (uri := left.pop(entry.uri, None)) is not None:
                        yield uri, _head(uri, entry.open, size)
                    if not left:
                        break
        except StorageError as error:
            yield from ((uri, Problem(uri, str(error))) for uri in left.values())
        else:
            missing = "cannot be read: the archive has no such member"
            yield from ((uri, Problem(uri, f"source '{uri}' {missing}")) for uri in left.values())


def _head(uri: str, open_it: Callable[[], BinaryIO], size: int) -> bytes | Problem:
    try:
        with open_it() as content, told(uri, "cannot be read to its end"):
            return content.read(size)
    except StorageError as error:
        return Problem(uri, str(error))


def _members_of(
    container: str, sources: Mapping[str, SourceFile], limits: Limits
) -> Iterator[tuple[Block, bytes]]:
    left = dict(sources)
    with closing(entries(container, limits=limits)) as inside:
        for entry in inside:
            source = left.pop(entry.uri, None)
            if source is not None:
                with entry.open() as content:
                    yield from _blocks_in(content, source.uri, source.blocks)
            if not left:
                return
    raise StorageError(f"source '{min(left)}' cannot be read: the archive has no such member")


def _blocks_in(content: BinaryIO, uri: str, blocks: Sequence[Block]) -> Iterator[tuple[Block, bytes]]:
    position = 0
    for block in blocks:
        if block.first < position:
            raise ValueError(
                f"block {block.first}-{block.end} of '{uri}' comes after one that ends at {position}"
            )
        with told(uri, f"cannot be read to byte {block.end}"):
            skip(content, block.first - position, position=position)
            found = content.read(block.end - block.first)
        if len(found) < block.end - block.first:
            raise StorageError(_ended(uri, block.end, block.first + len(found)))
        position = block.end
        yield block, found


def _ended(uri: str, expected: int, end: int) -> str:
    return (
        f"source '{uri}' cannot be read to byte {expected}: it ends at {end}; it was changed since it was "
        "surveyed, ingest it again"
    )
