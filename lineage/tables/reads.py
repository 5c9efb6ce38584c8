"""Read a version of a table, whole or only the batches that were admitted."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.commit import batch_files, commit_metadata
from lineage.tables.damage import told
from lineage.tables.files import SKIPPED_BY
from lineage.tables.layout import TableVersion, open_table
from lineage.tables.place import location, open_filesystem
from lineage.tables.snapshots import Snapshot, file_list, snapshot

_TAKES_OUT = {"stemma.recall", "stemma.routed"}  # in the metadata of a commit that takes rows out


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
    wanted = pa.schema([spec.schema.field(name) for name in columns]) if columns else spec.schema
    newest = snapshot(settings, spec)
    if newest is None:
        return wanted.empty_table()
    if isinstance(table, TableVersion) and table.version != newest.version:
        handle = open_table(settings, spec, table.version)
        return _scan(settings, spec, file_list(settings, spec, handle) if handle else (), wanted, where)
    small = {each["path"] for each in newest.small}
    held = newest.held()
    if (
        held is None
    ):  # what can do without the damaged file is still read: only such are opened as may hold it
        return _scan(settings, spec, newest.files, wanted, where)
    with told(settings, spec):
        parts = [(held if where is None else held.filter(where)).select(wanted.names)]
    if len(small) < len(newest.files):
        large = [each for each in newest.files if each["path"] not in small]
        parts.append(_scan(settings, spec, large, wanted, where))
    return pa.concat_tables(parts)


def read_ever(
    settings: Settings,
    spec: TableSpec,
    *,
    columns: Sequence[str] | None = None,
    where: pads.Expression | None = None,
) -> pa.Table:
    """Rows of a row table's newest version, and after them those that recalls and gates took out of it."""
    wanted = pa.schema([spec.schema.field(name) for name in columns]) if columns else spec.schema
    found = [read(settings, spec, columns=wanted.names, where=where)]
    numbered = pa.schema([spec.schema.field(name) for name in dict.fromkeys([*wanted.names, "row_no"])])
    number = pa.schema([spec.schema.field("row_no")])
    seen = pa.array([], pa.int64())
    for rewrite in rewrites(settings, spec):
        then = _scan(settings, spec, rewrite.removed, numbered, where)
        if not then.num_rows:
            continue
        among = pads.field("row_no").isin(then["row_no"].unique())
        others = (_scan(settings, spec, files, number, among) for files in (rewrite.added, rewrite.back))
        still = read(settings, spec, columns=["row_no"], where=among)
        known = [seen, *(rows["row_no"].combine_chunks() for rows in (still, *others))]
        gone = then.filter(pc.invert(pc.is_in(then["row_no"], pa.concat_arrays(known))))
        seen = pa.concat_arrays([seen, gone["row_no"].combine_chunks()])
        found.append(gone.select(wanted.names))
    return pa.concat_tables(found)


@dataclass(frozen=True)
class Rewrite:
    """What a recall, or a gate, did to a table's files: rows of `removed` not in `added` were taken out.

    What stands in `back` was put back later: whatever became of it then, this recall has not taken it out.
    """

    removed: tuple[Mapping[str, Any], ...]
    added: tuple[Mapping[str, Any], ...]
    back: tuple[Mapping[str, Any], ...]


def rewrites(settings: Settings, spec: TableSpec) -> tuple[Rewrite, ...]:
    """The commits that took rows out of a row table, oldest first; files as `Snapshot.files` has them."""
    newest = snapshot(settings, spec)
    return () if newest is None else _rewrites(newest)


@lru_cache(maxsize=64)
def _rewrites(newest: Snapshot) -> tuple[Rewrite, ...]:
    found: list[Rewrite] = []
    back: tuple[Mapping[str, Any], ...] = ()
    for entry in reversed(commits(newest.settings, newest.spec)):
        if not entry.keys() & {*_TAKES_OUT, "stemma.lift"}:
            continue
        removed, added = _exchanged(newest, entry["version"])
        if "stemma.lift" in entry:
            back += added
        else:
            found.append(Rewrite(removed, added, back))
    return tuple(reversed(found))


def _exchanged(newest: Snapshot, version: int) -> tuple[tuple[Mapping[str, Any], ...], ...]:
    """The files that a commit removed, and those that it added."""
    before, after = (
        {each["path"]: each for each in file_list(newest.settings, newest.spec, handle)} if handle else {}
        for handle in (open_table(newest.settings, newest.spec, each) for each in (version - 1, version))
    )
    return (
        tuple(each for path, each in before.items() if path not in after),
        tuple(each for path, each in after.items() if path not in before),
    )


