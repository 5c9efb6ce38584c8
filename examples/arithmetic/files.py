"""The arithmetic task as files: `python -m examples.arithmetic.files FOLDER` writes them.

    lessons.jsonl     sums answered in steps: what a person would have it do
    direct.jsonl      the same sums answered directly, for the comparison
    log.jsonl         what a model answered: right in steps, or directly and wrong with a reviewer's answer in
                      steps, which makes an example, and with what it corrects a pair for preference tuning
    evaluation.jsonl  sums that none of these holds, nor the pretraining of the tiny decoder

Every choice comes from the seed; the same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.tiny.bases import TINY
from training.tiny.problems import Problem, draw

BASE = "stemma-arithmetic"
LOG_STARTS = 1_767_596_400  # 2026-01-05 07:00 UTC, in seconds
RIGHT_SHARE = 0.2  # of the log's answers


@dataclass(frozen=True)
class Sizes:
    """How many sums each file has."""

    lessons: int = 1500
    log: int = 500
    evaluation: int = 300


def make(into: Path, *, seed: int = 0, sizes: Sizes | None = None) -> dict[str, Path]:
    """Write the four files into the folder, which is made where absent; their paths by file name."""
    sizes, digits = sizes or Sizes(), TINY[BASE].digits
    train = draw(sizes.lessons + sizes.log, side="training", digits=digits, seed=seed)
    lessons, asked = train[: sizes.lessons], train[sizes.lessons :]
    held_out = draw(sizes.evaluation, side="evaluation", digits=digits, seed=seed)
    rng = random.Random(f"{seed}/log")
    files = {
        "lessons.jsonl": [_lesson(problem, problem.steps) for problem in lessons],
        "direct.jsonl": [_lesson(problem, problem.direct) for problem in lessons],
        "log.jsonl": [_logged(problem, number, rng) for number, problem in enumerate(asked)],
        "evaluation.jsonl": [_lesson(problem, problem.steps) for problem in held_out],
    }
    into.mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        (into / name).write_bytes(_joined(records))
    return {name: into / name for name in files}


def _lesson(problem: Problem, answer: str) -> dict[str, Any]:
    """A question and its answer in OpenAI's chat format, with the provenance of the one who wrote it."""
    return {
        "messages": [
            {"role": "user", "content": problem.question},
            {"role": "assistant", "content": answer},
        ],
        "metadata": {
            "prompt_name": "sums",
            "prompt_version": "1",
            "generator": "arithmetic-template",
            "generator_revision": "1",
            "scorer": "author",
            "scorer_revision": "1",
            "score": 1.0,
            "threshold": 0.5,
        },
    }


def _logged(problem: Problem, number: int, rng: random.Random) -> dict[str, Any]:
    """An answer as OpenAI's chat completions log it, judged, and corrected where it is wrong."""
    right = rng.random() < RIGHT_SHARE
    answer = problem.steps if right else f"#### {_slip(problem.total, rng)}"
    call_id = f"chatcmpl-sum-{number:06d}"
    record: dict[str, Any] = {
        "id": call_id,
        "request": {
            "model": "sums",
            "temperature": 0,
            "messages": [{"role": "user", "content": problem.question}],
            "metadata": {"prompt_name": "sums", "prompt_version": "1"},
        },
        "response": {
            "id": call_id,
            "object": "chat.completion",
            "created": LOG_STARTS + 60 * number,
            "model": "sums@1",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            ],
        },
        "verdict": {
            "value": "pass" if right else "fail",
            "judge": "final-number",
            "judge_version": "1",
            "score": 1.0 if right else 0.0,
            "threshold": 0.5,
        },
    }
    if not right:
        record["review"] = {"reviewer": f"reviewer-{rng.randint(1, 3)}", "correction": problem.steps}
    return record


def _slip(total: int, rng: random.Random) -> int:
    """The total with one carry too many or too few."""
    place = 10 ** rng.randint(1, len(str(total)) - 1)
    return total + place if rng.random() < 0.5 or total < place else total - place


def _joined(records: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record, sort_keys=True).encode() + b"\n" for record in records)


if __name__ == "__main__":
    print("\n".join(str(path) for path in make(Path(sys.argv[1])).values()))
