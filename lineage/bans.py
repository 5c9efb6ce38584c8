"""What was called back, and may not come back: the standing recalls, their rows, and what they refuse.

A ban holds more than the id. A second copy of a banned exchange has another id but teaches the same, another
reader gives other ids at the same place of the same source, and a row that is new altogether may state the
banned prompt version: each is refused. What SQL selected has no such value: new rows like it are not refused,
and the recall must be given again after they came.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.rows import canonical_payload
from lineage.schemas import BAN, RECALL, TableSpec
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
class Recall:
    """One standing recall."""

    id: str
    selector: Selector
    reason: str
    orders: tuple[Order, ...]
    actor: str
    run_id: str
    at: dt.datetime


def recall_id(selector: Selector) -> str:
    """The same selector is the same recall: 12 hex digits."""
    return hashlib.sha256(b"stemma.recall.v1" + selector.encode().encode()).hexdigest()[:12]


def recalls(settings: Settings) -> list[Recall]:
    """All recalls, oldest first."""
    found: dict[str, Recall] = {}
    for row in tables.read(settings, RECALL).sort_by("at").to_pylist():
        orders = tuple(Order(**order) for order in json.loads(row["orders"]))
        first = found.get(row["recall"])
        if first is not None:
            found[first.id] = replace(first, orders=first.orders + orders)
            continue
        selector, who = Selector.parse(row["selector"]), (row["actor"], row["run_id"], row["at"])
        found[row["recall"]] = Recall(row["recall"], selector, row["reason"], orders, *who)
    return list(found.values())


def banned(settings: Settings) -> dict[int, str]:
    """Row number -> the first recall that banned it."""
    rows = tables.read(settings, BAN, columns=["row_no", "recall"])
    pairs = zip(rows["row_no"].to_pylist(), rows["recall"].to_pylist(), strict=True)
    found: dict[int, str] = {}
    for row_no, recall in pairs:
        found.setdefault(row_no, recall)
    return found


def payload_digest(row: Mapping[str, object], spec: TableSpec) -> bytes:
    """16 bytes over what a row teaches, wherever it comes from, and whatever else is said about it."""
    taught = canonical_payload(row, pa.schema([spec.schema.field(name) for name in TAUGHT[spec.name]]))
    return hashlib.blake2b(taught, digest_size=16, person=b"stemma.ban.v1").digest()


@dataclass(frozen=True)
class Bans:
    """What no job may store, as a value that travels to workers."""

    by_id: Mapping[bytes, str] = field(default_factory=dict)
    by_payload: Mapping[bytes, str] = field(default_factory=dict)
    by_span: Mapping[tuple[str, str], str] = field(default_factory=dict)
    by_value: tuple[tuple[str, Selector], ...] = ()

    def refused(self, rows: pa.Table, spec: TableSpec) -> dict[int, str]:
        """Position -> recall, of the rows that may not be stored."""
        if not (self.by_id or self.by_value or self.by_payload) or not rows.num_rows:
            return {}
        found: dict[int, str] = {}
        for recall, selector in self.by_value:
            for position in _positions(rows, selector.on_values()):
                found.setdefault(position, recall)
        names = ("row_id", "parents", "source_revision", "source_span")
        for position, row in enumerate(rows.select(names).to_pylist()):
            span = (row["source_revision"], row["source_span"])
            recall = self.by_id.get(row["row_id"]) or (None if row["parents"] else self.by_span.get(span))
            if recall is not None:
                found.setdefault(position, recall)
        if self.by_payload:
            for position, row in enumerate(rows.select(TAUGHT[spec.name]).to_pylist()):
                recall = self.by_payload.get(payload_digest(row, spec))
                if recall is not None:
                    found.setdefault(position, recall)
        return dict(sorted(found.items()))


def standing(settings: Settings) -> Bans:
    """The bans of all recalls."""
    rows = tables.read(settings, BAN).to_pylist()
    return Bans(
        by_id={row["row_id"]: row["recall"] for row in rows if row["refused_by_id"]},
        by_payload={row["payload_digest"]: row["recall"] for row in rows if row["payload_digest"]},
        by_span={
            (row["source_revision"], row["source_span"]): row["recall"]
            for row in rows
            if row["source_span"].startswith("bytes:")
        },
        by_value=tuple(
            (recall.id, recall.selector)
            for recall in recalls(settings)
            if recall.selector.on_values() is not None
        ),
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
