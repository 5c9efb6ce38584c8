"""Curriculum: an immutable selection of example rows, and what it left out.

It has slices, weights and a Merkle root.

gold     corrected failures (at a cold start: what the source states)
hard     passes nearest to the boundary: those that their neighbours agree with least
replay   rows of the parent's curriculum, so that what was learnt is not forgotten
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field, model_validator

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.heed import Heeded, heed
from lineage.merkle import merkle_root
from lineage.rows import rows_digest
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import CURRICULUM, EXAMPLE, EXCLUSION
from lineage.tables import TableError, TableVersion
from lineage.tasks import Task


class CurriculumError(TableError):
    """A curriculum cannot be made or found; the message says why."""


class DataRecipe(BaseModel):
    """The data part of a recipe: which admitted examples, in which shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = ("*",)
    """Patterns that one of must match a row's source."""

    tasks: tuple[Task, ...] | None = Field(default=None, min_length=1)
    """Only examples of these tasks, the parent's rows included; none: all."""

    parent: str | None = None
    """Root of the curriculum whose rows are replayed; none: a cold start, all of it gold."""

    gold_share: float = Field(default=0.52, gt=0, lt=1)
    """Share of corrected failures. D3: 0.40 to 0.60."""

    hard_share: float = Field(default=0.31, ge=0, lt=1)
    """Share of passes near the boundary. D3: 0.25 to 0.35. The rest is replay; D3: 0.10 to 0.20."""

    max_rows: int = Field(default=3000, ge=1)
    """At most so many rows. D5: accuracy falls after growth; a search may find less is more."""

    max_label_ratio: float = Field(default=3.0, ge=1)
    """No label is taken more than this many times as often as the rarest. D4: 3. Only classification has
    labels: what other tasks answer is neither rare nor frequent."""

    min_label_rows: int = Field(default=2, ge=1)
    """A label with fewer rows is left out: one slip of a hand must not decide how often others are taken."""

    seed: int = 0
    """Which rows are taken where there are more than needed."""

    @model_validator(mode="after")
    def _leaves_room_for_replay(self) -> DataRecipe:
        if self.replay_share < 0:
            raise ValueError(
                f"gold_share + hard_share is {self.gold_share + self.hard_share:.3f}, more than 1"
            )
        return self

    @property
    def replay_share(self) -> float:
        """Share of the parent's rows."""
        return round(1 - self.gold_share - self.hard_share, 6)


@dataclass(frozen=True)
class Curriculum:
    """One selection: its root names it."""

    root: str
    members: pa.Table
    """Rows of `curricula`, sorted by row_id."""

    version: TableVersion

    @property
    def slices(self) -> dict[str, int]:
        """Rows per slice."""
        return dict(sorted(Counter(self.members["slice"].to_pylist()).items()))


def curriculum_root(members: Sequence[tuple[bytes, str, float]]) -> str:
    """Merkle root over (row_id, slice, weight), sorted by row_id."""
    return merkle_root(
        [
            b"|".join((row_id, name.encode(), repr(weight).encode()))
            for row_id, name, weight in sorted(members)
        ]
    )


def root_of(members: pa.Table) -> str:
    """The root that members of one curriculum, rows of `curricula` in any order, have by what is stored."""
    columns = (members[name].to_pylist() for name in ("row_id", "slice", "weight"))
    return curriculum_root(list(zip(*columns, strict=True)))


def build(runtime: Runtime, recipe: DataRecipe, *, parent: Run | None = None) -> Outcome:
    """Select a curriculum from what is admitted now and store it with its exclusions, as a Run.

    The outcome's facets hold `curriculum`, its root. Raises CurriculumError when nothing can be selected.
    """
    settings = runtime.settings
    examples = _candidates(settings, recipe)
    heeded = heed(settings, examples)

    def work(run: Run) -> Outcome:
        chosen, excluded = select(
            heeded.left(examples),
            recipe,
            replayed=_replayed(settings, recipe),
            approved=heeded.approved,
        )
        if not chosen:
            raise CurriculumError(
                f"no rows are left of {examples.num_rows} admitted examples; see the recipe's shares"
            )
        return _store(settings, examples, chosen, excluded | dict(heeded.left_out), run)

    return carry_out(
        runtime,
        "curriculum",
        config=recipe.model_dump(),
        inputs=_named(examples, heeded),
        work=work,
        parent=parent,
    )


