"""Make files visible exactly once.

Every commit names the *keys* of what it stores (a source's digest, a run's identity). Per key the table
remembers an epoch in Delta's transaction identifiers: odd means stored, even means withdrawn or never there.
A writer that finds its key stored stops; a withdrawal raises the epoch, so that the same source can come
again. Two writers of one key conflict in Delta's own commit protocol, and the loser looks again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.damage import told
from lineage.tables.files import WrittenFile, check, read_file, write_file
from lineage.tables.layout import TableVersion, create_table, open_table, open_to_write
from lineage.tables.place import TableError, location, open_filesystem

ATTEMPTS = 50  # a commit is milliseconds; fifty lost races in a row are no race any more


class AlreadyStored(TableError):
    """What was to be committed is there already; nothing was written."""


def is_stored(settings: Settings, key: str, *, into: TableSpec) -> bool:
    """Is what this key names in the table (and not withdrawn)?"""
    table = open_table(settings, into)
    return table is not None and _epoch(table, key) % 2 == 1


def counts(settings: Settings, names: Iterable[str], *, into: TableSpec) -> dict[str, int]:
    """How often commits of the table have named each of these as `counted`."""
    table = open_table(settings, into)
    return {name: _epoch(table, name) if table is not None else 0 for name in names}


def commit(
    settings: Settings,
    files: Sequence[WrittenFile],
    *,
    into: TableSpec,
    run_id: str,
    keys: Sequence[str],
    facts: Mapping[str, Any] | None = None,
    counted: Mapping[str, int] | None = None,
) -> TableVersion:
    """Make files visible in one Delta transaction. Raises AlreadyStored when one of the keys is in the table.

    `facts` go into the commit's metadata beside the run id. `counted`: name -> how often a commit has named
    it so far, as `counts` gave it; where that is no longer so, somebody stored what may be the same, and
    AlreadyStored is raised, too.
    """
    for attempt in range(ATTEMPTS):
        table = create_table(settings, into)
        epochs = {key: _epoch(table, key) for key in keys}
        stored = sorted(key for key, epoch in epochs.items() if epoch % 2 == 1)
        stored += sorted(name for name, count in (counted or {}).items() if _epoch(table, name) != count)
        if stored:
            raise AlreadyStored(f"'{into.name}' already holds {stored[0]}; nothing was written")
        metadata = {"stemma.run_id": run_id, "stemma.keys": json.dumps(sorted(keys)), **_text(facts)}
        raised = {key: epoch + 1 for key, epoch in (*epochs.items(), *(counted or {}).items())}
        if is_written(settings, into, table, [added_file(file) for file in files], metadata, raised):
            return written_after(settings, into, table.version(), metadata)
        time.sleep(0.01 * attempt)
    raise TableError(f"'{into.name}' could not be committed: {ATTEMPTS} other writers came first; try again")


def withdraw(settings: Settings, batch: TableVersion, *, run_id: str, reason: str) -> TableVersion:
    """Take a commit's files out of the newest version by a further commit.

    The batch's own version still shows them. Withdrawing twice changes nothing. Raises TableError when
    the version is not a batch.
    """
    spec = batch.spec
    stored = commit_metadata(settings, batch)
    if "stemma.keys" not in stored:
        raise TableError(f"{batch} is not a batch that was stored, so it cannot be withdrawn")
    keys: list[str] = json.loads(stored["stemma.keys"])
    for attempt in range(ATTEMPTS):
        table = create_table(settings, spec)
        epochs = {key: _epoch(table, key) for key in keys}
        files = {entry["add"]["path"] for entry in log_entry(settings, batch) if "add" in entry}
        active = (each["path"] for each in _active(settings, spec, table))
        present = [path for path in active if _original(path) in files]
        if not present and all(epoch % 2 == 0 for epoch in epochs.values()):
            return TableVersion(spec.name, table.version())
        now = int(time.time() * 1000)
        metadata = {"stemma.run_id": run_id, "stemma.withdrawn": str(batch), "stemma.reason": reason}
        removed = [RemoveAction(path=path, data_change=True, deletion_timestamp=now) for path in present]
        raised = {key: epoch + epoch % 2 for key, epoch in epochs.items()}
        if is_written(settings, spec, table, removed, metadata, raised):
            return written_after(settings, spec, table.version(), metadata)
        time.sleep(0.01 * attempt)
    raise TableError(f"{batch} could not be withdrawn: {ATTEMPTS} other writers came first; try again")


def take_out(
    settings: Settings, row_nos: pa.Int64Array, *, of: TableSpec, recall: str, run_id: str
) -> TableVersion | None:
    """Take rows out of a row table's newest version by one commit; earlier versions still show them.

    Files that hold some of the rows are written anew without them. Returns the new version, or None where
    none of the rows is in the newest one, so that doing it twice changes nothing.
    """
    return _taken_out(settings, row_nos, of=of, because=("stemma.recall", recall), run_id=run_id)


def route_out(
    settings: Settings, row_nos: pa.Int64Array, *, of: TableVersion, run_id: str
) -> TableVersion | None:
    """Take rows that a gate has moved to `rejected` out of their batch alone, as `take_out` does."""
    stored_by = commit_metadata(settings, of)["stemma.run_id"]
    because = ("stemma.routed", str(of))
    return _taken_out(settings, row_nos, of=of.spec, because=because, run_id=run_id, stored_by=stored_by)


def _taken_out(
    settings: Settings,
    row_nos: pa.Int64Array,
    *,
    of: TableSpec,
    because: tuple[str, str],
    run_id: str,
    stored_by: str | None = None,
) -> TableVersion | None:
    for attempt in range(ATTEMPTS):
        table = open_to_write(settings, of)
        if table is None:
            return None
        added: list[AddAction] = []
        removed: list[RemoveAction] = []
        now = int(time.time() * 1000)
        for path in _files_with(_active(settings, of, table), row_nos):
            rows = read_file(settings, path, of=of)
            going = pc.is_in(rows["row_no"], row_nos)
            if stored_by is not None:
                going = pc.and_(going, pc.equal(rows["run_id"], stored_by))
            left = rows.filter(pc.invert(going))
            if left.num_rows == rows.num_rows:
                continue
            removed.append(RemoveAction(path=path, data_change=True, deletion_timestamp=now))
            if left.num_rows:
                name = name_after(path, because[1], run_id)
                added.append(added_file(write_file(settings, left, into=of, name=name)))
        if not removed:
            return None
        metadata = {"stemma.run_id": run_id, because[0]: because[1]}
        if is_written(settings, of, table, [*added, *removed], metadata):
            return written_after(settings, of, table.version(), metadata)
        time.sleep(0.01 * attempt)
    raise TableError(f"'{of.name}' could not be rewritten: {ATTEMPTS} other writers came first; try again")


def record(
    settings: Settings, rows: pa.Table | Sequence[Mapping[str, Any]], *, into: TableSpec
) -> TableVersion:
    """Append rows to a book: a few as mappings, many as a table in its schema."""
    if isinstance(rows, pa.Table):
        table = rows
    else:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=into.schema)
    file = write_file(settings, table, into=into, name=uuid.uuid4().hex)
    for attempt in range(ATTEMPTS):
        handle = create_table(settings, into)
        with told(settings, into):  # appends do not conflict: Delta puts them one after the other
            try:
                handle.create_write_transaction([added_file(file)], mode="append", schema=handle.schema())
            except CommitFailedError:  # but with one who gives the table a column
                time.sleep(0.01 * attempt)
                continue
            handle.update_incremental()
        return TableVersion(into.name, handle.version())
    raise TableError(f"'{into.name}' could not be written: {ATTEMPTS} other writers came first; try again")


def replace(
    settings: Settings, rows: pa.Table, *, into: TableSpec, run_id: str, is_batch: bool = False
) -> TableVersion:
    """Store a run's rows of a book in place of those that an earlier go at the same work may have left.

    A batch can be gated and withdrawn, as what `commit` stores.
    """
    check(rows, into)
    identity = run_id.rpartition("-")[0]
    first, after = f"{identity}-", f"{identity}."  # every attempt: '.' is the character after '-'
    for attempt in range(ATTEMPTS):
        table = create_table(settings, into)
        actions: list[AddAction | RemoveAction] = []
        now = int(time.time() * 1000)
        for each in _active(settings, into, table):
            low, high = each.get("min.run_id") or "", each.get("max.run_id") or "~"
            if high < first or low >= after:
                continue
            held = read_file(settings, each["path"], of=into)
            mine = pc.and_(pc.greater_equal(held["run_id"], first), pc.less(held["run_id"], after))
            left = held.filter(pc.invert(mine))
            if left.num_rows == held.num_rows:
                continue
            actions.append(RemoveAction(path=each["path"], data_change=True, deletion_timestamp=now))
            if left.num_rows:
                file = write_file(settings, left, into=into, name=f"left-{uuid.uuid4().hex}")
                actions.append(added_file(file))
        if rows.num_rows:
            name = f"{run_id}-{table.version() + 1}"  # a name is never used twice: earlier versions stay
            actions.append(added_file(write_file(settings, rows, into=into, name=name)))
        if not actions:
            return TableVersion(into.name, table.version())
        metadata = {"stemma.run_id": run_id} | ({"stemma.keys": "[]"} if is_batch else {})
        if is_written(settings, into, table, actions, metadata):
            return written_after(settings, into, table.version(), metadata)
        time.sleep(0.01 * attempt)
    raise TableError(f"'{into.name}' could not be replaced: {ATTEMPTS} other writers came first; try again")


def commit_metadata(settings: Settings, version: TableVersion) -> dict[str, Any]:
    """What the commit of exactly this version says about itself."""
    log = log_entry(settings, version)
    return next((entry["commitInfo"] for entry in log if "commitInfo" in entry), {})


def is_written(
    settings: Settings,
    spec: TableSpec,
    table: DeltaTable,
    actions: Sequence[AddAction | RemoveAction],
    metadata: Mapping[str, str],
    epochs: Mapping[str, int] | None = None,
) -> bool:
    """Carry out one Delta transaction; False where another writer came first."""
    properties = CommitProperties(
        custom_metadata=dict(metadata),
        app_transactions=[Transaction(key, epoch) for key, epoch in (epochs or {}).items()],
        max_commit_retries=0,  # a retry would not look at the keys and the files again
    )
    with told(settings, spec):
        try:
            table.create_write_transaction(
                list(actions), mode="append", schema=table.schema(), commit_properties=properties
            )
        except CommitFailedError:
            return False
    return True


def _active(settings: Settings, spec: TableSpec, table: DeltaTable) -> list[dict[str, Any]]:
    """The files of the newest version, with their least and greatest row numbers and run ids where known."""
    with told(settings, spec):
        actions = pa.table(table.get_add_actions(flatten=True))
    wanted = ("path", "min.row_no", "max.row_no", "min.run_id", "max.run_id")
    known = [name for name in wanted if name in actions.column_names]
    return actions.select(known).to_pylist()


def _original(path: str) -> str:
    """The file as it was first written, without the 12 hex digits that `name_after` put in front.

    In older lakes there are several such groups, one per recall.
    """
    return re.sub(r"^([0-9a-f]{12}-)+", "", path)


def _files_with(active: Sequence[Mapping[str, Any]], row_nos: pa.Int64Array) -> list[str]:
    """The files whose range of row numbers holds one of these."""
    numbers = np.sort(row_nos.to_numpy())
    first = np.searchsorted(numbers, [action["min.row_no"] for action in active])
    after = np.searchsorted(numbers, [action["max.row_no"] for action in active], side="right")
    return [action["path"] for action, low, high in zip(active, first, after, strict=True) if low < high]


def written_after(
    settings: Settings, spec: TableSpec, version: int, metadata: Mapping[str, str]
) -> TableVersion:
    """The commit that carries this metadata; others may have committed between our look and our write."""
    while True:
        version += 1
        found = commit_metadata(settings, TableVersion(spec.name, version))
        if metadata.items() <= found.items():
            return TableVersion(spec.name, version)


def log_entry(settings: Settings, version: TableVersion) -> list[dict[str, Any]]:
    """The actions of exactly this commit."""
    filesystem, folder = open_filesystem(settings, location(settings, version.spec))
    entry = f"{folder}/_delta_log/{version.version:020d}.json"
    with told(settings, version.spec), filesystem.open_input_file(entry) as source:
        return [json.loads(line) for line in source.read().decode().splitlines() if line]


def batch_files(settings: Settings, version: TableVersion) -> tuple[str, list[dict[str, Any]]]:
    """(the run that stored a batch, path and size_bytes of each file that its commit added).

    Not by statistics: Delta keeps those of a table's first 32 columns, and run_id stands behind them. Raises
    TableError where this version stored none.
    """
    log = log_entry(settings, version)
    metadata = next((entry["commitInfo"] for entry in log if "commitInfo" in entry), {})
    if "stemma.keys" not in metadata:
        raise TableError(f"{version} did not store a batch (it created or withdrew); gate a version that did")
    added = [entry["add"] for entry in log if "add" in entry]
    files = [{"path": unquote(each["path"]), "size_bytes": each["size"]} for each in added]
    return metadata["stemma.run_id"], sorted(files, key=lambda each: each["path"])


def _epoch(table: DeltaTable, key: str) -> int:
    return table.transaction_version(key) or 0


def name_after(path: str, *done: str) -> str:
    """What to call the file that takes the place of another, or stands beside it, after something was done.

    By it a withdrawal finds the file of its batch. It tells the whole history, so no earlier version has a
    file of that name, and stays as short as it is however long that history grows.
    """
    history = hashlib.blake2b("\n".join((*done, path)).encode(), digest_size=6).hexdigest()
    return f"{history}-{_original(path).removesuffix('.parquet')}"


def added_file(file: WrittenFile) -> AddAction:
    """The action that makes a file visible."""
    return AddAction(file.path, file.size, {}, int(time.time() * 1000), True, file.statistics)


def _text(facts: Mapping[str, Any] | None) -> dict[str, str]:
    return {
        f"stemma.{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in (facts or {}).items()
    }
