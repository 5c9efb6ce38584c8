"""One worker's part of an ingest: stretches of sources, read and stamped, become one file of a table.

    bytes -> records (framing) -> rows (reader) -> provenance (stamp) -> row group

A stretch is in memory at a time, whatever the size of its source. A record that cannot be framed, read or
stored goes to quarantine and costs itself alone. Ordinary functions: they run on three lines without Ray.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa

from infra.settings import Settings
from infra.storage import (
    BLOCK_BYTES,
    Block,
    SourceFile,
    open_source,
    open_surveyed,
    stream_blocks,
    stream_sources,
)
from lineage import tables
from lineage.bans import Bans
from lineage.rows import Fingerprint, without_ids
from lineage.schemas import PII, QUARANTINE, REJECTED, TableSpec
from lineage.stamp import Places, Source, Stamp, stamp_source
from lineage.tables import WrittenFile
from pipelines import framing
from pipelines.formats import name_of
from pipelines.framing import Framing
from pipelines.personal import Treatment, treated
from pipelines.readers import DocumentReader, Part, Reader, RecordReader, Unreadable
from pipelines.readers.json_lines import decode_json_object
from pipelines.runner.losses import RunnerError, recalled, without_banned
from pipelines.runner.rows import Item, in_order, rows_of, together

PORTION_BYTES = 16 * 1024 * 1024  # of records that become rows at once

COUNTED = (
    *("in", "created", "out", "merged", "rejected", "quarantined", "known", "empty"),
    *("records_stored", "records_known", "records_recalled"),  # what became of those that have rows
    "personal",  # rows stored that hold, or held, personal data or secrets
)


@dataclass(frozen=True)
class Work:
    """One content, or the new part of one, to be read by one reader under one key of the commit protocol."""

    file: SourceFile
    source: Source
    reader: Reader
    framing: Framing | Literal["document"]
    key: str
    first: int = 0
    """First byte that is read; what lies before it is stored already."""

    end: int | None = None
    """Where it ends; None: with the file."""

    known: frozenset[bytes] = frozenset()
    """Ids that may come again: those of stored rows of sources that begin alike."""

    beginning: tuple[str, int] | None = None
    """What all sources that begin alike are counted under, and how many commits held one when `known` was
    looked up: a commit that finds another number may store what just came."""

    @cached_property
    def blocks(self) -> list[Block]:
        """What of the file is read, in order: stretches that need nothing of each other."""
        if self.framing == "parquet":
            return _row_groups(self.file)
        if self.framing != "lines":
            return [Block(self.file.uri, 0, self.file.size, 0, self.file.lines)]
        end = self.file.size if self.end is None else self.end
        cut = [
            replace(each, first=max(each.first, self.first), end=min(each.end, end))
            for each in self.file.blocks
        ]
        return [each for each in cut if each.first < each.end]


@dataclass(frozen=True)
class Stretch:
    """A block of a work for one worker, and the row numbers that are leased for it."""

    work: Work
    block: Block
    first_row_no: int
    most_rows: int


@dataclass(frozen=True)
class Task:
    """The stretches that become one file."""

    name: str
    into: TableSpec
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True)
class Keeping:
    """What else is done with rows on their way."""

    extra: bool = True
    """Keep what has no column."""

    personal: Treatment = field(default_factory=Treatment)


@dataclass(frozen=True)
class Done:
    """What became of a task."""

    file: WrittenFile | None
    counts: Mapping[str, int]
    quarantine: pa.Table
    rejected: pa.Table
    ids: frozenset[bytes] = frozenset()
    """Ids of the rows written, where another work of the job may give the same ones."""


@dataclass
class Read:
    """What a stretch, or a portion of one, gave: rows in their records' order, and what could not be read."""

    rows: pa.Table
    """Payload and stated provenance."""

    places: Places
    lost: list[tuple[str, bytes, Unreadable]]
    """Span, bytes, why."""

    records: int
    empty: int
    """Records that are of the format and hold no row."""


