"""Trained models, ready to answer: loaded once, the last few kept."""

from __future__ import annotations

from functools import lru_cache

from infra.inference import Generator, Predictor, Tagger
from infra.models import BaseModel, ModelError
from infra.runtime import Runtime
from lineage.consumption import Checkpoint
from training.guards import MethodError
from training.recipe import Objective
from training.tiny.bases import resolve_base

_PROBE = "hello"


def answer_once(base: BaseModel, objective: Objective, folder: str, adapter_digest: str) -> None:
    """Load a model and have it answer: what a training made must be of use. Raises MethodError."""
    try:
        _answered(base, objective, folder, adapter_digest)
    except (ModelError, RuntimeError, NotImplementedError) as error:
        raise MethodError(f"the trained model gives no answer: {error}") from error


def _answered(base: BaseModel, objective: Objective, folder: str, adapter_digest: str) -> None:
    if objective == "sequence_classification":
        _predictor(base, folder, adapter_digest).predict([_PROBE])
    elif objective == "token_classification":
        Tagger.load(base, folder).tag([_PROBE])
    else:
        _generator(base, folder, adapter_digest).generate(
            [[{"role": "user", "content": _PROBE}]], max_new_tokens=1
        )


def load_predictor(runtime: Runtime, checkpoint: Checkpoint) -> Predictor:
    """The checkpoint's classifier."""
    return _predictor(resolve_base(runtime, checkpoint.base_model), checkpoint.uri, checkpoint.adapter_digest)


def load_generator(runtime: Runtime, checkpoint: Checkpoint) -> Generator:
    """The checkpoint's decoder."""
    return _generator(resolve_base(runtime, checkpoint.base_model), checkpoint.uri, checkpoint.adapter_digest)


# The digest is told so that another model in the same place is loaded anew.


@lru_cache(maxsize=3)
def _predictor(base: BaseModel, folder: str, _adapter_digest: str) -> Predictor:
    return Predictor.load(base, folder)


@lru_cache(maxsize=1)
def _generator(base: BaseModel, folder: str, _adapter_digest: str) -> Generator:
    return Generator.load(base, folder)
