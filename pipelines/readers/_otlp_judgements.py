"""Evaluations and annotations of a call of a model, and the columns that one row has for them.

gen_ai.evaluation.result: an event with gen_ai.evaluation.{name, score.value, score.label, explanation}
annotations.0.annotation.{name, label, score, explanation, annotator_kind, identifier, metadata}
evaluations.0.evaluation.*, annotation.*, evaluation.*: the same under another name, or of a single one

    scorer, score   a program's: one that plainly failed the answer, else one that passed it, else the first
                    by its name; a person's where no program judged
    verdict         the last person's who said it plainly, else that of the scorer
    review          approved | rejected where a person judged; overridden where they differ from the scorer

A score is no verdict: 1 of `hallucination` is a failure. A label is, where it is a word for right or wrong;
yes, no, true, false, 1 and 0 are, under a name for what is right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lineage.schemas import UNSTATED
from pipelines.readers import values
from pipelines.readers._otlp_attributes import indexed, names_under
from pipelines.readers._otlp_spans import Event

RESULT = "gen_ai.evaluation.result"
_FIELDS = ("name", "label", "score", "explanation", "annotator_kind", "identifier", "metadata")
_PASS, _FAIL = ("pass", "passed", "correct"), ("fail", "failed", "incorrect")
_YES, _NO = ("yes", "true", "1", "1.0"), ("no", "false", "0", "0.0")
_RIGHT = (
    "correct",
    "correctness",
    "accuracy",
    "exact_match",
    "pass",
    "passed",
    "success",
    "reward",
    "solved",
)


@dataclass(frozen=True)
class Judgement:
    """One judgement, and all that was said of it."""

    name: str
    label: str | None
    score: float | None
    scorer: str | None
    revision: str | None
    is_human: bool
    whole: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """pass, fail, or unstated where it does not plainly say."""
        said = self.score if self.label is None else self.label
        word = "" if said is None else str(said).strip().lower()
        if word in _PASS + _FAIL:
            return "pass" if word in _PASS else "fail"
        if word not in _YES + _NO or self.name.strip().lower().replace(" ", "_") not in _RIGHT:
            return UNSTATED
        return "pass" if word in _YES else "fail"


def of_attributes(attributes: Mapping[str, Any]) -> tuple[list[Judgement], set[str]]:
    """The judgements among a span's attributes, and the names that they were read from."""
    found, read = [], set()
    for one, many in (("annotation", "annotations"), ("evaluation", "evaluations")):
        listed = indexed(attributes, many).values()
        found += [_judgement({key.removeprefix(f"{one}."): each[key] for key in each}) for each in listed]
        own = {f"{one}.{name}": name for name in _FIELDS}
        if single := {name: attributes[key] for key, name in own.items() if key in attributes}:
            found.append(_judgement(single))
        read |= {*names_under(attributes, many), *(own.keys() & attributes.keys())}
    return found, read


def of_event(event: Event) -> Judgement:
    """The judgement that an event carries, in its attributes or its body."""
    told = dict(event.body) | event.attributes if isinstance(event.body, Mapping) else dict(event.attributes)
    names = {"score.value": "score", "score.label": "label"}
    short = {key.removeprefix("gen_ai.evaluation."): item for key, item in told.items()}
    fields = {names.get(key, key): item for key, item in short.items()}
    body = {} if isinstance(event.body, Mapping) else {"body": event.body}
    return _judgement({**fields, "time": event.time, **event.fields, **body})


def columns(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Verdict, scorer and review of a row; `verdict` always, the others where somebody judged."""
    programs = [each for each in judgements if not each.is_human]
    people = [each for each in judgements if each.is_human]
    scorer = min(programs or people, key=_rank, default=None)
    person = next((each for each in reversed(people) if each.verdict != UNSTATED), None)
    automatic = scorer.verdict if scorer is not None and not scorer.is_human else UNSTATED
    found: dict[str, Any] = {"verdict": person.verdict if person is not None else automatic}
    if scorer is not None:
        found |= {"scorer": scorer.scorer, "scorer_revision": scorer.revision, "score": scorer.score}
    if person is not None:
        agreed = "approved" if person.verdict == "pass" else "rejected"
        found["review"] = agreed if automatic in (UNSTATED, person.verdict) else "overridden"
        found["reviewer"] = person.scorer or UNSTATED
    return {name: value for name, value in found.items() if value is not None}


def _judgement(fields: Mapping[str, Any]) -> Judgement:
    whole = {key: value for key, value in fields.items() if value is not None}
    is_human = str(whole.get("annotator_kind", "")).upper() == "HUMAN"
    scorer, revision = (values.text(whole.get("identifier")) or None), None
    if scorer is not None and not is_human:
        scorer, revision = _split(scorer)
    label = None if whole.get("label") is None else str(whole["label"])
    return Judgement(
        values.text(whole.get("name")) or "",
        label,
        values.finite(whole.get("score")),
        scorer,
        revision,
        is_human,
        whole,
    )


def _split(identifier: str) -> tuple[str, str | None]:
    """`judge@2026-01` and `judge-v2` name a revision; nothing else does plainly."""
    name, at, revision = identifier.rpartition("@")
    if at and name and revision:
        return name, revision
    matched = re.fullmatch(r"(.+)-v(\d[\w.]*)", identifier)
    return (matched[1], matched[2]) if matched else (identifier, None)


def _rank(each: Judgement) -> tuple[int, str]:
    return ("fail", "pass", UNSTATED).index(each.verdict), each.name
