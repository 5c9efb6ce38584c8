"""Damaged files of a table: found, and named in one sentence by whatever stumbles over one.

The log says which files a commit added and how long they are. Nothing is ever deleted from the lake, so all
of them must be there, those of earlier versions, too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError
from pyarrow.fs import FileSelector, FileSystem, FileType

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.place import TableError, location, open_filesystem

_UNREADABLE = (pa.ArrowException, OSError, ValueError)  # what a damaged file makes its readers raise


class Damaged(TableError):
    """A file of a table is gone, or holds something else than was written."""


@contextmanager
def told(settings: Settings, spec: TableSpec) -> Iterator[None]:
    """What Delta, Arrow and the file system raise inside becomes a TableError that names the damaged file.

    An error for which no file is to blame stays as it is, unless the storage itself refused.
    """
    try:
        yield
    except (DeltaError, *_UNREADABLE) as error:
        require_whole(settings, spec)
        if not isinstance(error, DeltaError | OSError):
            raise
        raise TableError(
            f"table '{spec.name}' in '{location(settings, spec)}' cannot be used: {said(error)}; "
            "look after the storage and this user's rights there"
        ) from error


def require_whole(settings: Settings, spec: TableSpec) -> None:
    """Raise Damaged where a file of a table is damaged; reads all of them."""
    _, found = damage(settings, spec)
    if found:
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        raise Damaged(
            f"table '{spec.name}' cannot be used: {found[0]}{more} (stemma fsck names every damaged file)"
        )


def damage(settings: Settings, spec: TableSpec) -> tuple[int, list[str]]:
    """How many files of a table were looked at (all), and a sentence for each that is damaged: what to do."""
    count, found = _damage(settings, spec)
    return count, [f"{sentence}; {_advice(sentence)}" for sentence in found]


def _advice(sentence: str) -> str:
    if "Permission denied" in sentence:
        return "give this user the right to read it"
    return "restore it from a copy of the lake"


def _damage(settings: Settings, spec: TableSpec) -> tuple[int, list[str]]:
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    try:
        entries = _entries(filesystem, f"{folder}/_delta_log")
    except OSError as error:
        return 1, [f"the log of '{spec.name}' cannot be listed: {said(error)}"]
    found: list[str] = []
    added: dict[str, tuple[str, int]] = {}
    for version, path in entries.items():
        try:
            actions = _actions(filesystem, path)
        except _UNREADABLE as error:
            found.append(f"the log entry '{path}' of {spec.name}@{version} {said(error)}")
        else:
            added |= {f"{folder}/{a['path']}": (f"{spec.name}@{version}", a["size"]) for a in actions}
    for path, (version, size) in added.items():
        wrong = _wrong_with(filesystem, path, size)
        if wrong is not None:
            found.append(f"file '{path}' of {version} {wrong}")
    return len(entries) + len(added), found


def _entries(filesystem: FileSystem, log: str) -> dict[int, str]:
    """Version -> its entry's path, for each version up to the newest, whether the entry is there or not."""
    listed = filesystem.get_file_info(FileSelector(log, allow_not_found=True))
    versions = [int(info.base_name[:-5]) for info in listed if re.fullmatch(r"\d{20}\.json", info.base_name)]
    return {version: f"{log}/{version:020d}.json" for version in range(max(versions, default=-1) + 1)}


def _actions(filesystem: FileSystem, path: str) -> list[dict[str, Any]]:
    """What a commit added. Raises ValueError where its entry says nothing that Delta could read."""
    if filesystem.get_file_info(path).type is not FileType.File:
        raise ValueError("is gone")
    try:
        with filesystem.open_input_file(path) as source:
            content = source.read()
    except OSError as error:
        raise ValueError(f"cannot be read: {said(error)}") from error
    if not content.strip():
        raise ValueError("is empty")
    try:
        actions = [json.loads(line) for line in content.decode().splitlines() if line]
        if not any("commitInfo" in action for action in actions):
            raise ValueError("names no commit")
        return [
            {"path": str(action["add"]["path"]), "size": int(action["add"]["size"])}
            for action in actions
            if "add" in action
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"is not what Delta writes: {said(error)}") from error


def _wrong_with(filesystem: FileSystem, path: str, size: int) -> str | None:
    info = filesystem.get_file_info(path)
    if info.type is not FileType.File:
        return "is gone"
    if info.size != size:
        return f"is {info.size:,} bytes long, but {size:,} were written"
    try:
        with filesystem.open_input_file(path) as source:
            for batch in pq.ParquetFile(source).iter_batches():
                batch.validate(full=True)
    except _UNREADABLE as error:
        return f"cannot be read: {said(error)}"
    return None


def said(error: BaseException) -> str:
    """An error's words on one line, without the colours and the stack that Delta adds."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    plain = re.sub(r"\x1b\[\d*m|↳", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if not re.match(r"\s*(\d+: |at )", line)]
    return ": ".join(filter(None, lines))[:300] or type(error).__name__
