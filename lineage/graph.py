"""Every row that was ever stored and what it was derived from, in memory: what the questions are asked of.

    graph(settings)     one per state of the tables, kept while nobody commits
      numbers           row numbers, ascending; a row's place in them is its *position*
      edges             child and parent positions
      column("scorer")  a text column as codes, read when somebody first asks

A row costs 8 bytes, 16 more for its id, 8 per parent and 1 to 4 per text column that was asked for: ten
million rows fit into a gigabyte.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from lineage import tables
from lineage.rows import ID_BYTES
from lineage.schemas import NOT_APPLICABLE, ROW_TABLES, TableSpec

_SPARSE = 8  # numbers may have this many gaps each before looking them up costs less than a table of them
_MOST_KEPT = 2  # lakes, or states of one, in memory at once
_lock = threading.RLock()
_kept: dict[tuple[object, ...], RowGraph] = {}


@dataclass(frozen=True)
class Coded:
    """A text column: per row the place of its value in `values`."""

    codes: np.ndarray
    values: tuple[str, ...]

    def where(self, is_meant: Iterable[bool]) -> np.ndarray:
        """Which rows have a value that is meant: bool (rows). `is_meant` says so per value."""
        return np.fromiter(is_meant, bool, len(self.values))[self.codes] if self.values else self.codes > 0


@dataclass(frozen=True)
class Edges:
    """Derivations, one per child and parent, by position; parents that are not stored are left out."""

    children: np.ndarray
    parents: np.ndarray
    joint: np.ndarray
    """Does the child need this parent? Else any of its parents suffices."""


@dataclass(frozen=True)
class Walk:
    """Edges in one direction, sorted by where they start."""

    tails: np.ndarray
    heads: np.ndarray

    @classmethod
    def along(cls, tails: np.ndarray, heads: np.ndarray) -> Walk:
        """The walk along edges in any order."""
        order = np.argsort(tails, kind="stable")
        return cls(tails[order], heads[order])

    def reach(self, positions: np.ndarray) -> np.ndarray:
        """The positions and all that lies behind them, at any depth, ascending."""
        found = newest = np.unique(positions)
        while len(newest):
            first = np.searchsorted(self.tails, newest)
            count = np.searchsorted(self.tails, newest, side="right") - first
            offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            newest = np.setdiff1d(self.heads[np.repeat(first, count) + offset], found)
            found = np.union1d(found, newest)
        return found


class RowGraph:
    """Rows of all row tables, those that recalls took out included, by position."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._parts = _parts(settings)
        numbers = _together([part.row_nos for part in self._parts], np.int64)
        is_in_order = bool((numbers[1:] > numbers[:-1]).all())
        self._order = None if is_in_order else np.argsort(numbers, kind="stable")
        self._columns: dict[str, Coded] = {}
        self.numbers = self._ordered(numbers)
        """Row numbers, ascending: int64 (rows)."""
        self.tables = self._repeated([ROW_TABLES.index(part.spec) for part in self._parts], np.uint8)
        """Places in ROW_TABLES: uint8 (rows)."""
        self.standing = self._repeated([part.kept is None for part in self._parts], np.bool_)
        """In its table's newest version, not taken out by a recall: bool (rows)."""

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """The position of each row number; -1 where no such row was ever stored."""
        if not len(self.numbers):
            return np.full(len(numbers), -1, np.int64)
        first, last = self.numbers[0], self.numbers[-1]
        if self._place_of is None:
            at = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
            return np.where(self.numbers[at] == numbers, at, -1)
        found = self._place_of[np.clip(numbers, first, last) - first]
        return np.where((numbers >= first) & (numbers <= last), found, -1)

    @cached_property
    def _place_of(self) -> np.ndarray | None:
        """Position of each number from the least to the greatest; None where that would be mostly gaps."""
        first, last = int(self.numbers[0]), int(self.numbers[-1])
        if last - first > _SPARSE * len(self.numbers) + 1_000_000:
            return None
        places = np.full(last - first + 1, -1, np.int32)
        places[self.numbers - first] = np.arange(len(self.numbers), dtype=np.int32)
        return places

    @cached_property
    def ids(self) -> np.ndarray:
        """Row ids: void16 (rows)."""
        parts = [_as_ids(self._scan(part, "row_id")) for part in self._parts]
        return self._ordered(_together(parts, np.dtype(f"V{ID_BYTES}")))

    def starting_with(self, prefix: str) -> np.ndarray:
        """Positions of the rows whose id starts with these hex digits, at least one of them."""
        low, high = (bytes.fromhex(prefix.ljust(2 * ID_BYTES, end)) for end in "0f")
        heads = self.ids.view(">u8").reshape(-1, 2)[:, 0]
        near = np.flatnonzero(
            (heads >= int.from_bytes(low[:8], "big")) & (heads <= int.from_bytes(high[:8], "big"))
        )
        return near[[low <= each.tobytes() <= high for each in self.ids[near]]] if near.size else near

    @cached_property
    def edges(self) -> Edges:
        """All derivations."""
        places = np.arange(len(self.numbers)) if self._order is None else np.argsort(self._order)
        ends = np.cumsum([len(part.row_nos) for part in self._parts], dtype=np.int64)
        children: list[np.ndarray] = []
        parents: list[np.ndarray] = []
        for part, end in zip(self._parts, ends, strict=True):
            named = self._scan(part, "parent_nos").combine_chunks()
            mine = places[end - len(part.row_nos) : end]
            lengths = pc.list_value_length(named).to_numpy(zero_copy_only=False)
            child = np.repeat(mine, lengths)
            parent = self.positions(pc.list_flatten(named).to_numpy())
            known = parent >= 0  # fsck names a parent that is not stored
            children.append(child[known].astype(np.int32))
            parents.append(parent[known].astype(np.int32))
        child, parent = _together(children, np.int32), _together(parents, np.int32)
        derivation = self.column("derivation")
        return Edges(child, parent, derivation.where(v != "alternative" for v in derivation.values)[child])

    @cached_property
    def up(self) -> Walk:
        """From rows to what they were derived from."""
        return Walk.along(self.edges.children, self.edges.parents)

    @cached_property
    def down(self) -> Walk:
        """From rows to what was derived from them."""
        return Walk.along(self.edges.parents, self.edges.children)

    def column(self, name: str) -> Coded:
        """A text column; `not_applicable` for the rows of a table that does not have it."""
        with _lock:
            if name not in self._columns:
                self._columns[name] = self._coded(name)
            return self._columns[name]

    def _coded(self, name: str) -> Coded:
        place_of: dict[str, int] = {}
        parts: list[np.ndarray] = []
        for part in self._parts:
            if name not in part.spec.schema.names:
                lacking = place_of.setdefault(NOT_APPLICABLE, len(place_of))
                parts.append(np.full(len(part.row_nos), lacking, np.int32))
                continue
            for chunk in self._scan(part, name, as_codes=True).chunks:
                mine = [place_of.setdefault(value, len(place_of)) for value in chunk.dictionary.to_pylist()]
                parts.append(np.asarray(mine, np.int32)[chunk.indices.to_numpy()])
        kind = np.uint8 if len(place_of) <= 2**8 else np.uint16 if len(place_of) <= 2**16 else np.int32
        return Coded(self._ordered(_together([each.astype(kind) for each in parts], kind)), tuple(place_of))

    def _scan(self, part: _Part, column: str, *, as_codes: bool = False) -> pa.ChunkedArray:
        return _scan(self._settings, part.spec, part.files, column, kept=part.kept, as_codes=as_codes)

    def _repeated(self, values: Sequence[object], kind: type[np.generic]) -> np.ndarray:
        """A value per part, for each of its rows."""
        lengths = [len(part.row_nos) for part in self._parts]
        return self._ordered(np.repeat(np.asarray(values, kind), lengths))

    def _ordered(self, values: np.ndarray) -> np.ndarray:
        return values if self._order is None else values[self._order]


