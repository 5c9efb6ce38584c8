"""A benchmark asked and scored: a row per prompt, a mean per category, and which floors are reached.

    run(answer, benchmark) -> Scored -> as_facets -> the run's record -> from_facets -> Scored

Rows hold all that a number is made of, so `score` gives it again. A category of scorer `judge` is scored
against an opponent's answers: a win is 1, a tie a half, a loss 0; what the judge gives no verdict on does not
count, and without a judge the category is not measured, which is said.

Errors: TrainingError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import fsum
from typing import Any

from infra.endpoints import Cost
from training.benchmarks.definition import JUDGE, Benchmark, Category, Prompt
from training.benchmarks.scorers import BENCHMARK_SCORERS, check_answers, score_all
from training.contest import SCORE, rulings
from training.judge import Judge, Pair, verdict_of
from training.metrics import bootstrap_interval
from training.recipe import TrainingError

_NO_JUDGE = "no judge was given"

Conversation = Sequence[Mapping[str, Any]]
Answerer = Callable[[Sequence[Conversation]], Sequence[str]]
"""Answers conversations, one text each, in the order given."""
Place = tuple[str, str]
"""Category and id of a prompt."""


@dataclass(frozen=True)
class Row:
    """One prompt and what came of it."""

    category: str
    id: str
    answer: str
    """What is right, as the scorer reads it; of a judged prompt the reference, or ''."""
    prediction: str
    scorer: str
    """`name@revision` of the scorer or the judge; '' where nobody scored."""
    score: float | None
    """0..1; None does not count."""
    why: str = ""
    """Why it does not count."""
    opponent: str = ""
    """What a judge compared it with."""
    said: str = ""
    """What the judge said in both orders: two words with a comma."""
    served: str = ""
    """The model that judged, by its own word."""


@dataclass(frozen=True)
class CategoryScore:
    """The numbers of one category."""

    name: str
    value: float
    """Mean score of the prompts that count."""
    floor: float
    n: int
    not_counted: int = 0

    @property
    def is_reached(self) -> bool:
        """Does it lie at its floor or above?"""
        return self.value >= self.floor


@dataclass(frozen=True)
class Scored:
    """What a benchmark says of one model. Made by `score`."""

    benchmark: str
    """Its name, revision and digest, for people."""
    digest: str
    """Its version."""
    rows: tuple[Row, ...]
    """In the benchmark's order."""
    categories: tuple[CategoryScore, ...]
    """Those that were measured, in the benchmark's order."""
    unmeasured: tuple[str, ...]
    """Those that were not, for want of a judge or of prompts."""
    overall: float
    """Mean score of all prompts that count."""
    low: float
    """Of its 95 % bootstrap interval."""
    high: float
    floor: float
    """What `overall` is to reach."""
    n: int
    seed: int

    def __str__(self) -> str:
        """The overall number and its interval in percent, and n."""
        return (
            f"{100 * self.overall:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] n={self.n} on "
            f"{self.benchmark}"
        )

    @property
    def failed(self) -> tuple[str, ...]:
        """A sentence for each floor that is not reached; none where all are."""
        said = [
            f"In category '{each.name}' it scores {100 * each.value:.1f} % of {each.n} prompts, below the "
            f"floor of {100 * each.floor:g} %."
            for each in self.categories
            if not each.is_reached
        ]
        if self.overall < self.floor:
            said.insert(
                0,
                f"All in all it scores {100 * self.overall:.1f} % of {self.n} prompts "
                f"[{100 * self.low:.1f}, {100 * self.high:.1f}], below the floor of {100 * self.floor:g} %.",
            )
        return tuple(said)


