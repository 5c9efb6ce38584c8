"""Several judgements of one answer, by people and by programs, as the columns of its row.

A row has one scorer and one verdict. Which of several judgements that is, follows from the judgements alone:

    scorer, score   a program's: one that plainly failed the answer, else one that passed it, else the first
                    by its name; a person's where no program judged
    verdict         the last person's who said it plainly, else that of the scorer
    review          approved | rejected where a person judged; overridden where a person differs from the
                    scorer, or gave another answer

A number is no verdict by itself: 0 of `correctness` is a failure, 0 of `toxicity` is none. Plain is a word
(pass, incorrect), or true, false, yes, no, 0 and 1 under a name that says what is right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lineage.schemas import UNSTATED
from pipelines.readers import values

_PASS, _FAIL = ("pass", "passed", "correct"), ("fail", "failed", "incorrect")
_YES, _NO = ("yes", "true", "1", "1.0"), ("no", "false", "0", "0.0")
_RIGHT = ("correct", "accura", "right", "pass", "success", "succeed", "solved", "resolved", "reward", "match")
_RIGHT += ("exact", "accept", "approv", "verdict", "thumb", "good", "valid", "helpful", "user", "quality")
_RIGHT += ("relevan", "safe", "ground", "faithful", "guideline")
_TURNED = (
    "not",
    "no",
    "non",
    "without",
    "error",
    "fail",
    "failure",
    "bad",
    "wrong",
)  # they turn a name round


@dataclass(frozen=True)
class Judgement:
    """One judgement; `value` as the source has it: true, 0.4, "pass"."""

    name: str
    value: Any
    scorer: str | None
    revision: str | None = None
    is_human: bool = False
    at: str = ""
    """When, and by which id: a text that sorts in the order in which they were said."""

    number: float | None = None
    """The score, where it stands beside the value."""

    @property
    def verdict(self) -> str:
        """pass, fail, or unstated where the value does not plainly say."""
        word = str(self.value).strip().lower() if isinstance(self.value, str | int | float) else ""
        if word in _PASS + _FAIL:
            return "pass" if word in _PASS else "fail"
        if word not in _YES + _NO or not _is_of_right(self.name):
            return UNSTATED
        return "pass" if word in _YES else "fail"

    @property
    def score(self) -> float | None:
        """The number beside the value, or the value as one: 1 and 0 for true and false."""
        if self.number is not None:
            return self.number
        return float(self.value) if isinstance(self.value, bool) else values.number(self.value)


@dataclass(frozen=True)
class Correction:
    """The right answer, by somebody. `is_verdict`: giving it says that the answer was wrong."""

    answer: str
    by: str | None
    is_human: bool = True
    is_verdict: bool = True
    at: str = ""


def columns(
    judgements: Sequence[Judgement], corrections: Sequence[Correction], response: str | None
) -> dict[str, Any]:
    """Verdict, correction, scorer and review of a row that has this response."""
    said = sorted(judgements, key=lambda each: (each.at, each.name, str(each.value)))
    programs = [each for each in said if not each.is_human]
    people = [each for each in said if each.is_human]
    scorer = min(reversed(programs or people), key=_rank, default=None)  # of one name the last
    person = next((each for each in reversed(people) if each.verdict != UNSTATED), None)
    right = [each for each in corrections if each.answer != response]
    correction = max(right, key=_weight, default=None)
    automatic = scorer.verdict if scorer is not None and not scorer.is_human else UNSTATED
    verdict = person.verdict if person is not None else automatic
    review, reviewer = None, None
    if person is not None:
        agreed = "approved" if verdict == "pass" else "rejected"
        review = agreed if automatic in (UNSTATED, verdict) else "overridden"
        reviewer = person.scorer or UNSTATED
    if correction is not None and correction.is_human:
        verdict = "fail" if correction.is_verdict else verdict
        if verdict == "fail":
            review, reviewer = "overridden", correction.by or UNSTATED
    found = {
        "verdict": verdict,
        "correction": correction.answer if correction is not None else None,
        "scorer": scorer.scorer if scorer is not None else None,
        "scorer_revision": scorer.revision if scorer is not None else None,
        "score": scorer.score if scorer is not None else None,
        "review": review,
        "reviewer": reviewer,
    }
    return {name: value for name, value in found.items() if value is not None}


def _rank(each: Judgement) -> tuple[int, str]:
    return ("fail", "pass", UNSTATED).index(each.verdict), each.name


def _weight(each: Correction) -> tuple[bool, bool, str, str]:
    return each.is_human, each.is_verdict, each.at, each.answer


def _is_of_right(name: str) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return any(word.startswith(_RIGHT) for word in words) and not any(word in _TURNED for word in words)
