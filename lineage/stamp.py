"""The only code that writes the provenance columns.

Called by pipelines.runner alone (import-linter sees to it).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lineage.rows import Derivation, Fingerprint, RowError, canonical_payload, derived_row_id, source_row_ids
from lineage.schemas import MIXED, NOT_APPLICABLE, PROVENANCE, STATED, UNSTATED, TableSpec


@dataclass(frozen=True)
class Stamp:
    """What all rows of one run share."""

    run_id: str
    code_revision: str
    at: dt.datetime


@dataclass(frozen=True)
class Source:
    """One source: where it lies, what it holds, and what it is known by however it grows (rows.origin_of)."""

    uri: str
    revision: str
    origin: bytes


@dataclass(frozen=True)
class Places:
    """Where in their source rows come from; one entry per row, in their order."""

    positions: Sequence[int]
    """First byte of the row's record in the decompressed source, or the number of its row in a table."""

    spans: Sequence[str]
    """The same for people and programs: bytes:FIRST-END, or row:NUMBER."""

    records: Sequence[bytes]
    ordinals: Sequence[int]
    """Which of its record's rows it is, from 0."""


def stamp_source(
    rows: pa.Table,
    places: Places,
    *,
    into: TableSpec,
    source: Source,
    reader: Fingerprint,
    stamp: Stamp,
    first_row_no: int,
) -> pa.Table:
    """Rows of `into`, numbered in order from `first_row_no`.

    `rows` holds what a reader made, in the columns of `into.derivable`: payload, and provenance that the
    source states. What it does not state is `unstated`.
    """
    n = rows.num_rows
    ids = source_row_ids(
        reader=reader.name,
        revision=reader.revision,
        origin=source.origin,
        positions=places.positions,
        records=places.records,
        ordinals=places.ordinals,
    )
    offsets = pa.array(np.zeros(n + 1, np.int32))
    given: dict[str, Any] = {
        "row_id": pa.array(ids, pa.binary(), size=n),
        "row_no": pa.array(np.arange(first_row_no, first_row_no + n, dtype=np.int64)),
        "parents": pa.ListArray.from_arrays(offsets, pa.array([], pa.binary())),
        "parent_nos": pa.ListArray.from_arrays(offsets, pa.array([], pa.int64())),
        "source_span": pa.array(places.spans, pa.string()),
    }
    same = {
        "derivation": "source",
        "source_uri": source.uri,
        "source_revision": source.revision,
        "step": reader.name,
        "step_revision": str(reader.revision),
        **_of(stamp),
    }
    unless_stated = {"review": "none", "reviewer": NOT_APPLICABLE}
    columns: list[Any] = []
    for field in into.schema:
        if field.name in given:
            columns.append(given[field.name])
        elif field.name in same:
            columns.append(pa.repeat(pa.scalar(same[field.name], field.type), n))
        elif field.name in STATED and pa.types.is_string(field.type):
            columns.append(pc.fill_null(rows[field.name], unless_stated.get(field.name, UNSTATED)))
        else:
            columns.append(rows[field.name])
    return pa.table(columns, schema=into.schema)


def stamp_derived(
    derivation: Derivation, batch: pa.Table, *, into: TableSpec, steps: Sequence[Fingerprint], stamp: Stamp
) -> pa.Table:
    """Rows of `into` that a step derived from `batch`, without row numbers.

    `batch` holds provenance columns; rows of it that were never stored (row_no -1) hand on the parents they
    were themselves derived from, so that stored rows only ever name stored parents.
    `steps` are the fingerprints of all steps since the stored rows, this one last.
    """
    batch = batch.combine_chunks()
    inherited = {name: batch[name].to_pylist() for name in batch.column_names if name in _INHERITED}
    given = {name: derivation.rows[name].to_pylist() for name in derivation.rows.column_names}
    columns: dict[str, list[Any]] = {field.name: [] for field in into.schema}
    seen: Counter[tuple[bytes, ...]] = Counter()
    for index, positions in enumerate(derivation.parents):
        parents = _stored_parents(inherited, positions)
        stated = {name: values[index] for name, values in given.items()}
        payload = canonical_payload(stated, into.payload)
        twin = (*sorted(row_id for row_id, _ in parents), payload)
        provenance = {
            "row_id": derived_row_id(
                steps=steps, parents=[row_id for row_id, _ in parents], payload=payload, ordinal=seen[twin]
            ),
            "row_no": -1,
            "parents": [row_id for row_id, _ in parents],
            "parent_nos": [row_no for _, row_no in parents],
            "derivation": _kind(derivation, inherited, positions),
            "step": steps[-1].name,
            "step_revision": str(steps[-1].revision),
            **_of(stamp),
        }
        seen[twin] += 1
        for name in ("source_uri", "source_revision", "source_span", *STATED):
            provenance[name] = (
                stated[name] if stated.get(name) is not None else _shared(inherited[name], positions)
            )
        for name, values in columns.items():
            values.append(provenance[name] if name in provenance else stated[name])
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in into.schema})


_INHERITED = frozenset(column.name for column in PROVENANCE)


def _of(stamp: Stamp) -> dict[str, Any]:
    return {"code_revision": stamp.code_revision, "run_id": stamp.run_id, "extracted_at": stamp.at}


def _stored_parents(batch: dict[str, list[Any]], positions: Sequence[int]) -> list[tuple[bytes, int]]:
    """The stored rows behind these rows of the batch, each once, ordered by id."""
    stored: dict[bytes, int] = {}
    for position in positions:
        if batch["row_no"][position] >= 0:
            stored[batch["row_id"][position]] = batch["row_no"][position]
        else:
            stored.update(zip(batch["parents"][position], batch["parent_nos"][position], strict=True))
    return sorted(stored.items())


def _kind(derivation: Derivation, batch: dict[str, list[Any]], positions: Sequence[int]) -> str:
    """How the stored parents stand to the row.

    A chain of one-parent steps leaves the many-parent step's word.
    """
    inner = {
        batch["derivation"][position]
        for position in positions
        if batch["row_no"][position] < 0 and len(batch["parents"][position]) > 1
    }
    if len(positions) == 1:
        return inner.pop() if inner else derivation.kind
    if inner and inner != {derivation.kind}:
        raise RowError(
            "a merge of rows that were themselves merged another way cannot be told in one word; "
            "store between"
        )
    return derivation.kind


def _shared(values: list[Any], positions: Sequence[int]) -> Any:
    """The value all parents share; else `mixed` for words, nothing for numbers."""
    first = values[positions[0]]
    if all(values[position] == first for position in positions[1:]):
        return first
    return MIXED if isinstance(first, str) else None
