"""Row numbers: compact, unique in the lake, reserved in blocks.

One small commit reserves a block before its rows are written.
"""

from __future__ import annotations

import time

import pyarrow as pa
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from infra.settings import Settings
from lineage.schemas import LEASE
from lineage.tables.damage import told
from lineage.tables.layout import create_table
from lineage.tables.place import TableError

_KEY = "row_no"  # one key for all leases: two at once conflict, so no number is given twice
_ATTEMPTS = 200


def reserve(settings: Settings, count: int, *, run_id: str) -> int:
    """Reserve `count` numbers for a run and return the first. Zero reserves nothing."""
    if count < 0:
        raise TableError(f"cannot reserve {count} row numbers; expected 0 or more")
    if count == 0:
        return 0
    for attempt in range(_ATTEMPTS):
        table = create_table(settings, LEASE)
        # The high-water mark travels as the transaction's version: one look at the log, however many leases.
        first = table.transaction_version(_KEY) or 0
        row = pa.Table.from_pylist([{"first": first, "count": count, "run_id": run_id}], schema=LEASE.schema)
        properties = CommitProperties(
            custom_metadata={"stemma.run_id": run_id},
            app_transactions=[Transaction(_KEY, first + count)],
            max_commit_retries=0,
        )
        with told(settings, LEASE):
            try:
                write_deltalake(table, row, mode="append", commit_properties=properties)
                return first
            except CommitFailedError:
                time.sleep(0.005 * (attempt + 1))
    raise TableError(f"row numbers could not be reserved: {_ATTEMPTS} other writers came first; try again")
