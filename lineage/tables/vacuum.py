"""Give back the space of files that no version has to be read from any more.

What goes is written into the table's own log before the first file goes: from then on its absence is on
record, and `damage` does not take it for a loss. The newest version never loses a file.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from pyarrow.fs import FileSelector

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.damage import VACUUMED, added, told, vacuumed
from lineage.tables.layout import TableVersion, open_table
from lineage.tables.place import location, open_filesystem


def spare(
    settings: Settings, spec: TableSpec, *, keep_versions: Collection[int], keep_hours: int
) -> dict[str, int]:
    """Path -> bytes, of the files that a vacuum would remove; sorted.

    A file stays while the newest version, one of these, or one of the last hours needs it. What no version
    ever named goes when it is that old, too.
    """
    table = open_table(settings, spec)
    if table is None:
        return {}
    with told(settings, spec):
        listed = set(_vacuumed(settings, spec, table, keep_versions, keep_hours))
    return {path: size for path, size, _ in _stored(settings, spec) if path in listed}


def vacuum(
    settings: Settings, spec: TableSpec, *, keep_versions: Collection[int], keep_hours: int, run_id: str
) -> dict[str, int]:
    """Remove what is spare, in two commits around it that name it; path -> bytes, of what went."""
    files = spare(settings, spec, keep_versions=keep_versions, keep_hours=keep_hours)
    table = open_table(settings, spec)
    if table is None or not files:
        return {}
    named = {"stemma.run_id": run_id, VACUUMED: json.dumps(list(files))}
    with told(settings, spec):
        _vacuumed(settings, spec, table, keep_versions, keep_hours, named)
    left = {path for path, _, _ in _stored(settings, spec)}
    return {path: size for path, size in files.items() if path not in left}


def lost(settings: Settings, version: TableVersion) -> list[str]:
    """The files that this version needs and a vacuum removed; sorted."""
    table = open_table(settings, version.spec, version.version)
    if table is None:
        return []
    with told(settings, version.spec):
        needed = pa.table(table.get_add_actions())["path"].to_pylist()
    return sorted(set(needed) & vacuumed(settings, version.spec))


def orphans(settings: Settings, spec: TableSpec, *, before_s: float) -> dict[str, int]:
    """Path -> bytes, of the files that no version names and that were written before a time (Unix, seconds).

    A job that died between its files and its commit leaves them.
    """
    named = added(settings, spec)
    return {
        path: size
        for path, size, written_s in _stored(settings, spec)
        if path not in named and written_s < before_s
    }


def remove_orphans(settings: Settings, spec: TableSpec, paths: Collection[str]) -> None:
    """Remove files that `orphans` named."""
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    with told(settings, spec):
        for path in set(paths) - added(settings, spec):
            filesystem.delete_file(f"{folder}/{path}")


def _vacuumed(
    settings: Settings,
    spec: TableSpec,
    table: DeltaTable,
    keep_versions: Collection[int],
    keep_hours: int,
    named: dict[str, str] | None = None,
) -> list[str]:
    """Delta's vacuum, for show unless the commits that carry it out are named; paths within the folder."""
    options: dict[str, Any] = {"commit_properties": CommitProperties(custom_metadata=named)} if named else {}
    paths = table.vacuum(
        retention_hours=keep_hours,
        dry_run=named is None,
        enforce_retention_duration=False,  # a table keeps everything, unless somebody decides otherwise
        full=True,  # what no version names, too
        keep_versions=sorted(keep_versions),
        **options,
    )
    _, folder = open_filesystem(settings, location(settings, spec))
    return [path.removeprefix(f"{folder}/") for path in paths]


def _stored(settings: Settings, spec: TableSpec) -> list[tuple[str, int, float]]:
    """Path, bytes and time of writing of each Parquet file in a table's folder; sorted."""
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    with told(settings, spec):
        found = filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
    return sorted(
        (info.base_name, info.size or 0, (info.mtime_ns or 0) / 1e9)
        for info in found
        if info.base_name.endswith(".parquet")
    )