def run(
    answer: Answerer,
    benchmark: Benchmark,
    *,
    judge: Judge | None = None,
    opponents: Mapping[Place, str] | None = None,
    seed: int = 0,
) -> tuple[Scored, Cost]:
    """Ask a model everything, and what judging it cost.

    The opponent of a judged prompt is another model's answer to it, and the prompt's own where `opponents`
    lacks it. `seed` is the bootstrap's. Raises TrainingError as `score` and `rulings` do, and where the model
    does not give one text for each prompt.
    """
    asked = [(category, prompt) for category in benchmark.category for prompt in category.prompt]
    for category in benchmark.category:  # a sandbox that is missing here is found before a model is asked
        if category.scorer != JUDGE:
            expected = [prompt.expected for prompt in category.prompt]
            check_answers(BENCHMARK_SCORERS[category.scorer], expected)
    said = list(answer([category.conversation(prompt) for category, prompt in asked]))
    if len(said) != len(asked):
        raise TrainingError(f"the model gave {len(said)} answers to {len(asked)} prompts, expected one each")
    rows: list[Row] = []
    for category in benchmark.category:
        rows += _rows(category, said[len(rows) : len(rows) + len(category.prompt)])
    judged, cost = _judged(rows, asked, judge, opponents or {})
    return score(benchmark, judged, seed=seed), cost


def score(benchmark: Benchmark, rows: Sequence[Row], *, seed: int = 0) -> Scored:
    """The numbers of a benchmark's rows; `seed` is the bootstrap's.

    Raises TrainingError where a prompt has no row or two, where a row is of another prompt, and where no row
    counts.
    """
    rows = _each_once(benchmark, rows)
    by_category: dict[str, list[Row]] = {category.name: [] for category in benchmark.category}
    for row in rows:
        by_category[row.category].append(row)
    measured, unmeasured = [], []
    for category in benchmark.category:
        mine = by_category[category.name]
        scores = _scores(mine)
        if scores:
            mean, floor = fsum(scores) / len(scores), benchmark.floor_of(category)
            measured.append(CategoryScore(category.name, mean, floor, len(scores), len(mine) - len(scores)))
        else:
            unmeasured.append(category.name)
    scores = _scores(rows)
    if not scores:
        raise TrainingError(f"benchmark {benchmark} has no prompt that can be scored without a judge")
    low, high = bootstrap_interval(scores, seed=seed)
    return Scored(
        benchmark=str(benchmark),
        digest=benchmark.digest,
        rows=tuple(rows),
        categories=tuple(measured),
        unmeasured=tuple(unmeasured),
        overall=fsum(scores) / len(scores),
        low=low,
        high=high,
        floor=benchmark.floors.overall,
        n=len(scores),
        seed=seed,
    )


def as_facets(scored: Scored) -> dict[str, Any]:
    """All of it as JSON can say it; `from_facets` gives it again."""
    return {
        "benchmark": scored.benchmark,
        "digest": scored.digest,
        "overall": [scored.overall, scored.low, scored.high, scored.n],
        "categories": [asdict(each) for each in scored.categories],
        "unmeasured": list(scored.unmeasured),
        "failed": list(scored.failed),
        "seed": scored.seed,
        "rows": [asdict(row) for row in scored.rows],
    }


def from_facets(benchmark: Benchmark, facets: Mapping[str, Any]) -> Scored:
    """The numbers of a record, made again from its rows, and the rows' scores from what was answered.

    Raises TrainingError for a record of another version of the benchmark, for a row that says another score
    than its scorer gives it, and for numbers that are not those that the rows give.
    """
    if facets["digest"] != benchmark.digest:
        raise TrainingError(f"the record is of {facets['benchmark']}, the benchmark is {benchmark}")
    try:
        rows = [Row(**row) for row in facets["rows"]]
        again = score(benchmark, rows, seed=facets["seed"])
    except (TypeError, KeyError) as error:
        raise TrainingError(f"the record is not one that a benchmark writes: {error}") from error
    for row in rows:
        _require_true(row, benchmark)
    told = as_facets(again)
    changed = sorted(name for name in told if told[name] != facets.get(name))
    if changed:
        raise TrainingError(f"the record's {', '.join(changed)} are not what its rows give; it was changed")
    return again