def inputs(settings: Settings, recipe: DataRecipe) -> list[str]:
    """What a recipe can select from now, as the input of a job that goes by it. Raises CurriculumError."""
    examples = _candidates(settings, recipe)
    return _named(examples, heed(settings, examples))


def _named(examples: pa.Table, heeded: Heeded) -> list[str]:
    return [f"examples:{rows_digest(examples['row_id'].to_pylist())}", *heeded.inputs]


def load(settings: Settings, root: str) -> Curriculum:
    """The curriculum that a prefix of its root names. Raises CurriculumError."""
    found = tables.read(settings, CURRICULUM)
    roots = sorted({name for name in found["curriculum"].unique().to_pylist() if name.startswith(root)})
    if len(roots) != 1:
        several = (
            f"could be any of: {', '.join(r[:16] for r in roots[:8])}" if roots else "names no curriculum"
        )
        raise CurriculumError(f"'{root}' {several}")
    members = found.filter(pa.compute.equal(found["curriculum"], roots[0])).sort_by("row_id")
    batch = tables.batches(settings, CURRICULUM)[members["run_id"][0].as_py()]
    return Curriculum(roots[0], members, batch)


def select(
    examples: pa.Table,
    recipe: DataRecipe,
    *,
    replayed: frozenset[bytes],
    approved: frozenset[bytes] = frozenset(),
) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """(row_id -> slice, row_id -> reason it was left out) for training examples.

    Those that a person approved come first in `hard`, whatever their score. Pure; order of rows does not
    matter.
    """
    told = examples.select(["row_id", "kind", "task", "answer", "score"]).to_pylist()
    rows = sorted(told, key=lambda row: row["row_id"])
    order = np.random.Generator(np.random.PCG64(recipe.seed)).permutation(len(rows))
    rows = [rows[index] for index in order]
    pools: dict[str, list[dict[str, Any]]] = {"gold": [], "hard": [], "replay": []}
    excluded: dict[bytes, str] = {}
    for row in rows:
        slice_name = _slice(row, recipe, replayed)
        if slice_name is None:
            excluded[row["row_id"]] = "not_of_the_parent"
        else:
            pools[slice_name].append(row)
    scores = {row["row_id"]: 1.0 if row["score"] is None else row["score"] for row in pools["hard"]}
    pools["hard"].sort(key=lambda row: (row["row_id"] not in approved, scores[row["row_id"]]))
    taken = _take(pools, recipe)
    chosen = {row["row_id"]: name for name, members in taken.items() for row in members}
    labels = {row["row_id"]: label for rows in taken.values() for row in rows if (label := _label(row))}
    for reason, dropped in _unbalanced(labels, recipe).items():
        for row_id in dropped:
            del chosen[row_id]
            excluded[row_id] = reason
    for name, members in pools.items():
        excluded.update(
            {r["row_id"]: f"{name}_is_full" for r in members if r["row_id"] not in chosen | excluded}
        )
    return chosen, excluded


def _slice(row: Mapping[str, Any], recipe: DataRecipe, replayed: frozenset[bytes]) -> str | None:
    if recipe.parent is None:
        return "gold"
    if row["row_id"] in replayed:
        return "replay"
    return {"corrected": "gold", "passed": "hard"}.get(row["kind"])


def _take(pools: Mapping[str, list[dict[str, Any]]], recipe: DataRecipe) -> dict[str, list[dict[str, Any]]]:
    """As many rows as the scarcest slice allows at the recipe's shares.

    Labels that have few come first in `hard`.
    """
    if recipe.parent is None:
        return {"gold": _evenly(pools["gold"], recipe.max_rows, Counter()), "hard": [], "replay": []}
    shares = {"gold": recipe.gold_share, "hard": recipe.hard_share, "replay": recipe.replay_share}
    total = min(
        [recipe.max_rows, *(int(len(pools[name]) / share) for name, share in shares.items() if share > 0)]
    )
    taken = {"gold": pools["gold"][: round(total * shares["gold"])]}
    taken["replay"] = _evenly(pools["replay"], round(total * shares["replay"]), Counter())
    so_far = Counter(_label(row) for members in taken.values() for row in members)
    taken["hard"] = _evenly(pools["hard"], round(total * shares["hard"]), so_far)
    return taken


def _evenly(pool: Sequence[dict[str, Any]], count: int, so_far: Counter[str]) -> list[dict[str, Any]]:
    """`count` rows, each time from the label that has fewest so far; within a label in the pool's order."""
    waiting: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
    for row in pool:
        waiting[_label(row)].append(row)
    have, taken = Counter(so_far), []
    while waiting and len(taken) < count:
        label = min(waiting, key=lambda name: (have[name], name))
        taken.append(waiting[label].popleft())
        have[label] += 1
        if not waiting[label]:
            del waiting[label]
    return taken


