"""The job behind `stemma ingest --retry-quarantine`: what could not be read is read again, by new readers.

The bytes lie in quarantine, so the sources need not be there any more. What can be read now is stored as if
it had been read then, under the same ids; the entry in quarantine stays, as what happened. A source of which
nothing is stored, because too much of it could not be read or its batch was withdrawn, is ingested again.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, sources, tables
from lineage.rows import Fingerprint, without_ids
from lineage.runs import Outcome, Run, carry_out, code_revision
from lineage.schemas import DOCUMENT, QUARANTINE, REDACTED, REJECTED, TABLES, TRACE, TableSpec
from lineage.sources import Entry
from lineage.stamp import Source, Stamp
from lineage.tables import AlreadyStored, TableVersion
from pipelines.formats import FORMATS
from pipelines.personal import treatment
from pipelines.readers import Reader
from pipelines.runner.losses import recalled, require_same_bans, with_column, without_banned
from pipelines.runner.reading import Keeping, read_again
from pipelines.runner.rows import together
from pipelines.runner.sources import beginning

_KEPT = ("source_uri", "source_revision", "source_span", "reader", "reason", "record")
_READ = (TRACE, DOCUMENT)  # what readers make rows of
_TRIES = 5  # with others that store the same sources at the same time


class RetryError(Exception):
    """What lies in quarantine could not be read again; the message says why."""


@dataclass(frozen=True)
class _Lost:
    """Records of one content that a reader could not read."""

    entry: Entry
    reader: str
    records: Sequence[Mapping[str, Any]]


def retry(runtime: Runtime, *, extra: bool = True, pii: bool = True) -> Outcome:
    """Read what lies in quarantine again, and store what can be read now, as one commit per table.

    `extra` and `pii` are as for an ingest; what was read with pseudonyms gets them again whatever is said.
    The counts hold `records`, those that can be read now; `rows`, those stored; `recalled`, rows that recalls
    refuse; `still_quarantined`; `not_tried`, records that a map read, which is not on record; and
    `of_unstored`, records of sources of which nothing is stored. Raises RunError while the same work goes on
    elsewhere.
    """
    settings = runtime.settings
    waiting, _ = _waiting(settings)
    spans = hashlib.sha256(
        "".join(
            f"{lost.entry.key}{lost.reader}{each['source_span']}\n"
            for lost in waiting
            for each in lost.records
        ).encode()
    )
    readers = sorted({identity for lost in waiting if (identity := _revision(lost.reader)) is not None})

    def work(run: Run) -> Outcome:
        for _ in range(_TRIES):
            try:
                return _retry(runtime, run, extra=extra, pii=pii)
            except AlreadyStored:  # some of it, by another process, just now
                continue
        raise RetryError(f"others stored the same sources {_TRIES} times meanwhile; run it again")

    return carry_out(
        runtime,
        "ingest",
        config={
            "retry": spans.hexdigest(),
            "readers": readers,
            "lifts": bans.lifts(settings),
            "extra": extra,
            "pii": pii,
        },
        inputs=[],
        work=work,
    )


def _retry(runtime: Runtime, run: Run, *, extra: bool, pii: bool) -> Outcome:
    settings, stamp = runtime.settings, Stamp(run.id, code_revision(), runtime.now())
    counted = _counted(settings)  # first: what others store after this look is then noticed
    banned = bans.standing(settings)
    waiting, unstored = _waiting(settings)
    rows: dict[str, list[pa.Table]] = defaultdict(list)
    begin: dict[str, set[str]] = defaultdict(set)
    refused: list[pa.Table] = []
    readable = not_tried = 0
    otherwise: Literal["flag", "off"] = "flag" if pii else "off"
    for lost in waiting:
        reader = _reader(lost.reader)
        if reader is None:
            not_tried += len(lost.records)
            continue
        entry, how = lost.entry, "redact" if lost.reader.endswith(REDACTED) else otherwise
        first = lost.records[0]
        read, count = read_again(
            lost.records,
            Source(first["source_uri"], entry.source_revision, entry.origin),
            reader,
            Keeping(extra, treatment(settings, how)),
            stamp,
        )
        readable += count
        kept, out = without_banned(read, reader.writes, banned)
        refused.append(recalled(out, _fingerprint(reader, lost.reader), run.id))
        rows[entry.table].append(kept)
        begin[entry.table].add(beginning(entry.origin, entry.reader))
    rejected = together(REJECTED, refused)
    tables.replace(settings, rejected, into=REJECTED, run_id=run.id)
    require_same_bans(settings, banned)
    versions: list[TableVersion] = []
    stored = 0
    for name, parts in sorted(rows.items()):
        spec = TABLES[name]
        fresh = _numbered(settings, _once(settings, pa.concat_tables(parts), spec), spec, run)
        if fresh.num_rows:
            file = tables.write_file(settings, fresh, into=spec, name=f"{run.id}-{name}")
            guards = {at: counted.get((name, at), 0) for at in begin[name]}
            keys = [f"run:{run.identity}"]
            versions.append(
                tables.commit(settings, [file], into=spec, run_id=run.id, keys=keys, counted=guards)
            )
            stored += fresh.num_rows
    still = sum(len(lost.records) for lost in waiting) - readable - not_tried
    counts = {
        "records": readable,
        "rows": stored,
        "recalled": rejected.num_rows,
        "still_quarantined": still,
        "not_tried": not_tried,
        "of_unstored": unstored,
    }
    return Outcome(tuple(map(str, versions)), counts)


def _waiting(settings: Settings) -> tuple[list[_Lost], int]:
    """What lies in quarantine and gave no row, by stored content; and how many records of other contents."""
    lost = tables.read(settings, QUARANTINE, columns=list(_KEPT)).to_pylist()
    read: set[tuple[str, str]] = set()
    for spec in _READ:
        wanted = pa.array(sorted({each["source_revision"] for each in lost}), pa.string())
        where = pads.field("source_revision").isin(wanted)
        found = tables.read(settings, spec, columns=["source_revision", "source_span"], where=where)
        read |= set(zip(*(column.to_pylist() for column in found.columns), strict=True))
    once = {(each["source_revision"], each["reader"], each["source_span"]): each for each in lost}
    known = {
        (each.source_revision, each.reader.partition("@")[0]): each for each in sources.entries(settings)
    }
    by_content: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for (revision, reader, span), each in sorted(once.items()):
        if (revision, span) not in read:
            by_content[revision, reader].append(each)
    stored = {
        (spec.name, key)
        for spec in _READ
        for key in tables.holders(settings, [each.key for each in known.values()], into=spec)
    }
    waiting: list[_Lost] = []
    unstored = 0
    for at, records in by_content.items():
        entry = known.get(at)
        if entry is not None and (entry.table, entry.key) in stored:
            waiting.append(_Lost(entry, at[1], records))
        else:
            unstored += len(records)
    return waiting, unstored


def _counted(settings: Settings) -> dict[tuple[str, str], int]:
    known = {(each.table, beginning(each.origin, each.reader)) for each in sources.entries(settings)}
    return {
        (spec.name, name): count
        for spec in _READ
        for name, count in tables.counts(
            settings, [at for table, at in known if table == spec.name], into=spec
        ).items()
    }


def _once(settings: Settings, rows: pa.Table, spec: TableSpec) -> pa.Table:
    """The rows that are not stored, each once: a record may lie in quarantine under two contents."""
    ids = rows["row_id"].to_pylist()
    first = {row_id: at for at, row_id in reversed(list(enumerate(ids)))}
    rows = rows.take(pa.array(sorted(first.values()), pa.int64()))
    where = pads.field("row_id").isin(rows["row_id"].combine_chunks())
    held = tables.read(settings, spec, columns=["row_id"], where=where)["row_id"].to_pylist()
    return without_ids(rows, frozenset(held))


def _numbered(settings: Settings, rows: pa.Table, spec: TableSpec, run: Run) -> pa.Table:
    first = tables.reserve(settings, rows.num_rows, run_id=run.id)
    return with_column(rows, "row_no", pa.array(range(first, first + rows.num_rows), pa.int64()))


def _reader(name: str) -> Reader | None:
    return FORMATS.get(name.removesuffix(REDACTED))


def _fingerprint(reader: Reader, name: str) -> Fingerprint:
    return Fingerprint(name, reader.fingerprint.revision, reader.fingerprint.parameters)


def _revision(name: str) -> str | None:
    reader = _reader(name)
    return f"{name}@{reader.fingerprint.revision}" if reader is not None else None
