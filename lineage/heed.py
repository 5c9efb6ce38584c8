"""What people's reviews leave of a set of examples: who is out and why, and for whom somebody vouches.

    said of the row itself       approved: it stands; rejected, relabelled: it is out
    said of what it was made of  it is out when one joint parent is, or all its alternatives are; of what was
                                 relabelled only what gives the new answer stands
    equal questions              where a person vouches for one answer, the others are overruled; of equal
                                 answers one is enough: a merge loses a parent to a review and is merged anew,
                                 beside the older row

Where nobody said anything of a row, or of what it comes from, or of an equal question, nothing changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.graph import graph
from lineage.inputs import INPUT_COLUMNS, inputs, normalised
from lineage.review import (
    OVERRULED_BY_REVIEWER,
    REJECTED_BY_REVIEWER,
    RELABELLED_BY_REVIEWER,
    Review,
    Reviews,
    history,
    standing,
)
from lineage.rows import CONFLICTING
from lineage.schemas import EXAMPLE, ROW_TABLES
from lineage.spans import as_answer
from lineage.tasks import ANSWER_COLUMNS, TALKS

DUPLICATE = "duplicate"  # reason: a row that stands asks and answers the same

_SPACES = r"[\x09-\x0d\x1c-\x20]+"  # of ASCII, what str.split() takes for white space
_TOLD = ("row_id", "row_no", "parents", "derivation", "step", "review", "reviewer", "task", "text", "answer")
_ASKED = ("row_id", "row_no", "task", "split", "condition", *ANSWER_COLUMNS)
NEEDED = tuple(dict.fromkeys((*_TOLD, *_ASKED, *INPUT_COLUMNS)))
"""The columns of examples that `heed` reads."""


@dataclass(frozen=True)
class Heeded:
    """What follows from reviews for some examples."""

    left_out: Mapping[bytes, str] = field(default_factory=dict)
    """Row id -> why it may be neither trained on nor scored on."""

    approved: frozenset[bytes] = frozenset()
    """Those that a person approved, or whose answer is a person's."""

    inputs: tuple[str, ...] = ()
    """How a job that obeys names the reviews; empty where nobody said anything of these."""

    def left(self, examples: pa.Table) -> pa.Table:
        """The examples that stand."""
        if not self.left_out:
            return examples
        stands = [row_id not in self.left_out for row_id in examples["row_id"].to_pylist()]
        return examples.filter(pa.array(stands, pa.bool_()))


def heed(settings: Settings, examples: pa.Table) -> Heeded:
    """What people said of these examples, and of what they were derived from. Needs NEEDED columns."""
    said = history(settings)
    if not said:
        return Heeded()
    reviews, ever = standing(settings), {each.row_id for each in said}
    near = _below(settings, ever)
    rows = examples.filter(pc.is_in(examples["row_no"], near)).select(_TOLD).to_pylist()
    ids = [row["row_id"] for row in rows]
    judge = _Judge(reviews, said, _with_ancestors(settings, rows))
    # Also those of whom a word was said that was taken back: what it has done meanwhile is stored.
    touched = set(ids) & judge.below(ever)
    out = {row_id: reason for row_id in ids if (reason := judge.reason[row_id]) is not None}
    vouched = frozenset(row_id for row_id in ids if row_id not in out and row_id in judge.vouched)
    for equal in _equal(_alike(examples, touched), but=out):
        if not touched.isdisjoint(row["row_id"] for row in equal):
            out |= _settled(equal, vouched)
    heard = reviews.among(judge.behind(touched))
    return Heeded(out, vouched - out.keys(), tuple(heard.inputs))


