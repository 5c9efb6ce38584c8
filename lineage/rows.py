"""What a row is: its identity, what it was derived from, and why one did not go on.

Identity is for ever: an id written today must come out the same on any machine, at any batch size, in ten
years.
    source row    reader, revision, the source's first record, position in the source, the record's bytes,
                  ordinal
    derived row   step fingerprint, sorted parents, canonical payload, ordinal
No clock, no random number, no path and no code digest is part of it; a retry makes the same id.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

ID_BYTES = 16  # 2**64 rows before a collision is as likely as not
_EIGHT = (8).to_bytes(8, "big")  # how a number of eight bytes is framed
LEAST_PREFIX = 4  # hex digits by which a person may name a row, a run, a source revision or a recall
CONFLICTING = (
    "conflicting_answers"  # reason: equal questions were answered differently; nobody knows which is right
)


class RowError(ValueError):
    """A row breaks a rule of provenance; the message names the rule."""


@dataclass(frozen=True)
class Rejection:
    """Why a row did not go on: a machine-readable reason, and the judgement behind it where there was one."""

    reason: str
    score: float | None = None
    threshold: float | None = None
    scorer: str = "not_applicable"
    scorer_revision: str = "not_applicable"


@dataclass(frozen=True)
class Derivation:
    """What a step made of a batch: rows, for each the inputs it came from, and what was rejected.

    Every input row must be a parent of some row or be rejected; nothing may vanish silently.
    """

    rows: pa.Table
    """Payload columns of what the step writes, and those provenance columns that the step states anew."""

    parents: Sequence[tuple[int, ...]]
    """For each row the positions of its parents in the batch; never empty."""

    rejected: Mapping[int, Rejection] = field(default_factory=dict)
    """Position in the batch -> why it did not go on."""

    kind: Literal["joint", "alternative"] = "joint"
    """joint: a row needed all its parents; alternative: any one of them suffices (exact duplicates)."""

    def __post_init__(self) -> None:
        """Raise RowError unless each row names its own parents, at least one and none twice."""
        if len(self.parents) != self.rows.num_rows:
            raise RowError(
                f"{self.rows.num_rows} rows with {len(self.parents)} lists of parents; each row names its own"
            )
        for position, parents in enumerate(self.parents):
            if not parents:
                raise RowError(
                    f"row {position} of a derivation has no parents; only a reader makes rows from nothing"
                )
            if len(set(parents)) != len(parents):
                raise RowError(f"row {position} of a derivation names a parent twice: {parents}")

    def check_covers(self, batch_rows: int) -> None:
        """Raise RowError unless each of the batch's rows went on or was rejected, and no other was named."""
        used = {parent for parents in self.parents for parent in parents}
        named = used | set(self.rejected)
        strangers = sorted(position for position in named if not 0 <= position < batch_rows)
        if strangers:
            raise RowError(f"positions {strangers[:5]} are not in a batch of {batch_rows} rows")
        lost = sorted(set(range(batch_rows)) - named)
        if lost:
            raise RowError(
                f"{len(lost)} of {batch_rows} rows vanished (first: {lost[:5]}); reject them with a reason"
            )
        both = sorted(used & set(self.rejected))
        if both:
            raise RowError(f"rows {both[:5]} are both parents and rejected; they can only be one")


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a step's work: its name, its declared revision and its parameters.

    Never its code digest.
    """

    name: str
    revision: int
    parameters: Mapping[str, Any]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical_json([self.name, self.revision, dict(self.parameters)])


def origin_of(first_record: bytes) -> bytes:
    """What a source is known by, however it grows and wherever it lies: 32 bytes over its first record."""
    return hashlib.sha256(first_record).digest()


def source_row_ids(
    *,
    reader: str,
    revision: int,
    origin: bytes,
    positions: Iterable[int],
    records: Iterable[bytes],
    ordinals: Iterable[int],
) -> Iterator[bytes]:
    """The ids of rows that were read from one source.

    A copy of the source gives the same ids, a source that grew at its end keeps its old ones, and equal
    records at two places differ. Positions count bytes of the decompressed source (of a table: its rows);
    ordinals count rows of one record.
    """
    shared = _of_source(reader, revision, origin)  # what rows of one source share is hashed once
    for position, record, ordinal in zip(positions, records, ordinals, strict=True):
        own = shared.copy()
        own.update(b"".join((_EIGHT, _int(position), _int(len(record)), record, _EIGHT, _int(ordinal))))
        yield own.digest()


def record_row_ids(
    *, reader: str, revision: int, origin: bytes, position: int, record: bytes
) -> Iterator[bytes]:
    """The ids that rows of one record may have, without end: of its first row, its second, and so on."""
    shared = _of_source(reader, revision, origin)
    shared.update(b"".join((_EIGHT, _int(position), _int(len(record)), record, _EIGHT)))
    for ordinal in itertools.count():
        own = shared.copy()
        own.update(_int(ordinal))
        yield own.digest()


def derived_row_id(
    *, steps: Sequence[Fingerprint], parents: Iterable[bytes], payload: bytes, ordinal: int
) -> bytes:
    """The id of a row that `steps` made of `parents`.

    `ordinal` tells apart equal rows of the same parents.
    """
    fingerprints = b"".join(_framed(step.encode()) for step in steps)
    return _digest(b"derived", fingerprints, b"".join(sorted(parents)), payload, _int(ordinal))


def without_ids(rows: pa.Table, ids: frozenset[bytes]) -> pa.Table:
    """The rows but for those with these ids."""
    if not ids:
        return rows
    return rows.filter(pa.array([row_id not in ids for row_id in rows["row_id"].to_pylist()], pa.bool_()))


def rows_digest(row_ids: Iterable[bytes] | pa.ChunkedArray) -> str:
    """SHA-256 over row ids in any order: how a job that reads these rows names its input."""
    if isinstance(row_ids, pa.ChunkedArray):  # millions of them are sorted where they lie
        ordered = pa.concat_arrays([pa.array([], pa.binary()), *row_ids.chunks]).sort()
        ends = pc.sum(pc.binary_length(ordered)).as_py() or 0
        return hashlib.sha256(memoryview(ordered.buffers()[2] or b"")[:ends]).hexdigest()
    return hashlib.sha256(b"".join(sorted(row_ids))).hexdigest()


def canonical_payload(row: Mapping[str, Any], schema: pa.Schema) -> bytes:
    """What a row says, as bytes that do not depend on column order.

    Nulls are left out at every depth, so a column or a message field that is added later changes no id.
    """
    return canonical_json(_without_nulls({name: row[name] for name in schema.names}))


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no free choices.

    Raises ValueError on NaN and infinity, which JSON cannot say.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_canonical
    )
    return text.encode("utf-8", "surrogatepass")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _canonical(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"a payload cannot hold a {type(value).__name__}")


def _digest(*parts: bytes) -> bytes:
    return _hash(b"".join(_framed(part) for part in parts)).digest()


def _hash(framed: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(framed, digest_size=ID_BYTES, person=b"stemma.row.v1")


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part  # the length keeps ("ab", "c") and ("a", "bc") apart


def _of_source(reader: str, revision: int, origin: bytes) -> hashlib.blake2b:
    parts = (b"source", reader.encode(), _int(revision), origin)
    return _hash(b"".join(_framed(part) for part in parts))


def _int(value: int) -> bytes:
    return value.to_bytes(8, "big")
