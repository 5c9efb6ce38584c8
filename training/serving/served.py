"""A registered model, loaded and ready to answer questions: a label, spans, or words.

It is loaded as `stemma evaluate` loads it and is asked the same way, so that what serves is what was scored.

Errors: ServingError, where a model has no name and version, or was recalled; infra.models.ModelError where
its folder does not load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from infra.chat import ChatError
from infra.inference import AdapterRecord, Generator, Predictor, Tagger
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models
from lineage.consumption import Checkpoint
from lineage.models import ModelVersion
from lineage.spans import Span, write_spans
from training.serving.requests import Question, Refused, ServingError
from training.tiny.bases import resolve_base

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Answer:
    """What a model said to one question."""

    text: str
    finish_reason: Literal["stop", "length"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    confidence: float | None = None
    """Of a label, 0..1."""


class Served(Protocol):
    """A model that answers."""

    @property
    def version(self) -> ModelVersion:
        """Who answers: the generator of what is logged."""
        ...

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in order, each as if asked alone. Raises Refused for one without any."""
        ...

    def close(self) -> None:
        """Give back what it holds; it is not asked again."""
        ...


@dataclass(frozen=True)
class Labels:
    """A classifier: the likeliest label of the last user's message."""

    version: ModelVersion
    predictor: Predictor

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """A label each."""
        texts = [question.text for question in questions]
        found = zip(self.predictor.predict(texts), self.predictor.lengths(texts), strict=True)
        return [Answer(said.label, "stop", length, 1, said.confidence) for said, length in found]

    def close(self) -> None:
        """Nothing but memory."""


@dataclass(frozen=True)
class Spans:
    """A tagger: the spans of the last user's message, as JSON in the one form that examples have."""

    version: ModelVersion
    tagger: Tagger

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """A list of spans each."""
        texts = [question.text for question in questions]
        found = zip(self.tagger.tag(texts), self.tagger.lengths(texts), strict=True)
        return [
            Answer(write_spans(Span(s.start, s.end, s.label) for s in spans), "stop", length, len(spans))
            for spans, length in found
        ]

    def close(self) -> None:
        """Nothing but memory."""


@dataclass(frozen=True)
class Words:
    """A decoder: what it writes to the whole conversation.

    Conversations are decoded one by one, as many at a time as there are threads: in a batch two tokens that
    are likely to within rounding could change places, and an answer would depend on its company.
    """

    version: ModelVersion
    generator: Generator

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Words each."""
        found: list[Answer | None] = [None] * len(questions)
        by_most: dict[int, list[int]] = {}
        for index, question in enumerate(questions):
            by_most.setdefault(question.max_new_tokens, []).append(index)
        for most, members in by_most.items():
            conversations = [questions[index].messages for index in members]
            try:
                lengths = self.generator.lengths(conversations)
                said = self.generator.generate(conversations, max_new_tokens=most, batch_size=1)
            except ChatError as error:
                raise Refused(str(error), param="messages") from error
            for index, each, length in zip(members, said, lengths, strict=True):
                if not each.token_ids:
                    raise Refused(
                        f"the conversation has {length} tokens, which fill the model's context",
                        param="messages",
                        code="context_length_exceeded",
                    )
                reason = "stop" if each.stopped else "length"
                found[index] = Answer(each.text, reason, length, len(each.token_ids))
        return [each for each in found if each is not None]

    def close(self) -> None:
        """Nothing but memory."""


def servable(settings: Settings, reference: str) -> tuple[Checkpoint, ModelVersion]:
    """The checkpoint and the version behind a reference.

    Raises ServingError for one without a version, whose answers nobody could follow, and for a recalled one;
    ModelError and CheckpointError where the reference names none.
    """
    checkpoint, version = models.resolve(settings, reference)
    if version is None:
        raise ServingError(
            f"{checkpoint.name} has no name and version, so its answers could not say who wrote them; give "
            f"it one: stemma promote {checkpoint.run_id} --name MODEL"
        )
    if version.version in models.recalled_versions(settings, version.name):
        raise ServingError(f"{version} ate rows that were recalled; it cannot serve")
    return checkpoint, version


def load_served(
    runtime: Runtime, checkpoint: Checkpoint, version: ModelVersion, *, device: Device = "cpu"
) -> Served:
    """The model, loaded, after it answered a first question. Raises ServingError and ModelError."""
    base, folder = resolve_base(runtime, checkpoint.base_model), checkpoint.uri
    record = AdapterRecord.read(folder)
    if record.adapter_digest != checkpoint.adapter_digest:
        raise ServingError(
            f"'{folder}' holds the adapter {record.adapter_digest}, and {version} is "
            f"{checkpoint.adapter_digest}; somebody put another in its place"
        )
    served: Served
    if record.objective == "sequence_classification":
        served = Labels(version, Predictor.load(base, folder, device=device))
    elif record.objective == "token_classification":
        served = Spans(version, Tagger.load(base, folder, device=device))
    else:
        served = Words(version, Generator.load(base, folder, device=device))
    served.answer([probe()])
    return served


def probe() -> Question:
    """A first question, for whoever must know that a model answers at all."""
    said = [{"role": "user", "content": "hello"}]
    return Question("probe", 0, {"messages": said}, said, max_new_tokens=1)
