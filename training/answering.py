"""Trained models, ready to answer: loaded once, the last few kept.

rows of a task -> answer() -> Answers     a label, the spans of the text, words, or the preferred answer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from infra.inference import AdapterRecord, Generator, Predictor, Tagger
from infra.models import BaseModel, ModelError
from infra.runtime import Runtime
from lineage.consumption import Checkpoint
from lineage.spans import Span, write_spans
from lineage.tasks import Task
from training.guards import MethodError
from training.objectives.causal import learnt
from training.recipe import Objective
from training.tiny.bases import resolve_base

_PROBE = "hello"

ANSWERS: Mapping[Objective, tuple[Task, ...]] = {
    "sequence_classification": ("classification",),
    "token_classification": ("tagging",),
    "sft": ("generation",),
    "dpo": ("generation", "preference"),
}
"""The tasks whose rows a model of an objective can be asked."""


@dataclass(frozen=True)
class Answers:
    """What a model said to some rows, in their order."""

    predictions: list[str]
    confidences: list[float]
    """0 to 1: a label's softmax, the least of the spans', the mean of the tokens', or how far it prefers."""
    log_likelihoods: list[float] | None = None
    """Of the right answers, natural, summed over their tokens; a decoder's."""
    tokens: list[int] | None = None
    """How many those are."""


def objective_of(checkpoint: Checkpoint) -> Objective:
    """What a checkpoint was trained for. Raises ModelError where its folder does not say."""
    return AdapterRecord.read(checkpoint.uri).objective


def answer(
    runtime: Runtime,
    checkpoint: Checkpoint,
    rows: pa.Table,
    *,
    task: Task,
    max_new_tokens: int,
    chain_of_thought: bool = True,
) -> Answers:
    """The checkpoint's answers to examples of one task.

    A decoder is asked with the template it was trained with; the likelihood is that of the answer as it was
    to be learnt, without `chain_of_thought` from its last `####` on.
    """
    if task == "classification":
        found = load_predictor(runtime, checkpoint).predict(rows["text"].to_pylist())
        return Answers([each.label for each in found], [each.confidence for each in found])
    if task == "tagging":
        tagged = load_tagger(runtime, checkpoint).tag(rows["text"].to_pylist())
        spans = [write_spans(Span(each.start, each.end, each.label) for each in text) for text in tagged]
        return Answers(spans, [min((each.confidence for each in text), default=1.0) for text in tagged])
    from training.likelihoods import likelihoods

    generator = load_generator(runtime, checkpoint)
    messages, calls = rows["messages"].to_pylist(), rows["answer_tool_calls"].to_pylist()
    right = [learnt(said, chain_of_thought=chain_of_thought) for said in rows["answer"].to_pylist()]
    sums, counts = likelihoods(generator, messages, right, calls)
    if task == "preference":
        wrong = [learnt(said, chain_of_thought=chain_of_thought) for said in rows["rejected"].to_pylist()]
        others, _ = likelihoods(generator, messages, wrong, [None] * len(wrong))
        preferred = np.where(sums > others, rows["answer"].to_numpy(), rows["rejected"].to_numpy())
        surely = 1 / (1 + np.exp(-np.abs(sums - others).clip(max=500)))
        return Answers(preferred.tolist(), surely.tolist(), sums.tolist(), counts.tolist())
    said = generator.generate(messages, max_new_tokens=max_new_tokens)
    return Answers(
        [each.text for each in said], [each.confidence for each in said], sums.tolist(), counts.tolist()
    )


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
        _tagger(base, folder, adapter_digest).tag([_PROBE])
    else:
        _generator(base, folder, adapter_digest).generate(
            [[{"role": "user", "content": _PROBE}]], max_new_tokens=1
        )


def load_predictor(runtime: Runtime, checkpoint: Checkpoint) -> Predictor:
    """The checkpoint's classifier."""
    return _predictor(resolve_base(runtime, checkpoint.base_model), checkpoint.uri, checkpoint.adapter_digest)


def load_tagger(runtime: Runtime, checkpoint: Checkpoint) -> Tagger:
    """The checkpoint's tagger."""
    return _tagger(resolve_base(runtime, checkpoint.base_model), checkpoint.uri, checkpoint.adapter_digest)


def load_generator(runtime: Runtime, checkpoint: Checkpoint) -> Generator:
    """The checkpoint's decoder."""
    return _generator(resolve_base(runtime, checkpoint.base_model), checkpoint.uri, checkpoint.adapter_digest)


# The digest is told so that another model in the same place is loaded anew.


@lru_cache(maxsize=3)
def _predictor(base: BaseModel, folder: str, _adapter_digest: str) -> Predictor:
    return Predictor.load(base, folder)


@lru_cache(maxsize=1)
def _tagger(base: BaseModel, folder: str, _adapter_digest: str) -> Tagger:
    return Tagger.load(base, folder)


@lru_cache(maxsize=1)
def _generator(base: BaseModel, folder: str, _adapter_digest: str) -> Generator:
    return Generator.load(base, folder)
