"""Scorers: what one prediction is worth beside its answer, from 0 to 1, by rules with a name and a revision.

    label          classification  the same label
    preferred      preference      the better answer, not the rejected one
    entities       tagging         F1 of the text's entity spans (lineage.spans)
    exact          generation      the same text, whatever its white space; classification too
    number         generation      the same final number, GSM8K's rule
    option_letter  generation      the same option of a multiple choice
    alias          generation      one of the answer's names, TriviaQA's rule: a JSON list, or one name
    rouge1, rouge2, rougeL         F1 of what a reference text and the prediction share
    tool_name      generation      the right tools
    tool_call      generation      the right tools with the right arguments
    pass_at_1      generation      the program passes its test, in the sandbox; the answer is JSON:
                                   {"test": ..., "entry_point": ..., "prompt": ...}, the last two optional

A score is stored with `str(scorer)`, such as "number@1". Whoever changes what a rule says raises its
revision, so that scores of two rules are never compared silently.

Errors: TrainingError where a scorer does not fit a task or an answer is not what its scorer reads; its
SandboxError where programs cannot be run safely. A prediction that cannot be read is no error: it scores 0.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lineage.spans import SpanError, read_spans
from lineage.tasks import Task
from training.metrics import (
    entity_counts,
    final_number,
    matches_alias,
    option_letter,
    rouge_l,
    rouge_n,
    same_calls,
    same_number,
    same_option,
    same_text,
    same_tools,
)
from training.recipe import TrainingError
from training.sandbox import Program, SandboxError, isolation, run, run_all


@dataclass(frozen=True)
class Scorer:
    """A rule that scores one prediction; its name and revision are what makes scores comparable."""

    name: str
    revision: int
    task: tuple[Task, ...]
    """The tasks whose answers it reads."""

    score: Callable[[str, str], float]
    """Of an answer and a prediction: 0 to 1."""

    def __str__(self) -> str:
        """As it is stored beside a score: name@revision."""
        return f"{self.name}@{self.revision}"


def scorer_for(task: Task, name: str = "") -> Scorer:
    """The scorer of that name, or the task's usual one. Raises TrainingError where it does not fit."""
    wanted = name or _USUAL.get(task, "")
    fitting = [each.name for each in SCORERS.values() if task in each.task]
    if not fitting:
        raise TrainingError(
            f"task '{task}' has no answer that a rule could score; evaluate it as another task"
        )
    if wanted not in fitting:
        known = "does not fit" if wanted in SCORERS else "is unknown; these fit"
        raise TrainingError(f"scorer '{wanted}' {known} task '{task}'; choose from: {', '.join(fitting)}")
    return SCORERS[wanted]


def check_answers(scorer: Scorer, answers: Sequence[str]) -> None:
    """Refuse answers that the scorer does not read, and programs where they cannot be confined.

    For before a model is asked, which costs more. Raises TrainingError, with how many there are and the
    first.
    """
    if scorer is SCORERS["pass_at_1"] and (missing := isolation()):
        raise SandboxError(missing)
    read = program_of if scorer is SCORERS["pass_at_1"] else scorer.score
    unread = []
    for answer in answers:
        try:
            read(answer, "")
        except TrainingError as error:
            unread.append(error)
    if unread:
        raise TrainingError(f"{len(unread)} of {len(answers)} answers are not for {scorer}: {unread[0]}")


def score_all(scorer: Scorer, answers: Sequence[str], predictions: Sequence[str]) -> list[float]:
    """The scores of many predictions, in order; programs run several at a time. Raises TrainingError."""
    if len(answers) != len(predictions):
        raise TrainingError(
            f"got {len(answers)} answers against {len(predictions)} predictions; expected pairs"
        )
    if scorer is SCORERS["pass_at_1"]:
        pairs = zip(answers, predictions, strict=True)
        return [float(ran.passed) for ran in run_all([program_of(*pair) for pair in pairs])]
    return [scorer.score(*pair) for pair in zip(answers, predictions, strict=True)]


def program_of(answer: str, prediction: str) -> Program:
    """The program that a prediction is, with the answer's test. Raises TrainingError where that is none.

    A prediction in Markdown fences is what they hold. One that does not define the entry point continues the
    prompt, as completions of HumanEval do; one that does stands alone, after the prompt's imports.
    """
    said = _object(answer)
    test, entry_point, prompt = (said.get(key, "") for key in ("test", "entry_point", "prompt"))
    if not (
        isinstance(test, str) and test.strip() and isinstance(entry_point, str) and isinstance(prompt, str)
    ):
        raise TrainingError(
            f"the answer {answer[:80]!r} holds no test; expected JSON such as "
            '{"test": "assert f(2) == 4", "entry_point": "f", "prompt": "def f(x):\\n"}'
        )
    if not _asks(test, entry_point):
        raise TrainingError(
            f"the test {test[:80]!r} asks nothing of a program: every one would pass; name the function that "
            "its `check` is called with as entry_point, or write out what is to hold"
        )
    source = _unfenced(prediction)
    if entry_point and not re.search(rf"^(?:async )?(?:def|class) {re.escape(entry_point)}\b", source, re.M):
        source = f"{prompt}{source}"
    elif prompt:
        source = "\n".join([*_IMPORTS.findall(prompt), source])
    return Program(source=source, test=test, entry_point=entry_point)


