"""What reached models wrote: their answers become rows, the rows become models, and so on down.

    rows that fall --eaten--> versions --wrote--> rows --with what falls--> ... until nothing is added

A version wrote a row that names it as its generator: `name` in revision `version`, or `name@version` in one
word, as the readers leave it. Derived rows inherit the name, so only the first of each line is asked. What
was stored before the version was registered is not its work: others may call a model of theirs the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
from pyroaring import BitMap64

from infra.settings import Settings
from lineage import tables
from lineage.consumption import bitmaps
from lineage.graph import RowGraph
from lineage.schemas import MODEL
from lineage.selectors import Selector


@dataclass(frozen=True, order=True)
class Eater:
    """A model version whose checkpoint ate some rows."""

    name: str
    version: int
    since: dt.datetime
    """When it was registered."""

    @property
    def written(self) -> Selector:
        """The rows that name it as their generator."""
        return Selector(generator=f"{self.name}@{self.version}")


@dataclass(frozen=True)
class Reach:
    """What falls when what reached models wrote falls, too."""

    fallen: np.ndarray
    """bool (rows)."""

    generations: int
    """How often it went on from models to what they wrote; 0: they wrote nothing that falls only so."""


def follow(
    settings: Settings, rows: RowGraph, direct: np.ndarray, fall: Callable[[np.ndarray], np.ndarray]
) -> Reach:
    """From the rows that fall by themselves, bool (rows), to those that fall through models.

    `fall` gives, for rows that are bad beside the seeds, all that falls with both.
    """
    fallen, generations = direct, 0
    written, asked = np.zeros(len(direct), bool), frozenset[Eater]()
    while True:
        new = frozenset(eaters(settings, rows.numbers[fallen].astype(np.uint64))) - asked
        fresh = _written_by(rows, new) & ~fallen
        if not fresh.any():
            return Reach(fallen, generations)
        written, asked = written | fresh, asked | new
        fallen, generations = fall(written), generations + 1


def eaters(settings: Settings, row_nos: Iterable[int]) -> list[Eater]:
    """The model versions whose checkpoints ate any of these rows, sorted."""
    eaten = BitMap64(row_nos)
    hit = {checkpoint for checkpoint, rows in bitmaps(settings).items() if not rows.isdisjoint(eaten)}
    versions = tables.read(settings, MODEL, columns=["name", "version", "run_id", "step", "at"]).to_pylist()
    return sorted(
        Eater(each["name"], each["version"], each["at"])
        for each in versions
        if (each["run_id"], each["step"]) in hit
    )


def _written_by(rows: RowGraph, versions: Collection[Eater]) -> np.ndarray:
    """The rows that these versions wrote: bool (rows)."""
    wrote = np.zeros(len(rows.numbers), bool)
    named = _generators(rows) if versions else {}
    for version in sorted(versions):
        for generator, revision in named.get(f"{version.name}@{version.version}", ()):
            mine = (rows.column("generator").codes == generator) & (
                rows.column("generator_revision").codes == revision
            )
            inherits = mine[rows.edges.children] & mine[rows.edges.parents]
            own = mine & (rows.extracted_at >= np.datetime64(version.since.replace(tzinfo=None), "us"))
            own[rows.edges.children[inherits]] = False
            wrote |= own
    return wrote


def _generators(rows: RowGraph) -> dict[str, list[tuple[int, int]]]:
    """NAME@REVISION, and NAME alone -> the codes of generator and revision that say so."""
    names, revisions = rows.column("generator"), rows.column("generator_revision")
    if not len(rows.numbers):
        return {}
    is_there = np.zeros(len(names.values) * len(revisions.values), bool)
    is_there[names.codes.astype(np.int64) * len(revisions.values) + revisions.codes] = True
    found: dict[str, list[tuple[int, int]]] = {}
    for place in np.flatnonzero(is_there).tolist():
        codes = divmod(place, len(revisions.values))
        name, revision = names.values[codes[0]], revisions.values[codes[1]]
        for said in (name, f"{name}@{revision}"):
            found.setdefault(said, []).append(codes)
    return found
