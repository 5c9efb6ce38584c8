"""What a table's newest version holds, remembered for as long as nobody commits to it.

A question looks at a dozen tables, and a search asks many questions. A file never changes once it is written,
so what was read of one stays true: the list of a version's files, and the rows of small files (a book gets
one per event), are kept. Writers do not come here: each needs a look of its own at the log.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow.fs import FileType

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.damage import Damaged, told
from lineage.tables.files import read_file
from lineage.tables.layout import open_table
from lineage.tables.place import location, open_filesystem

_SMALL_BYTES = 64 * 1024  # such a file costs more to open than to hold
_MOST_BYTES = 64 * 1024 * 1024  # of small files, per table; beyond it none of them is held
_MOST_TABLES = 64  # remembered at once; a process that sees many lakes forgets the first

_lock = threading.Lock()
_known: dict[str, Snapshot] = {}


@dataclass(frozen=True)
class Snapshot:
    """The newest version of a table. Equal to another of the same content."""

    identity: tuple[Any, ...]
    """Where the table lies, its id, the version, and when its log's first and newest entries were written."""

    settings: Settings = field(repr=False, compare=False)
    spec: TableSpec = field(compare=False)
    version: int = field(compare=False)
    files: tuple[dict[str, Any], ...] = field(repr=False, compare=False)
    """Per file: path, size_bytes, num_records; min.NAME, max.NAME, null_count.NAME where the log has them."""

    _rows: dict[str, pa.Table] = field(default_factory=dict, repr=False, compare=False)
    _together: list[pa.Table] = field(default_factory=list, repr=False, compare=False)
    _damaged: list[bool] = field(default_factory=list, repr=False, compare=False)
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def table(self) -> tuple[Any, ...]:
        """What all versions of this table share, and no other table does, not even one in its place."""
        return self.identity[:3]

    @property
    def small(self) -> tuple[dict[str, Any], ...]:
        """The files whose rows are held."""
        small = tuple(each for each in self.files if each["size_bytes"] <= _SMALL_BYTES)
        return small if sum(each["size_bytes"] for each in small) <= _MOST_BYTES else ()

    def held(self) -> pa.Table | None:
        """All rows of the small files; None where one of them is damaged."""
        with self._reading:
            if self._damaged:
                return None
            if not self._together:
                paths = [each["path"] for each in self.small]
                read = {path: self._rows.get(path) for path in paths}
                try:
                    for path, rows in read.items():
                        whole = rows is not None
                        read[path] = rows if whole else read_file(self.settings, path, of=self.spec)
                except Damaged:
                    self._damaged.append(True)
                    return None
                self._rows.clear()
                self._rows.update({path: rows for path, rows in read.items() if rows is not None})
                parts = [self.spec.schema.empty_table(), *self._rows.values()]
                self._together.append(pa.concat_tables(parts).combine_chunks())
            return self._together[0]


def snapshot(settings: Settings, spec: TableSpec) -> Snapshot | None:
    """The newest version of a table, or None where it was never written."""
    uri = location(settings, spec)
    with _lock:
        before = _known.pop(uri, None)
        found = before if before is not None and _still_newest(before) else _opened(settings, spec, before)
        if found is not None:
            _known[uri] = found
        while len(_known) > _MOST_TABLES:
            _known.pop(next(iter(_known)))
        return found


def forget() -> None:
    """Read everything anew: for whoever changes files behind Delta's back, to see what comes of it."""
    with _lock:
        _known.clear()


def file_list(settings: Settings, spec: TableSpec, handle: DeltaTable) -> tuple[dict[str, Any], ...]:
    """The files of the version that a handle stands on, as `Snapshot.files` has them."""
    with told(settings, spec):
        actions = pa.table(handle.get_add_actions(flatten=True))
    facts = ("path", "size_bytes", "num_records", "min.", "max.", "null_count.")
    return tuple(actions.select([n for n in actions.column_names if n.startswith(facts)]).to_pylist())


def _opened(settings: Settings, spec: TableSpec, before: Snapshot | None) -> Snapshot | None:
    handle = open_table(settings, spec)
    if handle is None:
        return None
    version = handle.version()
    began, ended, _ = _log(settings, spec, version)
    identity = (location(settings, spec), handle.metadata().id, began, version, ended)
    files = file_list(settings, spec, handle)
    rows: Mapping[str, pa.Table] = before._rows if before and before.table == identity[:3] else {}
    return Snapshot(identity, settings, spec, version, files, dict(rows))


def _still_newest(known: Snapshot) -> bool:
    began, ended, is_followed = _log(known.settings, known.spec, known.version)
    return not is_followed and (began, ended) == (known.identity[2], known.identity[4])


def _log(settings: Settings, spec: TableSpec, version: int) -> tuple[Any, Any, bool]:
    """When and how long the log's first entry and that of a version were written; does another follow?"""
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    entries = [f"{folder}/_delta_log/{number:020d}.json" for number in (0, version, version + 1)]
    with told(settings, spec):
        first, last, following = filesystem.get_file_info(entries)
    began, ended = ((each.mtime_ns, each.size) for each in (first, last))
    return began, ended, following.type is FileType.File
