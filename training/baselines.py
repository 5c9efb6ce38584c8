"""Simple baselines beside every score: what a model must beat to have shown anything but the path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infra.inference import embed
from infra.models import BaseModel


def linear_probe(
    base: BaseModel, texts: Sequence[str], labels: Sequence[str], asked: Sequence[str], *, seed: int = 0
) -> list[str]:
    """Answers of a logistic regression on the frozen base's embeddings, trained on texts and labels."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    vectors = embed(base, [*texts, *asked])
    probe = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
    # The steps are of microseconds: threads would mostly wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        probe.fit(vectors[: len(texts)], np.asarray(labels))
        return [str(label) for label in probe.predict(vectors[len(texts) :])]
