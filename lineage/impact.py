"""Impact: what a bad value, source or row reaches: rows, curricula, runs, checkpoints, models and aliases.

    seeds (what the selector means) --derivation--> rows that fall --eaten--> checkpoints --named--> aliases

A row falls when one of its joint parents falls, or all of its alternatives do: of equal copies a clean one
suffices. What reached models wrote, and what came of that, is told apart (lineage.generations).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyroaring import BitMap64

from infra.settings import Settings
from lineage import models, tables
from lineage.bans import recall_id
from lineage.consumption import Checkpoint, bitmaps, checkpoints
from lineage.generations import follow
from lineage.schemas import BAN, CONSUMPTION, CURRICULUM, PREDICTION, PROVENANCE, ROW_TABLES, RUN
from lineage.selectors import Selector, SelectorError, check_sql, known_values, matching, resolved

_COLUMNS = [column.name for column in PROVENANCE]


@dataclass(frozen=True)
class ReachedCurriculum:
    """A curriculum that holds reached rows."""

    curriculum: str
    rows: int
    of: int


@dataclass(frozen=True)
class ReachedRun:
    """A run that wrote, selected, ate or scored reached rows."""

    run_id: str
    job: str
    rows: int


@dataclass(frozen=True)
class ReachedCheckpoint:
    """A checkpoint that ate reached rows."""

    run_id: str
    step: int
    rows: int
    of: int
    slots: int
    """How often it ate one of them; `of_slots` counts all it ate."""

    of_slots: int
    first_contact: int
    """The first step, from 0, that ate one; the state before that step is clean."""

    @property
    def share(self) -> float:
        """Reached rows among the rows it ate."""
        return self.rows / self.of


@dataclass(frozen=True)
class ReachedModel:
    """A registered version of a reached checkpoint, and the aliases that stand on it."""

    name: str
    version: int
    run_id: str
    step: int
    aliases: tuple[str, ...]

    def __str__(self) -> str:
        """The version as `name@version`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Written:
    """What is reached only through models: they ate reached rows and wrote new ones."""

    rows: pa.Table
    """Columns as of Impact.rows."""

    curricula: tuple[ReachedCurriculum, ...]
    checkpoints: tuple[ReachedCheckpoint, ...]
    models: tuple[ReachedModel, ...]
    generations: int
    """How often it went on from models to what they wrote: 1 where only directly reached ones wrote rows."""

    @property
    def by_table(self) -> dict[str, int]:
        """Rows per table."""
        return _by_table(self.rows)

    def as_json(self) -> dict[str, Any]:
        """Stable keys: generations, rows, curricula, checkpoints, models, aliases, row_ids."""
        return {"generations": self.generations, "rows": self.by_table} | _as_json(self)


@dataclass(frozen=True)
class Impact:
    """The blast radius of a selector."""

    selector: Selector
    rows: pa.Table
    """table, row_id, row_no, derivation, prompt_name, prompt_version, source_revision, source_span, run_id,
    parent_nos, extracted_at; `meant`: by the selector itself, not only derived from such a row; `stored`: in
    its table's newest version, not taken out by a recall; `written`: reached only through models. Sorted by
    row_no."""

    stored: dict[str, int]
    """Rows ever stored, per table: what the reached rows are a part of."""

    standing: int
    """Rows of all tables' newest versions."""

    curricula: tuple[ReachedCurriculum, ...]
    runs: tuple[ReachedRun, ...]
    checkpoints: tuple[ReachedCheckpoint, ...]
    models: tuple[ReachedModel, ...]
    written: Written | None = None
    """What is reached only through models, or None; part of the rest where the selector goes through them."""

    @property
    def by_table(self) -> dict[str, int]:
        """Reached rows per table."""
        return _by_table(self.rows)

    @property
    def is_everything(self) -> bool:
        """Would no row be left?"""
        return pc.sum(self.rows["stored"]).as_py() == self.standing

    def as_json(self) -> dict[str, Any]:
        """Keys: selector, rows, of, runs, curricula, checkpoints, models, aliases, row_ids, written."""
        return {
            "selector": self.selector.as_json(),
            "rows": self.by_table,
            "of": self.stored,
            "runs": [asdict(each) for each in self.runs],
            **_as_json(self),
            "written": self.written.as_json() if self.written else None,
        }