def _below(settings: Settings, reviewed: Collection[bytes]) -> pa.Int64Array:
    """The numbers of the examples of which reviews may say anything: they, and what was derived from them."""
    rows = graph(settings)
    found = {row_id: rows.starting_with(row_id.hex()) for row_id in reviewed}
    steps = rows.column("step")
    starts = [np.flatnonzero(steps.where(step == "review" for step in steps.values)), *found.values()]
    gone = pa.array(sorted(row_id for row_id, at in found.items() if not len(at)), pa.binary())
    if len(gone):  # withdrawn, and so none of the rows in memory; its children name it all the same
        told = tables.read_ever(settings, EXAMPLE, columns=["row_no", "parents"])
        parents = told["parents"].combine_chunks()
        named = pc.list_parent_indices(parents).filter(pc.is_in(pc.list_flatten(parents), gone))
        at = rows.positions(told["row_no"].take(named).to_numpy())
        starts.append(at[at >= 0])
    return pa.array(rows.numbers[rows.down.reach(np.concatenate(starts))], pa.int64())


def _alike(examples: pa.Table, touched: Collection[bytes]) -> pa.Table:
    """The touched examples, and all that may ask the same as one of them.

    That is said exactly, as `normalised` says it, of ASCII text; other text always may.
    """
    mine = examples.filter(pc.is_in(examples["row_id"], pa.array(sorted(touched), pa.binary())))
    if not mine.num_rows:
        return mine
    asked = pa.array(sorted({normalised(text) for text in mine["text"].to_pylist()}), pa.string())
    lower = pc.ascii_lower(examples["text"])
    plain = pc.utf8_trim(pc.replace_substring_regex(lower, pattern=_SPACES, replacement=" "), " ")
    may = pc.or_(pc.is_in(plain, asked), pc.invert(pc.string_is_ascii(examples["text"])))
    many = pa.array(TALKS)
    talks = mine.filter(pc.is_in(mine["task"], many))
    agrees = pc.is_in(examples["answer"], talks["answer"].combine_chunks())  # of talks only these are equal
    return examples.filter(pc.if_else(pc.is_in(examples["task"], many), agrees, may))


class _Judge:
    """Judges rows after what they were derived from, each once, however long the line."""

    def __init__(self, reviews: Reviews, said: Sequence[Review], rows: Mapping[bytes, dict[str, Any]]):
        self._last, self._rows = reviews.last, rows
        self._relabelled: dict[tuple[bytes, str], set[str]] = defaultdict(set)
        for review in said:
            if review.verdict == "relabelled" and review.label is not None:
                self._relabelled[review.row_id, review.reviewer].add(review.label)
        above = {row_id: row["parents"] for row_id, row in rows.items()}
        self._order = tuple(TopologicalSorter(above).static_order())  # parents first
        self._inherited: dict[bytes, str | None] = {}
        self.reason: dict[bytes, str | None] = {}
        """Why a row is out, by what was said of it, or else of its parents."""
        self.vouched: set[bytes] = set()
        """The rows that a person vouches for: they, or what they were made of."""
        for row_id in self._order:
            self._judge(row_id)

    def below(self, row_ids: Collection[bytes]) -> set[bytes]:
        """The rows, and all that come from one of them."""
        found = set(row_ids)
        for row_id in self._order:
            if not found.isdisjoint(self._parents(row_id)):
                found.add(row_id)
        return found

    def behind(self, row_ids: Collection[bytes]) -> set[bytes]:
        """The rows, and all that they come from."""
        found = set(row_ids)
        for row_id in reversed(self._order):
            if row_id in found:
                found.update(self._parents(row_id))
        return found

    def _parents(self, row_id: bytes) -> Sequence[bytes]:
        row = self._rows.get(row_id)
        return () if row is None else row["parents"]

    def _judge(self, row_id: bytes) -> None:
        said, row = self._last.get(row_id), self._rows.get(row_id)
        self._inherited[row_id] = inherited = None if row is None else self._through_parents(row)
        if said is None:
            self.reason[row_id] = inherited
            is_vouched = row is not None and self._is_vouched(row)
        else:
            reasons = {"rejected": REJECTED_BY_REVIEWER, "relabelled": RELABELLED_BY_REVIEWER}
            self.reason[row_id] = reasons.get(said.verdict)
            is_vouched = said.verdict == "approved"
        if is_vouched:
            self.vouched.add(row_id)

    def _is_vouched(self, row: Mapping[str, Any]) -> bool:
        return any(
            self._gives_its_label(self._last.get(parent), row) or parent in self.vouched
            for parent in row["parents"]
        )

    def _through_parents(self, row: Mapping[str, Any]) -> str | None:
        reasons = [self._through(parent, row) for parent in row["parents"]]
        falls = all(reasons) if row["derivation"] == "alternative" else any(reasons)
        return next(filter(None, reasons), None) if falls else None

    def _through(self, parent: bytes, row: Mapping[str, Any]) -> str | None:
        said = self._last.get(parent)
        if said is not None and said.verdict == "rejected":
            return REJECTED_BY_REVIEWER
        if self._gives_its_label(said, row):
            return self._inherited[parent]
        if (said is not None and said.verdict == "relabelled") or self._was_overridden(parent, row):
            return RELABELLED_BY_REVIEWER
        return self.reason[parent]

    @staticmethod
    def _gives_its_label(said: Review | None, row: Mapping[str, Any]) -> bool:
        """Is this what the parent was relabelled to?"""
        if said is None or said.verdict != "relabelled" or said.label is None:
            return False
        return as_answer(said.label, row) == row["answer"]

    def _was_overridden(self, parent: bytes, row: Mapping[str, Any]) -> bool:
        """Was the row made by a relabelling of its parent that is not the last word on it any more?"""
        labels = self._relabelled.get((parent, row["reviewer"]), ())
        said_so = (as_answer(label, row) == row["answer"] for label in labels)
        return row["step"] == "review" or (row["review"] == "overridden" and any(said_so))


