"""Records' rows as one table: a value that fits no column costs its own record, and no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lineage.schemas import TableSpec
from lineage.stamp import Places
from pipelines.readers import Unreadable
from pipelines.runner.losses import RunnerError


@dataclass(frozen=True)
class Item:
    """A record with its rows, or why it has none."""

    position: int
    span: str
    record: bytes
    rows: Sequence[Mapping[str, Any]] = ()
    unreadable: Unreadable | None = None


def together(spec: TableSpec, parts: Iterable[pa.Table]) -> pa.Table:
    """All parts in a table's schema, be there none."""
    return pa.concat_tables([spec.schema.empty_table(), *parts])


def rows_of(
    items: Sequence[Item], into: TableSpec, *, keep_extra: bool
) -> tuple[pa.Table, Places, list[tuple[str, bytes, Unreadable]], int]:
    """All items' rows as one table. An item with a value that fits no column is lost, and alone."""
    lost = [(each.span, each.record, each.unreadable) for each in items if each.unreadable is not None]
    read = [each for each in items if each.unreadable is None]
    filled = [each for each in read if each.rows]
    kept: list[Item] = []
    parts = [into.derivable.empty_table()]
    for some, made in _tables_of(filled, into, keep_extra=keep_extra):
        if isinstance(made, Unreadable):
            lost += [(each.span, each.record, made) for each in some]
        else:
            kept += some
            parts.append(made)
    places = Places(
        [each.position for each in kept for _ in each.rows],
        [each.span for each in kept for _ in each.rows],
        [each.record for each in kept for _ in each.rows],
        [ordinal for each in kept for ordinal in range(len(each.rows))],
    )
    return pa.concat_tables(parts), places, lost, len(read) - len(filled)


def _tables_of(
    items: Sequence[Item], into: TableSpec, *, keep_extra: bool
) -> Iterator[tuple[Sequence[Item], pa.Table | Unreadable]]:
    """The items' rows as tables; halved where some value fits no column, down to the item that holds it."""
    if not items:
        return
    try:
        yield items, _table([row for each in items for row in each.rows], into, keep_extra=keep_extra)
    except Exception as error:  # such as half a surrogate pair, or a number of 65 bits
        if len(items) == 1:
            yield items, Unreadable("not_storable", repr(error))
            return
        half = len(items) // 2
        yield from _tables_of(items[:half], into, keep_extra=keep_extra)
        yield from _tables_of(items[half:], into, keep_extra=keep_extra)


def _table(rows: Sequence[Mapping[str, Any]], into: TableSpec, *, keep_extra: bool) -> pa.Table:
    schema = into.derivable
    known = set(schema.names)
    for row in rows:
        if not row.keys() <= known:
            raise RunnerError(f"columns that '{into.name}' does not have: {sorted(row.keys() - known)}")
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    made = pa.table(columns, schema=schema)
    for column in into.own:
        if not column.nullable and made[column.name].null_count:
            raise RunnerError(f"no value for '{column.name}'")
    if not keep_extra and "extra" in schema.names:
        made = made.set_column(schema.get_field_index("extra"), "extra", pa.nulls(made.num_rows, pa.string()))
    return made


def in_order(
    rows: pa.Table, places: Places, others: pa.Table, their_places: Places
) -> tuple[pa.Table, Places]:
    """Both together, in the order of their records."""
    if not others.num_rows:
        return rows, places
    positions = [*places.positions, *their_places.positions]
    ordinals = [*places.ordinals, *their_places.ordinals]
    order = np.lexsort((ordinals, positions))
    spans, records = [*places.spans, *their_places.spans], [*places.records, *their_places.records]
    together = Places(*([values[at] for at in order] for values in (positions, spans, records, ordinals)))
    return pa.concat_tables([rows, others]).take(pa.array(order)), together
