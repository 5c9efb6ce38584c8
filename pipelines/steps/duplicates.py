"""Equal examples become one row that remembers all of them.

Equal questions with different answers are refused.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from expectations.inputs import inputs
from lineage.rows import CONFLICTING, Derivation, Rejection
from lineage.schemas import EXAMPLE
from pipelines.step import Step, keep


@dataclass(frozen=True)
class MergeDuplicates(Step):
    """Merges rows that ask and answer the same: any one of the merged row's parents suffices.

    The merged row says what its first parent, by row id, says. Where one text was given several labels,
    nobody knows which is right: all are rejected as `conflicting_answers`. A task of generation has many
    right answers.
    """

    reads: ClassVar = EXAMPLE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1
    scope: ClassVar = "table"

    def derive(self, rows: pa.Table) -> Derivation:
        """Groups of equal rows in, one row each out."""
        groups: dict[tuple[str, ...], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        ids = rows["row_id"].to_pylist()
        columns = (rows[name].to_pylist() for name in ("task", "split", "condition", "answer"))
        for index, (asked, task, *place, answer) in enumerate(zip(inputs(rows), *columns, strict=True)):
            apart = answer if task == "generation" else ""
            groups[asked, apart, *place][answer].append(index)
        rejected: dict[int, Rejection] = {}
        merged: list[tuple[int, ...]] = []
        for answers in groups.values():
            if len(answers) > 1:
                reason = Rejection(CONFLICTING, scorer=self.name, scorer_revision=str(self.revision))
                rejected.update(dict.fromkeys((i for equal in answers.values() for i in equal), reason))
            else:
                merged.extend(tuple(sorted(equal, key=ids.__getitem__)) for equal in answers.values())
        merged.sort(key=lambda equal: ids[equal[0]])
        return Derivation(keep(rows, [equal[0] for equal in merged]), merged, rejected, kind="alternative")
