"""Who says what an answer to a benchmark's prompt is worth: the scorers of `training.scoring`, and two more.

    order     the steps in their order, as letters: "B, A, C"
    concise   one of the answers, in no more words than the prompt allows

The only module of this folder that knows where scorers come from.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping

from training.recipe import TrainingError
from training.scoring import SCORERS, Scorer, check_answers, program_of, score_all

__all__ = ["BENCHMARK_SCORERS", "check_answers", "in_order", "is_concise", "require_readable", "score_all"]

_RUN = re.compile(r"(?<![^\W\d_])[A-Z](?:[\s,;>→-]*[A-Z])+(?![^\W\d_])")


def in_order(answer: str, prediction: str) -> float:
    """1.0 where the last run of as many capital letters as the answer has is the answer.

    Letters may stand side by side or be parted by spaces, commas, semicolons and arrows.
    """
    wanted = _letters(answer)
    runs = [letters for found in _RUN.findall(prediction) if len(letters := _letters(found)) == len(wanted)]
    return float(bool(runs) and runs[-1] == wanted)


def is_concise(answer: str, prediction: str) -> float:
    """1.0 where the prediction says one of the answers and has few enough words; else 0.0.

    `answer` is JSON: {"answers": [...], "max_words": n}. Words are what white space parts. An answer is said
    where its words stand side by side, regardless of case and punctuation.
    """
    wanted = json.loads(answer)
    if len(prediction.split()) > wanted["max_words"]:
        return 0.0
    said = f" {_words(prediction)} "
    return float(any(f" {_words(each)} " in said for each in wanted["answers"]))


BENCHMARK_SCORERS: Mapping[str, Scorer] = {
    **SCORERS,
    "order": Scorer("order", 1, ("generation",), in_order),
    "concise": Scorer("concise", 1, ("generation",), is_concise),
}
"""All that a category may name, beside `judge`."""


def require_readable(scorer: str, answer: str) -> None:
    """Raise TrainingError where an answer is not what its scorer reads: found before anybody is asked."""
    if scorer == "order" and len(_letters(answer)) < 2:
        raise TrainingError(f"the answer '{answer[:80]}' is no order of letters; expected such as 'B, A, C'")
    if scorer == "pass_at_1":
        program_of(answer, "")
    else:
        BENCHMARK_SCORERS[scorer].score(answer, "")


def _letters(text: str) -> str:
    return "".join(re.findall("[A-Z]", text))


def _words(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+(?:[.,]\d+)*", plain))
