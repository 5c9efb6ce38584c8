"""What a checkpoint ate: which rows, of which provenance, when; and which checkpoints ate a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyroaring import BitMap64

from infra.screen import plain
from infra.settings import Settings
from lineage import tables
from lineage.ancestry import LineageError, ancestors_of, roots
from lineage.bans import banned, banned_numbers, numbers_by_recall
from lineage.consumption import Checkpoint, bitmaps, checkpoints, ledger_of
from lineage.graph import graph
from lineage.membership import members
from lineage.schemas import CURRICULUM, EXAMPLE, PROVENANCE

_MOST_CODES = 1 << 24  # combinations of values that are counted in a table; more are sorted
GROUPED_BY = ("source_revision", "prompt_version", "scorer")


class Lineage:
    """What a checkpoint ate, with where it comes from. Counting is quick; rows are read when asked for."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self._settings = settings
        self._graph = graph(settings)
        self._slots = ledger_of(settings, checkpoint)
        self._eaten = self._graph.positions(self._slots.row_nos.astype(np.int64))
        if len(self._eaten) and self._eaten.min() < 0:
            eaten = np.unique(self._slots.row_nos)
            stored = int(np.count_nonzero(self._graph.positions(eaten.astype(np.int64)) >= 0))
            raise LineageError(
                f"checkpoint {checkpoint.name} ate {len(eaten)} rows, of which {stored} are stored; "
                "run: stemma fsck"
            )

    @cached_property
    def count(self) -> int:
        """Distinct rows."""
        return len(self._rows)

    @property
    def times(self) -> int:
        """How often rows were eaten, each as often as it was."""
        return len(self._eaten)

    @property
    def first(self) -> bytes:
        """The id of the row that was eaten first."""
        return self._graph.ids[self._eaten[0]].tobytes()

    @cached_property
    def loss_tokens(self) -> int:
        """Tokens that counted in the loss."""
        return int(self._slots.loss_tokens.sum())

    @cached_property
    def slices(self) -> dict[str, int]:
        """Rows per slice of the curriculum."""
        rows = {name: len(found & self._bitmap) for name, found in self._members.items()}
        return {name: count for name, count in sorted(rows.items()) if count}

    @cached_property
    def recalled(self) -> dict[str, int]:
        """Recall -> how many of the rows it took back."""
        codes, names = self._recalls
        counts = np.bincount(codes, minlength=len(names)).tolist()
        return {name: count for name, count in zip(names, counts, strict=True) if name and count}

    def grouped(self, by: Sequence[str] = GROUPED_BY) -> pa.Table:
        """Per value of provenance columns, most rows first; also of slice, kind, answer and recalled.

        rows (distinct); times they were eaten; loss_tokens, and their share of all; first_step, last_step.
        """
        slots, groups = self._grouped(by)
        count = len(groups["rows"])
        times = np.bincount(slots, minlength=count)
        tokens = np.bincount(slots, weights=self._slots.loss_tokens, minlength=count).astype(np.int64)
        steps = self._slots.steps
        first, last = np.zeros(count, np.int64), np.zeros(count, np.int64)
        last[slots] = steps  # ascending: the last to be written stays
        first[slots[::-1]] = steps[::-1]
        numbers = {"times": times, "loss_tokens": tokens, "share": tokens / max(self.loss_tokens, 1)}
        found = pa.table(groups | numbers | {"first_step": first, "last_step": last})
        return found.sort_by([("rows", "descending"), *((name, "ascending") for name in by)])

    def timeline(self, by: str, *, bins: int = 100) -> list[tuple[int, str, int]]:
        """(first step of a bin, value, slots): what was eaten when. At most so many bins of equal length."""
        slots, groups = self._grouped([by])
        width = max(1, -(-self.checkpoint.step // bins))
        values = groups[by]
        place = (self._slots.steps // width).astype(np.int64) * len(values) + slots
        found, counts = np.unique(place, return_counts=True)
        return [
            (int(each) // len(values) * width, values[int(each) % len(values)], int(count))
            for each, count in zip(found, counts, strict=True)
        ]

    @cached_property
    def rows(self) -> pa.Table:
        """One row per example, sorted by first_step.

        Provenance columns, and slice, answer, text, kind, first_step, last_step, times, loss_tokens, and
        recalled: the recall that took the row back, or empty.
        """
        return self.first_rows(self.count)

    def first_rows(self, count: int) -> pa.Table:
        """The rows that were eaten first, as `rows` has them."""
        return self._told(np.lexsort((np.arange(self.count), self._first_steps))[:count])

    def these_rows(self, row_nos: Sequence[int]) -> pa.Table:
        """Some of the rows, as `rows` has them, in the order given."""
        return self._told(self._at(self._graph.positions(np.asarray(row_nos, np.int64))))

    @cached_property
    def _first_steps(self) -> np.ndarray:
        """Per distinct row the step that first ate it."""
        first = np.zeros(self.count, np.int32)
        first[self._at(self._eaten)[::-1]] = self._slots.steps[::-1]
        return first

    def _told(self, chosen: np.ndarray) -> pa.Table:
        """What is to be said of distinct rows, by their places."""
        at, steps = self._at(self._eaten), self._slots.steps
        last = np.zeros(self.count, np.int32)
        last[at] = steps
        numbers = pa.array(self._graph.numbers[self._rows[chosen]])
        wanted = [column.name for column in PROVENANCE] + ["answer", "text", "kind"]
        stored = tables.read_ever(
            self._settings, EXAMPLE, columns=wanted, where=pads.field("row_no").isin(numbers)
        )
        stored = stored.take(pc.index_in(numbers, stored["row_no"].combine_chunks()))
        tokens = np.bincount(at, weights=self._slots.loss_tokens, minlength=self.count).astype(np.int64)
        codes, recalls = self._recalls
        more = {
            "first_step": pa.array(self._first_steps[chosen]),
            "last_step": pa.array(last[chosen]),
            "times": pa.array(np.bincount(at, minlength=self.count)[chosen]),
            "loss_tokens": pa.array(tokens[chosen]),
            "slice": pa.array([self._slice_names[code] for code in self._slice_codes[chosen]], pa.string()),
            "recalled": pa.array([recalls[code] for code in codes[chosen]], pa.string()),
        }
        for name, values in more.items():
            stored = stored.append_column(name, values)
        return stored

    @cached_property
    def sources(self) -> Mapping[bytes, tuple[dict[str, Any], ...]]:
        """Row id -> the source rows it comes from: row_id, uri, revision, span, reader, prompt, scorer."""
        known = ancestors_of(self._settings, self.rows["row_no"].to_pylist())
        return {row_id: tuple(roots(row_id, known)) for row_id in self.rows["row_id"].to_pylist()}

    @cached_property
    def _rows(self) -> np.ndarray:
        """Positions of the distinct rows, ascending."""
        is_eaten = np.zeros(len(self._graph.numbers), bool)
        is_eaten[self._eaten] = True
        return np.flatnonzero(is_eaten)

    def _positions(self, numbers: BitMap64) -> np.ndarray:
        return self._graph.positions(np.asarray(numbers.to_array()).astype(np.int64))

    def _at(self, positions: np.ndarray) -> np.ndarray:
        """The places in `_rows` of some of its positions."""
        places = np.empty(len(self._graph.numbers), np.int32)
        places[self._rows] = np.arange(len(self._rows), dtype=np.int32)
        return places[positions]

    @cached_property
    def _bitmap(self) -> BitMap64:
        return BitMap64(self._graph.numbers[self._rows].astype(np.uint64))

    @cached_property
    def _members(self) -> dict[str, BitMap64]:
        """Slice -> its rows."""
        found = members(self._settings, CURRICULUM, ("curriculum", "slice"))
        return {
            name: rows for (root, name), rows in sorted(found.items()) if root == self.checkpoint.curriculum
        }

    @property
    def _slice_names(self) -> list[str]:
        return ["", *self._members]

    @cached_property
    def _slice_codes(self) -> np.ndarray:
        """Per distinct row the place of its slice in `_slice_names`."""
        codes = np.zeros(self.count, np.uint8)
        for code, rows in enumerate(self._members.values(), start=1):
            codes[self._at(self._positions(rows & self._bitmap))] = code
        return codes

    @cached_property
    def _recalls(self) -> tuple[np.ndarray, Sequence[str]]:
        """Per distinct row the place of the recall that took it back, and the recalls; "" the first."""
        names = ["", *sorted(numbers_by_recall(self._settings))]
        codes = np.zeros(self.count, np.int32)
        hit = self._bitmap & banned_numbers(self._settings)
        if hit:
            gone = banned(self._settings)
            codes[self._at(self._positions(hit))] = [names.index(gone[number]) for number in hit]
        return codes, names

    def _grouped(self, by: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Per slot its group; and per group its values and its distinct rows."""
        group, coded = np.zeros(self.count, np.int64), [self._coded(name) for name in by]
        for codes, values in coded:
            group = _numbered(group * len(values) + codes)
        first = np.zeros(int(group.max(initial=-1)) + 1, np.int64)
        first[group[::-1]] = np.arange(self.count)[::-1]
        named = {
            name: [values[code] for code in codes[first]]
            for name, (codes, values) in zip(by, coded, strict=True)
        }
        rows = np.bincount(group, minlength=len(first))
        return group[self._at(self._eaten)], named | {"rows": rows}

    def _coded(self, name: str) -> tuple[np.ndarray, Sequence[str]]:
        """Per distinct row the place of its value, and the values."""
        if name == "slice":
            return self._slice_codes, self._slice_names
        if name == "recalled":
            return self._recalls
        if name in ("answer", "text"):  # too many values to keep for all rows of the lake
            found = pc.dictionary_encode(self.rows.sort_by("row_no")[name].combine_chunks())
            return found.indices.to_numpy(), found.dictionary.to_pylist()
        column = self._graph.column(name)
        return column.codes[self._rows], column.values


def lineage(settings: Settings, checkpoint: Checkpoint) -> Lineage:
    """Every row that the checkpoint consumed, with where it comes from.

    Raises LineageError if one is not stored.
    """
    return Lineage(settings, checkpoint)


@dataclass(frozen=True)
class Contact:
    """A checkpoint that ate a row, or rows derived from it."""

    checkpoint: Checkpoint
    rows: int
    """Of the row and its descendants, how many."""

    first_step: int
    times: int


def contacts(settings: Settings, row_id: bytes) -> list[Contact]:
    """The checkpoints that ate a row or what was derived from it, oldest first."""
    rows = graph(settings)
    mine = rows.down.reach(rows.starting_with(row_id.hex()))
    numbers = BitMap64(rows.numbers[mine].astype(np.uint64))
    ate = bitmaps(settings)
    found: list[Contact] = []
    for each in checkpoints(settings):
        count = ate[each.run_id, each.step].intersection_cardinality(numbers)
        if count:
            slots = ledger_of(settings, each)
            places = slots.places_of(rows.numbers[mine])
            found.append(Contact(each, count, slots.step_of(int(places[0])), len(places)))
    return found


def as_json(found: Lineage) -> dict[str, Any]:
    """The lineage as JSON values.

    `rows` has DESIGN's provenance names, ids in hex, and each row's `sources`.
    """
    checkpoint = {name: plain(getattr(found.checkpoint, name)) for name in Checkpoint.__dataclass_fields__}
    rows = [plain(row | {"sources": found.sources[row["row_id"]]}) for row in found.rows.to_pylist()]
    return {
        "checkpoint": checkpoint,
        "rows": rows,
        "slices": found.slices,
        "groups": found.grouped().to_pylist(),
    }


def _numbered(codes: np.ndarray) -> np.ndarray:
    """The same groups, numbered from 0 without gaps."""
    most = int(codes.max(initial=-1)) + 1
    if most > _MOST_CODES:
        return np.unique(codes, return_inverse=True)[1]
    is_there = np.zeros(most, bool)
    is_there[codes] = True
    return (np.cumsum(is_there) - 1)[codes]
