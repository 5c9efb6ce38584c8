"""The SQL engine, in a process of its own: no statement can hold, fill or outlive the process that asks.

    stdin   one line of JSON, a Question
    stdout  the rows as an Arrow IPC stream
    stderr  last line: what went wrong, as JSON; the exit code says where

Run as a file by lineage/tables/sql.py, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any, TypedDict

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

NOT_OPENED, NOT_PLANNED, NOT_READ = 3, 4, 5  # exit codes

ENGINE_BYTES = 2 << 30  # what the engine may hold by its own account; beyond it sorts and joins go to disk
DISK_BYTES = 20 << 30  # what they may take there
PROCESS_BYTES = 4 << 30  # for what the engine does not account for


class Question(TypedDict):
    """What is asked, and of which tables."""

    tables: list[tuple[str, str, int | None, dict[str, str]]]
    """Name in SQL, URI, version (None: the newest), and type of the columns that are empty in a version that
    is older than they are."""

    storage_options: dict[str, str]
    must_plan: list[str]
    """Statements that are only planned: each has to be one."""

    statement: str
    timeout_s: float
    folder: str
    """Where sorts and joins that outgrow the memory may go."""

    catalog: bool
    """May the statement ask which tables and columns there are?"""


def main() -> None:
    """Answer the question on stdin."""
    question: Question = json.loads(sys.stdin.readline())
    _bind(question["timeout_s"])
    engine = _attempt(NOT_OPENED, lambda: _open(question))
    for statement in question["must_plan"]:
        _attempt(NOT_PLANNED, lambda statement=statement: engine.execute(statement))
    planned = _attempt(NOT_PLANNED, lambda: engine.execute(question["statement"]))
    _attempt(NOT_READ, lambda: _tell(pa.RecordBatchReader.from_stream(planned)))


def _bind(timeout_s: float) -> None:
    """End this process at the deadline and at Ctrl-C without asking the interpreter: the engine holds it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    resource.setrlimit(resource.RLIMIT_DATA, (PROCESS_BYTES, PROCESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _open(question: Question) -> QueryBuilder:
    engine = QueryBuilder({"datafusion.catalog.information_schema": str(question["catalog"]).lower()})
    for name, uri, version, columns in question["tables"]:
        try:
            options = question["storage_options"] or None
            table = DeltaTable(uri, version=version, storage_options=options)
        except TableNotFoundError:
            continue  # never written: to the statement there is no such table
        known = {field.name for field in table.schema().fields}
        younger = [
            f"arrow_cast(null, '{kind}') as \"{column}\""
            for column, kind in columns.items()
            if column not in known
        ]
        engine = engine.register(f"{name}_as_stored" if younger else name, table)
        if younger:
            view = f"create view {name} as select *, {', '.join(younger)} from {name}_as_stored"
            engine.execute(view).read_all()
    for key, value in {
        "memory_limit": f"{ENGINE_BYTES >> 20}M",
        "temp_directory": question["folder"],
        "max_temp_directory_size": f"{DISK_BYTES >> 20}M",
    }.items():
        engine.execute(f"set datafusion.runtime.{key} = '{value}'").read_all()
    return engine


def _tell(rows: pa.RecordBatchReader) -> None:
    schema = pa.schema([field.with_type(_stored_type(field.type)) for field in rows.schema])
    with pa.ipc.new_stream(sys.stdout.buffer, schema) as out:
        sys.stdout.buffer.flush()  # what the columns are is known before the first row
        for batch in rows:
            out.write_batch(batch.cast(schema))


def _stored_type(kind: pa.DataType) -> pa.DataType:
    """The type as files and screens take it: the engine's views of text and bytes are its own affair."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_stored_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_stored_type(field.type)) for field in kind])
    return kind


def _attempt(code: int, act: Any) -> Any:
    try:
        return act()
    except BrokenPipeError:
        raise SystemExit(0) from None  # whoever asked has seen enough
    except Exception as error:
        print(json.dumps(str(error)), file=sys.stderr, flush=True)
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()