def graph(settings: Settings) -> RowGraph:
    """All rows of the lake as it is now."""
    state = tuple(tables.snapshot(settings, spec) for spec in ROW_TABLES)
    with _lock:
        found = _kept.pop(state, None) or RowGraph(settings)
        _kept[state] = found
        while len(_kept) > _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        return found


@dataclass(frozen=True)
class _Part:
    """Files of one table, and which of their rows count (None: all)."""

    spec: TableSpec
    files: tuple[Mapping[str, Any], ...]
    kept: np.ndarray | None
    row_nos: np.ndarray


def _parts(settings: Settings) -> list[_Part]:
    """What stands, then for each recall what it took out and nobody put back."""
    found: list[_Part] = []
    for spec in ROW_TABLES:
        newest = tables.snapshot(settings, spec)
        if newest is None:
            continue
        seen = [_scan(settings, spec, newest.files, "row_no").to_numpy()]
        found.append(_Part(spec, newest.files, None, seen[0]))
        for rewrite in tables.rewrites(settings, spec):
            before = _scan(settings, spec, rewrite.removed, "row_no").to_numpy()
            left = _scan(settings, spec, rewrite.added, "row_no").to_numpy()
            gone = ~np.isin(before, np.concatenate([*seen, left]))
            seen.append(before[gone])
            found.append(_Part(spec, rewrite.removed, gone, before[gone]))
    return found


def _scan(
    settings: Settings,
    spec: TableSpec,
    files: Sequence[Mapping[str, Any]],
    column: str,
    *,
    kept: np.ndarray | None = None,
    as_codes: bool = False,
) -> pa.ChunkedArray:
    """A column of some files, in their order."""
    with tables.told(settings, spec):
        rows = tables.dataset(settings, spec, files, as_codes=(column,) if as_codes else ())
        found = rows.to_table(columns=[column])[column]
    return found if kept is None else found.filter(pa.array(kept))


def _as_ids(column: pa.ChunkedArray) -> np.ndarray:
    """Ids as numpy has them. Raises TableError where one has another length."""
    parts: list[np.ndarray] = []
    for chunk in column.chunks:
        content = chunk.cast(pa.binary(ID_BYTES))
        parts.append(np.frombuffer(content.buffers()[1], f"V{ID_BYTES}")[content.offset :][: len(content)])
    return _together(parts, np.dtype(f"V{ID_BYTES}"))


def _together(parts: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
