"""Trained models, ready to answer: loaded once, the last few kept."""

from __future__ import annotations

from functools import lru_cache

from infra.inference import Predictor
from infra.models import resolve
from lineage.consumption import Checkpoint


def answer_once(base_model: str, folder: str, adapter_digest: str) -> None:
    """Load a model and have it answer: what a training made must be of use. Raises what stands against it."""
    _predictor(base_model, folder, adapter_digest).predict(["hello"])


def load_predictor(checkpoint: Checkpoint) -> Predictor:
    """The checkpoint's model."""
    return _predictor(checkpoint.base_model, checkpoint.uri, checkpoint.adapter_digest)


@lru_cache(maxsize=3)
def _predictor(base_model: str, folder: str, _adapter_digest: str) -> Predictor:
    return Predictor.load(resolve(base_model), folder)
