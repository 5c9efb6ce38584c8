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
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
_READERS = 4  # files read at once; Arrow lets go of the interpreter meanwhile
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

    lacking: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    """Children that name a parent which is not stored: none in a sound lake."""


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
        self._parts, numbers = _parts(settings)
        is_in_order = bool((numbers[1:] > numbers[:-1]).all())
        self._order = None if is_in_order else np.argsort(numbers, kind="stable")
        self._columns: dict[str, Coded] = {}
        self.numbers = self._ordered(numbers)
        """Row numbers, ascending: int64 (rows)."""
        counts = [part.count for part in self._parts]
        places = [ROW_TABLES.index(part.spec) for part in self._parts]
        self.tables = self._ordered(np.repeat(np.asarray(places, np.uint8), counts))
        """Places in ROW_TABLES: uint8 (rows)."""
        stands = [part.kept is None for part in self._parts]
        self.standing = self._ordered(np.repeat(np.asarray(stands, np.bool_), counts))
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
        return self._filled(f"V{ID_BYTES}", (_as_ids(rows) for _, rows in self._arrays("row_id")))

    @cached_property
    def extracted_at(self) -> np.ndarray:
        """When each row was stored: datetime64 in microseconds (rows), UTC."""
        moments = (rows.cast(pa.int64()).to_numpy() for _, rows in self._arrays("extracted_at"))
        return self._filled("datetime64[us]", moments)

    @cached_property
    def _by_id(self) -> np.ndarray:
        """Positions in the order of their ids, as far as the first half of an id tells."""
        return np.argsort(self.ids.view(">u8")[::2].astype(np.uint64)).astype(np.int32)

    def starting_with(self, prefix: str) -> np.ndarray:
        """Positions of the rows whose id starts with these hex digits, ascending."""
        low, high = (bytes.fromhex(prefix.ljust(2 * ID_BYTES, end)) for end in "0f")
        half = ID_BYTES // 2
        first, after = (
            search(self._by_id, bound[:half], key=lambda position: self.ids[position].tobytes()[:half])
            for search, bound in ((bisect_left, low), (bisect_right, high))
        )
        near = np.sort(self._by_id[first:after])
        return near[[low <= each.tobytes() <= high for each in self.ids[near]]] if near.size else near

    @cached_property
    def edges(self) -> Edges:
        """All derivations."""
        places = np.arange(len(self.numbers), dtype=np.int32)
        if self._order is not None:
            places[self._order] = places.copy()
        children: list[np.ndarray] = []
        parents: list[np.ndarray] = []
        lacking: list[np.ndarray] = []
        at = 0
        for _, named in self._arrays("parent_nos"):
            lengths = pc.list_value_length(named).to_numpy(zero_copy_only=False)
            child = np.repeat(places[at : at + len(named)], lengths)
            parent = self.positions(pc.list_flatten(named).to_numpy())
            known = parent >= 0
            children.append(child[known])
            parents.append(parent[known].astype(np.int32))
            lacking.append(child[~known])
            at += len(named)
        child, parent, alone = (
            np.concatenate([np.zeros(0, np.int32), *each]) for each in (children, parents, lacking)
        )
        derivation = self.column("derivation")
        joint = derivation.where(v != "alternative" for v in derivation.values)[child]
        return Edges(child, parent, joint, np.unique(alone))

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

        def codes() -> Iterator[np.ndarray]:
            for part, rows in self._arrays(name):
                if rows is None:
                    yield np.full(part.count, place_of.setdefault(NOT_APPLICABLE, len(place_of)), np.int32)
                    continue
                mine = [place_of.setdefault(value, len(place_of)) for value in rows.dictionary.to_pylist()]
                yield np.asarray(mine, np.int32)[rows.indices.to_numpy()]

        found = self._filled(np.int32, codes())
        small = np.uint8 if len(place_of) <= 2**8 else np.uint16 if len(place_of) <= 2**16 else np.int32
        return Coded(found.astype(small), tuple(place_of))

    def _filled(self, kind: Any, parts: Iterable[np.ndarray]) -> np.ndarray:
        """What `_arrays` gave, in one array by position."""
        filled = np.empty(len(self.numbers), kind)
        at = 0
        for each in parts:
            filled[at : at + len(each)] = each
            at += len(each)
        return self._ordered(filled)

    def _arrays(self, column: str) -> Iterator[tuple[_Part, Any]]:
        """A column file by file: its part and an Arrow array, None for all rows of a part without it."""
        for part in self._parts:
            if column not in part.spec.schema.names:
                yield part, None
                continue
            at = 0
            for rows in _columns(self._settings, part.spec, part.files, column):
                kept = None if part.kept is None else pa.array(part.kept[at : at + len(rows)])
                at += len(rows)
                yield part, rows if kept is None else rows.filter(kept)

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
    """Files of one table, which of their rows count (None: all), and how many those are."""

    spec: TableSpec
    files: tuple[Mapping[str, Any], ...]
    kept: np.ndarray | None
    count: int


def _parts(settings: Settings) -> tuple[list[_Part], np.ndarray]:
    """What stands, then for each recall what it took out and nobody put back; and all their row numbers."""
    parts: list[_Part] = []
    numbers = [np.zeros(0, np.int64)]
    for spec in ROW_TABLES:
        newest = tables.snapshot(settings, spec)
        if newest is None:
            continue
        seen = [_numbers(settings, spec, newest.files)]
        parts.append(_Part(spec, newest.files, None, len(seen[0])))
        for rewrite in tables.rewrites(settings, spec):
            before = _numbers(settings, spec, rewrite.removed)
            left = _numbers(settings, spec, [*rewrite.added, *rewrite.back])
            gone = ~np.isin(before, np.concatenate([*seen, left]))
            seen.append(before[gone])
            parts.append(_Part(spec, rewrite.removed, gone, len(seen[-1])))
        numbers += seen
    return parts, np.concatenate(numbers)


def _numbers(settings: Settings, spec: TableSpec, files: Sequence[Mapping[str, Any]]) -> np.ndarray:
    parts = (rows.to_numpy() for rows in _columns(settings, spec, files, "row_no"))
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _columns(
    settings: Settings, spec: TableSpec, files: Sequence[Mapping[str, Any]], column: str
) -> Iterator[Any]:
    """A column of each file, as one Arrow array; text comes as codes and a dictionary."""
    is_text = pa.types.is_string(spec.schema.field(column).type)

    def of(file: Mapping[str, Any]) -> Any:
        rows = tables.read_file(settings, file["path"], of=spec, columns=[column], as_codes=is_text)
        return rows[column].combine_chunks()

    with ThreadPoolExecutor(_READERS) as readers:
        yield from readers.map(of, files)


def _as_ids(rows: pa.BinaryArray) -> np.ndarray:
    fixed = rows.cast(pa.binary(ID_BYTES))
    return np.frombuffer(fixed.buffers()[1], f"V{ID_BYTES}")[fixed.offset :][: len(fixed)]
