"""The verb `stemma query`: rows to the screen, or any number of them to a file, batch by batch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from infra.cli import Json, Lake, existing
from infra.screen import SHOWN, plain, print_rows
from infra.settings import Settings
from lineage import tables
from lineage.tables import Answer, TableError

Keep = Callable[[pa.RecordBatch], Any]


def query(
    statement: Annotated[str, typer.Argument(help="One SELECT (DataFusion SQL) over the lake's tables.")],
    out: Annotated[
        str | None, typer.Option(help="Write all rows to a new .parquet, .csv or .jsonl file instead.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which it is ended; at most a day.")
    ] = tables.TIMEOUT_S,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Read-only SQL over the lake; at most 50 rows to the screen, as a table or, where they are too wide for
    one, column by column. Tables and columns: docs/tables.md.

    Where a row comes from (here: whatever bears the answer 'room'), in one statement:

    with recursive above as (select row_id, parents from examples where answer = 'room'
    union select t.row_id, t.parents from above join traces t on array_has(above.parents, t.row_id))
    select source_uri, count(*) from above join traces using (row_id) group by 1

    Example: stemma query "select prompt_version, count(*) from traces group by 1"
    """
    settings = existing(lake)
    place = _new_file(settings, out) if out is not None else None
    with tables.sql(settings, statement, timeout_s=timeout) as answer:
        _require_names(answer)
        if place is not None:
            print(f"{_store(answer, place)} rows in {out}")
            return 0
        rows = _first(answer, SHOWN + 1).to_pylist()
    if as_json:
        print(json.dumps(plain(rows[:SHOWN])))
        return 0
    print_rows(rows[:SHOWN])
    if len(rows) > SHOWN:
        print(f"the first {SHOWN} rows; take them all with --out FILE")
    return 0


def _require_names(answer: Answer) -> None:
    twice = sorted({name for name in answer.schema.names if answer.schema.names.count(name) > 1})
    if twice:
        raise TableError(f"several columns are called {', '.join(twice)}; give each its own name with AS")


def _first(answer: Answer, count: int) -> pa.Table:
    """At most so many rows; what comes after them is never asked for."""
    found: list[pa.RecordBatch] = []
    for batch in answer.batches:
        found.append(batch.slice(0, count - sum(each.num_rows for each in found)))
        if sum(each.num_rows for each in found) == count:
            break
    return pa.Table.from_batches(found, answer.schema)


def _new_file(settings: Settings, out: str) -> Path:
    """Where the rows go. Raises TableError where that is no new file of a known kind outside the lake."""
    place = Path(out).expanduser().absolute()
    if place.suffix not in _KINDS:
        raise TableError(f"--out '{out}' ends in '{place.suffix}', expected one of: {', '.join(_KINDS)}")
    if settings.is_local and place.resolve().is_relative_to(Path(settings.lake).resolve()):
        raise TableError(f"--out '{out}' lies in the lake, which only jobs write to; choose another folder")
    if os.path.lexists(place):
        raise TableError(f"--out '{out}' exists; nothing is written over, choose another name")
    if not place.parent.is_dir():
        raise TableError(f"--out '{out}': there is no folder '{place.parent}'; make it first")
    return place


def _store(answer: Answer, place: Path) -> int:
    """Write the rows as they come; the file is there when it is whole. Returns how many."""
    rows = 0
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with _KINDS[place.suffix](part, answer.schema) as keep:
            for batch in answer.batches:
                keep(batch)
                rows += batch.num_rows
        if os.path.lexists(place):
            raise TableError(f"--out '{place}' has come to stand there meanwhile; choose another name")
        part.rename(place)
    finally:
        part.unlink(missing_ok=True)
    return rows


@contextmanager
def _parquet(place: Path, schema: pa.Schema) -> Iterator[Keep]:
    with pq.ParquetWriter(place, schema) as file:
        yield file.write_batch


@contextmanager
def _csv(place: Path, schema: pa.Schema) -> Iterator[Keep]:
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if nested:
        raise TableError(
            f"CSV cannot hold the lists in {', '.join(nested)}; write .parquet or .jsonl, or select less"
        )
    in_hex = pa.schema([f.with_type(pa.string()) if pa.types.is_binary(f.type) else f for f in schema])
    with pyarrow.csv.CSVWriter(place, in_hex) as file:
        yield lambda batch: file.write_batch(_hex(batch, in_hex))


@contextmanager
def _jsonl(place: Path, _: pa.Schema) -> Iterator[Keep]:
    with place.open("x", encoding="utf-8") as file:
        yield lambda batch: file.writelines(f"{json.dumps(plain(row))}\n" for row in batch.to_pylist())


def _hex(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())
        if pa.types.is_binary(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


_KINDS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
