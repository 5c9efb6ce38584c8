"""Read a version of a table, whole or only the batches that were admitted; read-only SQL over the lake."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable, QueryBuilder

from infra.settings import Settings
from lineage.schemas import TABLES, TableSpec
from lineage.tables.commit import commit_metadata, log_entry
from lineage.tables.damage import require_whole, said, told
from lineage.tables.files import SKIPPED_BY, read_file
from lineage.tables.layout import TableVersion, open_table
from lineage.tables.place import TableError, location, open_filesystem


def read(
    settings: Settings,
    table: TableSpec | TableVersion,
    *,
    columns: Sequence[str] | None = None,
    where: pads.Expression | None = None,
) -> pa.Table:
    """Rows of a table, in our schema; empty if never written.

    The newest version is read unless a TableVersion is given.
    """
    spec = table if isinstance(table, TableSpec) else table.spec
    handle = open_table(settings, spec, None if isinstance(table, TableSpec) else table.version)
    wanted = pa.schema([spec.schema.field(name) for name in columns]) if columns else spec.schema
    if handle is None:
        return wanted.empty_table()
    with told(settings, spec):
        found = _dataset(settings, spec, handle).to_table(columns=wanted.names, filter=where)
        found.validate(full=True)  # a changed byte may leave text that is none
        return found.cast(wanted)


def read_ever(
    settings: Settings,
    spec: TableSpec,
    *,
    columns: Sequence[str] | None = None,
    where: pads.Expression | None = None,
) -> pa.Table:
    """Rows of a row table's newest version, and after them those that recalls took out of it."""
    wanted = pa.schema([spec.schema.field(name) for name in columns]) if columns else spec.schema
    now = read(settings, spec, columns=sorted({*wanted.names, "row_no"}), where=where)
    gone = [rows if where is None else rows.filter(where) for _, rows in _taken_out(settings, spec)]
    if not gone:
        return now.select(wanted.names)
    rows = pa.concat_tables(gone).select(now.column_names)
    rows = rows.filter(pc.invert(pc.is_in(rows["row_no"], now["row_no"].combine_chunks())))
    _, once = np.unique(rows["row_no"].to_numpy(), return_index=True)  # put back, one may be taken out again
    return pa.concat_tables([now, rows.take(np.sort(once))]).select(wanted.names)


def taken_out(settings: Settings, spec: TableSpec) -> dict[int, str]:
    """Row number -> recall, of the rows of a table that recalls took out of it and no lift put back."""
    found = {n: recall for recall, rows in _taken_out(settings, spec) for n in rows["row_no"].to_pylist()}
    now = set(read(settings, spec, columns=["row_no"])["row_no"].to_pylist())
    return {n: recall for n, recall in found.items() if n not in now}


def before_recalls(settings: Settings, spec: TableSpec) -> list[int]:
    """The versions of a row table that recalls took rows out of: the last ones to hold those rows."""
    return [entry["version"] - 1 for entry in commits(settings, spec) if "stemma.recall" in entry]


def _taken_out(settings: Settings, spec: TableSpec) -> list[tuple[str, pa.Table]]:
    """Recall and rows, per commit that took some out: what its removed files hold and its new ones do not."""
    found: list[tuple[str, pa.Table]] = []
    for entry in commits(settings, spec):
        if "stemma.recall" in entry:
            log = log_entry(settings, TableVersion(spec.name, entry["version"]))
            before, after = (
                pa.concat_tables(
                    [
                        spec.schema.empty_table(),
                        *(read_file(settings, each[act]["path"], of=spec) for each in log if act in each),
                    ]
                )
                for act in ("remove", "add")
            )
            gone = before.filter(pc.invert(pc.is_in(before["row_no"], after["row_no"].combine_chunks())))
            found.append((entry["stemma.recall"], gone))
    return found


