"""Read-only SQL over the lake: a statement, or a condition on the rows of one table.

What is asked is answered by lineage/tables/engine.py in a process of its own, which ends at a deadline and
within bounds of memory. That a statement only reads is for the engine to say: it must plan as a sub-select,
in which nothing that writes, sets or opens a file has a place.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from infra.redaction import redacted
from infra.settings import Settings
from lineage.schemas import TABLES, TIMESTAMP, TableSpec
from lineage.tables import engine
from lineage.tables.damage import require_whole, said
from lineage.tables.place import TableError, location
from lineage.tables.reads import before_taken_out

TIMEOUT_S = 60.0
LONGEST_S = 86_400.0  # a day; a timer takes no number of any size

NEVER_THE_SAME = (
    "current_date",
    "current_time",
    "current_timestamp",
    "file_row_index",
    "input_file_name",
    "now",
    "rand",
    "random",
    "today",
    "uuid",
)
"""The engine's functions that need not say the same of the same row tomorrow."""

_TYPES = {
    pa.string(): "Utf8",
    pa.binary(): "Binary",
    pa.bool_(): "Boolean",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float64(): "Float64",
    TIMESTAMP: 'Timestamp(Microsecond, Some("UTC"))',
}

_BLANK = r"\s|--[^\n]*(?:\n|$)|/\*.*?\*/"
_READS = re.compile(rf"(?:{_BLANK}|\()*(?:select|with|values|show|describe|desc)\b", re.I | re.S)
_CATALOG = re.compile(r"\s*(?:show\s+tables|(?:show\s+columns\s+(?:from|in)|describe|desc)\s+\w+)\s*", re.I)
_UNSTEADY = re.compile(
    rf"\bcurrent_(?:date|time|timestamp)\b|\b(?:{'|'.join(NEVER_THE_SAME)})[\"`]?(?:{_BLANK})*\(", re.I | re.S
)


class StatementError(TableError):
    """A statement is no SQL, or names what is not there, or would do more than read; nothing was read."""


@dataclass(frozen=True)
class Answer:
    """The rows that a statement gives, as they come: none is held."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    """Raises TableError where the engine stops before the last row."""


@contextmanager
def sql(settings: Settings, statement: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[Answer]:
    """Answer one read-only statement (DataFusion SQL) over the newest versions of the lake's tables.

    Raises StatementError where it cannot be planned or is no query, TableError where it fails on what is
    stored, outgrows its memory or takes longer than it may, or where `timeout_s` is not within a day.
    """
    if not 0 < timeout_s <= LONGEST_S:
        raise TableError(
            f"--timeout {timeout_s:g} is no time that a statement may take; expected more than 0 and at most "
            f"{LONGEST_S:,.0f} seconds, which is a day"
        )
    if not _READS.match(statement):
        raise StatementError(
            "only SELECT, WITH, VALUES, SHOW TABLES and DESCRIBE TABLE are read; "
            "nothing can be written from here"
        )
    statement = re.sub(r"[;\s]+$", "", statement)
    catalog = _CATALOG.fullmatch(statement) is not None
    asked = re.search(r"\binformation_schema\b", statement, re.I) or re.match(r"\s*show\b", statement, re.I)
    named = [spec for spec in TABLES.values() if asked or re.search(rf"\b{spec.name}\b", statement, re.I)]
    there = [spec for spec in named if _is_there(settings, spec)]
    question: engine.Question = {
        "tables": [(spec.name, location(settings, spec), None, _columns(spec)) for spec in there],
        "storage_options": dict(settings.storage_options),
        "must_plan": [] if catalog else [f"select * from (\n{statement}\n) limit 0"],
        "statement": statement,
        "timeout_s": timeout_s,
        "folder": "",
        "catalog": True,
    }
    with _asked(settings, question, of=there) as answer:
        yield answer


def rows_where(settings: Settings, spec: TableSpec, condition: str) -> pa.Table:
    """The numbers of a row table's rows, taken out or not, that a condition on its columns means: `row_no`.

    Raises StatementError where the condition does not fit the table, or is none. Raises TableError where it
    might mean other rows tomorrow: it may look at the row alone, neither at a clock nor at chance nor at
    other rows.
    """
    if not _is_there(settings, spec):
        _require_steady(condition)
        return pa.table({"row_no": pa.array([], pa.int64())})
    with _asked(settings, _condition(settings, spec, condition), of=[spec]) as answer:
        found = [batch.filter(batch["meant"].cast(pa.bool_())) for batch in answer.batches]
        return pa.Table.from_batches(found, answer.schema).select(["row_no"])


def require_fits(settings: Settings, spec: TableSpec, condition: str) -> None:
    """Raise what `rows_where` would raise before it looks at a row; the condition is only planned."""
    if not _is_there(settings, spec):
        return _require_steady(condition)
    question = _condition(settings, spec, condition)
    question["statement"] += " limit 0"
    with _asked(settings, question, of=[spec]) as answer:
        for _ in answer.batches:
            pass


def _require_steady(condition: str) -> None:
    fickle = _UNSTEADY.search(condition)
    if fickle:
        name = " ".join(fickle[0].rstrip("(").split())
        raise TableError(
            f"--where holds '{name}', which says something else each time; "
            "a condition must mean the same rows tomorrow, so write out the value"
        )


def _condition(settings: Settings, spec: TableSpec, condition: str) -> engine.Question:
    """The question which of a table's rows a condition means, taken out or not: row_no, meant."""
    _require_steady(condition)
    hidden = "stored"  # under a name that the condition does not say, no sub-select finds the table
    while hidden in condition.lower():
        hidden += "_"
    versions = [None, *before_taken_out(settings, spec)]  # what was taken out stands in the latter
    # Planned as a condition, so that it is one, and carried out as a column: a filter is pushed down to
    # where an error in it, such as a division by zero, lets every row pass.
    parts = (
        f"select row_no, ({condition}\n) as meant from {hidden}{n} as {spec.name}"
        for n in range(len(versions))
    )
    return {
        "tables": [
            (f"{hidden}{n}", location(settings, spec), v, _columns(spec)) for n, v in enumerate(versions)
        ],
        "storage_options": dict(settings.storage_options),
        "must_plan": [f"select row_no from {hidden}0 as {spec.name} where ({condition}\n) limit 0"],
        "statement": " union all ".join(parts),
        "timeout_s": TIMEOUT_S,
        "folder": "",
        "catalog": False,
    }


