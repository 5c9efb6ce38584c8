"""A benchmark as data: categories of prompts with their answers, who scores them, and the floors.

    nine.toml -> read("nine") -> Benchmark, whose version is the digest of what it says

    [benchmark]
    name = "nine"
    revision = 1

    [floors]                    # a share of right answers: all in all, and in each category
    overall = 0.70
    each = 0.30

    [[category]]
    name = "reasoning"
    scorer = "option_letter"    # one of BENCHMARK_SCORERS, or "judge"
    instruction = "Answer with one letter."

    [[category.prompt]]
    id = "bats"
    prompt = "A bat and a ball cost ..."
    options = ["5 cents", "10 cents"]
    answer = "A"

Comments, white space and the order of keys are no part of the version; every prompt, answer and floor is.

Errors: TrainingError, which names the file and the key.
"""

from __future__ import annotations

import hashlib
import json
import string
import tomllib
from collections import Counter
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.config import explain
from lineage.rows import canonical_json
from training.benchmarks.scorers import BENCHMARK_SCORERS, require_readable
from training.recipe import TrainingError

JUDGE = "judge"
"""The scorer of a category whose answers only a judge can compare."""
MOST_PROMPTS = 500
"""Their rows are kept in the record of the run."""

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
_Text = Annotated[str, Field(min_length=1, max_length=20_000)]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Message(_Data):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: _Text


class Prompt(_Data):
    """One question and what is right."""

    id: _Name
    """Unique within its category."""
    prompt: _Text | None = None
    """What the user asks; either this or `messages`."""
    messages: tuple[Message, ...] = ()
    """A whole conversation, which ends with the user's turn."""
    options: tuple[_Text, ...] = Field(default=(), max_length=26)
    """Choices, written below the prompt as `A) ...`; the answer is then a letter, or several of them."""
    answer: _Text | tuple[_Text, ...] | None = None
    """What is right, in the form that the scorer reads; a list: any of these. A judge's category may do
    without, or gives an answer to be compared with."""
    max_words: int | None = Field(default=None, ge=1)
    """`concise`: an answer of more words is wrong, whatever it says."""

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("a prompt has either 'prompt' or 'messages'")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError(f"'messages' end with a turn of {self.messages[-1].role}, expected user")
        letters = string.ascii_uppercase[: len(self.options)]
        if self.options and not set("".join(self.answers)) <= set(letters):
            raise ValueError(f"the answer to {len(self.options)} options is not of the letters {letters}")
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers that are right; none where none is given."""
        if self.answer is None:
            return ()
        return (self.answer,) if isinstance(self.answer, str) else self.answer

    @property
    def expected(self) -> str:
        """The answer as one text for a scorer: of several a JSON list, with max_words a JSON object."""
        if self.max_words is not None:
            told = {"answers": list(self.answers), "max_words": self.max_words}
            return json.dumps(told, ensure_ascii=False)
        if isinstance(self.answer, tuple):
            return json.dumps(list(self.answer), ensure_ascii=False)
        return self.answer or ""


class Category(_Data):
    """Prompts that are scored alike, and together."""

    name: _Name
    scorer: str
    """Who says what an answer is worth: one of BENCHMARK_SCORERS, or `judge`."""
    floor: _Share | None = None
    """The least mean score here; None: what `floors.each` says."""
    instruction: str = Field(default="", max_length=2000)
    """Stands below each prompt: the form in which an answer is wanted."""
    note: str = ""
    """For people; nobody is asked it."""
    prompt: tuple[Prompt, ...] = ()
    """None only where a judge scores: the category is then not measured, and said to be so."""

    @model_validator(mode="after")
    def _each_can_be_scored(self) -> Self:
        if self.scorer not in (known := (*BENCHMARK_SCORERS, JUDGE)):
            raise ValueError(
                f"category '{self.name}': scorer '{self.scorer}' is not one of: {', '.join(known)}"
            )
        if self.scorer != JUDGE and not self.prompt:
            raise ValueError(
                f"category '{self.name}' has no prompt; only one of scorer 'judge' may do without"
            )
        without = [prompt.id for prompt in self.prompt if not prompt.answers]
        if self.scorer != JUDGE and without:
            raise ValueError(f"category '{self.name}': prompt '{without[0]}' has no answer to be scored by")
        for prompt in self.prompt:
            if (prompt.max_words is None) == (self.scorer == "concise"):
                raise ValueError(
                    f"category '{self.name}': prompt '{prompt.id}' of scorer '{self.scorer}' "
                    f"{'needs' if self.scorer == 'concise' else 'has no use for'} max_words"
                )
            if self.scorer != JUDGE:
                self._require_readable(prompt)
        _no_doubles("prompt", [prompt.id for prompt in self.prompt], f"category '{self.name}'")
        return self

    def _require_readable(self, prompt: Prompt) -> None:
        try:
            require_readable(self.scorer, prompt.expected)
        except TrainingError as error:
            raise ValueError(f"category '{self.name}': prompt '{prompt.id}': {error}") from error

    def conversation(self, prompt: Prompt) -> list[dict[str, str]]:
        """What a model is asked: the turns, with options and instruction below the last."""
        turns = [message.model_dump() for message in prompt.messages]
        turns = turns or [{"role": "user", "content": prompt.prompt or ""}]
        letters = string.ascii_uppercase[: len(prompt.options)]
        listed = [f"{letter}) {option}" for letter, option in zip(letters, prompt.options, strict=True)]
        parts = [turns[-1]["content"], "\n".join(listed), self.instruction]
        return [*turns[:-1], {"role": "user", "content": "\n\n".join(part for part in parts if part)}]


class Floors(_Data):
    """What a model must reach to be of use at all. By default nothing."""

    overall: _Share = 0.0
    """Mean score over all prompts."""
    each: _Share = 0.0
    """Mean score in each category."""


class _Head(_Data):
    name: _Name
    revision: int = Field(ge=1)


class Benchmark(_Data):
    """Everything that a benchmark asks."""

    benchmark: _Head
    """Its name, and a number for people to tell its versions by."""
    floors: Floors = Floors()
    category: tuple[Category, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        _no_doubles("category", [category.name for category in self.category], "the benchmark")
        if self.size > MOST_PROMPTS:
            raise ValueError(f"{self.size} prompts, expected at most {MOST_PROMPTS}; make it two benchmarks")
        return self

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.benchmark.name

    @property
    def size(self) -> int:
        """How many prompts there are."""
        return sum(len(category.prompt) for category in self.category)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over all that it says: its version."""
        return f"sha256:{hashlib.sha256(canonical_json(self.model_dump())).hexdigest()}"

    def __str__(self) -> str:
        """`name@revision` and the beginning of the digest."""
        return f"{self.name}@{self.benchmark.revision} ({self.digest[7:19]})"

    def floor_of(self, category: Category) -> float:
        """The least mean score that a model may have there."""
        return self.floors.each if category.floor is None else category.floor