def impact(settings: Settings, selector: Selector) -> Impact:
    """The blast radius, over all rows that were ever stored: what was recalled before is still shown.

    Raises SelectorError where the selector means no row.
    """
    if selector.where is not None:
        check_sql(settings, selector.where)
    selector = resolved(settings, selector)
    every, stored, standing, generations = _fallen(settings, selector)
    if not every.num_rows:
        raise SelectorError(_nothing(settings, selector))
    direct = every.filter(pc.invert(every["written"]))
    rows = every if selector.through_models else direct
    numbers = rows["row_no"].combine_chunks()
    curricula, curriculum_runs = _curricula(settings, numbers)
    eaten = _checkpoints(settings, numbers)
    wrote = Counter(rows["run_id"].to_pylist()) + curriculum_runs
    wrote += Counter({each.run_id: each.rows for each in eaten})
    wrote += _scored_on(settings, numbers)
    named, runs = _models(settings, eaten), _runs(settings, wrote)
    written = _written(settings, every, generations) if generations else None
    return Impact(selector, rows, stored, standing, curricula, runs, eaten, named, written)


def falls(seeds: np.ndarray, children: np.ndarray, parents: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Which rows fall with the seeds: bool (rows). Pure.

    `seeds` is bool (rows); an edge goes from row parents[i] to row children[i]; joint[i] says that the child
    needs this parent, else any of its parents suffices. Cycles cannot be stored, and would do no harm.
    """
    fallen = seeds.copy()
    needed = np.bincount(children, minlength=len(seeds))
    while True:
        down = fallen[parents]
        one_joint = np.bincount(children[down & joint], minlength=len(seeds)) > 0
        all_gone = (np.bincount(children[down], minlength=len(seeds)) == needed) & (needed > 0)
        after = fallen | one_joint | all_gone
        if (after == fallen).all():
            return fallen
        fallen = after


def _fallen(settings: Settings, selector: Selector) -> tuple[pa.Table, dict[str, int], int, int]:
    """The rows that fall, through models too; rows ever stored in each table, and now in all; generations."""
    again = pads.field("recall") == recall_id(selector)
    before = tables.read(settings, BAN, columns=["row_no"], where=again)["row_no"].combine_chunks()
    meant_before = before.slice(0, 0) if selector.through_models else before  # may have fallen through models
    parts, meant = [], []
    for spec in ROW_TABLES:
        rows = tables.read_ever(settings, spec, columns=_COLUMNS)
        meant.append(pc.or_(matching(settings, selector, spec, rows), pc.is_in(rows["row_no"], meant_before)))
        rows = rows.append_column("table", pa.array([spec.name] * rows.num_rows, pa.string()))
        now = tables.read(settings, spec, columns=["row_no"])["row_no"].combine_chunks()
        parts.append(rows.append_column("stored", pc.is_in(rows["row_no"], now)))
    rows = pa.concat_tables(parts).append_column("meant", pa.chunked_array(_chunks(meant), pa.bool_()))
    stored = {spec.name: part.num_rows for spec, part in zip(ROW_TABLES, parts, strict=True) if part.num_rows}
    numbers, seeds, edges = rows["row_no"].to_numpy(), rows["meant"].to_numpy(), _edges(rows)

    def fall(more: np.ndarray) -> np.ndarray:
        return numbers[falls(seeds | np.isin(numbers, more), *edges)]

    direct = fall(np.zeros(0, np.int64))
    reach = follow(settings, direct, fall)
    rows = rows.append_column("written", pa.array(~np.isin(numbers, direct)))
    wanted = ["table", "row_id", "row_no", "derivation", "prompt_name", "prompt_version"]
    wanted += ["source_revision", "source_span", "run_id", "parent_nos", "extracted_at"]
    wanted += ["meant", "stored", "written"]
    standing = pc.sum(rows["stored"]).as_py() or 0
    fallen = rows.select(wanted).filter(pa.array(np.isin(numbers, np.union1d(reach.row_nos, before))))
    return fallen.sort_by("row_no"), stored, standing, reach.generations


def _meant(settings: Settings, selector: Selector) -> int:
    """How many rows a selector means by itself."""
    rows = ((spec, tables.read_ever(settings, spec, columns=_COLUMNS)) for spec in ROW_TABLES)
    return sum(matching(settings, selector, spec, each).true_count for spec, each in rows)


def _chunks(arrays: Iterable[pa.Array | pa.ChunkedArray]) -> list[pa.Array]:
    found: list[pa.Array] = []
    for array in arrays:
        found += array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    return found


def _edges(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of child and parent per edge, and whether the child needs that parent."""
    rows = rows.select(["row_no", "parent_nos", "derivation"]).combine_chunks()
    numbers = rows["row_no"].to_numpy()
    order = np.argsort(numbers, kind="stable")
    lengths = pc.list_value_length(rows["parent_nos"]).to_numpy()
    children = np.repeat(np.arange(len(numbers)), lengths)
    named = pc.list_flatten(rows["parent_nos"]).to_numpy()
    at = np.searchsorted(numbers, named, sorter=order)
    parents = order[np.minimum(at, len(numbers) - 1)] if len(numbers) else at
    known = numbers[parents] == named if len(numbers) else np.zeros(0, bool)  # fsck names a parent not stored
    joint = (rows["derivation"].to_numpy(zero_copy_only=False) != "alternative")[children]
    return children[known], parents[known], joint[known]


def _written(settings: Settings, every: pa.Table, generations: int) -> Written:
    """What every reached row leads to, and those that are reached directly do not."""
    numbers = every["row_no"].combine_chunks()
    direct = every.filter(pc.invert(every["written"]))["row_no"].combine_chunks()
    holding = {each.curriculum for each in _curricula(settings, direct)[0]}
    ate = {(each.run_id, each.step) for each in _checkpoints(settings, direct)}
    curricula = [each for each in _curricula(settings, numbers)[0] if each.curriculum not in holding]
    eaten = [each for each in _checkpoints(settings, numbers) if (each.run_id, each.step) not in ate]
    rows = every.filter(every["written"])
    return Written(rows, tuple(curricula), tuple(eaten), _models(settings, eaten), generations)


def _curricula(
    settings: Settings, numbers: pa.Int64Array
) -> tuple[tuple[ReachedCurriculum, ...], Counter[str]]:
    members = tables.read(settings, CURRICULUM, columns=["curriculum", "row_no", "run_id"])
    hit = members.filter(pc.is_in(members["row_no"], numbers))
    size = Counter(members["curriculum"].to_pylist())
    reached = Counter(hit["curriculum"].to_pylist())
    found = [ReachedCurriculum(root, rows, size[root]) for root, rows in reached.most_common()]
    return tuple(found), Counter(hit["run_id"].to_pylist())


def _scored_on(settings: Settings, numbers: pa.Int64Array) -> Counter[str]:
    """Evaluation run -> reached rows among the items that it scored."""
    mine = pads.field("row_no").isin(numbers)
    return Counter(tables.read(settings, PREDICTION, columns=["run_id"], where=mine)["run_id"].to_pylist())


def _checkpoints(settings: Settings, numbers: pa.Int64Array) -> tuple[ReachedCheckpoint, ...]:
    reached = BitMap64(numbers.to_pylist())
    ate = bitmaps(settings)
    hit = {each: ate[each.run_id, each.step] & reached for each in checkpoints(settings)}
    touched: Sequence[Checkpoint] = [each for each, rows in hit.items() if rows]
    if not touched:
        return ()
    names = pa.array(sorted({each.run_id for each in touched}), pa.string())
    columns = ["run_id", "step", "row_no"]
    eaten = tables.read(settings, CONSUMPTION, columns=columns, where=pads.field("run_id").isin(names))
    eaten = eaten.append_column("bad", pc.cast(pc.is_in(eaten["row_no"], numbers), pa.int64()))
    per_step: dict[str, list[tuple[int, int, int]]] = {}  # step, slots, slots with a reached row
    counted = eaten.group_by(["run_id", "step"]).aggregate([("bad", "count"), ("bad", "sum")])
    for row in counted.sort_by("step").to_pylist():
        per_step.setdefault(row["run_id"], []).append((row["step"], row["bad_count"], row["bad_sum"]))
    found: list[ReachedCheckpoint] = []
    for each in touched:
        steps = [step for step in per_step[each.run_id] if step[0] < each.step]
        slots, bad = sum(step[1] for step in steps), sum(step[2] for step in steps)
        first = next(step[0] for step in steps if step[2])
        rows, of = len(hit[each]), len(ate[each.run_id, each.step])
        found.append(ReachedCheckpoint(each.run_id, each.step, rows, of, bad, slots, first))
    return tuple(found)


def _models(settings: Settings, reached: Sequence[ReachedCheckpoint]) -> tuple[ReachedModel, ...]:
    standing = models.aliases(settings)
    states = {(each.run_id, each.step) for each in reached}
    return tuple(
        ReachedModel(
            version.name,
            version.version,
            version.run_id,
            version.step,
            tuple(a for a, n in sorted(standing.get(version.name, {}).items()) if n == version.version),
        )
        for version in models.versions(settings)
        if (version.run_id, version.step) in states
    )


def _runs(settings: Settings, wrote: Counter[str]) -> tuple[ReachedRun, ...]:
    where = pads.field("run_id").isin(pa.array(sorted(wrote), pa.string()))
    events = (
        tables.read(settings, RUN, columns=["run_id", "job", "at"], where=where).sort_by("at").to_pylist()
    )
    jobs = {event["run_id"]: event["job"] for event in events}
    return tuple(ReachedRun(run_id, job, wrote[run_id]) for run_id, job in jobs.items())


def _by_table(rows: pa.Table) -> dict[str, int]:
    counted = Counter(rows["table"].to_pylist())
    return {spec.name: counted[spec.name] for spec in ROW_TABLES if counted[spec.name]}


def _as_json(found: Impact | Written) -> dict[str, Any]:
    return {
        "curricula": [asdict(each) for each in found.curricula],
        "checkpoints": [asdict(each) | {"share": round(each.share, 4)} for each in found.checkpoints],
        "models": [asdict(each) | {"model": str(each)} for each in found.models],
        "aliases": [
            {"alias": f"{each.name}@{alias}", "version": each.version}
            for each in found.models
            for alias in each.aliases
        ],
        "row_ids": {
            name: [row_id.hex() for row_id in _of_table(found.rows, name)["row_id"].to_pylist()]
            for name in found.by_table
        },
    }


def _of_table(rows: pa.Table, name: str) -> pa.Table:
    return rows.filter(pc.equal(rows["table"], name))


def _nothing(settings: Settings, selector: Selector) -> str:
    """What to say where nothing is meant: what could have been."""
    named = list(selector.named)
    sentence = f"no row is meant by {selector}"
    if len(named) > 1:
        parts = [Selector(**{name: getattr(selector, name)}) for name in named]
        alone = ", ".join(f"{part} alone means {_meant(settings, part) or 'no'} rows" for part in parts)
        return f"{sentence} together: {alone}"
    if named[0] not in ("rows", "where"):
        known = known_values(settings, named[0])
        return f"{sentence}; known: {', '.join(known[:12]) or 'none'}{' ...' if len(known) > 12 else ''}"
    return sentence
