"""A URI -> its decompressed content."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import BinaryIO

from infra.storage.archives import entries, is_archive
from infra.storage.decompression import LIMITS, READ_BYTES, Limits, Stream, Watched, codec_of, decompressed
from infra.storage.places import join, name_of, open_stored, split
from infra.storage.problems import StorageError


def open_source(uri: str, *, limits: Limits = LIMITS) -> BinaryIO:
    """The source's decompressed content as a stream. Raises StorageError if it is gone or cannot be read.

    One may seek (`seekable()`) where content is stored plainly: in a file, an object, a .tar, a zip that
    does not compress. Elsewhere it is read forward; more of it than the limits allow raises StorageError.
    """
    container, member = split(uri)
    if member is not None:
        return _open_member(container, join(container, member), limits)
    if is_archive(name_of(uri)):
        raise StorageError(f"source '{uri}' is an archive; name what is in it: {uri}!/NAME")
    stored = open_stored(container)
    codec = codec_of(name_of(uri))
    if codec is None:
        return stored
    with ExitStack() as opened:
        opened.enter_context(stored)
        content = Watched(
            decompressed(stored, codec), uri=uri, limits=limits, most=limits.max_bytes, stored=stored.tell
        )
        return Stream(content, opened.pop_all())


def skip(stream: BinaryIO, count: int, *, position: int) -> None:
    """Go `count` bytes on from `position`."""
    if stream.seekable():
        stream.seek(position + count)
        return
    while count and (passed := len(stream.read(min(count, READ_BYTES)))):
        count -= passed


def _open_member(container: str, uri: str, limits: Limits) -> BinaryIO:
    with ExitStack() as opened:
        for entry in opened.enter_context(closing(entries(container, limits=limits))):
            if entry.uri == uri:
                content = entry.open(seekable=True)
                content.closing.callback(opened.pop_all().close)
                return content
    raise StorageError(f"source '{uri}' cannot be read: the archive has no such member")
