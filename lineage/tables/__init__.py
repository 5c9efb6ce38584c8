"""The lake: the only package that imports deltalake.

    place     where a table lies
    damage    files that are gone or changed, named
    layout    which version of a table, and with which columns it is written
    files     write one Parquet file with the statistics that Delta skips by
    commit    make files visible exactly once; withdraw a commit; replace a run's rows; take out
    leases    reserve row numbers
    vacuum    remove files that no version has to be read from any more
    snapshots what the newest version of a table holds, remembered
    reads     read a version, whole or only what was admitted
    lifted    put back what was taken out
    sql       read-only SQL over all tables, or a condition on one; engine: the process that answers it

One error family: TableError; AlreadyStored, Damaged and UnknownTable are its members.
"""

from lineage.tables.commit import (
    AlreadyStored,
    commit,
    counts,
    is_stored,
    record,
    replace,
    take_out,
    withdraw,
)
from lineage.tables.damage import Damaged, damage
from lineage.tables.files import FileWriter, WrittenFile, read_file, write_file
from lineage.tables.layout import COLUMNS, TableVersion, UnknownTable, current, resolve
from lineage.tables.leases import reserve
from lineage.tables.lifted import could_stand, put_back
from lineage.tables.place import TableError, open_filesystem
from lineage.tables.reads import (
    after_all,
    batch_with,
    batches,
    before_recalls,
    commits,
    facts,
    holders,
    read,
    read_batch,
    read_ever,
    rewrites,
    stored_by,
    stored_keys,
    withdrawn,
)
from lineage.tables.snapshots import Snapshot, forget, snapshot
from lineage.tables.sql import TIMEOUT_S, Answer, StatementError, require_fits, rows_where, sql
from lineage.tables.vacuum import lost, orphans, remove_orphans, spare, vacuum

__all__ = [
    "COLUMNS",
    "TIMEOUT_S",
    "AlreadyStored",
    "Answer",
    "Damaged",
    "FileWriter",
    "Snapshot",
    "StatementError",
    "TableError",
    "TableVersion",
    "UnknownTable",
    "WrittenFile",
    "after_all",
    "batch_with",
    "batches",
    "before_recalls",
    "commit",
    "commits",
    "could_stand",
    "counts",
    "current",
    "damage",
    "facts",
    "forget",
    "holders",
    "is_stored",
    "lost",
    "open_filesystem",
    "orphans",
    "put_back",
    "read",
    "read_batch",
    "read_ever",
    "read_file",
    "record",
    "remove_orphans",
    "replace",
    "require_fits",
    "reserve",
    "resolve",
    "rewrites",
    "rows_where",
    "snapshot",
    "spare",
    "sql",
    "stored_by",
    "stored_keys",
    "take_out",
    "vacuum",
    "withdraw",
    "withdrawn",
    "write_file",
]