@contextmanager
def _asked(settings: Settings, question: engine.Question, *, of: Sequence[TableSpec]) -> Iterator[Answer]:
    command = [sys.executable, "-P", engine.__file__]  # -P: no folder of the user's hides a library
    with TemporaryDirectory(prefix="stemma-") as folder:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it ended at once, and its end says why
                process.stdin.write(json.dumps(question | {"folder": folder}).encode() + b"\n")
                process.stdin.close()
            try:
                reader = pa.ipc.open_stream(process.stdout)
            except pa.ArrowInvalid:  # it ended without a word
                _require_success(settings, process, question, of)
                raise
            yield Answer(reader.schema, _batches(settings, process, question, of, reader))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            if process.stderr is not None:
                process.stderr.close()


def _batches(
    settings: Settings,
    process: subprocess.Popen[bytes],
    question: engine.Question,
    of: Sequence[TableSpec],
    reader: pa.ipc.RecordBatchStreamReader,
) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (pa.ArrowException, OSError):  # cut off within a batch
        _require_success(settings, process, question, of)
        raise
    _require_success(settings, process, question, of)


def _require_success(
    settings: Settings, process: subprocess.Popen[bytes], question: engine.Question, of: Sequence[TableSpec]
) -> None:
    """Raise what the engine's end says: a stream that is cut off looks like one that is complete."""
    assert process.stderr is not None
    told = process.stderr.read().decode(errors="replace").strip().splitlines()
    code = process.wait()
    if code == 0:
        return
    if code == -signal.SIGALRM:
        raise TableError(
            f"the statement took longer than {question['timeout_s']:g} s and was ended; ask for less, "
            "or give stemma query longer: --timeout SECONDS"
        )
    if code < 0:
        raise TableError(
            f"the statement was ended by signal {-code}: most likely it outgrew its "
            f"{engine.PROCESS_BYTES >> 30} GiB of memory; ask for less"
        )
    if code not in (engine.NOT_OPENED, engine.NOT_PLANNED, engine.NOT_READ):
        why = told[-1] if told else "it gave no reason"
        raise TableError(f"the SQL engine failed with exit code {code}: {redacted(why)[:400]}")
    words = _words(told, question)
    if code == engine.NOT_PLANNED:
        raise StatementError(f"the statement failed: {words}")
    for spec in of:
        require_whole(settings, spec)
    raise TableError(f"the statement failed: {words}")


def _words(told: Sequence[str], question: engine.Question) -> str:
    try:
        words = said(Exception(json.loads(told[-1])))
    except (ValueError, IndexError):
        return "the engine gave no reason"
    if "Resources exhausted" in words:
        return f"it needs more than {engine.ENGINE_BYTES >> 30} GiB of memory; ask for less"
    if re.search(r"table 'datafusion\.\w+\.", words) and not question["catalog"]:
        return "a condition may look at the columns of the row alone, and this one asks a table"
    return words


def _columns(spec: TableSpec) -> dict[str, str]:
    """The columns that a version may be older than, and their types as the engine calls them."""
    named = {each.name: _type(each.type) for each in spec.columns if each.nullable}
    return {name: kind for name, kind in named.items() if kind}


def _type(kind: pa.DataType) -> str:
    """Empty for a struct, which the engine's casts have no word for."""
    if isinstance(kind, pa.ListType):
        inner = _type(kind.value_type)
        return f"List({inner})" if inner else ""
    return _TYPES.get(kind, "")


def _is_there(settings: Settings, spec: TableSpec) -> bool:
    return not settings.is_local or Path(location(settings, spec), "_delta_log").is_dir()
