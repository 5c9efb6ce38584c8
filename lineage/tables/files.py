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
    with FileWriter(settings, into, name) as file:
        file.write(rows)
    return file.written()


class FileWriter:
    """Writes rows as one file `name`.parquet beside the table's others, part by part: a row group each.

    Nothing is made before the first part comes. The same name overwrites, so a retry is safe.
    """

    def __init__(self, settings: Settings, into: TableSpec, name: str):
        self._settings, self._into = settings, into
        self._path = f"{name}.parquet"
        self._filesystem, self._folder = open_filesystem(settings, location(settings, into))
        self._writer: pq.ParquetWriter | None = None
        self._sink: pa.NativeFile | None = None
        self._statistics: list[dict[str, Any]] = []
        self._size = 0

    @property
    def rows(self) -> int:
        """How many rows were written so far."""
        return sum(each["numRecords"] for each in self._statistics)

    def write(self, rows: pa.Table) -> None:
        """Write the next rows. Raises TableError where they do not fit the table."""
        check(rows, self._into)
        with told(self._settings, self._into):
            if self._writer is None:
                self._filesystem.create_dir(self._folder, recursive=True)
                self._sink = self._filesystem.open_output_stream(f"{self._folder}/{self._path}")
                self._writer = _parquet_writer(self._sink, self._into)
            self._writer.write_table(rows)
        self._statistics.append(_statistics(rows))

    def written(self) -> WrittenFile:
        """The file, once it is closed."""
        if self._writer is None:
            raise TableError(f"no rows were written to '{self._path}' of '{self._into.name}'")
        return WrittenFile(self._path, self.rows, self._size, json.dumps(_together(self._statistics)))

    def __enter__(self) -> FileWriter:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the file; after an error what there is of it stays, and is seen by nobody."""
        if self._writer is None or self._sink is None:
            return
        with told(self._settings, self._into):
            try:
                self._writer.close()
            finally:
                self._sink.close()
            if kind is None:
                self._size = self._filesystem.get_file_info(f"{self._folder}/{self._path}").size


def _parquet_writer(sink: pa.NativeFile, into: TableSpec) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        into.schema,
        compression="zstd",
        use_dictionary=_dictionary(into),  # type: ignore[arg-type]
        column_encoding=_encodings(into),
        write_statistics=[name for name in SKIPPED_BY if name in into.schema.names],  # type: ignore[arg-type]
        store_schema=False,  # the table's own counts; of a small file it would be a fifth
    )


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


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The statistics of a file from those of its parts."""
    whole: dict[str, Any] = {"numRecords": 0, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for part in parts:
        whole["numRecords"] += part["numRecords"]
        for name, nulls in part["nullCount"].items():
            whole["nullCount"][name] = whole["nullCount"].get(name, 0) + nulls
        for bound, choose in (("minValues", min), ("maxValues", max)):
            for name, value in part[bound].items():
                both = [each for each in (whole[bound].get(name), value) if each is not None]
                whole[bound][name] = choose(both, default=None)
    return whole