def _rows(category: Category, said: Sequence[str]) -> list[Row]:
    for prompt, text in zip(category.prompt, said, strict=True):
        if not isinstance(text, str):
            raise TrainingError(
                f"the model answered prompt '{category.name}/{prompt.id}' with a {type(text).__name__}, "
                "expected a text"
            )
    if category.scorer == JUDGE:
        return [
            Row(category.name, prompt.id, next(iter(prompt.answers), ""), text, "", None, why=_NO_JUDGE)
            for prompt, text in zip(category.prompt, said, strict=True)
        ]
    scorer, expected = BENCHMARK_SCORERS[category.scorer], [prompt.expected for prompt in category.prompt]
    return [
        Row(category.name, prompt.id, answer, text, str(scorer), float(worth))
        for prompt, answer, text, worth in zip(
            category.prompt, expected, said, score_all(scorer, expected, said), strict=True
        )
    ]


def _judged(
    rows: Sequence[Row],
    asked: Sequence[tuple[Category, Prompt]],
    judge: Judge | None,
    opponents: Mapping[Place, str],
) -> tuple[list[Row], Cost]:
    """The rows, with what the judge said to those that are its."""
    done, pairs = list(rows), {}
    for index, (row, (category, prompt)) in enumerate(zip(rows, asked, strict=True)):
        if category.scorer != JUDGE or judge is None:
            continue
        opponent = opponents.get((row.category, row.id), row.answer)
        if opponent:
            question = "\n\n".join(turn["content"] for turn in category.conversation(prompt))
            pairs[index] = Pair(f"{row.category}/{row.id}", question, row.prediction, opponent, row.answer)
        else:
            done[index] = replace(row, why="there is no opponent's answer")
    if judge is None or not pairs:
        return done, Cost()
    told, cost = rulings(judge, list(pairs.values()))
    for index, ruling in zip(pairs, told, strict=True):
        done[index] = replace(
            done[index],
            scorer=str(judge.version),
            score=SCORE.get(ruling["verdict"]),
            why=ruling["why"],
            opponent=ruling["opponent"],
            said=",".join(ruling["said"]),
            served=ruling["served"],
        )
    return done, cost


def _each_once(benchmark: Benchmark, rows: Sequence[Row]) -> list[Row]:
    """The rows in the benchmark's order."""
    wanted = [(category.name, prompt.id) for category in benchmark.category for prompt in category.prompt]
    found = Counter((row.category, row.id) for row in rows)
    for category, id in wanted:
        if found[category, id] != 1:
            raise TrainingError(
                f"prompt '{category}/{id}' has {found[category, id]} rows, expected one; run it again"
            )
    if others := sorted(found.keys() - set(wanted)):
        raise TrainingError(f"a row is of prompt '{'/'.join(others[0])}', which {benchmark} does not have")
    place = {each: n for n, each in enumerate(wanted)}
    return sorted(rows, key=lambda row: place[row.category, row.id])


def _require_true(row: Row, benchmark: Benchmark) -> None:
    category = next(each for each in benchmark.category if each.name == row.category)
    if category.scorer == JUDGE:
        is_true = row.score == (SCORE.get(verdict_of(row.said.split(","))) if row.said else None)
    else:
        scorer = BENCHMARK_SCORERS[category.scorer]
        prompt = next(each for each in category.prompt if each.id == row.id)
        is_true = row.answer == prompt.expected and row.scorer.rpartition("@")[0] == scorer.name
        if row.scorer == str(scorer):  # an older revision's word stands; compare() tells the two apart
            is_true &= row.score == scorer.score(row.answer, row.prediction)
    if not is_true:
        raise TrainingError(f"row '{row.category}/{row.id}' has score {row.score}; the row was changed")


def _scores(rows: Sequence[Row]) -> list[float]:
    return [row.score for row in rows if row.score is not None]
