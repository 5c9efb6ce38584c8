"""Evaluations and annotations of a call of a model, and the columns that one row has for them.

gen_ai.evaluation.result: an event with gen_ai.evaluation.{name, score.value, score.label, explanation}
annotations.0.annotation.{name, label, score, explanation, annotator_kind, identifier, metadata}
evaluations.0.evaluation.*, annotation.*, evaluation.*: the same under another name, or of a single one

Which of several a row has is said in _judgements.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.readers import _judgements, values
from pipelines.readers._judgements import Judgement
from pipelines.readers._otlp_attributes import indexed, names_under
from pipelines.readers._otlp_spans import Event

RESULT = "gen_ai.evaluation.result"
_FIELDS = ("name", "label", "score", "explanation", "annotator_kind", "identifier", "metadata")


@dataclass(frozen=True)
class Evaluation:
    """A judgement, and all that was said of it."""

    judgement: Judgement
    whole: Mapping[str, Any]


def of_attributes(attributes: Mapping[str, Any]) -> tuple[list[Evaluation], set[str]]:
    """The evaluations among a span's attributes, and the names that they were read from."""
    found, read = [], set()
    for one, many in (("annotation", "annotations"), ("evaluation", "evaluations")):
        listed = indexed(attributes, many).values()
        found += [_evaluation({key.removeprefix(f"{one}."): each[key] for key in each}) for each in listed]
        own = {f"{one}.{name}": name for name in _FIELDS}
        if single := {name: attributes[key] for key, name in own.items() if key in attributes}:
            found.append(_evaluation(single))
        read |= {*names_under(attributes, many), *(own.keys() & attributes.keys())}
    return found, read


def of_event(event: Event) -> Evaluation:
    """The evaluation that an event carries, in its attributes or its body."""
    told = dict(event.body) | event.attributes if isinstance(event.body, Mapping) else dict(event.attributes)
    names = {"score.value": "score", "score.label": "label"}
    short = {key.removeprefix("gen_ai.evaluation."): item for key, item in told.items()}
    fields = {names.get(key, key): item for key, item in short.items()}
    body = {} if isinstance(event.body, Mapping) else {"body": event.body}
    return _evaluation({**fields, "time": event.time, **event.fields, **body})


def columns(evaluations: Sequence[Evaluation], response: str | None) -> dict[str, Any]:
    """Verdict, scorer and review of a row; of evaluations that stand in the order in which they were said."""
    judgements = [replace(each.judgement, at=f"{place:06d}") for place, each in enumerate(evaluations)]
    return _judgements.columns(judgements, (), response)


def _evaluation(fields: Mapping[str, Any]) -> Evaluation:
    whole = {key: value for key, value in fields.items() if value is not None}
    is_human = str(whole.get("annotator_kind", "")).upper() == "HUMAN"
    scorer, revision = (values.text(whole.get("identifier")) or None), None
    if scorer is not None and not is_human:
        scorer, revision = _split(scorer)
    value = whole.get("label", whole.get("score"))
    name, number = values.text(whole.get("name")) or "", values.finite(whole.get("score"))
    return Evaluation(Judgement(name, value, scorer, revision, is_human, number=number), whole)


def _split(identifier: str) -> tuple[str, str | None]:
    """`judge@2026-01` and `judge-v2` name a revision; nothing else does plainly."""
    name, at, revision = identifier.rpartition("@")
    if at and name and revision:
        return name, revision
    matched = re.fullmatch(r"(.+)-v(\d[\w.]*)", identifier)
    return (matched[1], matched[2]) if matched else (identifier, None)
