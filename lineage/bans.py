"""What was called back, and may not come back: the standing recalls, their rows, and what they refuse.

A recall stands from its order until it is lifted, and again from its next order.

A ban holds more than the id. A second copy of a banned exchange has another id but teaches the same, another
reader gives other ids at the same place of the same source, and a row that is new altogether may state the
banned prompt version: each is refused. What SQL selected has no such value: new rows like it are not refused,
and the recall must be given again after they came.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyroaring import FrozenBitMap64

from infra.settings import Settings
from lineage import tables
from lineage.generations import eaters
from lineage.rows import canonical_payload
from lineage.schemas import BAN, LIFT, RECALL, TableSpec
from lineage.selectors import Selector
from lineage.tables import TableError
from lineage.tasks import ANSWER_COLUMNS

TAUGHT: Mapping[str, tuple[str, ...]] = {
    "traces": ("messages", "response", "response_tool_calls", "verdict", "correction"),
    "documents": ("text",),
    "examples": ("task", "messages", *ANSWER_COLUMNS),
}
"""The columns that a model learns from: a row that says the same there is a copy, whatever its id or time."""


class Recalled(TableError):
    """What was to be used holds rows that were called back."""


@dataclass(frozen=True)
class Order:
    """A model that lost its champion to a recall: what is to be trained again."""

    name: str
    version: int
    run_id: str
    """The training run of the champion that was recalled."""


@dataclass(frozen=True)
class Lift:
    """The end of a recall."""

    reason: str
    actor: str
    run_id: str
    at: dt.datetime


@dataclass(frozen=True)
class Recall:
    """One recall, as it was ordered last."""

    id: str
    selector: Selector
    reason: str
    orders: tuple[Order, ...]
    actor: str
    run_id: str
    at: dt.datetime
    lifts: int = 0
    """How often it had been lifted before that."""

    lift: Lift | None = None
    """What ended it; None: it stands."""


def recall_id(selector: Selector) -> str:
    """The same selector is the same recall: 12 hex digits."""
    return hashlib.sha256(b"stemma.recall.v1" + selector.encode().encode()).hexdigest()[:12]


def recalls(settings: Settings) -> list[Recall]:
    """The standing recalls, oldest first."""
    return [each for each in all_recalls(settings) if each.lift is None]


def all_recalls(settings: Settings) -> list[Recall]:
    """Every recall there ever was, the lifted ones, too; oldest first."""
    found: dict[str, Recall] = {}
    written = [row for book in (RECALL, LIFT) for row in tables.read(settings, book).to_pylist()]
    for row in sorted(written, key=lambda row: row["at"]):
        known = found.get(row["recall"])
        if "selector" in row:
            found.pop(row["recall"], None)
            found[row["recall"]] = _ordered(row, known)
        elif known is not None and known.lift is None:
            lift = Lift(row["reason"], row["actor"], row["run_id"], row["at"])
            found[known.id] = replace(known, lift=lift)
    return sorted(found.values(), key=lambda recall: recall.at)


def _ordered(row: Mapping[str, Any], known: Recall | None) -> Recall:
    """A recall after a further order: begun, given again, or begun anew after a lift."""
    orders = tuple(Order(**order) for order in json.loads(row["orders"]))
    if known is not None and known.lift is None:
        return replace(known, orders=known.orders + orders)
    who = (row["actor"], row["run_id"], row["at"])
    lifts = 0 if known is None else known.lifts + 1
    return Recall(row["recall"], Selector.parse(row["selector"]), row["reason"], orders, *who, lifts)


def lifts(settings: Settings) -> int:
    """How many lifts are on record. What bans refused before one may come after it: that is another run."""
    return tables.read(settings, LIFT, columns=["recall"]).num_rows


def banned(settings: Settings) -> Mapping[int, str]:
    """Row number -> the first standing recall that banned it. The numbers alone: `banned_numbers`."""
    return _banned(_books(settings, RECALL, LIFT, BAN))


def banned_numbers(settings: Settings) -> FrozenBitMap64:
    """The numbers of the rows that some standing recall banned."""
    return _numbers(_books(settings, RECALL, LIFT, BAN))[1]


def numbers_by_recall(settings: Settings) -> Mapping[str, FrozenBitMap64]:
    """Standing recall -> the numbers of the rows that it banned; those that banned none are left out."""
    return _numbers(_books(settings, RECALL, LIFT, BAN))[0]


def ban_rows(
    settings: Settings, *, columns: Sequence[str] | None = None, where: pads.Expression | None = None
) -> pa.Table:
    """Rows of `bans` that count: those of the standing recalls, none that was ended."""
    ids = pa.array([recall.id for recall in recalls(settings)], pa.string())
    stands = pads.field("recall").isin(ids)
    return not_ended(settings, columns=columns, where=stands if where is None else stands & where)


def not_ended(
    settings: Settings, *, columns: Sequence[str] | None = None, where: pads.Expression | None = None
) -> pa.Table:
    """Rows of `bans` that no later row of the book ended, whether their recall stands or not.

    `where` must not tell the row that ends a ban from the one that began it.
    """
    wanted = list(columns or BAN.schema.names)
    needed = list(dict.fromkeys([*wanted, "recall", "row_no", "ends"]))
    rows = tables.read(settings, BAN, columns=needed, where=where)
    ends = pc.fill_null(rows["ends"], False).to_numpy()
    if ends.any():
        recalls = rows["recall"].combine_chunks().dictionary_encode().indices.to_numpy()
        pairs = np.stack([recalls.astype(np.int64), rows["row_no"].to_numpy()])
        _, pair = np.unique(pairs, axis=1, return_inverse=True)
        standing = np.bincount(pair.ravel(), weights=np.where(ends, -1, 1)) > 0
        rows = rows.filter(pa.array(standing[pair.ravel()] & ~ends))
    return rows.select(wanted)


def payload_digest(row: Mapping[str, object], spec: TableSpec) -> bytes:
    """16 bytes over what a row teaches, wherever it comes from, and whatever else is said about it."""
    taught = canonical_payload(row, pa.schema([spec.schema.field(name) for name in TAUGHT[spec.name]]))
    return hashlib.blake2b(taught, digest_size=16, person=b"stemma.ban.v1").digest()


@dataclass(frozen=True)
class Bans:
    """What no job may store, as a value that travels to workers."""

    by_id: Mapping[bytes, str] = field(default_factory=dict)
    by_payload: Mapping[str, Mapping[bytes, str]] = field(default_factory=dict)
    """Per table, for what a row teaches differs from one to the other."""

    by_span: Mapping[tuple[str, str], str] = field(default_factory=dict)
    by_value: tuple[tuple[str, Selector], ...] = ()

    def refused(self, rows: pa.Table, spec: TableSpec) -> dict[int, str]:
        """Position -> recall, of the rows that may not be stored."""
        found: dict[int, str] = {}
        for recall, selector in self.by_value:
            for position in _positions(rows, selector.on_values()):
                found.setdefault(position, recall)
        for position, row_id in _among(rows, "row_id", pa.array(list(self.by_id), pa.binary())):
            found.setdefault(position, self.by_id[row_id])
        spans = pa.array([span for _, span in self.by_span], pa.string())
        for position, span in _among(rows, "source_span", spans):
            recall = self.by_span.get((rows["source_revision"][position].as_py(), span))
            if recall is not None and not rows["parents"][position].as_py():
                found.setdefault(position, recall)
        copies = self.by_payload.get(spec.name, {})
        for position, row in enumerate(rows.select(TAUGHT[spec.name]).to_pylist() if copies else ()):
            recall = copies.get(payload_digest(row, spec))
            if recall is not None:
                found.setdefault(position, recall)
        return dict(sorted(found.items()))


def standing(settings: Settings) -> Bans:
    """The bans of all standing recalls. Kept while nobody commits, so not to be changed."""
    return replace(_of_rows(_books(settings, RECALL, LIFT, BAN)), by_value=by_value(settings))


def by_value(settings: Settings) -> tuple[tuple[str, Selector], ...]:
    """What the standing recalls refuse by its values alone, each with its recall; oldest first."""
    found: list[tuple[str, Selector]] = []
    for recall in recalls(settings):
        if recall.selector.on_values() is not None:
            found.append((recall.id, recall.selector))
        if recall.selector.through_models:
            mine = numbers_by_recall(settings).get(recall.id, ())
            found += [(recall.id, eater.written) for eater in eaters(settings, mine)]
    return tuple(found)


def require_clean(settings: Settings, row_nos: Iterable[int], *, what: str) -> None:
    """Raise Recalled where some of the rows were called back."""
    gone = banned_numbers(settings)
    hit = [number for number in row_nos if number in gone]
    if hit:
        by = banned(settings)
        raise Recalled(
            f"{what} holds {len(hit)} rows that recall {', '.join(sorted({by[n] for n in hit}))} took back; "
            "train again without them: stemma finetune"
        )


def _books(settings: Settings, *books: TableSpec) -> tuple[tables.Snapshot | None, ...]:
    """The books as they are now: equal while nobody commits to one of them."""
    return tuple(tables.snapshot(settings, book) for book in books)


def _rows_that_count(books: tuple[tables.Snapshot | None, ...], *columns: str) -> pa.Table:
    """Columns of the bans that count. The settings are those of the first snapshot that is there."""
    asked_by = next((book.settings for book in books if book is not None), None)
    if asked_by is None:
        return BAN.schema.empty_table().select(columns)
    return ban_rows(asked_by, columns=columns)


@lru_cache(maxsize=2)
def _banned(books: tuple[tables.Snapshot | None, ...]) -> Mapping[int, str]:
    rows = _rows_that_count(books, "row_no", "recall")
    # From the last to the first, so that the first to ban a row is the one that stays.
    numbers, recalls = (rows[name].to_pylist()[::-1] for name in ("row_no", "recall"))
    return MappingProxyType(dict(zip(numbers, recalls, strict=True)))


@lru_cache(maxsize=2)
def _numbers(
    books: tuple[tables.Snapshot | None, ...],
) -> tuple[Mapping[str, FrozenBitMap64], FrozenBitMap64]:
    rows = _rows_that_count(books, "row_no", "recall")
    found = {
        recall: _bitmap(rows.filter(pc.equal(rows["recall"], recall)))
        for recall in rows["recall"].unique().to_pylist()
    }
    return MappingProxyType(found), _bitmap(rows)


def _bitmap(rows: pa.Table) -> FrozenBitMap64:
    return FrozenBitMap64(rows["row_no"].to_numpy().astype(np.uint64))


@lru_cache(maxsize=2)
def _of_rows(books: tuple[tables.Snapshot | None, ...]) -> Bans:
    """What rows refuse by their id, by what they teach and by their place in a source."""
    told = ("recall", "table", "row_id", "refused_by_id", "payload_digest", "source_revision", "source_span")
    rows = _rows_that_count(books, *told)
    digested = rows.filter(pc.greater(pc.binary_length(rows["payload_digest"]), 0))
    placed = rows.filter(pc.match_substring_regex(rows["source_span"], "^(bytes|row):"))
    of_tables = {
        name: digested.filter(pc.equal(digested["table"], name))
        for name in digested["table"].unique().to_pylist()
    }
    spans = zip(placed["source_revision"].to_pylist(), placed["source_span"].to_pylist(), strict=True)
    return Bans(
        by_id=_recall_by(rows.filter(rows["refused_by_id"]), "row_id"),
        by_payload={name: _recall_by(each, "payload_digest") for name, each in of_tables.items()},
        by_span=dict(zip(spans, placed["recall"].to_pylist(), strict=True)),
    )


def _recall_by(rows: pa.Table, column: str) -> dict[bytes, str]:
    return dict(zip(rows[column].to_pylist(), rows["recall"].to_pylist(), strict=True))


def _positions(rows: pa.Table, condition: pads.Expression | None) -> list[int]:
    if condition is None:
        return []
    numbered = rows.append_column("position", pa.array(range(rows.num_rows), pa.int64()))
    return numbered.filter(condition)["position"].to_pylist()


def _among(rows: pa.Table, column: str, values: pa.Array) -> Iterator[tuple[int, Any]]:
    """Position and value of each row whose column holds one of the values."""
    at = np.flatnonzero(pc.is_in(rows[column], values).to_numpy())
    return zip(at.tolist(), rows[column].take(at).to_pylist(), strict=True)