def carry_out(
    task: Task, *, settings: Settings, stamp: Stamp, banned: Bans, keeping: Keeping, ids_wanted: bool = False
) -> Done:
    """Read a task's stretches and write its file."""
    counts: dict[str, int] = dict.fromkeys(COUNTED, 0)
    quarantine: list[pa.Table] = []
    rejected: list[pa.Table] = []
    ids: set[bytes] = set()
    with tables.FileWriter(settings, task.into, task.name) as file:
        for stretch, portions in _each(task, keeping):
            work, reader = stretch.work, keeping.personal.of(stretch.work.reader.fingerprint)
            rows = 0
            for read in portions:
                stamped = stamp_source(
                    read.rows,
                    read.places,
                    into=task.into,
                    source=work.source,
                    reader=reader,
                    stamp=stamp,
                    first_row_no=stretch.first_row_no + rows,
                )
                rows += stamped.num_rows
                if rows > stretch.most_rows:
                    raise RunnerError(
                        f"{rows} rows or more in {stretch.block}, expected at most {stretch.most_rows}"
                    )
                kept, refused = without_banned(stamped, task.into, banned)
                fresh = without_ids(kept, work.known)
                if fresh.num_rows:
                    file.write(fresh)
                if ids_wanted:
                    ids.update(fresh["row_id"].to_pylist())
                quarantine.append(_quarantined(read, work, reader, stamp))
                rejected.append(recalled(refused, reader, stamp.run_id))
                for name, number in _counted(read, stamped, kept, fresh).items():
                    counts[name] += number
    return Done(
        file.written() if file.rows else None,
        counts,
        together(QUARANTINE, quarantine),
        together(REJECTED, rejected),
        frozenset(ids),
    )


def _counted(read: Read, stamped: pa.Table, kept: pa.Table, fresh: pa.Table) -> dict[str, int]:
    """What became of a portion, by COUNTED."""
    with_rows = read.records - len(read.lost) - read.empty
    return {
        "in": read.records,
        "created": stamped.num_rows - with_rows,
        "out": kept.num_rows,
        "rejected": stamped.num_rows - kept.num_rows,
        "quarantined": len(read.lost),
        "known": kept.num_rows - fresh.num_rows,
        "empty": read.empty,
        "personal": fresh.num_rows - fresh[PII.name].null_count,
        **_records(stamped, read.places.positions, kept, fresh),
    }


def _records(stamped: pa.Table, positions: Sequence[int], kept: pa.Table, fresh: pa.Table) -> dict[str, int]:
    """How many records gave a row that is stored now; of the others, how many one that was stored before."""
    if fresh.num_rows == stamped.num_rows:
        return {"records_stored": len(set(positions))}
    of = dict(zip(stamped["row_id"].to_pylist(), positions, strict=True))
    stored = {of[row_id] for row_id in fresh["row_id"].to_pylist()}
    known = {of[row_id] for row_id in kept["row_id"].to_pylist()} - stored
    recalled = set(positions) - stored - known
    counts = (len(stored), len(known), len(recalled))
    return dict(zip(("records_stored", "records_known", "records_recalled"), counts, strict=True))


def _row_groups(file: SourceFile) -> list[Block]:
    """A Parquet file's row groups, some to a block; bytes are counted as they are decompressed."""
    whole = [Block(file.uri, 0, file.size, 0, file.lines)]
    try:
        with open_source(file.uri) as source:
            groups = framing.row_groups(source)
    except Unreadable:  # whoever reads it says so
        return whole
    blocks: list[Block] = []
    first = 0
    for group in groups:
        last = blocks[-1] if blocks else None
        first += group.encoded_bytes
        if last is not None and last.end - last.first < BLOCK_BYTES:
            blocks[-1] = replace(last, end=first, lines=last.lines + group.rows)
        else:
            begin = first - group.encoded_bytes
            blocks.append(Block(file.uri, begin, first, group.first_row, group.rows))
    return blocks or whole


# ---------------------------------------------------------------- the bytes of each stretch


def _each(task: Task, keeping: Keeping) -> Iterator[tuple[Stretch, Iterable[Read]]]:
    """Each stretch with what it gives; a source's stretches, and an archive's members, in one pass each."""
    of_work: dict[int, list[Stretch]] = {}
    for stretch in task.stretches:
        of_work.setdefault(id(stretch.work), []).append(stretch)
    members: list[Stretch] = []
    for mine in of_work.values():
        work = mine[0].work
        if work.framing == "parquet":
            yield from ((each, _parquet_rows(each, task.into, keeping)) for each in mine)
        elif "!/" in work.file.uri and _is_whole(mine) and _is_held(work):
            members += mine
        elif work.framing in ("values", "csv"):
            with open_surveyed(work.file) as source:
                yield mine[0], _framed(source, work, task.into, keeping)
        else:
            by_block = {stretch.block: stretch for stretch in mine}
            for block, content in stream_blocks(work.file, list(by_block)):
                yield by_block[block], read_block(content, block.first, work, task.into, keeping)
    yield from _members(members, task.into, keeping)


