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

    probe = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
    probe.fit(embed(base, list(texts)), np.asarray(labels))
    return [str(label) for label in probe.predict(embed(base, list(asked)))]