def read_batch(
    settings: Settings, version: TableVersion, *, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows that exactly this commit added."""
    metadata = commit_metadata(settings, version)
    run_id = metadata.get("stemma.run_id")
    if run_id is None or "stemma.keys" not in metadata:
        raise TableError(f"{version} did not store a batch (it created or withdrew); gate a version that did")
    return read(settings, version, columns=columns, where=pads.field("run_id") == run_id)


def commits(settings: Settings, spec: TableSpec) -> list[dict[str, Any]]:
    """The table's commits, oldest first: version, and what the commit says about itself."""
    handle = open_table(settings, spec)
    with told(settings, spec):
        return [] if handle is None else sorted(handle.history(), key=lambda entry: entry["version"])


def batches(settings: Settings, spec: TableSpec) -> dict[str, TableVersion]:
    """Run id -> the version in which that run stored its batch, oldest first."""
    return {
        entry["stemma.run_id"]: TableVersion(spec.name, entry["version"])
        for entry in commits(settings, spec)
        if "stemma.keys" in entry
    }


def batch_with(settings: Settings, key: str, *, into: TableSpec) -> TableVersion | None:
    """The version in which what this key names was stored last, or None.

    Also of a batch that was withdrawn.
    """
    found = [e["version"] for e in commits(settings, into) if key in json.loads(e.get("stemma.keys", "[]"))]
    return TableVersion(into.name, max(found)) if found else None


def stored_by(settings: Settings, version: TableVersion) -> str:
    """The run that stored a batch; empty where this version stored none."""
    metadata = commit_metadata(settings, version)
    return metadata["stemma.run_id"] if "stemma.keys" in metadata else ""


def facts(settings: Settings, version: TableVersion) -> dict[str, Any]:
    """What the writer of a batch put into its commit beside the rows."""
    metadata = commit_metadata(settings, version)
    names = [name for name in metadata if name.startswith("stemma.") and metadata[name][:1] in "[{"]
    return {name.removeprefix("stemma."): json.loads(metadata[name]) for name in names}


def withdrawn(settings: Settings, spec: TableSpec) -> dict[str, str]:
    """Batches that were withdrawn, and why; a batch is written as a table version."""
    return {
        entry["stemma.withdrawn"]: entry.get("stemma.reason", "")
        for entry in commits(settings, spec)
        if "stemma.withdrawn" in entry
    }


class StatementError(TableError):
    """A statement is no SQL, or names what is not there; nothing was read."""


def sql(
    settings: Settings,
    statement: str,
    *,
    tables: Iterable[str] | None = None,
    version: int | None = None,
) -> pa.Table:
    """Run one read-only SQL statement (DataFusion) over the lake's tables, at a version or the newest.

    Raises StatementError where it cannot be planned, TableError where it fails on what is stored.
    """
    builder = QueryBuilder()
    registered = [TABLES[name] for name in tables or TABLES]
    for spec in registered:
        handle = open_table(settings, spec, version)
        if handle is not None:
            builder = builder.register(spec.name, handle)
    try:
        planned = builder.execute(statement)
    except Exception as error:
        raise StatementError(f"the statement failed: {said(error)}") from error
    try:
        return pa.table(planned.read_all())
    except Exception as error:
        for spec in registered:
            if re.search(rf"\b{spec.name}\b", statement):
                require_whole(settings, spec)
        raise TableError(f"the statement failed: {said(error)}") from error


def _dataset(settings: Settings, spec: TableSpec, handle: DeltaTable) -> pads.Dataset:
    """The table's files, each with what its statistics promise.

    Not deltalake's own dataset: of a column without statistics that promises `column >= null`, which Arrow
    takes for a column in which no comparison holds, so that a filter on it finds no row at all.
    """
    actions = pa.table(handle.get_add_actions(flatten=True))
    wanted = {
        "path",
        "size_bytes",
        *(f"{fact}.{name}" for fact in ("min", "max", "null_count") for name in SKIPPED_BY),
    }
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    format = pads.ParquetFileFormat(
        default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True)
    )
    fragments = [
        format.make_fragment(
            f"{folder}/{action['path']}",
            filesystem,
            partition_expression=_promise(action),
            file_size=action["size_bytes"],  # a file of another length does not open
        )
        for action in actions.select([name for name in actions.column_names if name in wanted]).to_pylist()
    ]
    return pads.FileSystemDataset(fragments, spec.schema, format, filesystem)


def _promise(action: dict[str, Any]) -> pads.Expression:
    promise = pads.scalar(True)
    for name in SKIPPED_BY:
        low, high = action.get(f"min.{name}"), action.get(f"max.{name}")
        if low is not None and high is not None and action.get(f"null_count.{name}") == 0:
            promise &= (pads.field(name) >= low) & (pads.field(name) <= high)
    return promise
