"""The lake: the only package that imports deltalake.

    place     where a table lies
    damage    files that are gone or changed, named
    layout    which version of a table
    files     write one Parquet file with the statistics that Delta skips by
    commit    make files visible exactly once; withdraw a commit; replace a run's rows; take out
    leases    reserve row numbers
    snapshots what the newest version of a table holds, remembered
    reads     read a version, whole or only what was admitted; read-only SQL
    lifted    put back what was taken out

One error family: TableError; AlreadyStored, Damaged and UnknownTable are its members.
"""

from lineage.tables.commit import AlreadyStored, commit, is_stored, record, replace, take_out, withdraw
from lineage.tables.damage import Damaged, damage, told
from lineage.tables.files import WrittenFile, read_file, write_file
from lineage.tables.layout import TableVersion, UnknownTable, current, resolve
from lineage.tables.leases import reserve
from lineage.tables.lifted import could_stand, put_back
from lineage.tables.place import TableError
from lineage.tables.reads import (
    StatementError,
    batch_with,
    batches,
    before_recalls,
    commits,
    dataset,
    facts,
    read,
    read_batch,
    read_ever,
    rewrites,
    sql,
    stored_by,
    withdrawn,
)
from lineage.tables.snapshots import Snapshot, forget, snapshot

__all__ = [
    "AlreadyStored",
    "Damaged",
    "Snapshot",
    "StatementError",
    "TableError",
    "TableVersion",
    "UnknownTable",
    "WrittenFile",
    "batch_with",
    "batches",
    "before_recalls",
    "commit",
    "commits",
    "could_stand",
    "current",
    "damage",
    "dataset",
    "facts",
    "forget",
    "is_stored",
    "put_back",
    "read",
    "read_batch",
    "read_ever",
    "read_file",
    "record",
    "replace",
    "reserve",
    "resolve",
    "rewrites",
    "snapshot",
    "sql",
    "stored_by",
    "take_out",
    "told",
    "withdraw",
    "withdrawn",
    "write_file",
]