def read(path_or_name: str | Path) -> Benchmark:
    """A benchmark by the path of its TOML file, or by the name of a packaged one. Raises TrainingError."""
    wanted = str(path_or_name)
    if wanted in (known := packaged()):
        place, text = (
            f"{wanted}.toml",
            files("training.benchmarks").joinpath(f"{wanted}.toml").read_text("utf-8"),
        )
    elif Path(wanted).is_file():
        place, text = wanted, _text_of(Path(wanted))
    else:
        raise TrainingError(
            f"there is no benchmark '{wanted}'; expected the path of a TOML file, or one of: "
            f"{', '.join(known)}"
        )
    try:
        told: dict[str, Any] = tomllib.loads(text)
        return Benchmark.model_validate(told)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"benchmark '{place}' is not TOML: {error}") from error
    except ValidationError as error:
        raise TrainingError(f"benchmark '{place}': {explain(error, Benchmark)}") from error


def packaged() -> list[str]:
    """The names of the benchmarks that come with the package, sorted."""
    here = files("training.benchmarks").iterdir()
    return sorted(each.name.removesuffix(".toml") for each in here if each.name.endswith(".toml"))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"benchmark '{path}' cannot be read: {error}") from error


def _no_doubles(what: str, names: Iterable[str], where: str) -> None:
    doubled = sorted(name for name, n in Counter(names).items() if n > 1)
    if doubled:
        raise ValueError(f"{where} has {what} '{doubled[0]}' twice")
