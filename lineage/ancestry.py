"""Where one row comes from and what came of it: ancestors, descendants, and the bytes of its source."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from infra.settings import Settings
from infra.storage import StorageError, first_record, read_span
from lineage import sources, tables
from lineage.graph import RowGraph, graph
from lineage.parquet_rows import read_row
from lineage.rows import LEAST_PREFIX, origin_of, record_row_ids
from lineage.schemas import PROVENANCE, REJECTED, ROW_TABLES, TableSpec
from lineage.tables import TableError

_MOST_ROWS_PER_RECORD = 4096  # ordinals tried; a record that gives more rows has not been seen


class LineageError(TableError):
    """A row cannot be found, or its source no longer says what it said."""


def find_row(settings: Settings, prefix: str) -> tuple[TableSpec, dict[str, Any]]:
    """The stored row whose id starts with a hex prefix.

    Rows share an id where one was taken back and came again, judged anew: then it is the one that stands.
    Raises LineageError with the candidates if several ids start so.
    """
    if len(prefix) < LEAST_PREFIX or any(c not in "0123456789abcdef" for c in prefix):
        raise LineageError(f"'{prefix}' is no row id; expected at least {LEAST_PREFIX} hex digits")
    rows = graph(settings)
    found = _newest(rows, rows.starting_with(prefix))
    if not len(found):
        raise LineageError(f"no row's id starts with '{prefix}'")
    if len(found) > 1:
        raise LineageError(f"'{prefix}' could be any of: {', '.join(_shown(rows, found))}")
    spec = ROW_TABLES[rows.tables[found[0]]]
    is_it = pads.field("row_no") == int(rows.numbers[found[0]])
    return spec, tables.read_ever(settings, spec, where=is_it).to_pylist()[0]


def rows_starting(settings: Settings, prefix: str) -> list[str]:
    """The first few rows whose id starts so, each as ID (TABLE)."""
    rows = graph(settings)
    return _shown(rows, _newest(rows, rows.starting_with(prefix)))


def _shown(rows: RowGraph, positions: np.ndarray) -> list[str]:
    names = (ROW_TABLES[table].name for table in rows.tables[positions[:8]])
    return [f"{rows.ids[at].tobytes().hex()} ({name})" for at, name in zip(positions, names, strict=False)]


def ancestors(settings: Settings, row_ids: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """The rows and everything they were derived from, by row id, down to the sources.

    Raises LineageError where a row names a parent that is not stored.
    """
    rows = graph(settings)
    each = [_newest(rows, rows.starting_with(row_id.hex())) for row_id in row_ids]
    return _up(settings, rows, np.concatenate([np.zeros(0, np.int64), *each]))


def ancestors_of(settings: Settings, row_nos: Iterable[int]) -> dict[bytes, dict[str, Any]]:
    """As `ancestors`, of rows by their numbers: of rows that share an id (see `find_row`) exactly these."""
    rows = graph(settings)
    return _up(settings, rows, rows.positions(np.fromiter(row_nos, np.int64)))


def _up(settings: Settings, rows: RowGraph, positions: np.ndarray) -> dict[bytes, dict[str, Any]]:
    found = {row["row_id"]: row for row in _described(settings, rows, rows.up.reach(positions))}
    missing = {parent for row in found.values() for parent in row["parents"]} - found.keys()
    if missing:
        raise LineageError(f"row {min(missing).hex()} is named as a parent but not stored; run: stemma fsck")
    return found


def _newest(rows: RowGraph, positions: np.ndarray) -> np.ndarray:
    """Of positions that share an id the one that stands, or else that stood last."""
    chosen: dict[bytes, int] = {}
    for position in sorted(positions.tolist(), key=lambda each: (bool(rows.standing[each]), each)):
        chosen[rows.ids[position].tobytes()] = position
    return np.array(sorted(chosen.values()), np.int64)


def runs_beneath(settings: Settings, row_nos: np.ndarray) -> set[tuple[str, str]]:
    """Table and run that stored them, of rows and of everything that they were derived from.

    Numbers of no stored row are passed over. Raises LineageError where a parent is named but not stored.
    """
    rows = graph(settings)
    found = rows.positions(row_nos)
    reached = rows.up.reach(found[found >= 0])
    lacking = reached[np.isin(reached, rows.edges.lacking)]
    if len(lacking):
        row_id = rows.ids[lacking[0]].tobytes().hex()
        raise LineageError(f"row {row_id} names a parent that is not stored; run: stemma fsck")
    runs = rows.column("run_id")
    pairs = np.unique(rows.tables[reached].astype(np.int64) * len(runs.values) + runs.codes[reached])
    apart = (divmod(pair, len(runs.values)) for pair in pairs.tolist())
    return {(ROW_TABLES[table].name, runs.values[run]) for table, run in apart}


def roots(row_id: bytes, graph: Mapping[bytes, dict[str, Any]]) -> list[dict[str, Any]]:
    """The source rows that a row comes from, sorted by id, out of the graph that `ancestors` gives."""
    seen: dict[bytes, dict[str, Any]] = {}
    wanted = [row_id]
    while wanted:
        row = graph[wanted.pop()]
        if row["row_id"] in seen:
            continue
        seen[row["row_id"]] = row
        wanted.extend(row["parents"])
    shown = (
        "row_id",
        "source_uri",
        "source_revision",
        "source_span",
        "step",
        "step_revision",
        "prompt_name",
        "prompt_version",
        "scorer",
    )
    roots = sorted((row for row in seen.values() if not row["parents"]), key=lambda row: row["row_id"])
    return [{name: row[name] for name in shown} for row in roots]


def descendants(settings: Settings, row_id: bytes) -> list[dict[str, Any]]:
    """Every row that was derived from a row, at any depth: table, row_id, row_no, step; by row_no."""
    shown = ("table", "row_id", "row_no", "step")
    return [{name: row[name] for name in shown} for row in derived_from(settings, row_id)]


def derived_from(settings: Settings, row_id: bytes) -> list[dict[str, Any]]:
    """The descendants with their whole provenance, in the order of their numbers."""
    rows = graph(settings)
    mine = rows.starting_with(row_id.hex())
    return _described(settings, rows, np.setdiff1d(rows.down.reach(mine), mine))


def _described(settings: Settings, rows: RowGraph, positions: np.ndarray) -> list[dict[str, Any]]:
    """Table and provenance of rows, in the order of their numbers."""
    columns = [column.name for column in PROVENANCE]
    found: list[dict[str, Any]] = []
    for place, spec in enumerate(ROW_TABLES):
        numbers = rows.numbers[positions[rows.tables[positions] == place]]
        if len(numbers):
            where = pads.field("row_no").isin(pa.array(numbers))
            stored = tables.read_ever(settings, spec, columns=columns, where=where).to_pylist()
            found += [row | {"table": spec.name} for row in stored]
    return sorted(found, key=lambda row: row["row_no"])


def rejections(settings: Settings, row_id: bytes) -> list[dict[str, Any]]:
    """Why a row did not go on, by each step that refused it."""
    return tables.read(settings, REJECTED, where=pads.field("row_id") == row_id).to_pylist()


def source_bytes(row: Mapping[str, Any], *, origins: Mapping[tuple[str, str], bytes] | None = None) -> bytes:
    """The bytes of a source row's record; of a row of a Parquet file its canonical JSON.

    `origins`: what the lake's book knows its sources by (sources.origins); else the first line.
    Raises LineageError when the source is gone or holds something else.
    """
    what, _, place = row["source_span"].partition(":")
    if what not in ("bytes", "row"):
        raise LineageError(f"row {row['row_id'].hex()} has several sources; ask for its ancestors")
    first, *end = (int(number) for number in place.split("-"))
    try:
        record = read_span(row["source_uri"], first, *end) if end else read_row(row["source_uri"], first)
        is_as_read = _gives(sources.origin(origins or {}, row), row, first, record)
    except StorageError as error:
        raise LineageError(
            f"{error}; revision {row['source_revision']} is what row {row['row_id'].hex()} came from"
        ) from error
    if end and len(record) != end[0] - first:
        raise LineageError(
            f"source '{row['source_uri']}' is shorter than when row {row['row_id'].hex()} was read from it"
        )
    if not is_as_read:
        raise LineageError(
            f"source '{row['source_uri']}' was rewritten: what lies at {row['source_span']} now does not "
            f"give row {row['row_id'].hex()}; restore revision {row['source_revision']}"
        )
    return record


def _gives(origin: bytes | None, row: Mapping[str, Any], position: int, record: bytes) -> bool:
    """Would reading this record, where the source lies now, give the row again?

    Its id says so, which a copy of the source keeps and a source that grew; a digest of the file would not.
    """
    ids = record_row_ids(
        reader=row["step"],
        revision=int(row["step_revision"]),
        origin=origin or origin_of(first_record(row["source_uri"])),
        position=position,
        record=record,
    )
    return row["row_id"] in itertools.islice(ids, _MOST_ROWS_PER_RECORD)
