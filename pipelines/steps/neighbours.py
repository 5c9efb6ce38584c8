"""A second opinion that reads the text: do an example's nearest neighbours carry its label?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lineage.rows import Derivation, Rejection
from lineage.schemas import EXAMPLE
from pipelines.step import Step, keep


@dataclass(frozen=True)
class NeighbourAgreement(Step):
    """Scores each example by the similarity-weighted share of its nearest neighbours that carry its answer.

    Neighbours are found by cosine similarity of the frozen base model's embeddings among the other rows of
    the table. The score and its threshold stand on every row; below the threshold a row is rejected.
    """

    base_model: str
    base_digest: str
    neighbours: int
    threshold: float

    reads: ClassVar = EXAMPLE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1
    scope: ClassVar = "table"
    identifies: ClassVar = False

    def derive(self, rows: pa.Table) -> Derivation:
        """One row in, one row with a score out, or a rejection with that score."""
        answers = rows["answer"].to_pylist()
        scores = agreement(
            _embedded(self.base_model, rows["text"].to_pylist()), answers, neighbours=self.neighbours
        )
        who: dict[str, Any] = {
            "scorer": self.name,
            "scorer_revision": f"{self.revision}:{self.base_digest[:23]}",
        }
        rejected = {
            index: Rejection("neighbours_disagree", float(score), self.threshold, **who)
            for index, score in enumerate(scores)
            if score < self.threshold
        }
        kept = [index for index in range(rows.num_rows) if index not in rejected]
        stated = {
            "scorer": [who["scorer"]] * len(kept),
            "scorer_revision": [who["scorer_revision"]] * len(kept),
            "score": [float(scores[index]) for index in kept],
            "threshold": [self.threshold] * len(kept),
        }
        return Derivation(keep(rows, kept, **stated), [(index,) for index in kept], rejected)


def agreement(embeddings: np.ndarray, answers: list[str], *, neighbours: int) -> np.ndarray:
    """Per row the weighted share of its nearest other rows with the same answer, 0 to 1, rounded to 6 digits.

    embeddings  # float (n, d), rows of length 1. A single row has no neighbours and nothing against it: 1.
    """
    n = len(answers)
    if n < 2:
        return np.ones(n)
    codes = np.unique(answers, return_inverse=True)[1]
    k = min(neighbours, n - 1)
    scores = np.empty(n)
    for start in range(0, n, 1024):  # (1024, n) similarities at a time
        block = embeddings[start : start + 1024] @ embeddings.T
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        nearest = np.argpartition(-block, k - 1, axis=1)[:, :k]
        weights = np.clip(np.take_along_axis(block, nearest, axis=1), 1e-6, None)
        same = codes[nearest] == codes[start : start + len(block), None]
        scores[start : start + len(block)] = (weights * same).sum(1) / weights.sum(1)
    return scores.round(6)  # the last digits depend on how a processor adds; a score must not


def _embedded(base_model: str, texts: list[str]) -> np.ndarray:
    from infra.inference import embed
    from infra.runtime import give_back_memory

    found = embed(_base(base_model), texts)
    give_back_memory()
    return found


@cache
def _base(name: str) -> Any:
    from infra.models import resolve

    return resolve(name)