def before_taken_out(settings: Settings, spec: TableSpec) -> list[int]:
    """The versions of a row table that rows were taken out of: the last ones to hold those rows."""
    return [entry["version"] - 1 for entry in commits(settings, spec) if entry.keys() & _TAKES_OUT]


def read_batch(
    settings: Settings,
    version: TableVersion,
    *,
    columns: Sequence[str] | None = None,
    where: pads.Expression | None = None,
) -> pa.Table:
    """The rows that exactly this commit added, as they were then; of all files only its own are opened."""
    run_id, files = batch_files(settings, version)
    wanted = pa.schema([version.spec.schema.field(name) for name in columns or version.spec.schema.names])
    mine = pads.field("run_id") == run_id
    return _scan(settings, version.spec, files, wanted, mine if where is None else mine & where)


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


def after_all(settings: Settings, now: dt.datetime, *books: TableSpec) -> dt.datetime:
    """Now, or a moment after the last row of these books, where the clock that timed it goes before ours.

    What is written down at this time is the newest there, whichever machine writes: for the books in which
    the last word counts.
    """
    times = [at for book in books for at in read(settings, book, columns=["at"])["at"].to_pylist()]
    return max([now, *(at + dt.timedelta(microseconds=1) for at in times)])


def batch_with(settings: Settings, key: str, *, into: TableSpec) -> TableVersion | None:
    """The version in which what this key names was stored last, or None.

    Also of a batch that was withdrawn.
    """
    found = [e["version"] for e in commits(settings, into) if key in json.loads(e.get("stemma.keys", "[]"))]
    return TableVersion(into.name, max(found)) if found else None


def holders(settings: Settings, keys: Iterable[str], *, into: TableSpec) -> dict[str, TableVersion]:
    """The batch that holds what a key names, for those of the keys whose batch was not withdrawn."""
    wanted = set(keys)
    handle = open_table(settings, into) if wanted else None
    if handle is None:
        return {}
    with told(settings, into):
        standing = {key for key in wanted if (handle.transaction_version(key) or 0) % 2 == 1}
    found: dict[str, int] = {}
    for entry in commits(settings, into) if standing else ():
        for key in standing.intersection(json.loads(entry.get("stemma.keys", "[]"))):
            found[key] = entry["version"]
    return {key: TableVersion(into.name, version) for key, version in found.items()}


def stored_keys(settings: Settings, spec: TableSpec) -> dict[str, list[str]]:
    """Run id -> the keys of the batch that it stored, oldest first."""
    return {
        entry["stemma.run_id"]: json.loads(entry["stemma.keys"])
        for entry in commits(settings, spec)
        if "stemma.keys" in entry
    }


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


def _scan(
    settings: Settings,
    spec: TableSpec,
    files: Iterable[Mapping[str, Any]],
    wanted: pa.Schema,
    where: pads.Expression | None,
) -> pa.Table:
    with told(settings, spec):
        found = _dataset(settings, spec, files).to_table(columns=wanted.names, filter=where)
        found.validate(full=True)  # a changed byte may leave text that is none
        return found.cast(wanted)


def _dataset(settings: Settings, spec: TableSpec, files: Iterable[Mapping[str, Any]]) -> pads.Dataset:
    """Files of a table, each with what its statistics promise.

    Not deltalake's own dataset: of a column without statistics that promises `column >= null`, which Arrow
    takes for a column in which no comparison holds, so that a filter on it finds no row at all.
    """
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    format = pads.ParquetFileFormat(
        default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True)
    )
    fragments = [
        format.make_fragment(
            f"{folder}/{each['path']}",
            filesystem,
            partition_expression=_promise(each),
            file_size=each["size_bytes"],  # a file of another length does not open
        )
        for each in files
    ]
    return pads.FileSystemDataset(fragments, spec.schema, format, filesystem)


def _promise(action: Mapping[str, Any]) -> pads.Expression:
    promise = pads.scalar(True)
    for name in SKIPPED_BY:
        low, high = action.get(f"min.{name}"), action.get(f"max.{name}")
        if low is not None and high is not None and action.get(f"null_count.{name}") == 0:
            promise &= (pads.field(name) >= low) & (pads.field(name) <= high)
    return promise
