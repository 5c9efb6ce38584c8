"""How many of the entities found are right, and how many of the right ones were found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from infra.models import TaggedSpan
from lineage.spans import Span
from training.recipe import TrainingError


@dataclass(frozen=True)
class EntityScore:
    """How many of the found entities are right, how many true ones were found, and the harmonic mean."""

    precision: float
    recall: float
    f1: float


def entity_f1(truth: Sequence[Iterable[Span]], found: Sequence[Iterable[Span | TaggedSpan]]) -> EntityScore:
    """Micro-averaged over the entities of all texts; one collection of spans per text.

    An entity is right where a true one has the same start, end and label: "F1 entity" of WNUT-17 and of
    CoNLL-2003. A share of nothing counts 0.
    """
    hits, said, true = entity_counts(truth, found).sum(axis=0).tolist()
    return EntityScore(
        precision=hits / max(1, said), recall=hits / max(1, true), f1=2 * hits / max(1, true + said)
    )


def entity_counts(
    truth: Sequence[Iterable[Span]], found: Sequence[Iterable[Span | TaggedSpan]]
) -> np.ndarray:
    """int64 (texts, 3): entities found and right, found, and true, of each text.

    Their sums give entity F1, so that a bootstrap can draw texts. No texts give no rows.
    """
    if len(truth) != len(found):
        raise TrainingError(
            f"got the spans of {len(truth)} texts against {len(found)}; both must be about the same texts"
        )
    counts = []
    for of_truth, of_found in zip(truth, found, strict=True):
        true, said = _places(of_truth), _places(of_found)
        counts.append((len(true & said), len(said), len(true)))
    return np.array(counts, dtype=np.int64).reshape(-1, 3)


def entity_f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 along the last axis, which holds entities found and right, found, and true. Of nothing it is 0."""
    hits, said, true = np.moveaxis(np.asarray(counts), -1, 0)
    return 2 * hits / np.maximum(1, said + true)


def _places(spans: Iterable[Span | TaggedSpan]) -> set[tuple[int, int, str]]:
    return {(span.start, span.end, span.label) for span in spans}