def _asks(test: str, entry_point: str) -> bool:
    """Does the test do more than define? With an entry point `check` is called. Here it is only read."""
    try:
        parts = ast.parse(test).body
    except (SyntaxError, ValueError, RecursionError):
        return True  # which fails every program, and says so
    defined = {each.name for each in parts if isinstance(each, _FUNCTIONS)}
    defined |= {name.id for each in parts for name in ast.walk(each) if isinstance(name, ast.Name)}
    if entry_point and "check" in defined:
        return True
    idle = (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass, ast.Assign, ast.AnnAssign)
    said = [each for each in parts if not isinstance(each, idle)]
    return any(not (isinstance(e, ast.Expr) and isinstance(e.value, ast.Constant)) for e in said)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_FENCED = re.compile(r"```[A-Za-z0-9]*\n(.*?)```", re.DOTALL)
_IMPORTS = re.compile(r"^(?:from [\w.]+ import .+|import .+)$", re.MULTILINE)


def _unfenced(prediction: str) -> str:
    blocks = _FENCED.findall(prediction)
    return "\n".join(blocks) if blocks else prediction


def _label(answer: str, prediction: str) -> float:
    return float(answer == prediction)


def _exact(answer: str, prediction: str) -> float:
    return float(same_text(answer, prediction))


def _number(answer: str, prediction: str) -> float:
    if final_number(answer) is None:
        raise TrainingError(_unreadable(answer, "names no number", "`#### 18`, or 18 alone"))
    return float(same_number(answer, prediction))


def _option(answer: str, prediction: str) -> float:
    if option_letter(answer) is None:
        raise TrainingError(_unreadable(answer, "names no option", "`B`, or `The answer is (B)`"))
    return float(same_option(answer, prediction))


def _alias(answer: str, prediction: str) -> float:
    try:
        names = json.loads(answer) if answer.lstrip().startswith("[") else [answer]
    except (ValueError, RecursionError):
        names = [answer]
    if not names or not all(isinstance(name, str) for name in names):
        raise TrainingError(
            _unreadable(answer, "lists no names", '`["Onion", "Allium cepa"]`, or Onion alone')
        )
    return float(matches_alias(names, prediction))


def _rouge1(answer: str, prediction: str) -> float:
    return rouge_n(answer, prediction, n=1)


def _rouge2(answer: str, prediction: str) -> float:
    return rouge_n(answer, prediction, n=2)


def _tool_name(answer: str, prediction: str) -> float:
    return float(same_tools(answer, prediction))


def _tool_call(answer: str, prediction: str) -> float:
    return float(same_calls(answer, prediction))


def _entities(answer: str, prediction: str) -> float:
    """F1 of one text; 1 where both say that it holds none. The F1 of many texts is not the mean of these."""
    try:
        true = read_spans(answer)
    except SpanError as error:
        raise TrainingError(_unreadable(answer, str(error), "the spans of lineage.spans")) from error
    try:
        said = read_spans(prediction)
    except SpanError:
        return 0.0
    hits, found, wanted = entity_counts([true], [said])[0].tolist()
    return 2 * hits / (found + wanted) if found + wanted else 1.0


def _pass_at_1(answer: str, prediction: str) -> float:
    return float(run(program_of(answer, prediction)).passed)


def _object(answer: str) -> Mapping[str, object]:
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _unreadable(answer: str, found: str, expected: str) -> str:
    return f"the answer {answer[:80]!r} {found}; expected {expected}: choose another scorer for such rows"


_TALK: tuple[Task, ...] = ("generation",)

SCORERS: Mapping[str, Scorer] = {
    each.name: each
    for each in (
        Scorer("label", 1, ("classification",), _label),
        Scorer("preferred", 1, ("preference",), _label),
        Scorer("entities", 1, ("tagging",), _entities),
        Scorer("exact", 1, ("classification", "generation"), _exact),
        Scorer("number", 1, _TALK, _number),
        Scorer("option_letter", 1, _TALK, _option),
        Scorer("alias", 1, _TALK, _alias),
        Scorer("rouge1", 1, _TALK, _rouge1),
        Scorer("rouge2", 1, _TALK, _rouge2),
        Scorer("rougeL", 1, _TALK, rouge_l),
        Scorer("tool_name", 1, _TALK, _tool_name),
        Scorer("tool_call", 1, _TALK, _tool_call),
        Scorer("pass_at_1", 1, _TALK, _pass_at_1),
    )
}
"""Every scorer, by name."""

_USUAL: Mapping[str, str] = {
    "classification": "label",
    "tagging": "entities",
    "generation": "exact",
    "preference": "preferred",
}
