"""Do the books hold what was done, and does what stands follow from them?"""

from __future__ import annotations

import datetime as dt
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import bans, mirror, models, registry, tables
from lineage.bans import Bans
from lineage.fsck.stored import Findings
from lineage.graph import graph
from lineage.impact import details, fallen_now, impact
from lineage.lift import not_back
from lineage.runs import identity_of, measured
from lineage.schemas import (
    BAN,
    CHECKPOINT,
    CONSUMPTION,
    CURRICULUM,
    EXCLUSION,
    LEASE,
    LIFT,
    MODEL,
    PLAN,
    PREDICTION,
    QUARANTINE,
    RECALL,
    REJECTED,
    REPORT,
    REVIEW,
    ROW_TABLES,
    RUN,
    VERDICT,
    TableSpec,
)
from lineage.tables import Damaged

_OF_RUNS = {
    CONSUMPTION: ("finetune", "train"),
    PLAN: ("finetune", "train"),
    EXCLUSION: ("curriculum",),
    PREDICTION: ("evaluate",),
    REPORT: ("evaluate",),
}
"""Book -> the jobs whose runs write so many rows of it as they say."""


def balance(settings: Settings) -> Findings:
    """Counts of every finished run balance, and its losses lie in their books."""
    found: list[str] = []
    rejected = _rows_per_work(settings, REJECTED)
    quarantined = _rows_per_work(settings, QUARANTINE)
    runs = [run for run in _complete_runs(settings) if "created" in run["counts"]]
    last = {identity_of(run["run_id"]): run["run_id"] for run in sorted(runs, key=lambda run: run["at"])}
    for run in runs:
        counts, work = run["counts"], identity_of(run["run_id"])
        left = counts["in"] + counts["created"]
        right = counts["out"] + counts["merged"] + counts["rejected"]
        right += counts.get("quarantined", 0) + counts.get("empty", 0)
        if left != right:
            found.append(f"run {run['run_id']}: {left} rows in and created, {right} accounted for")
        lost = (counts["rejected"], counts.get("quarantined", 0))
        # The books hold what the last go at a work lost: an earlier one may have read other parts of it.
        if last[work] == run["run_id"] and lost != (rejected[work], quarantined[work]):
            found.append(
                f"run {run['run_id']}: counted {lost} rejected and quarantined rows, the books hold others"
            )
    return len(runs), found


def books(settings: Settings) -> Findings:
    """What finished runs, commits and row numbers speak of is on record."""
    done = _complete_runs(settings)
    held = _Held(settings, done)
    found = [f"could not be checked for all runs: {sentence}" for sentence in held.damaged]
    found += [
        f"run {run['run_id']} ({run['job']}) {missing}; restore that book from a copy of the lake"
        for run in done
        for missing in _missing(run, held)
    ]
    known = set(tables.read(settings, RUN, columns=["run_id"])["run_id"].to_pylist())
    ordered = {each.id: each for each in bans.all_recalls(settings)}
    lifted = {each.id for each in ordered.values() if each.lifts or each.lift}
    numbers: list[int] = []
    for spec in (*ROW_TABLES, CURRICULUM):
        for entry in tables.commits(settings, spec):
            version = f"{spec.name}@{entry['version']}"
            if "stemma.run_id" in entry and entry["stemma.run_id"] not in known:
                found.append(
                    f"{version} was made by run {entry['stemma.run_id']}, which 'runs' does not hold"
                )
            if entry.get("stemma.recall", "") not in {*ordered, ""}:
                found.append(f"{version} carries out recall {entry['stemma.recall']}, which is not on record")
            if entry.get("stemma.lift", "") not in lifted | {""}:
                found.append(f"{version} lifts recall {entry['stemma.lift']}, of which 'lifts' says nothing")
    for spec in ROW_TABLES:
        numbers += tables.read_ever(settings, spec, columns=["row_no"])["row_no"].to_pylist()
    free = _unleased(settings, sorted(numbers))
    if free:
        found.append(f"{len(free)} row numbers, as {free[0]}, are in no lease: they would be given again")
    for name in models.aliases(settings):
        found += _gaps(settings, name)
    return len(done) + len(numbers), found


