"""Who stands before the promotion gate, and all that is known of them from evaluations of record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra.runtime import Runtime
from lineage.consumption import Checkpoint
from lineage.runs import Run
from training.evaluate import evaluate
from training.evaluate import overlap as shared_with
from training.null import retrains
from training.promotion import Evidence, First, Gate
from training.promotion.gate_set import categories_of, examples_of, items_of, passes, said_on
from training.promotion.merged import merged_on
from training.promotion.reigns import reigns_of

_LISTED = 1_000  # row ids in the record; the predictions behind it have all of them


@dataclass(frozen=True)
class Contest:
    """Candidate, champion and null retrains, and the evaluations that are the evidence."""

    name: str
    candidate: Checkpoint
    champion: Checkpoint | None
    reigning: int
    """The champion's version; 0: there is none."""
    nulls: Sequence[str]
    """The null retrains' runs."""
    evaluations: Sequence[str]
    """The evaluation runs of the candidate, the champion, and each null retrain, in this order."""

    @property
    def roles(self) -> dict[str, Any]:
        """The evaluations by whose they are, for the record."""
        candidate, *others = self.evaluations
        champion, *nulls = others or [""]
        return {"candidate": candidate, "champion": champion, "nulls": nulls}


def prepare(
    runtime: Runtime,
    name: str,
    candidate: Checkpoint,
    champion: Checkpoint | None,
    *,
    reigning: int,
    seed: int,
    gate: Gate,
    parent: Run | None,
) -> Contest:
    """Evaluate everyone on the gate split, the nulls once they are trained, where not done yet."""

    def evaluated(run: str) -> str:
        return evaluate(runtime, run, split="gate", seed=seed, asking=gate.asking, parent=parent).run_id

    evaluations = [evaluated(candidate.run_id)]  # first: one that cannot be evaluated costs no retrain
    nulls: list[str] = []
    if champion is not None:
        nulls = retrains(runtime, champion, number=gate.nulls, seed=seed, parent=parent)
        evaluations += [evaluated(run) for run in (champion.run_id, *nulls)]
    return Contest(name, candidate, champion, reigning, nulls, evaluations)


def evidence_of(runtime: Runtime, contest: Contest, gate: Gate) -> Evidence | First:
    """What the decision is made of; without a champion, what is known of a first model."""
    settings, candidate = runtime.settings, contest.candidate
    mine, *others = contest.evaluations
    items = items_of(settings, candidate.run_id, evaluation=mine)
    categories = categories_of(settings, items, gate.category)
    numbers = items["row_no"].to_pylist()
    asked = examples_of(settings, numbers, ["text", "source_revision"])
    overlap = shared_with(runtime, candidate, pa.Table.from_pylist(asked))
    merged = merged_on(runtime, candidate, items, onto=gate.merged) if gate.merged else None
    if contest.champion is None:
        answers = items["answer"].to_pylist()
        return First(passes(items), answers, overlap, categories=categories, merged=merged)
    previous, history = reigns_of(settings, contest.name, items, champion=contest.reigning)
    champion, *nulls = (
        passes(said_on(settings, run, items, evaluation=evaluation))
        for run, evaluation in zip((contest.champion.run_id, *contest.nulls), others, strict=True)
    )
    return Evidence(
        champion=champion,
        candidate=passes(items),
        nulls=nulls,
        overlap=overlap,
        categories=categories,
        previous=previous,
        history=history,
        merged=merged,
    )


def moved_items(items: pa.Table, evidence: Evidence | First) -> dict[str, Any]:
    """Which items the candidate wins from the champion, which it loses: row ids in hex, and how many."""
    if isinstance(evidence, First):
        return {"wins": [], "losses": [], "won": 0, "lost": 0}
    then, now = np.asarray(evidence.champion, dtype=bool), np.asarray(evidence.candidate, dtype=bool)
    ids = [row_id.hex() for row_id in items["row_id"].to_pylist()]
    won, lost = np.flatnonzero(now & ~then), np.flatnonzero(then & ~now)
    return {
        "wins": [ids[index] for index in won[:_LISTED]],
        "losses": [ids[index] for index in lost[:_LISTED]],
        "won": len(won),
        "lost": len(lost),
    }
