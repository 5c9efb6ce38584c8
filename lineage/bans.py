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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.generations import eaters
from lineage.rows import canonical_payload
from lineage.schemas import BAN, LIFT, RECALL, TableSpec
from lineage.selectors import Selector
from lineage.tables import TableError

TAUGHT: Mapping[str, tuple[str, ...]] = {
    "traces": ("messages", "response", "response_tool_calls", "verdict", "correction"),
    "documents": ("text",),
    "examples": ("task", "messages", "answer"),
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


def after_all(settings: Settings, now: dt.datetime) -> dt.datetime:
    """Now, or a moment after the last order or lift, where the clock that timed it goes before ours."""
    times = [at for book in (RECALL, LIFT) for at in tables.read(settings, book)["at"].to_pylist()]
    return max([now, *(at + dt.timedelta(microseconds=1) for at in times)])


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


def banned(settings: Settings) -> dict[int, str]:
    """Row number -> the first standing recall that banned it."""
    rows = ban_rows(settings, columns=["row_no", "recall"])
    pairs = zip(rows["row_no"].to_pylist(), rows["recall"].to_pylist(), strict=True)
    found: dict[int, str] = {}
    for row_no, recall in pairs:
        found.setdefault(row_no, recall)
    return found


def ban_rows(
    settings: Settings, *, columns: Sequence[str] | None = None, where: pads.Expression | None = None
) -> pa.Table:
    """Rows of `bans` that count: those of the standing recalls."""
    ids = pa.array([recall.id for recall in recalls(settings)], pa.string())
    stands = pads.field("recall").isin(ids)
    return tables.read(settings, BAN, columns=columns, where=stands if where is None else stands & where)


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
    """The bans of all standing recalls."""
    rows = ban_rows(settings).to_pylist()
    by_payload: dict[str, dict[bytes, str]] = {}
    for row in rows:
        if row["payload_digest"]:
            by_payload.setdefault(row["table"], {})[row["payload_digest"]] = row["recall"]
    by_value: list[tuple[str, Selector]] = []
    for recall in recalls(settings):
        if recall.selector.on_values() is not None:
            by_value.append((recall.id, recall.selector))
        if recall.selector.through_models:
            mine = [row["row_no"] for row in rows if row["recall"] == recall.id]
            by_value += [(recall.id, eater.written) for eater in eaters(settings, mine)]
    return Bans(
        by_id={row["row_id"]: row["recall"] for row in rows if row["refused_by_id"]},
        by_payload=by_payload,
        by_span={
            (row["source_revision"], row["source_span"]): row["recall"]
            for row in rows
            if row["source_span"].startswith("bytes:")
        },
        by_value=tuple(by_value),
    )


def require_clean(settings: Settings, row_nos: Iterable[int], *, what: str) -> None:
    """Raise Recalled where some of the rows were called back."""
    gone = banned(settings)
    hit = [gone[number] for number in row_nos if number in gone]
    if hit:
        raise Recalled(
            f"{what} holds {len(hit)} rows that recall {', '.join(sorted(set(hit)))} took back; "
            "train again without them: stemma finetune"
        )


def _positions(rows: pa.Table, condition: pads.Expression | None) -> list[int]:
    if condition is None:
        return []
    numbered = rows.append_column("position", pa.array(range(rows.num_rows), pa.int64()))
    return numbered.filter(condition)["position"].to_pylist()


def _among(rows: pa.Table, column: str, values: pa.Array) -> Iterator[tuple[int, Any]]:
    """Position and value of each row whose column holds one of the values."""
    at = np.flatnonzero(pc.is_in(rows[column], values).to_numpy())
    return zip(at.tolist(), rows[column].take(at).to_pylist(), strict=True)
