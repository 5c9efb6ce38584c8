"""Where a URI leads: to a local file or to an object of a store; and in which state that is now.

    file:///logs/all.tar!/day/a%21.jsonl  =  container 'file:///logs/all.tar', member 'day/a!.jsonl'

A '!' of a path or a member's name is always written %21, so that the first '!/' is the border.
"""

from __future__ import annotations

import functools
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

import pyarrow.fs

from infra.storage.problems import StorageError, told

_FETCH_BYTES = 8 * 1024 * 1024  # one request to an object store: at 50 ms each still 160 MB/s


@dataclass(frozen=True)
class State:
    """What changes when a file or an object does, cheaply known. Never part of an identity."""

    size: int
    """Bytes as stored: compressed, and of the whole archive."""

    modified_ns: int
    inode: int = 0
    """0 in an object store."""

    etag: str = ""
    """Empty for local files."""


def split(uri: str) -> tuple[str, str | None]:
    """The URI of the file or object, and the name of the member in it, if it leads into an archive."""
    container, border, member = uri.partition("!/")
    return container, unquote(member, errors="surrogateescape") if border else None


def join(container: str, member: str) -> str:
    """The URI of a member of an archive."""
    return f"{container}!/{quote(member, errors='surrogateescape')}"


def is_local(uri: str) -> bool:
    """Does it lead to a file of this machine?"""
    return uri.startswith("file://")


def local_uri(path: Path) -> str:
    """The URI of an absolute path."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def local_path(uri: str) -> Path:
    """The path behind a file URI without a member. Raises StorageError for another machine's."""
    host, slash, path = uri.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise StorageError(f"source '{uri}' lies on host '{host}'; a file URI begins with file:///")
    return Path(os.fsdecode(unquote_to_bytes(slash + path)))


def object_uri(store: str, key: str) -> str:
    """The URI of an object. `store`: scheme and bucket, as s3://bucket."""
    return f"{store}/{quote(key, safe='/=', errors='surrogateescape')}"


def store_and_key(uri: str) -> tuple[str, str]:
    """Scheme and bucket (s3://bucket), and the object's key in it. Raises StorageError for a password."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if ":" in bucket.rpartition("@")[0]:
        raise StorageError(
            f"source '{scheme}://...@{bucket.rpartition('@')[2]}/{key}' holds a password, which every row "
            "would show; give the store's credentials through its own environment or files"
        )
    return f"{scheme}://{bucket}", unquote(key, errors="surrogateescape")


@functools.lru_cache(maxsize=64)
def filesystem(store: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The filesystem of a store (s3://bucket), and the path of its keys' root.

    An endpoint, credentials and a region are what the store's own variables and files say (AWS_ENDPOINT_URL,
    whose scheme decides about http; AWS_PROFILE; ...): pyarrow heeds them where it is given a URI.
    """
    with told(store, "is no object store that can be reached"):
        return pyarrow.fs.FileSystem.from_uri(store)


def object_path(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The filesystem that holds an object, and the object's path in it."""
    store, key = store_and_key(uri)
    files, root = filesystem(store)
    return files, f"{root.rstrip('/')}/{key}"


def name_of(uri: str) -> str:
    """The last part of the path: the member's where there is one."""
    container, member = split(uri)
    return (unquote(container, errors="surrogateescape") if member is None else member).rpartition("/")[2]


def open_stored(container: str) -> BinaryIO:
    """The bytes of a file or an object as they are stored; one may seek in them. Raises StorageError."""
    with told(container):
        if is_local(container):
            return local_path(container).open("rb")
        files, path = object_path(container)
        return io.BufferedReader(files.open_input_file(path), _FETCH_BYTES)  # type: ignore[type-var]


def state_of(uri: str) -> State:
    """The state of the file or object that a URI leads to, or into. Raises StorageError."""
    container, _ = split(uri)
    with told(container):
        if is_local(container):
            found = local_path(container).stat()
            return State(found.st_size, found.st_mtime_ns, found.st_ino)
        files, path = object_path(container)
        with files.open_input_file(path) as stored:
            metadata = stored.metadata() or {}
            modified_ns = files.get_file_info(path).mtime_ns or 0
            return State(stored.size(), modified_ns, etag=metadata.get("ETag", b"").decode())