def _is_held(work: Work) -> bool:
    """Does no piece of it take more memory than a block may?"""
    return work.framing == "lines" or work.file.size <= BLOCK_BYTES


def _is_whole(stretches: Sequence[Stretch]) -> bool:
    work, blocks = stretches[0].work, [each.block for each in stretches]
    return blocks == work.blocks and (blocks[0].first, blocks[-1].end) == (0, work.file.size)


def _members(
    stretches: Sequence[Stretch], into: TableSpec, keeping: Keeping
) -> Iterator[tuple[Stretch, Iterable[Read]]]:
    """Members of archives that are read whole."""
    if not stretches:
        return
    by_block = {(each.block.uri, each.block.first): each for each in stretches}
    files = {each.work.file.uri: each.work.file for each in stretches}
    content = b""
    for block, piece in stream_sources(list(files.values())):
        stretch = by_block.get((block.uri, block.first if not content else 0))
        content = content + piece if content else piece
        if stretch is None:
            raise RunnerError(f"{block} of a member was not asked for")
        if block.end == stretch.block.end:
            yield stretch, read_block(content, stretch.block.first, stretch.work, into, keeping)
            content = b""


def _parquet_rows(stretch: Stretch, into: TableSpec, keeping: Keeping) -> Iterator[Read]:
    work, first = stretch.work, stretch.block.lines_before
    with open_source(work.file.uri) as source:
        try:
            framed = framing.frame_parquet(source, first, first + stretch.block.lines)
            yield from _of_records(framed, work.reader, into, keeping)
        except Unreadable as error:  # as a whole
            nothing = framing.Framed(0, "row:0", b"", unreadable=error)
            yield from _of_records([nothing], work.reader, into, keeping)


def read_block(content: bytes, first: int, work: Work, into: TableSpec, keeping: Keeping) -> Iterable[Read]:
    """The rows of a stretch's bytes, which begin at `first` in their source; once at least."""
    reader = work.reader
    if work.framing == "document":
        return [_of_document(name_of(work.file.uri), content, reader, into, keeping)]  # type: ignore[arg-type]
    if work.framing == "lines":
        return [_of_lines(content, first, reader, into, keeping)]  # type: ignore[arg-type]
    return _framed(io.BytesIO(content), work, into, keeping)


def _framed(source: BinaryIO, work: Work, into: TableSpec, keeping: Keeping) -> Iterator[Read]:
    frame = framing.frame_csv if work.framing == "csv" else framing.frame_values
    return _of_records(frame(source), work.reader, into, keeping)


def read_again(
    lost: Sequence[Mapping[str, Any]], source: Source, reader: Reader, keeping: Keeping, stamp: Stamp
) -> tuple[pa.Table, int]:
    """Rows of records that lie in quarantine, not numbered yet, and how many of these can be read now.

    A record that means nothing without what stands around it stays where it is: a line of CSV lacks its
    header, a line of a session its session.
    """
    into, found = reader.writes, []
    if hasattr(reader, "read_document"):
        whole = [each["record"] for each in lost if each["source_span"] == f"bytes:0-{len(each['record'])}"]
        name = name_of(source.uri)
        found = [_of_document(name, content, reader, into, keeping) for content in whole]  # type: ignore[arg-type]
        found = [each for each in found if not each.lost]
    else:
        items = [
            _read_record(_position(each["source_span"]), each["source_span"], each["record"], reader)  # type: ignore[arg-type]
            for each in lost
        ]
        rows, places, still, empty = rows_of(items, into, keep_extra=keeping.extra)
        read = Read(treated(rows, into, keeping.personal), places, still, len(items), empty)
        found = [read] if len(still) < len(items) else []
    stamped = [
        stamp_source(
            each.rows,
            each.places,
            into=into,
            source=source,
            reader=keeping.personal.of(reader.fingerprint),
            stamp=stamp,
            first_row_no=0,
        )
        for each in found
    ]
    return together(into, stamped), sum(each.records - len(each.lost) for each in found)


def _position(span: str) -> int:
    return int(span.partition(":")[2].partition("-")[0])


# ---------------------------------------------------------------- each framing


