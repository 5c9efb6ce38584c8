"""Step: the only thing a step's author writes. Everything about provenance is the runner's.

A step is a frozen dataclass; its fields are its parameters and bear identity. It says what it reads and
writes, at which scope it may be cut into batches, and derives rows from a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from lineage.rows import Derivation, Fingerprint
from lineage.schemas import TableSpec

Scope = Literal["row", "table"]


@dataclass(frozen=True)
class Step(ABC):
    """Derives rows of `writes` from rows of `reads`. See docs/architecture.md for how to write one."""

    reads: ClassVar[TableSpec]
    writes: ClassVar[TableSpec]
    revision: ClassVar[int]
    """Raise it when the same input should give other rows: it is part of their identity."""

    scope: ClassVar[Scope] = "row"
    """row: any batch will do; table: the step must see all rows at once."""

    identifies: ClassVar[bool] = True
    """False for a filter or a scorer that hands rows on with the same payload: they keep their identity."""

    binds: ClassVar[bool] = False
    """True: what it rejects stays out, even where a person vouches for it. Else a person's word beats it."""

    @abstractmethod
    def derive(self, rows: pa.Table) -> Derivation:
        """Rows made of a batch. The batch holds the columns of `reads`, provenance included."""

    @property
    def name(self) -> str:
        """The step's name in every row it makes."""
        return "".join("_" + c.lower() if c.isupper() else c for c in type(self).__name__).lstrip("_")

    @property
    def parameters(self) -> dict[str, Any]:
        """What it was told, as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @property
    def fingerprint(self) -> Fingerprint:
        """What identifies its work."""
        return Fingerprint(self.name, self.revision, self.parameters)


def keep(rows: pa.Table, positions: list[int], **stated: list[Any]) -> pa.Table:
    """The payload of some rows of a batch, handed on as they are, with provenance columns stated anew.

    For filters and scorers; `stated` gives one value per kept row.
    """
    spec = next(s for s in _specs() if set(s.schema.names) <= set(rows.column_names))
    kept = rows.select(spec.payload.names).take(pa.array(positions, pa.int64()))  # also where there are none
    for name, values in stated.items():
        kept = kept.append_column(spec.schema.field(name), pa.array(values, spec.schema.field(name).type))
    return kept


def _specs() -> tuple[TableSpec, ...]:
    from lineage.schemas import ROW_TABLES

    return ROW_TABLES
