"""What reached models wrote: their answers become rows, the rows become models, and so on down.

    rows that fall --eaten--> versions --wrote--> rows --with what falls--> ... until nothing is added

A version wrote a row that names it as its generator: `name` in revision `version`, or `name@version` in one
word, as the readers leave it. Derived rows inherit the name, so only the first of each line is asked. What
was stored before the version was registered is not its work: others may call a model of theirs the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap64

from infra.settings import Settings
from lineage import tables
from lineage.consumption import bitmaps
from lineage.schemas import MODEL, ROW_TABLES
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

    row_nos: np.ndarray
    """int64, each once."""

    generations: int
    """How often it went on from models to what they wrote; 0: they wrote nothing that falls only so."""


def follow(settings: Settings, direct: np.ndarray, fall: Callable[[np.ndarray], np.ndarray]) -> Reach:
    """From the numbers of the rows that fall by themselves to those that fall through models.

    `fall` gives, for row numbers that are bad beside the seeds, all that falls with both: int64, each once.
    """
    reached, generations = direct, 0
    written, asked = np.zeros(0, np.int64), frozenset[Eater]()
    while True:
        new = frozenset(eaters(settings, reached)) - asked
        fresh = np.setdiff1d(_written_by(settings, sorted(new)), reached)
        if not fresh.size:
            return Reach(reached, generations)
        written, asked = np.union1d(written, fresh), asked | new
        reached, generations = fall(written), generations + 1


def eaters(settings: Settings, row_nos: Iterable[int]) -> list[Eater]:
    """The model versions whose checkpoints ate any of these rows, sorted."""
    rows, ate = BitMap64(row_nos), bitmaps(settings)
    hit = {checkpoint for checkpoint, eaten in ate.items() if eaten & rows}
    versions = tables.read(settings, MODEL, columns=["name", "version", "run_id", "step", "at"]).to_pylist()
    return sorted(
        Eater(each["name"], each["version"], each["at"])
        for each in versions
        if (each["run_id"], each["step"]) in hit
    )


def _written_by(settings: Settings, versions: Sequence[Eater]) -> np.ndarray:
    """The numbers of the rows that these versions wrote: int64, each once."""
    found = [np.zeros(0, np.int64)]
    if versions:
        columns = ["row_no", "parent_nos", "extracted_at", "generator", "generator_revision"]
        names_one = reduce(or_, (version.written.on_values() for version in versions))
        naming = pa.concat_tables(
            tables.read_ever(settings, spec, columns=columns, where=names_one) for spec in ROW_TABLES
        )
        found += [_own(naming.filter(version.written.on_values()), version.since) for version in versions]
    return np.unique(np.concatenate(found))


def _own(rows: pa.Table, since: dt.datetime) -> np.ndarray:
    """The numbers of those rows, all naming a version, that do not inherit its name and came after it."""
    rows = rows.combine_chunks()
    inherits = pc.is_in(pc.list_flatten(rows["parent_nos"]), rows["row_no"].combine_chunks())
    heirs = pc.list_parent_indices(rows["parent_nos"]).filter(inherits).to_numpy()
    is_own = pc.greater_equal(rows["extracted_at"], pa.scalar(since)).to_numpy().copy()
    is_own[heirs] = False
    return rows["row_no"].to_numpy()[is_own]
