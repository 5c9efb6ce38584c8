"""Give back the space of files that no version has to be read from any more.

What goes is written into the table's own log before the first file goes: from then on its absence is on
record, and `damage` does not take it for a loss. Nothing else goes, whatever was written meanwhile, and the
newest version never loses a file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow.fs import FileSelector

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.commit import ATTEMPTS, is_written
from lineage.tables.damage import VACUUMED, added, told, vacuumed
from lineage.tables.layout import TableVersion, open_table
from lineage.tables.place import TableError, location, open_filesystem

_YOUNG_S = 24 * 3600  # a file that no version names may be one whose writer has not committed yet


def spare(
    settings: Settings, spec: TableSpec, *, keep_versions: Collection[int], keep_hours: int
) -> dict[str, int]:
    """Path -> bytes, of the files that a vacuum may remove; sorted.

    A file stays while the newest version, one of these, or one of the last hours needs it. What no version
    ever named goes when it is that old, and older than a day, too.
    """
    table = open_table(settings, spec)
    if table is None:
        return {}
    with told(settings, spec):
        paths = table.vacuum(
            retention_hours=keep_hours,
            dry_run=True,  # Delta says what could go; what goes is what we put on record
            enforce_retention_duration=False,  # a table keeps everything, unless somebody decides otherwise
            full=True,  # what no version names, too
            keep_versions=sorted(keep_versions),
        )
    _, folder = open_filesystem(settings, location(settings, spec))
    listed = {path.removeprefix(f"{folder}/") for path in paths}
    named, old_s = added(settings, spec), time.time() - _YOUNG_S
    return {
        path: size
        for path, size, written_s in _stored(settings, spec)
        if path in listed and (path in named or written_s < old_s)
    }


def vacuum(settings: Settings, spec: TableSpec, files: Mapping[str, int], *, run_id: str) -> dict[str, int]:
    """Remove exactly these files, as `spare` gave them, after a commit that names them; those that went.

    One that is gone already, or that the newest version names by now, is left out.
    """
    for attempt in range(ATTEMPTS):
        table = open_table(settings, spec)
        if table is None:
            return {}
        going = _still_spare(settings, spec, table, files)
        if not going:
            return {}
        named = {"stemma.run_id": run_id, VACUUMED: json.dumps(list(going))}
        if is_written(settings, spec, table, [], named):
            filesystem, folder = open_filesystem(settings, location(settings, spec))
            with told(settings, spec):
                for path in going:
                    filesystem.delete_file(f"{folder}/{path}")
            return going
        time.sleep(0.01 * attempt)
    raise TableError(f"'{spec.name}' could not be vacuumed: {ATTEMPTS} other writers came first; try again")


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


def _still_spare(
    settings: Settings, spec: TableSpec, table: DeltaTable, files: Mapping[str, int]
) -> dict[str, int]:
    with told(settings, spec):
        needed = set(pa.table(table.get_add_actions())["path"].to_pylist())
    stored = {path for path, _, _ in _stored(settings, spec)}
    return {path: size for path, size in files.items() if path in stored - needed}


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
