"""A person's answer in place of an example's own: the example is derived anew, and says whose word it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from lineage.rows import Derivation
from lineage.schemas import EXAMPLE
from lineage.spans import as_answer
from pipelines.step import Step
from pipelines.steps.judged import corrected_by


@dataclass(frozen=True)
class Review(Step):
    """One row in, one row out, with the label as its answer, in place of tool calls, too.

    The same label by two reviewers is two rows.
    """

    label: str
    reviewer: str

    reads: ClassVar = EXAMPLE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1

    def derive(self, rows: pa.Table) -> Derivation:
        """Rejects nothing."""
        stated = corrected_by(self.reviewer) | {"review": "overridden", "reviewer": self.reviewer}
        changed = {"kind": "corrected", "answer_tool_calls": None, **stated}
        relabelled = [
            row | changed | {"answer": as_answer(self.label, row)}
            for row in rows.select(EXAMPLE.payload.names).to_pylist()
        ]
        made = pa.Table.from_pylist(relabelled, schema=EXAMPLE.derivable)
        return Derivation(made, [(index,) for index in range(rows.num_rows)])