def _label(row: Mapping[str, Any]) -> str:
    """What a row is balanced by: its label, or nothing where answers are no labels, all of them alike."""
    return row["answer"] if row["task"] == "classification" else ""


def _unbalanced(labels: Mapping[bytes, str], recipe: DataRecipe) -> dict[str, list[bytes]]:
    """Reason -> rows to drop: of labels too rare to count, and of labels that outweigh the rarest."""
    by_label: dict[str, list[bytes]] = defaultdict(list)
    for row_id, label in labels.items():
        by_label[label].append(row_id)
    enough = {
        label: rows for label, rows in by_label.items() if len(rows) >= recipe.min_label_rows
    } or by_label
    rare = [row_id for label, rows in by_label.items() if label not in enough for row_id in rows]
    most = int(min(map(len, enough.values()), default=0) * recipe.max_label_ratio)
    return {"rare_label": rare, "label_ratio": [row_id for rows in enough.values() for row_id in rows[most:]]}


def _candidates(settings: Settings, recipe: DataRecipe) -> pa.Table:
    where = pads.field("split") == "train"
    if recipe.tasks is not None:
        where &= pads.field("task").isin(recipe.tasks)
    examples = verdicts.read_admitted(settings, EXAMPLE, where=where)
    uris = examples["source_uri"].to_pylist()
    matches = {uri: any(fnmatchcase(uri, pattern) for pattern in recipe.sources) for uri in set(uris)}
    found = examples.filter(pa.array([matches[uri] for uri in uris], pa.bool_()))
    if recipe.parent is not None:
        parent = frozenset(load(settings, recipe.parent).members["row_id"].to_pylist())
        replayed = examples.filter(
            pa.array([row_id in parent for row_id in examples["row_id"].to_pylist()], pa.bool_())
        )
        known = set(found["row_id"].to_pylist())
        missing = [row_id not in known for row_id in replayed["row_id"].to_pylist()]
        found = pa.concat_tables([found, replayed.filter(pa.array(missing, pa.bool_()))])
    if not found.num_rows:
        of = "" if recipe.tasks is None else f" of {' or '.join(recipe.tasks)}"
        raise CurriculumError(
            f"no admitted training examples{of} match {list(recipe.sources)}; run: stemma curate"
        )
    return found


def _replayed(settings: Settings, recipe: DataRecipe) -> frozenset[bytes]:
    return (
        frozenset()
        if recipe.parent is None
        else frozenset(load(settings, recipe.parent).members["row_id"].to_pylist())
    )


def _store(
    settings: Settings,
    examples: pa.Table,
    chosen: Mapping[bytes, str],
    excluded: Mapping[bytes, str],
    run: Run,
) -> Outcome:
    facts = {
        row["row_id"]: row for row in examples.select(["row_id", "row_no", "answer", "text"]).to_pylist()
    }
    root = curriculum_root([(row_id, name, 1.0) for row_id, name in chosen.items()])
    key = f"curriculum:{root}"
    counts = {"in": len(facts), "out": len(chosen), "excluded": len(excluded)}
    counts |= {f"slice_{name}": n for name, n in sorted(Counter(chosen.values()).items())}
    if not tables.is_stored(settings, key, into=CURRICULUM):
        members = [
            facts[row_id] | {"curriculum": root, "slice": name, "weight": 1.0, "run_id": run.id}
            for row_id, name in sorted(chosen.items())
        ]
        left_out = [
            {
                "curriculum": root,
                "row_id": row_id,
                "row_no": facts[row_id]["row_no"],
                "reason": reason,
                "run_id": run.id,
            }
            for row_id, reason in sorted(excluded.items())
        ]
        tables.replace(
            settings, pa.Table.from_pylist(left_out, schema=EXCLUSION.schema), into=EXCLUSION, run_id=run.id
        )
        table = pa.Table.from_pylist(members, schema=CURRICULUM.schema)
        file = tables.write_file(settings, table, into=CURRICULUM, name=run.id)
        tables.commit(settings, [file], into=CURRICULUM, run_id=run.id, keys=[key])
    version = tables.batch_with(settings, key, into=CURRICULUM)
    return Outcome((str(version),), counts, {"curriculum": root})
