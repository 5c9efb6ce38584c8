"""Damaged files of a table: found, and named in one sentence by whatever stumbles over one.

The log says which files a commit added and how long they are. All of them must be there, those of earlier
versions, too, but for those that the log says a vacuum took.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError
from pyarrow.fs import FileSelector, FileSystem, FileType

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.place import TableError, location, open_filesystem

VACUUMED = "stemma.vacuumed"
"""In a commit's metadata: JSON list of the files that a vacuum removes."""

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
        gone = re.search(r"[^/\\'\" ]+\.parquet", str(error))
        if gone and gone[0] in vacuumed(settings, spec):
            raise TableError(
                f"a version of '{spec.name}' that was asked for needs '{gone[0]}', which a vacuum removed; "
                "its rows are given back by no command, the newest version is whole"
            ) from error
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


def added(settings: Settings, spec: TableSpec) -> set[str]:
    """Every file that some version of a table named; of a table that cannot be read, nothing is known."""
    log = _Log.read(settings, spec)
    if log.wrong:
        raise Damaged(f"table '{spec.name}' cannot be looked after: {log.wrong[0]}")
    return log.added.keys() | log.vacuumed


def vacuumed(settings: Settings, spec: TableSpec) -> set[str]:
    """The files that the log says a vacuum took."""
    return _Log.read(settings, spec).vacuumed


@dataclass
class _Log:
    """What the log of a table says of its files."""

    entries: int = 0
    added: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Path -> the version that added it, and its bytes; none that a vacuum took."""
    vacuumed: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    """A sentence for each entry that cannot be read."""

    @classmethod
    def read(cls, settings: Settings, spec: TableSpec) -> _Log:
        """From its first entry to its last."""
        filesystem, folder = open_filesystem(settings, location(settings, spec))
        log = cls()
        try:
            entries = _entries(filesystem, f"{folder}/_delta_log")
        except OSError as error:
            return cls(entries=1, wrong=[f"the log of '{spec.name}' cannot be listed: {said(error)}"])
        log.entries = len(entries)
        for version, path in entries.items():
            try:
                files, taken = _actions(filesystem, path)
            except _UNREADABLE as error:
                log.wrong.append(f"the log entry '{path}' of {spec.name}@{version} {said(error)}")
                continue
            for name in taken:
                log.added.pop(name, None)
            log.vacuumed |= taken
            for name, size in files.items():
                log.added[name] = (f"{spec.name}@{version}", size)
                log.vacuumed.discard(name)
        return log


def _damage(settings: Settings, spec: TableSpec) -> tuple[int, list[str]]:
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    log = _Log.read(settings, spec)
    found = list(log.wrong)
    for path, (version, size) in log.added.items():
        wrong = _wrong_with(filesystem, f"{folder}/{path}", size)
        if wrong is not None:
            found.append(f"file '{folder}/{path}' of {version} {wrong}")
    return log.entries + len(log.added), found


def _entries(filesystem: FileSystem, log: str) -> dict[int, str]:
    """Version -> its entry's path, for each version up to the newest, whether the entry is there or not."""
    listed = filesystem.get_file_info(FileSelector(log, allow_not_found=True))
    versions = [int(info.base_name[:-5]) for info in listed if re.fullmatch(r"\d{20}\.json", info.base_name)]
    return {version: f"{log}/{version:020d}.json" for version in range(max(versions, default=-1) + 1)}


def _actions(filesystem: FileSystem, path: str) -> tuple[dict[str, int], set[str]]:
    """Path -> bytes, of what a commit added; and what it says a vacuum takes.

    Raises ValueError where its entry says nothing that Delta could read.
    """
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
        commits = [action["commitInfo"] for action in actions if "commitInfo" in action]
        if not commits:
            raise ValueError("names no commit")
        files = [action["add"] for action in actions if "add" in action]
        for file in files:
            json.loads(file["stats"] or "{}")
        taken = {str(name) for commit in commits for name in json.loads(commit.get(VACUUMED, "[]"))}
        return {str(file["path"]): int(file["size"]) for file in files}, taken
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
