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
from functools import cache
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
from lineage.schemas import EXAMPLE

DUPLICATE = "duplicate"  # reason: a row that stands asks and answers the same

_SPACES = r"[\x09-\x0d\x1c-\x20]+"  # of ASCII, what str.split() takes for white space
_TOLD = ("row_id", "row_no", "parents", "derivation", "step", "review", "reviewer", "answer")
NEEDED = (*_TOLD, "split", "condition", *INPUT_COLUMNS)
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
    touched = {row_id for row_id in ids if not ever.isdisjoint(judge.behind(row_id))}
    out = {row_id: reason for row_id in ids if (reason := judge.reason(row_id)) is not None}
    vouched = frozenset(row_id for row_id in ids if row_id not in out and judge.is_vouched(row_id))
    for equal in _equal(_alike(examples, touched), but=out):
        if not touched.isdisjoint(row["row_id"] for row in equal):
            out |= _settled(equal, vouched)
    heard = reviews.among(frozenset().union(*map(judge.behind, touched)))
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
    talks = mine.filter(pc.equal(mine["task"], "generation"))
    agrees = pc.is_in(examples["answer"], talks["answer"].combine_chunks())  # of talks only these are equal
    return examples.filter(pc.if_else(pc.equal(examples["task"], "generation"), agrees, may))


class _Judge:
    """Follows rows up to what they were derived from; each is looked at once."""

    def __init__(self, reviews: Reviews, said: Sequence[Review], rows: Mapping[bytes, dict[str, Any]]):
        self._last, self._rows = reviews.last, rows
        self._relabelled = {(r.row_id, r.label, r.reviewer) for r in said if r.verdict == "relabelled"}
        self.behind = cache(self._behind)
        self.reason = cache(self._reason)
        self.is_vouched = cache(self._is_vouched)

    def _behind(self, row_id: bytes) -> frozenset[bytes]:
        """The row and all it comes from."""
        row = self._rows.get(row_id)
        return frozenset({row_id}).union(*(self.behind(parent) for parent in (row["parents"] if row else ())))

    def _reason(self, row_id: bytes) -> str | None:
        """Why the row is out, by what was said of it, or else of its parents."""
        said, row = self._last.get(row_id), self._rows.get(row_id)
        if said is not None:
            reasons = {"rejected": REJECTED_BY_REVIEWER, "relabelled": RELABELLED_BY_REVIEWER}
            return reasons.get(said.verdict)
        return None if row is None else self._inherited(row)

    def _inherited(self, row: Mapping[str, Any]) -> str | None:
        reasons = [self._through(parent, row) for parent in row["parents"]]
        falls = all(reasons) if row["derivation"] == "alternative" else any(reasons)
        return next(filter(None, reasons), None) if falls else None

    def _through(self, parent: bytes, row: Mapping[str, Any]) -> str | None:
        said = self._last.get(parent)
        above = self._rows.get(parent)
        if said is not None and said.verdict == "rejected":
            return REJECTED_BY_REVIEWER
        if self._gives_its_label(said, row):
            return None if above is None else self._inherited(above)
        if (said is not None and said.verdict == "relabelled") or self._was_overridden(parent, row):
            return RELABELLED_BY_REVIEWER
        return self.reason(parent)

    def _is_vouched(self, row_id: bytes) -> bool:
        said, row = self._last.get(row_id), self._rows.get(row_id)
        if said is not None:
            return said.verdict == "approved"
        return row is not None and any(
            self._gives_its_label(self._last.get(parent), row) or self.is_vouched(parent)
            for parent in row["parents"]
        )

    @staticmethod
    def _gives_its_label(said: Review | None, row: Mapping[str, Any]) -> bool:
        """Is this what the parent was relabelled to?"""
        return said is not None and said.verdict == "relabelled" and said.label == row["answer"]

    def _was_overridden(self, parent: bytes, row: Mapping[str, Any]) -> bool:
        """Was the row made by a relabelling of its parent that is not the last word on it any more?"""
        word = (parent, row["answer"], row["reviewer"])
        return row["step"] == "review" or (row["review"] == "overridden" and word in self._relabelled)


def _with_ancestors(settings: Settings, rows: Sequence[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    """The rows and all examples that they were derived from, by id; what is not among them is a trace."""
    found: dict[bytes, dict[str, Any]] = {}
    level = list(rows)
    while level:
        found |= {row["row_id"]: row for row in level}
        named = {parent for row in level for parent in row["parents"]} - found.keys()
        where = pads.field("row_id").isin(pa.array(sorted(named), pa.binary()))
        level = tables.read_ever(settings, EXAMPLE, columns=_TOLD, where=where).to_pylist()
    return found


def _equal(examples: pa.Table, *, but: Mapping[bytes, str]) -> list[list[dict[str, Any]]]:
    """Rows that ask the same on one side, as row_id, row_no and answer; rows that are out left aside."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    rows = examples.select(["row_id", "row_no", "answer", "task", "split", "condition"]).to_pylist()
    for asked, row in zip(inputs(examples), rows, strict=True):
        if row["row_id"] not in but:
            apart = row["answer"] if row["task"] == "generation" else ""  # many answers may be right
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
