"""What a selector reaches, as values: rows, curricula, runs, checkpoints, models and their aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lineage.schemas import ROW_TABLES
from lineage.selectors import Selector


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
    """Of these two its bitmap tells; all below is None where the record of its slots is `damaged`."""

    slots: int | None = None
    """How often it ate one of them; `of_slots` counts all it ate."""

    of_slots: int | None = None
    loss_tokens: int | None = None
    """Tokens of those slots that counted in the loss; `of_loss_tokens` counts all."""

    of_loss_tokens: int | None = None
    first_contact: int | None = None
    """The first step, from 0, that ate one; the state before that step is clean."""

    clean_before: int | None = None
    """The last checkpoint of the same run at or before the first contact, by its step; 0: the base model."""

    damaged: str | None = None
    """What is wrong with that record, and what to do."""

    @property
    def share(self) -> float:
        """Reached rows among the rows it ate."""
        return self.rows / self.of

    @property
    def steps_after(self) -> int | None:
        """Steps it took from the first contact on."""
        return None if self.first_contact is None else self.step - self.first_contact


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
    """table, row_id, row_no; `meant`: by the selector itself, not only derived from such a row; `stored`: in
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
    words: Mapping[str, int] = field(default_factory=dict)
    """What its reviewer ever said and a recall takes back, per verdict: approved, rejected, relabelled."""

    written: Written | None = None
    """What is reached only through models, or None; part of the rest where the selector goes through them."""

    @property
    def by_table(self) -> dict[str, int]:
        """Reached rows per table."""
        return _by_table(self.rows)

    @property
    def out(self) -> dict[str, int]:
        """Reached rows per table that a recall took out of it before."""
        return _by_table(self.rows.filter(pc.invert(self.rows["stored"])))

    @property
    def is_everything(self) -> bool:
        """Would no row be left?"""
        return pc.sum(self.rows["stored"]).as_py() == self.standing

    def as_json(self) -> dict[str, Any]:
        """Keys: selector, rows, of, out, words, runs, written, and those of the parts that are reached."""
        return {
            "selector": self.selector.as_json(),
            "rows": self.by_table,
            "of": self.stored,
            "out": self.out,
            "words": dict(self.words),
            "runs": [asdict(each) for each in self.runs],
            **_as_json(self),
            "written": self.written.as_json() if self.written else None,
        }


def _as_json(found: Impact | Written) -> dict[str, Any]:
    return {
        "curricula": [asdict(each) for each in found.curricula],
        "checkpoints": [
            asdict(each) | {"share": round(each.share, 4), "steps_after": each.steps_after}
            for each in found.checkpoints
        ],
        "models": [asdict(each) | {"model": str(each)} for each in found.models],
        "aliases": [
            {"alias": f"{each.name}@{alias}", "version": each.version}
            for each in found.models
            for alias in each.aliases
        ],
        "row_ids": {
            name: [row_id.hex() for row_id in of_table(found.rows, name)["row_id"].to_pylist()]
            for name in found.by_table
        },
    }


def _by_table(rows: pa.Table) -> dict[str, int]:
    counted = {each["values"]: each["counts"] for each in rows["table"].value_counts().to_pylist()}
    return {spec.name: counted[spec.name] for spec in ROW_TABLES if spec.name in counted}


def of_table(rows: pa.Table, name: str) -> pa.Table:
    """Those of the reached rows that are a table's."""
    return rows.filter(pc.equal(rows["table"], name))
