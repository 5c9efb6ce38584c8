"""What a table's newest version holds, remembered for as long as nobody commits to it.

A question looks at a dozen tables, and a search asks many questions. A file never changes once it is written,
so what was read of one stays true: the list of a version's files, and the rows of small files (a book gets
one per event), are kept. Writers do not come here: each needs a look of its own at the log.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.damage import told
from lineage.tables.files import read_file
from lineage.tables.layout import open_table
from lineage.tables.place import location

_SMALL_BYTES = 64 * 1024  # such a file costs more to open than to hold
_MOST_BYTES = 64 * 1024 * 1024  # of small files, per table; beyond it none of them is held
_MOST_TABLES = 64  # remembered at once; a process that sees many lakes forgets the first

_lock = threading.RLock()
_known: dict[str, _Known] = {}


@dataclass(frozen=True)
class Snapshot:
    """The newest version of a table."""

    settings: Settings = field(repr=False, compare=False)
    spec: TableSpec = field(compare=False)
    version: int = field(compare=False)
    files: tuple[dict[str, Any], ...] = field(compare=False)
    """Per file: path, size_bytes, num_records; min.NAME, max.NAME, null_count.NAME where the log has them."""

    identity: tuple[Any, ...]
    """Equal for equal content."""

    @property
    def small(self) -> tuple[dict[str, Any], ...]:
        """The files whose rows are held."""
        small = tuple(each for each in self.files if each["size_bytes"] <= _SMALL_BYTES)
        return small if sum(each["size_bytes"] for each in small) <= _MOST_BYTES else ()

    def held(self) -> pa.Table:
        """All rows of the small files."""
        with _lock:
            known = _known[location(self.settings, self.spec)]
            if known.held is None or known.held[0] != self.identity:
                rows = {
                    each["path"]: known.rows.get(each["path"])
                    or read_file(self.settings, each["path"], of=self.spec)
                    for each in self.small
                }
                together = pa.concat_tables([self.spec.schema.empty_table(), *rows.values()]).combine_chunks()
                known.rows, known.held = rows, (self.identity, together)
            return known.held[1]


@dataclass
class _Known:
    handle: DeltaTable
    snapshot: Snapshot
    rows: dict[str, pa.Table] = field(default_factory=dict)
    held: tuple[tuple[Any, ...], pa.Table] | None = None


def snapshot(settings: Settings, spec: TableSpec) -> Snapshot | None:
    """The newest version of a table, or None where it was never written."""
    uri = location(settings, spec)
    with _lock:
        known = _known.pop(uri, None)
        if known is None or not _still_newest(settings, spec, known):
            handle = open_table(settings, spec)
            if handle is None:
                return None
            mark = _mark(settings, uri, handle.version())
            found = Snapshot(settings, spec, handle.version(), file_list(settings, spec, handle), mark)
            is_same_table = known is not None and known.snapshot.identity[:2] == mark[:2]
            known = _Known(handle, found, known.rows if known is not None and is_same_table else {})
        _known[uri] = known
        while len(_known) > _MOST_TABLES:
            _known.pop(next(iter(_known)))
        return known.snapshot


def _still_newest(settings: Settings, spec: TableSpec, known: _Known) -> bool:
    if settings.is_local:
        uri, version = location(settings, spec), known.snapshot.version
        follows = os.path.exists(f"{uri}/_delta_log/{version + 1:020d}.json")
        return not follows and _mark(settings, uri, version) == known.snapshot.identity
    with told(settings, spec):
        known.handle.update_incremental()
    return known.handle.version() == known.snapshot.version


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


def _mark(settings: Settings, uri: str, version: int) -> tuple[Any, ...]:
    """What tells this version of this table from another under the same name: when its log was written.

    Empty, and so like no other, where the log cannot be looked at.
    """
    if not settings.is_local:
        return (uri, "", version)
    try:
        first, last = (os.stat(f"{uri}/_delta_log/{number:020d}.json") for number in (0, version))
    except OSError:
        return (object(),)
    began, ended = ((entry.st_ino, entry.st_mtime_ns, entry.st_size) for entry in (first, last))
    return (uri, began, version, ended)
