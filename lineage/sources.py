"""The book of sources: which contents were read, and what each of them grew from.

A log grows at its end. What was read of it before is known again by its digest, so only the new part is read:

    a.jsonl, 10 kB    [0, 10 kB)  under key K1
    a.jsonl, 14 kB    begins with those 10 kB: [10 kB, 14 kB)  under key K2, grown from the first

An entry counts while the key of its rows' commit is stored; a part that was withdrawn is read again alone.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.runs import identity_of, of_any_attempt
from lineage.schemas import NOT_APPLICABLE, SOURCE


@dataclass(frozen=True)
class Entry:
    """One content of a source as somebody read it; the columns of the book."""

    source_uri: str
    source_revision: str
    reader: str
    table: str
    key: str
    origin: bytes
    size: int
    whole: int
    grown_from: str = NOT_APPLICABLE
    supersedes: str = NOT_APPLICABLE


@dataclass(frozen=True)
class Superseded:
    """A content that a source no longer has: it was rewritten in place."""

    source_uri: str
    source_revision: str
    reader: str
    by: str
    """The revision that lies there now, or lay there next."""


_COLUMNS = [each.name for each in fields(Entry)]


def entries(settings: Settings) -> list[Entry]:
    """All entries, oldest first, of what was withdrawn or never committed, too.

    Of one content and reader the last counts.
    """
    rows = tables.read(settings, SOURCE, columns=[*_COLUMNS, "at"]).sort_by("at").to_pylist()
    return [Entry(**{name: row[name] for name in _COLUMNS}) for row in rows]


def origins(settings: Settings) -> dict[tuple[str, str], bytes]:
    """What sources are known by however they grow: (revision, reader's name) -> origin."""
    return {(each.source_revision, _name(each.reader)): each.origin for each in entries(settings)}


def origin(known: Mapping[tuple[str, str], bytes], row: Mapping[str, Any]) -> bytes | None:
    """That of a stored row's source, as `origins` gave it; None where the book does not hold it."""
    return known.get((row["source_revision"], _name(row["step"])))


def record(settings: Settings, new: Iterable[Entry], *, run_id: str, at: dt.datetime) -> None:
    """Put on record what a run read; of the same content an earlier go of that run may have left an entry."""
    rows = [{**asdict(entry), "run_id": run_id, "at": at} for entry in new]
    if not rows:
        return
    others = of_any_attempt(identity_of(run_id))
    others &= ~pads.field("key").isin(pa.array([row["key"] for row in rows], pa.string()))
    made = pa.Table.from_pylist(rows, schema=SOURCE.schema)
    made = pa.concat_tables([made, tables.read(settings, SOURCE, where=others)])
    tables.replace(settings, made, into=SOURCE, run_id=run_id)


def place_of(uri: str) -> str:
    """Where a source lies: its URI, without the digest that an export of ours is named by."""
    return re.sub(r"@[0-9a-f]{12}(?=\.jsonl$)", "", uri)


def families(known: Iterable[Entry]) -> dict[tuple[bytes, str], list[Entry]]:
    """What the same reader read and begins alike, earlier states of a source or its copies, oldest first.

    (origin, reader) -> entries.
    """
    found: dict[tuple[bytes, str], list[Entry]] = defaultdict(list)
    for entry in known:
        found[entry.origin, entry.reader].append(entry)
    return found


def last_at_place(known: Iterable[Entry]) -> dict[tuple[str, str], Entry]:
    """What was read last from each place: (place, reader) -> entry. `known`: oldest first."""
    return {(place_of(entry.source_uri), entry.reader): entry for entry in known}


def grown(found: Sequence[Entry], prefixes: Mapping[int, str]) -> Entry | None:
    """Of these the longest that a content begins with. `prefixes`: its length in bytes -> digest that far."""
    fits = [entry for entry in found if prefixes.get(entry.size) == entry.source_revision]
    return max(fits, key=lambda entry: entry.size, default=None)


def chain(known: Iterable[Entry], entry: Entry) -> list[Entry]:
    """An entry and all that it grew from, the first content first. `known`: its family, or more."""
    return _chain({(each.source_revision, each.reader): each for each in known}, entry)


def superseded(settings: Settings) -> list[Superseded]:
    """Contents that were rewritten, not grown, and did not come back; oldest first.

    What lies there now may begin with an earlier part of what lay there: that part stands.
    """
    known = entries(settings)
    newest = {(each.source_revision, each.reader): each for each in known}
    gone: dict[tuple[str, str], Superseded] = {}
    for entry in known:
        there = {(part.source_revision, part.reader) for part in _chain(newest, entry)}
        before = newest.get((entry.supersedes, entry.reader))
        for part in _chain(newest, before) if before is not None else ():
            at = (part.source_revision, part.reader)
            gone.setdefault(at, Superseded(part.source_uri, *at, entry.source_revision))
        for at in there:
            gone.pop(at, None)
    return list(gone.values())


def superseded_by(gone: Iterable[Superseded], row: Mapping[str, Any]) -> str | None:
    """The revision that took the place of the one a source row was read from; None where none did.

    `gone`: what `superseded` gave.
    """
    for each in gone:
        if (each.source_revision, _name(each.reader)) == (row["source_revision"], _name(row["step"])):
            return each.by
    return None


def _chain(newest: Mapping[tuple[str, str], Entry], entry: Entry) -> list[Entry]:
    found = [entry]
    while (before := newest.get((found[0].grown_from, entry.reader))) is not None:
        found.insert(0, before)
    return found


def _name(reader: str) -> str:
    """A reader's name, out of its identity or of the step that a row carries."""
    return reader.partition("@")[0].partition(":")[0]