class _Held:
    """What the books hold, each as what a run would name it by."""

    def __init__(self, settings: Settings, done: Sequence[Mapping[str, Any]]):
        self.damaged: list[str] = []
        """A sentence for each book of which a file is damaged."""
        self._rows = {spec.name: self._counted(settings, spec, done) for spec in _OF_RUNS}
        self.events = models.events(settings)
        self.recall_moves = {
            (f"{e.name}@{e.alias}", e.from_version, e.to_version) for e in self.events if e.kind == "recall"
        }
        self.outputs = {
            f"model:{v['name']}@{v['version']}"
            for v in tables.read(settings, MODEL, columns=["name", "version"]).to_pylist()
        } | {
            f"checkpoint:{c['run_id']}/{c['step']}"
            for c in tables.read(settings, CHECKPOINT, columns=["run_id", "step"]).to_pylist()
        }
        self.recalls = set(_column(settings, RECALL, "recall"))
        self.lifts = Counter(_column(settings, LIFT, "recall"))
        began = tables.read(settings, BAN, columns=["recall"], where=pads.field("ends").is_null())
        self.banned = Counter(began["recall"].to_pylist())
        self.members = Counter(_column(settings, CURRICULUM, "curriculum"))
        self.curricula = tables.batches(settings, CURRICULUM)
        said = tables.read(settings, REVIEW, columns=["row_id", "verdict", "label", "reviewer"])
        self.reviews = {(row.pop("row_id").hex(), *row.values()) for row in said.to_pylist()}
        verdicts = tables.read(settings, VERDICT, columns=["table", "version"]).to_pylist()
        self.judged = {f"{verdict['table']}@{verdict['version']}" for verdict in verdicts}
        self.withdrawn = set(tables.withdrawn(settings, CURRICULUM))

    def rows(self, book: str, run_id: str) -> int | None:
        """How many rows a run has in a book; None where they lie in a damaged file."""
        return self._rows[book].get(run_id)

    def _counted(
        self, settings: Settings, book: TableSpec, done: Sequence[Mapping[str, Any]]
    ) -> dict[str, int]:
        """Rows per run. Of a damaged book: of each run that can do without the damaged file."""
        mine = [run["run_id"] for run in done if run["job"] in _OF_RUNS[book]]
        try:
            return dict.fromkeys(mine, 0) | Counter(_column(settings, book, "run_id"))
        except Damaged as error:
            self.damaged.append(str(error))
        counted: dict[str, int] = {}
        for run_id in mine:
            with suppress(Damaged):
                where = pads.field("run_id") == run_id
                counted[run_id] = tables.read(settings, book, columns=["run_id"], where=where).num_rows
        return counted

    def stood(self, name: str, alias: str, at: dt.datetime, *, on: int) -> bool:
        """Did an alias stand on a version at a time, or was it moved there later?

        The clock that timed the move may go before that which timed the run; a move between that is lost is a
        gap.
        """
        mine = [event for event in self.events if (event.name, event.alias) == (name, alias)]
        before = [event for event in mine if event.at <= at]
        stood = before[-1].to_version if before else 0
        return stood == on or any(event.at > at and event.to_version == on for event in mine)


def _missing(run: dict[str, Any], held: _Held) -> Iterator[str]:
    """What a finished run wrote, and no book holds."""
    for output in run["outputs"]:
        if output.startswith(("model:", "checkpoint:")) and output not in held.outputs:
            yield f"made {output}, which '{output.partition(':')[0]}s' does not hold"
    if run["job"] in _WROTE:
        yield from _WROTE[run["job"]](run, held)


def _of_gate(run: dict[str, Any], held: _Held) -> Iterator[str]:
    if run["inputs"][0] not in held.judged:
        yield f"judged {run['inputs'][0]}, but 'verdicts' holds no verdict on it"


def _of_curriculum(run: dict[str, Any], held: _Held) -> Iterator[str]:
    if not held.withdrawn & set(run["outputs"]):
        yield from _short("curricula", held.members[run["facets"]["curriculum"]], run["counts"]["out"])
    if run["run_id"] in held.curricula:
        yield from _short("exclusions", held.rows("exclusions", run["run_id"]), run["counts"]["excluded"])


def _of_training(run: dict[str, Any], held: _Held) -> Iterator[str]:
    yield from _short("consumption", held.rows("consumption", run["run_id"]), run["counts"]["eaten"])
    yield from _short("plans", held.rows("plans", run["run_id"]), run["counts"]["rows"])


def _of_evaluation(run: dict[str, Any], held: _Held) -> Iterator[str]:
    yield from _short("predictions", held.rows("predictions", run["run_id"]), run["counts"]["rows"])
    yield from _short("reports", held.rows("reports", run["run_id"]), len(run["facets"]))


def _of_review(run: dict[str, Any], held: _Held) -> Iterator[str]:
    facets = run["facets"]
    word = (facets["verdict"], facets["label"], facets["reviewer"])
    stored = sum((row_id, *word) in held.reviews for row_id in facets["rows"])
    yield from _short("reviews", stored, run["counts"]["rows"])


