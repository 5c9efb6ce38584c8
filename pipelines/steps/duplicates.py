"""Equal examples become one row that remembers all of them.

Equal questions with different answers are refused.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from lineage.inputs import inputs
from lineage.review import OVERRULED_BY_REVIEWER, SCORER
from lineage.rows import CONFLICTING, Derivation, Rejection
from lineage.schemas import EXAMPLE
from lineage.tasks import ANSWER_COLUMNS, TALKS
from pipelines.step import Step, keep


@dataclass(frozen=True)
class MergeDuplicates(Step):
    """Merges rows that ask and answer the same: any one of the merged row's parents suffices.

    The merged row says what its first parent, by row id, says. Where one text was given several labels,
    nobody knows which is right: all are rejected as `conflicting_answers`. Tasks of generation and preference
    have many right answers.

    Where a person vouches for one of the answers, it is right and the others are rejected; a merged row then
    says what the vouched one says of its review, and a person's own answer comes first.
    """

    vouched: frozenset[bytes] = frozenset()
    """Stored rows that a person vouches for. No part of the identity, which parents and payload make up."""

    reads: ClassVar = EXAMPLE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1
    scope: ClassVar = "table"
    binds: ClassVar = True  # it obeys people's reviews itself

    @property
    def parameters(self) -> dict[str, Any]:
        """None."""
        return {}

    def derive(self, rows: pa.Table) -> Derivation:
        """Groups of equal rows in, one row each out."""
        groups: dict[tuple[Any, ...], dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
        ids = rows["row_id"].to_pylist()
        columns = (rows[name].to_pylist() for name in ("task", "split", "condition"))
        answers = zip(*(rows[name].to_pylist() for name in ANSWER_COLUMNS), strict=True)
        told = zip(inputs(rows), *columns, answers, strict=True)
        for index, (asked, task, split, condition, answer) in enumerate(told):
            apart = answer if task in TALKS else None
            groups[asked, apart, split, condition][answer].append(index)
        by_person = self._by_person(rows)
        rejected: dict[int, Rejection] = {}
        merged: list[tuple[int, ...]] = []
        for answers in groups.values():
            right = [said for said, equal in answers.items() if not by_person.isdisjoint(equal)] or list(
                answers
            )
            if len(right) > 1:
                reason = Rejection(CONFLICTING, scorer=self.name, scorer_revision=str(self.revision))
                rejected.update(dict.fromkeys((i for equal in answers.values() for i in equal), reason))
                continue
            merged.append(tuple(sorted(answers.pop(right[0]), key=ids.__getitem__)))
            reason = Rejection(OVERRULED_BY_REVIEWER, score=0.0, **SCORER)
            rejected.update(dict.fromkeys((i for equal in answers.values() for i in equal), reason))
        merged.sort(key=lambda equal: ids[equal[0]])
        kept, stated = self._spoken(rows, merged, by_person)
        return Derivation(keep(rows, kept, **stated), merged, rejected, kind="alternative")

    def _by_person(self, rows: pa.Table) -> frozenset[int]:
        """The positions of the rows that a person vouches for."""
        if not self.vouched:
            return frozenset()
        parents = enumerate(rows["parents"].to_pylist())
        return frozenset(index for index, named in parents if not self.vouched.isdisjoint(named))

    def _spoken(
        self, rows: pa.Table, merged: list[tuple[int, ...]], by_person: frozenset[int]
    ) -> tuple[list[int], dict[str, list[Any]]]:
        """Per merged row the one that it quotes, and what it states of its review; null: what all share."""
        kept = [equal[0] for equal in merged]
        if not by_person:
            return kept, {}
        told = {name: rows[name].to_pylist() for name in _REVIEWED}
        stated: dict[str, list[Any]] = {name: [None] * len(merged) for name in _REVIEWED}
        for place, equal in enumerate(merged):
            people = [index for index in equal if index in by_person]
            people.sort(key=lambda index: told["review"][index] != "overridden")  # stable: then by row id
            if people:
                kept[place] = people[0] if told["review"][people[0]] == "overridden" else equal[0]
                for name, values in stated.items():
                    values[place] = told[name][people[0]]
        return kept, stated


_REVIEWED = ("scorer", "scorer_revision", "score", "threshold", "review", "reviewer")