def _with_ancestors(settings: Settings, rows: Sequence[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    """The rows and all examples that they were derived from, by id; what is not among them is a trace."""
    known = graph(settings)
    found: dict[bytes, dict[str, Any]] = {}
    new = list(rows)
    while new:  # once for all of a line, and again where a row that was withdrawn came under another number
        found |= {row["row_id"]: row for row in new}
        at = known.positions(np.array([row["row_no"] for row in new], np.int64))
        above = known.up.reach(at[at >= 0])
        above = above[known.tables[above] == ROW_TABLES.index(EXAMPLE)]
        named = {parent for row in new for parent in row["parents"]}
        named |= {row_id.tobytes() for row_id in known.ids[above]}
        where = pads.field("row_id").isin(pa.array(sorted(named - found.keys()), pa.binary()))
        new = tables.read_ever(settings, EXAMPLE, columns=_TOLD, where=where).to_pylist()
    return found


def _equal(examples: pa.Table, *, but: Mapping[bytes, str]) -> list[list[dict[str, Any]]]:
    """Rows that ask the same on one side, as row_id, row_no and answer; rows that are out left aside."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    rows = examples.select(_ASKED).to_pylist()
    for asked, row in zip(inputs(examples), rows, strict=True):
        if row["row_id"] not in but:
            many = row["task"] in TALKS  # of answers that may all be right only equal ones are held together
            apart = tuple(row[name] for name in ANSWER_COLUMNS) if many else ()
            groups[asked, apart, row["task"], row["split"], row["condition"]].append(row)
    return [equal for equal in groups.values() if len(equal) > 1]


def _settled(equal: Sequence[Mapping[str, Any]], vouched: frozenset[bytes]) -> dict[bytes, str]:
    """Which of several rows that ask the same are out, and why."""
    right = {row["answer"] for row in equal if row["row_id"] in vouched}
    if len(right) > 1:  # people contradict each other, and nobody knows who is right
        return {row["row_id"]: CONFLICTING for row in equal}
    out: dict[bytes, str] = {}
    kept: set[str] = set()
    for row in sorted(equal, key=lambda row: (row["row_id"] not in vouched, row["row_no"])):
        if right and row["answer"] not in right:
            out[row["row_id"]] = OVERRULED_BY_REVIEWER
        elif row["answer"] in kept:
            out[row["row_id"]] = DUPLICATE
        kept.add(row["answer"])
    return out