def _of_promotion(run: dict[str, Any], held: _Held) -> Iterator[str]:
    yield from _not_left(run, held, ["candidate"] + ["champion"] * run["facets"]["promoted"])


def _of_rollback(run: dict[str, Any], held: _Held) -> Iterator[str]:
    yield from _not_left(run, held, ["champion"])


def _not_left(run: dict[str, Any], held: _Held, moved: Sequence[str]) -> Iterator[str]:
    """The aliases of these that did not stand, when the run ended, on the version that it made or took."""
    name, _, version = run["outputs"][0].removeprefix("model:").rpartition("@")
    for alias in moved:
        if not held.stood(name, alias, run["at"], on=int(version)):
            yield f"left '{alias}' of '{name}' on version {version}, of which 'events' says nothing"


def _of_recall(run: dict[str, Any], held: _Held) -> Iterator[str]:
    facets = run["facets"]
    if facets["recall"] not in held.recalls:
        yield f"carried out recall {facets['recall']}, which 'recalls' does not hold"
    yield from _short("bans", held.banned[facets["recall"]], run["counts"]["rows"])
    for alias, was, now in facets["moved"]:
        if (alias, was, now) not in held.recall_moves:
            yield f"moved {alias} from version {was} to {now}, of which 'events' says nothing"


def _of_lift(run: dict[str, Any], held: _Held) -> Iterator[str]:
    recall = run["facets"]["recall"]
    if held.lifts[recall] <= json.loads(run["config"])["lifts"]:
        yield f"lifted recall {recall}, of which 'lifts' says nothing"


_WROTE: Mapping[str, Callable[[dict[str, Any], _Held], Iterator[str]]] = {
    "gate": _of_gate,
    "curriculum": _of_curriculum,
    "finetune": _of_training,
    "train": _of_training,
    "evaluate": _of_evaluation,
    "review": _of_review,
    "promote": _of_promotion,
    "rollback": _of_rollback,
    "recall": _of_recall,
    "lift": _of_lift,
}
"""Job -> what its books must hold, and do not."""


def _short(book: str, stored: int | None, written: int) -> Iterator[str]:
    if stored is not None and stored < written:
        yield f"wrote {written} rows of '{book}', which holds {stored} of them"


def _unleased(settings: Settings, numbers: list[int]) -> list[int]:
    """The row numbers that nobody reserved; leases do not overlap. `numbers` are sorted."""
    leases = tables.read(settings, LEASE, columns=["first", "count"]).sort_by("first").to_pylist()
    free: list[int] = []
    at = 0
    for lease in leases:
        first = bisect_left(numbers, lease["first"], lo=at)
        free += numbers[at:first]
        at = bisect_left(numbers, lease["first"] + lease["count"], lo=first)
    return free + numbers[at:]


def _gaps(settings: Settings, name: str) -> Iterator[str]:
    """Moves of a model's aliases that do not begin where the move before them ended."""
    stood: dict[str, int] = {}
    for event in models.events(settings, name):
        if event.from_version != stood.get(event.alias, 0):
            yield (
                f"'{name}@{event.alias}' moved from version {event.from_version} in run {event.run_id}, but "
                f"stood on {stood.get(event.alias, 0)}: a move between is not on record"
            )
        stood[event.alias] = event.to_version


def _column(settings: Settings, book: TableSpec, name: str) -> list[Any]:
    return tables.read(settings, book, columns=[name])[name].to_pylist()


def aliases(settings: Settings) -> Findings:
    """Every alias resolves down to a checkpoint, and stands in MLflow where we set it."""
    found: list[str] = []
    standing = [f"{name}@{alias}" for name, moved in models.aliases(settings).items() for alias in moved]
    for reference in standing:
        try:
            models.resolve(settings, reference)
        except models.ModelError as error:
            found.append(f"{reference}: {error}")
    for name in models.aliases(settings):
        registry.if_reachable(lambda name=name: found.extend(astray(settings, name)))
    return len(standing), found


def mirrored(settings: Settings) -> Findings:
    """MLflow shows every registered version, with the tags that the lake's record gives it."""
    looked_at, found = 0, []
    for name, versions in Counter(version.name for version in models.versions(settings)).items():
        if registry.if_reachable(lambda name=name: found.extend(mirror.differences(settings, name))):
            looked_at += versions
    return looked_at, found


