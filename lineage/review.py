"""A person's word on rows: approved, rejected or relabelled; it beats every automated verdict, but no ban.

Reviews are a book to which rows are only added; the last review of a row counts, unless a standing recall
took back its reviewer. Nothing that is stored is changed by one: what is derived, selected and scored from
then on obeys (lineage.heed, pipelines.curate), and is another run, for a job names the reviews of its inputs.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.dataset as pads

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, runs, tables
from lineage.bans import Bans
from lineage.rows import canonical_json, rows_digest
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import (
    EXAMPLE,
    MIXED,
    NOT_APPLICABLE,
    PROVENANCE,
    REVIEW,
    ROW_TABLES,
    TRACE,
    UNSTATED,
    TableSpec,
)
from lineage.selectors import Selector, resolved
from lineage.spans import as_answer
from lineage.tables import TableError

Word = Literal["approved", "rejected", "relabelled"]

REJECTED_BY_REVIEWER = "rejected_by_reviewer"
RELABELLED_BY_REVIEWER = "relabelled_by_reviewer"  # and so another row stands in its place
OVERRULED_BY_REVIEWER = "overruled_by_reviewer"  # it answers otherwise than a row that a person vouches for
SCORER = {"scorer": "review", "scorer_revision": "1", "threshold": 0.5}
"""Who judged a row that a person judged; the score is 1 or 0."""

Correct = Callable[[Run, pa.Table, str, str], Outcome]
"""(run, examples, label, reviewer) -> the batches with the examples that stand in their place, admitted."""


class ReviewError(TableError):
    """A review was not taken; the message says why, and what to do."""


@dataclass(frozen=True)
class Review:
    """What one person said of one row."""

    table: str
    row_id: bytes
    row_no: int
    verdict: Word
    label: str | None
    """The right answer, where it was relabelled."""

    reviewer: str
    reason: str
    run_id: str
    at: dt.datetime


@dataclass(frozen=True)
class Reviews:
    """The last word on each reviewed row, as a value that travels to workers."""

    last: Mapping[bytes, Review] = field(default_factory=dict)

    def among(self, row_ids: Iterable[bytes]) -> Reviews:
        """Those of some rows."""
        return Reviews({row_id: self.last[row_id] for row_id in row_ids if row_id in self.last})

    @property
    def vouched(self) -> frozenset[bytes]:
        """The rows that a person vouches for: as they are, or with another answer."""
        return frozenset(row_id for row_id, said in self.last.items() if said.verdict != "rejected")

    @property
    def inputs(self) -> list[str]:
        """How a job that obeys them names them as its input; nothing where there are none."""
        if not self.last:
            return []
        words = [[i, said.verdict, said.label, said.reviewer] for i, said in sorted(self.last.items())]
        return [f"reviews:{hashlib.sha256(canonical_json(words)).hexdigest()}"]


def review(
    runtime: Runtime,
    references: Sequence[str],
    verdict: Word,
    *,
    reason: str,
    reviewer: str | None = None,
    label: str | None = None,
    correct: Correct | None = None,
) -> Outcome:
    """Put a person's word on traces or examples on record; said again, nothing changes.

    `references` are row ids in hex, or their starts; `reviewer` is the user where nobody is named. A
    relabelled example is first derived anew by `correct`, so that it is never without a successor. The facets
    hold verdict, label, reviewer and rows. Raises ReviewError, or SelectorError where a start names no single
    row, before anything is written.
    """
    settings = runtime.settings
    who = _checked(verdict, reason, runs.agent().user if reviewer is None else reviewer, label)
    label = label and label.strip()
    rows = _named(settings, references)
    said = [
        Review(spec.name, row["row_id"], row["row_no"], verdict, label, who, reason, "", runtime.now())
        for spec, row in rows
    ]
    for position, recall in _called_back(settings, said).items():
        raise ReviewError(
            f"reviews by '{said[position].reviewer}' are refused: recall {recall} took them back"
        )
    answered = [row for spec, row in rows if spec is EXAMPLE and verdict == "relabelled"]
    for row in answered:
        if label is not None and row["answer"] == as_answer(label, row):
            raise ReviewError(
                f"row {row['row_id'].hex()} answers '{label}' already; to confirm it: --approve"
            )
    if answered and correct is None:
        raise ReviewError("examples are relabelled by pipelines.review, which derives them anew")

    def work(run: Run) -> Outcome:
        made = Outcome()
        if answered and correct is not None and label is not None:
            made = correct(run, pa.Table.from_pylist(answered, schema=EXAMPLE.schema), label, who)
        earlier = _by_row(settings)
        new = [each for each in said if not _is_said(earlier[each.row_id], each)]
        if new:
            at = tables.after_all(settings, runtime.now(), REVIEW)
            record = [vars(each) | {"run_id": run.id, "at": at} for each in new]
            tables.record(settings, record, into=REVIEW)
        words = {"verdict": verdict, "label": label, "reviewer": who}
        facets = words | {"rows": [each.row_id.hex() for each in said]}
        return Outcome(made.outputs, {"rows": len(said), **made.counts}, facets)

    config = {"verdict": verdict, "label": label, "reviewer": who, "reason": reason}
    earlier = _by_row(settings)  # bears identity: what was said once may be said again after another word
    before = sum(len(earlier[each.row_id]) - _is_said(earlier[each.row_id], each) for each in said)
    inputs = [f"rows:{rows_digest(each.row_id for each in said)}", f"reviewed:{before}"]
    return carry_out(runtime, "review", config=config, inputs=inputs, work=work)


def told(said: Mapping[str, Any]) -> str:
    """A review, as a person reads it."""
    label = f" '{said['label']}'" if said["label"] is not None else ""
    return f"{said['verdict']}{label} by {said['reviewer']} at {said['at']}: {said['reason']}"


def history(settings: Settings, row_id: bytes | None = None) -> list[Review]:
    """All that was ever said, of one row or of all, oldest first; also by reviewers that were called back."""
    where = None if row_id is None else pads.field("row_id") == row_id
    return [Review(**row) for row in tables.read(settings, REVIEW, where=where).sort_by("at").to_pylist()]


def standing(settings: Settings) -> Reviews:
    """The last word on each row, by a reviewer whom no standing recall took back."""
    said = history(settings)
    refused = _called_back(settings, said)
    return Reviews({each.row_id: each for place, each in enumerate(said) if place not in refused})


def words(settings: Settings, selector: Selector) -> dict[str, int]:
    """Verdict -> how many words in the book a recall of this takes back, or has taken back.

    None where no reviewer is named, or more than values are. With other values beside him, only what he said
    of rows that have these.
    """
    if selector.reviewer is None or selector.on_values() is None:
        return {}
    said = history(settings)
    fallen = Counter(said[place].verdict for place in _refused(settings, said, [("", selector)]))
    return {verdict: fallen[verdict] for verdict in get_args(Word) if fallen[verdict]}


def _checked(verdict: Word, reason: str, reviewer: str, label: str | None) -> str:
    """The reviewer. Raises ReviewError where something is not said that must be."""
    if verdict not in get_args(Word):
        raise ReviewError(f"'{verdict}' is no verdict; expected one of: {', '.join(get_args(Word))}")
    if not reason.strip():
        raise ReviewError("a review needs a reason, which stands in its record; give --reason TEXT")
    if not reviewer.strip() or reviewer in (UNSTATED, NOT_APPLICABLE, MIXED):
        raise ReviewError(f"'{reviewer}' is nobody who answers for a review; give --reviewer NAME")
    if (verdict == "relabelled") != (label is not None and bool(label.strip())):
        raise ReviewError("a row is relabelled with the right answer, and only then: give --label ANSWER")
    return reviewer.strip()


def _named(settings: Settings, references: Sequence[str]) -> list[tuple[TableSpec, dict[str, Any]]]:
    """The rows that are meant, each once, with their tables."""
    if not references:
        raise ReviewError("no row is named; give the ids of traces or examples, or their starts")
    selector = resolved(settings, Selector(rows=tuple(reference.lower() for reference in references)))
    mine = pads.field("row_id").isin(
        pa.array([bytes.fromhex(row) for row in set(selector.rows)], pa.binary())
    )
    found: list[tuple[TableSpec, dict[str, Any]]] = []
    for spec in ROW_TABLES:
        named: dict[bytes, dict[str, Any]] = {}
        for row in tables.read_ever(settings, spec, where=mine).to_pylist():  # what stands comes first:
            named.setdefault(row["row_id"], row)  # judged anew, it shares its id with a row that is out
        found += [(spec, named[row_id]) for row_id in sorted(named)]
    gone = bans.banned(settings)
    for spec, row in found:
        shown = f"row {row['row_id'].hex()}"
        if spec not in (TRACE, EXAMPLE):
            raise ReviewError(
                f"{shown} is one of '{spec.name}', of which nothing is learnt as it is; what can be "
                "reviewed are traces and examples; what was made of a document: stemma recall --row"
            )
        if row["row_no"] in gone:
            raise ReviewError(
                f"{shown} was called back by recall {gone[row['row_no']]}, which no review undoes"
            )
    return found


def _by_row(settings: Settings) -> Mapping[bytes, list[Review]]:
    """All that was said of each row, oldest first."""
    found: dict[bytes, list[Review]] = defaultdict(list)
    for each in history(settings):
        found[each.row_id].append(each)
    return found


def _is_said(earlier: Sequence[Review], said: Review) -> bool:
    """Is the last word on the row this one already?"""

    def word(each: Review) -> tuple[object, ...]:
        return each.verdict, each.label, each.reviewer, each.reason

    return bool(earlier) and word(earlier[-1]) == word(said)


def _called_back(settings: Settings, said: Sequence[Review]) -> dict[int, str]:
    """Position -> recall, of the reviews by whom a standing recall names.

    A recall that names more than the reviewer takes back what he said of rows to which all of it applies.
    """
    return _refused(
        settings, said, [each for each in bans.by_value(settings) if each[1].reviewer is not None]
    )


def _refused(
    settings: Settings, said: Sequence[Review], by_reviewer: Sequence[tuple[str, Selector]]
) -> dict[int, str]:
    """Position -> the first name, of the reviews that one of these selectors means, each with its name."""
    if not by_reviewer or not said:
        return {}
    columns = [column.name for column in PROVENANCE]
    mine = pads.field("row_no").isin(pa.array([each.row_no for each in said], pa.int64()))
    rows = pa.concat_tables(
        [tables.read_ever(settings, spec, columns=columns, where=mine) for spec in (TRACE, EXAMPLE)]
    )
    at = {row_no: place for place, row_no in enumerate(rows["row_no"].to_pylist())}
    known = [place for place, each in enumerate(said) if each.row_no in at]  # a withdrawn row is nowhere
    of = rows.take(pa.array([at[said[place].row_no] for place in known], pa.int64()))
    reviewers = pa.array([said[place].reviewer for place in known], pa.string())
    of = of.set_column(of.column_names.index("reviewer"), "reviewer", reviewers)
    refused = Bans(by_value=tuple(by_reviewer)).refused(of, EXAMPLE)
    return {known[place]: recall for place, recall in refused.items()}
