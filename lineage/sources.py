"""The book of sources: which contents were read, and what each of them grew from.

A log grows at its end. What was read of it before is known again by its digest, so only the new part is read:

    a.jsonl, 10 kB    [0, 10 kB)  under key K1
    a.jsonl, 14 kB    begins with those 10 kB: [10 kB, 14 kB)  under key K2, grown from the first

An entry counts while the key of its rows' commit is stored; a part that was withdrawn is read again alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from infra.settings import Settings
from lineage import tables
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


_COLUMNS = [each.name for each in fields(Entry)]


def entries(settings: Settings) -> list[Entry]:
    """All entries, of what was withdrawn or never committed; of one content and reader the last counts."""
    rows = tables.read(settings, SOURCE, columns=_COLUMNS).to_pylist()
    return [Entry(**row) for row in rows]


def origin(settings: Settings, row: Mapping[str, Any]) -> bytes | None:
    """What the source of a stored row is known by; None where the book does not hold it."""
    for entry in entries(settings):
        is_read_by = entry.reader.partition(":")[0] == f"{row['step']}@{row['step_revision']}"
        if entry.source_revision == row["source_revision"] and is_read_by:
            return entry.origin
    return None


def record(settings: Settings, new: Iterable[Entry], *, run_id: str) -> None:
    """Put on record what a run read, in place of what an earlier go of the same run may have left."""
    rows = [{**asdict(entry), "run_id": run_id} for entry in new]
    tables.replace(settings, pa.Table.from_pylist(rows, schema=SOURCE.schema), into=SOURCE, run_id=run_id)


def place_of(uri: str) -> str:
    """Where a source lies: its URI, without the digest that an export of ours is named by."""
    return re.sub(r"@[0-9a-f]{12}(?=\.jsonl$)", "", uri)


def relatives(known: Sequence[Entry], *, origin: bytes, reader: str) -> list[Entry]:
    """What the same reader read and begins alike: earlier states of a source, or its copies."""
    return [entry for entry in known if entry.origin == origin and entry.reader == reader]


def grown(found: Sequence[Entry], prefixes: Mapping[int, str]) -> Entry | None:
    """Of these the longest that a content begins with. `prefixes`: its length in bytes -> digest that far."""
    fits = [entry for entry in found if prefixes.get(entry.size) == entry.source_revision]
    return max(fits, key=lambda entry: entry.size, default=None)


def chain(known: Sequence[Entry], entry: Entry) -> list[Entry]:
    """An entry and all that it grew from, the first content first."""
    by_revision = {(each.source_revision, each.reader): each for each in known}
    found = [entry]
    while (before := by_revision.get((found[0].grown_from, entry.reader))) is not None:
        found.insert(0, before)
    return found


def superseded(settings: Settings) -> dict[str, str]:
    """Revision -> the revision that lies in its place now: sources that were rewritten, not grown."""
    known = entries(settings)
    return {entry.supersedes: entry.source_revision for entry in known if entry.supersedes != NOT_APPLICABLE}