def recalls(settings: Settings) -> Findings:
    """What was called back is out of reach, and every recall and lift was carried out to its end."""
    found: list[str] = []
    gone = bans.banned(settings)
    refused, ordered = bans.standing(settings), bans.recalls(settings)
    ordered_at = {each.id: each.at for each in ordered}
    for spec in ROW_TABLES:
        rows = tables.read(settings, spec)
        numbers, times = rows["row_no"].to_pylist(), rows["extracted_at"].to_pylist()
        # What was stored before and has a banned value is told below, by what the recall reaches.
        new = Bans(by_value=refused.by_value).refused(rows, spec)
        back = {place: recall for place, recall in new.items() if times[place] >= ordered_at[recall]}
        back |= _copies(settings, rows, spec, ordered_at)
        back |= replace(refused, by_payload={}, by_value=()).refused(rows, spec)
        found += [
            f"{spec.name}: row {row_no} is banned by recall {gone[row_no]} and still stored; "
            "finish the recall: give its command again"
            for row_no in numbers
            if row_no in gone
        ]
        found += [
            f"{spec.name}: row {numbers[place]} is banned by recall {recall} and stored again"
            for place, recall in sorted(back.items())
            if numbers[place] not in gone
        ]
    for name, standing in models.aliases(settings).items():
        reached = models.recalled_versions(settings, name)
        found += [
            f"alias '{alias}' of '{name}' stands on version {version}, which ate rows that were recalled"
            for alias, version in standing.items()
            if version in reached
        ]
    for recall in ordered:
        fallen = impact(settings, recall.selector).rows
        if recall.selector.on_values() is None:  # what came later and is like it, nobody has recalled
            fallen = details(settings, fallen, ["extracted_at"])
            fallen = fallen.filter(pc.less_equal(fallen["extracted_at"], pa.scalar(recall.at)))
        missed = [row_no for row_no in fallen["row_no"].to_pylist() if row_no not in gone]
        if missed:
            found.append(f"recall {recall.id} reaches {len(missed)} rows that are not banned; give it again")
    falls, known = fallen_now(settings), graph(settings)
    for recall, numbers in bans.numbers_by_recall(settings).items():
        mine = np.asarray(numbers.to_array()).astype(np.int64)
        over = mine[(known.positions(mine) >= 0) & ~np.isin(mine, falls)]
        if len(over):
            found.append(
                f"recall {recall} bans {len(over)} rows, as {over[0]}, that fall no more since another was "
                "lifted; finish that lift: give its command again"
            )
    for recall in bans.all_recalls(settings):
        out = not_back(settings, recall) if recall.lift else 0
        if out:
            found.append(
                f"recall {recall.id} was lifted, but {out} of its rows are not back; "
                f"finish it: stemma recall --lift {recall.id} --reason TEXT"
            )
    return len(gone), found


def _copies(
    settings: Settings, rows: pa.Table, spec: TableSpec, ordered_at: Mapping[str, dt.datetime]
) -> dict[int, str]:
    """Position -> recall, of rows that say what was banned before they came.

    Equal rows from elsewhere that were stored before the ban are no copies: a clean one stays. Between order
    and ban a recall may have been cut off; what banned is the run that went on with it.
    """
    starts = tables.read(settings, RUN, columns=["run_id", "at"], where=pads.field("status") == "START")
    began = dict(zip(*(column.to_pylist() for column in starts.columns), strict=True))
    since: dict[bytes, list[tuple[dt.datetime, str]]] = {}
    of_table = (pads.field("table") == spec.name) & pads.field("payload_digest").is_valid()
    for ban in bans.ban_rows(settings, where=of_table).to_pylist():
        ordered = ordered_at[ban["recall"]]
        at = max(ordered, began.get(ban["run_id"], ordered))
        since.setdefault(ban["payload_digest"], []).append((at, ban["recall"]))
    found: dict[int, str] = {}
    told = rows.select([*bans.TAUGHT[spec.name], "extracted_at"]).to_pylist() if since else ()
    for place, row in enumerate(told):
        for at, recall in since.get(bans.payload_digest(row, spec), ()):
            if row["extracted_at"] >= at:
                found.setdefault(place, recall)
    return found


def astray(settings: Settings, name: str) -> list[str]:
    """What is wrong with a model's aliases in MLflow. Raises RegistryError when it cannot be asked."""
    return models.moved_by_hand(settings, name) + models.behind(settings, name)


def _complete_runs(settings: Settings) -> list[dict[str, Any]]:
    rows = tables.read(settings, RUN, where=pads.field("status") == "COMPLETE").to_pylist()
    told = ("inputs", "outputs", "counts")
    return [row | {n: json.loads(row[n]) for n in told} | {"facets": measured(row)} for row in rows]


def _rows_per_work(settings: Settings, book: TableSpec) -> Counter[str]:
    """Rows of a book per run identity, whatever the attempt."""
    ids = tables.read(settings, book, columns=["run_id"])["run_id"].to_pylist()
    return Counter(identity_of(run_id) for run_id in ids)