def _of_lines(content: bytes, first: int, reader: RecordReader, into: TableSpec, keeping: Keeping) -> Read:
    """JSON lines: as columns what the reader can take so, the others one by one."""
    lines = content.split(b"\n")
    starts = first + np.cumsum([0, *(len(line) + 1 for line in lines[:-1])])
    if b"\r" in content:
        lines = [line.rstrip(b"\r") for line in lines]
    filled = [number for number, line in enumerate(lines) if line.strip()]
    if len(filled) < len(lines):
        lines, starts = [lines[number] for number in filled], starts[filled]
    spans = [f"bytes:{at}-{at + len(line)}" for at, line in zip(starts.tolist(), lines, strict=True)]
    rows, taken = into.derivable.empty_table(), np.array([], np.int64)
    by_column = getattr(reader, "read_columns", None)
    if by_column is not None:
        rows, taken = by_column(lines, keep_extra=keeping.extra)
    left = np.setdiff1d(np.arange(len(lines)), taken)
    items = [
        _read_record(int(starts[number]), spans[number], lines[number], reader) for number in left.tolist()
    ]
    one_by_one, places, lost, empty = rows_of(items, into, keep_extra=keeping.extra)
    places_taken = Places(
        starts[taken].tolist(),
        [spans[number] for number in taken.tolist()],
        [lines[number] for number in taken.tolist()],
        [0] * len(taken),
    )
    rows, places = in_order(rows, places_taken, one_by_one, places)
    return Read(treated(rows, into, keeping.personal), places, lost, len(lines), empty)


def _of_records(
    framed: Iterable[framing.Framed], reader: Reader, into: TableSpec, keeping: Keeping
) -> Iterator[Read]:
    """In portions, so that a source is never in memory as a whole."""
    for portion in _portions(framed):
        items = [_read_framed(each, reader) for each in portion]  # type: ignore[arg-type]
        rows, places, lost, empty = rows_of(items, into, keep_extra=keeping.extra)
        yield Read(treated(rows, into, keeping.personal), places, lost, len(items), empty)


def _portions(framed: Iterable[framing.Framed]) -> Iterator[list[framing.Framed]]:
    """One at least, be it empty."""
    portion: list[framing.Framed] = []
    size = 0
    for each in framed:
        if size + len(each.record) > PORTION_BYTES and portion:
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += len(each.record)
    yield portion


def _of_document(
    name: str, content: bytes, reader: DocumentReader, into: TableSpec, keeping: Keeping
) -> Read:
    """A whole source; what cannot be read of it at all is one record, all of its bytes."""
    whole = Part(0, len(content))
    parts = _guarded(lambda: reader.read_document(name, content))
    if isinstance(parts, Unreadable):
        parts = [Part(whole.first, whole.end, unreadable=parts)]
    items = [
        Item(
            part.first,
            f"bytes:{part.first}-{part.end}",
            content[part.first : part.end],
            part.rows,
            part.unreadable,
        )
        for part in parts
    ]
    rows, places, lost, empty = rows_of(items, into, keep_extra=keeping.extra)
    return Read(treated(rows, into, keeping.personal), places, lost, len(items), empty)


def _read_record(position: int, span: str, record: bytes, reader: RecordReader) -> Item:
    rows = _guarded(lambda: reader.read(decode_json_object(record)))
    if isinstance(rows, Unreadable):
        return Item(position, span, record, unreadable=rows)
    return Item(position, span, record, rows)


def _read_framed(framed: framing.Framed, reader: RecordReader) -> Item:
    rows = framed.unreadable or _guarded(lambda: reader.read(framed.value))
    if isinstance(rows, Unreadable):
        return Item(framed.position, framed.span, framed.record, unreadable=rows)
    return Item(framed.position, framed.span, framed.record, rows)


def _guarded(read: Callable[[], Any]) -> Any:
    """What was read, or why it could not be; a reader that fails costs its record alone."""
    try:
        return read()
    except Unreadable as error:
        return error
    except RecursionError:
        return Unreadable("too_deep", "nested too deeply")
    except Exception as error:
        return Unreadable("reader_failed", repr(error))


def _quarantined(read: Read, work: Work, reader: Fingerprint, stamp: Stamp) -> pa.Table:
    rows = [
        {
            "source_uri": work.source.uri,
            "source_revision": work.source.revision,
            "source_span": span,
            "reader": reader.name,
            "reason": why.reason,
            "detail": why.detail[:500],
            "record": record,
            "run_id": stamp.run_id,
        }
        for span, record, why in read.lost
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE.schema)
