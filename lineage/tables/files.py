"""Write one Parquet file of a table, with the statistics that Delta skips files by. Runs on any worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.damage import told
from lineage.tables.place import TableError, location, open_filesystem

SKIPPED_BY = ("row_no", "run_id", "source_revision", "curriculum", "search_run", "split")
"""Columns whose statistics let a read pass whole files over."""


@dataclass(frozen=True)
class WrittenFile:
    """A Parquet file that no reader sees until it is committed."""

    path: str
    """Relative to the table's folder."""

    rows: int
    size: int
    statistics: str
    """Delta's statistics, JSON."""


def write_file(settings: Settings, rows: pa.Table, *, into: TableSpec, name: str) -> WrittenFile:
    """Write rows as one file `name`.parquet beside the table's others.

    The same name overwrites, so a retry is safe.
    """
    check(rows, into)
    path = f"{name}.parquet"
    filesystem, folder = open_filesystem(settings, location(settings, into))
    with told(settings, into):
        filesystem.create_dir(folder, recursive=True)
        with filesystem.open_output_stream(f"{folder}/{path}") as sink:
            pq.write_table(
                rows,
                sink,
                compression="zstd",
                use_dictionary=_dictionary(into),  # type: ignore[arg-type]
                column_encoding=_encodings(into),
                write_statistics=[name for name in SKIPPED_BY if name in into.schema.names],  # type: ignore[arg-type]
                store_schema=False,  # the table's own counts; of a small file it would be a fifth
            )
        size = filesystem.get_file_info(f"{folder}/{path}").size
    return WrittenFile(path, rows.num_rows, size, json.dumps(_statistics(rows)))


def read_file(
    settings: Settings,
    path: str,
    *,
    of: TableSpec,
    columns: Sequence[str] | None = None,
    as_codes: bool = False,
) -> pa.Table:
    """All rows of one file, in the table's schema. `path` is relative to the table's folder.

    `as_codes`: text comes as dictionary arrays.
    """
    filesystem, folder = open_filesystem(settings, location(settings, of))
    wanted = pa.schema([of.schema.field(name) for name in columns]) if columns else of.schema
    if as_codes:
        codes = pa.dictionary(pa.int32(), pa.string())
        wanted = pa.schema([pa.field(f.name, codes if f.type == pa.string() else f.type) for f in wanted])
    text = [field.name for field in wanted if pa.types.is_dictionary(field.type)]
    with told(settings, of), filesystem.open_input_file(f"{folder}/{path}") as source:
        rows = pq.ParquetFile(source, read_dictionary=text).read(columns=wanted.names)
        for field in wanted:
            if field.name not in rows.column_names:  # a column that is younger than the file
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        return rows.select(wanted.names).cast(wanted)


def check(rows: pa.Table, spec: TableSpec) -> None:
    """Raise TableError unless the rows have exactly the table's columns, and none empty that must not be.

    Rows with provenance are derived from rows that were numbered before them, so that nothing, by however
    long a way, comes from itself.
    """
    if rows.schema != spec.schema:
        expected = {field.name: field.type for field in spec.schema}
        found = {field.name: field.type for field in rows.schema}
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise TableError(
            f"rows for '{spec.name}' do not fit its schema in: {', '.join(wrong) or 'column order'}"
        )
    for column in spec.columns:
        if not column.nullable and rows[column.name].null_count:
            raise TableError(
                f"column '{column.name}' of '{spec.name}' is empty in {rows[column.name].null_count} of "
                f"{rows.num_rows} rows; say 'unstated' where the source does not say"
            )
    if spec.provenance:
        _check_parents_are_earlier(rows, spec)


def _check_parents_are_earlier(rows: pa.Table, spec: TableSpec) -> None:
    rows = rows.select(["row_id", "row_no", "parents", "parent_nos"]).combine_chunks()
    for own, named in (("row_no", "parent_nos"), ("row_id", "parents")):
        children = rows[own].take(pc.list_parent_indices(rows[named]))
        parents = pc.list_flatten(rows[named])
        wrong = pc.less_equal(children, parents) if own == "row_no" else pc.equal(children, parents)
        if pc.any(wrong).as_py():
            child, parent = (column.filter(wrong)[0].as_py() for column in (children, parents))
            shown = (child.hex(), parent.hex()) if isinstance(child, bytes) else (child, parent)
            raise TableError(
                f"row {shown[0]} for '{spec.name}' names {shown[1]} as its parent; expected a row that was "
                "numbered before it, for nothing comes from itself"
            )


def _dictionary(spec: TableSpec) -> list[str]:
    text = [field.name for field in spec.schema if pa.types.is_string(field.type)]
    return [name for name in text if name not in ("text", "response", "record", "source_span")]


def _encodings(spec: TableSpec) -> dict[str, str]:
    """Integers as differences: steps, slots and sorted numbers cost next to nothing then."""
    return {field.name: "DELTA_BINARY_PACKED" for field in spec.schema if pa.types.is_integer(field.type)}


def _statistics(rows: pa.Table) -> dict[str, Any]:
    found: dict[str, Any] = {"numRecords": rows.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for name in SKIPPED_BY:
        if name in rows.column_names and rows.num_rows:
            extremes = pc.min_max(rows[name]).as_py()
            found["minValues"][name], found["maxValues"][name] = extremes["min"], extremes["max"]
            found["nullCount"][name] = rows[name].null_count
    return found
