"""Two models on one benchmark, and one model's weak sides: what is lost, and what should be learnt next.

Numbers of two versions of a benchmark, of two scorers or of two judges are never compared.

Errors: TrainingError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from training.benchmarks.scored import Row, Scored
from training.contest import SCORE, sign_test
from training.metrics import Difference, paired_difference
from training.recipe import TrainingError


@dataclass(frozen=True)
class Regressed:
    """A category in which the candidate scores less than the champion."""

    name: str
    candidate: float
    champion: float
    lost: tuple[str, ...]
    """Ids of the prompts on which it scores less."""
    p: float
    """Two-sided sign test of the prompts lost against those won: what chance alone would do."""

    def __str__(self) -> str:
        """The category and its numbers as a sentence."""
        return (
            f"In category '{self.name}' it scores {100 * self.candidate:.1f} %, the champion "
            f"{100 * self.champion:.1f} %; lost: {', '.join(self.lost)} (sign test p = {self.p:.3f})."
        )


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the champion, on the prompts that count for both."""

    overall: Difference
    """Of the candidate's mean score over the champion's."""
    regressed: tuple[Regressed, ...]
    """Every category in which the candidate scores less, in the benchmark's order."""


def compare(candidate: Scored, champion: Scored, *, seed: int = 0) -> Comparison:
    """The candidate's scores against the champion's, prompt by prompt.

    Raises TrainingError where they are of two versions of a benchmark, or of two scorers or judges.
    """
    if candidate.digest != champion.digest:
        raise TrainingError(
            f"scored on {candidate.benchmark} and on {champion.benchmark}: two versions of a benchmark are "
            "not compared; run both models on one"
        )
    pairs = []
    for mine, theirs in zip(candidate.rows, champion.rows, strict=True):
        had = theirs.score
        if had is None and mine.opponent and mine.opponent == theirs.prediction:
            had = SCORE["tie"]  # a judge compared the two: what a tie is worth is what the champion has
        if mine.score is None or had is None:
            continue
        if theirs.score is not None and _judged_by(mine) != _judged_by(theirs):
            raise TrainingError(
                f"prompt '{mine.category}/{mine.id}' was scored by {_by(mine)} and by {_by(theirs)}: two "
                "scorers' numbers are not compared; run both models again"
            )
        pairs.append(_Shared(mine.category, mine.id, mine.score, had))
    if not pairs:
        raise TrainingError("no prompt counts for both models, so there is nothing to compare")
    candidates, champions = [pair.candidate for pair in pairs], [pair.champion for pair in pairs]
    gain = paired_difference(candidates, champions, seed=seed)
    found = [
        _regressed(name, [pair for pair in pairs if pair.category == name])
        for name in dict.fromkeys(pair.category for pair in pairs)
    ]
    return Comparison(gain, tuple(each for each in found if each.candidate < each.champion))


@dataclass(frozen=True)
class Weak:
    """A category of which the next cycle should bring more examples. It holds nothing of any prompt."""

    name: str
    deficit: float
    """What its mean score lacks to the wanted one."""
    quota: int
    """How many of the next cycle's rows are meant for it."""


def weak_categories(scored: Scored, *, rows: int, wanted: float | None = None) -> tuple[Weak, ...]:
    """The categories below `wanted` (default: the overall floor), weakest first, and their parts of `rows`.

    Parts are as large as the deficits, and add up to `rows`; no weak category gives none.
    """
    least = scored.floor if wanted is None else wanted
    found = [(least - each.value, each.name) for each in scored.categories if each.value < least]
    found.sort(key=lambda each: (-each[0], each[1]))
    whole = fsum(deficit for deficit, _ in found)
    ends = [round(rows * fsum(d for d, _ in found[: n + 1]) / whole) for n in range(len(found))]
    return tuple(
        Weak(name, deficit, end - begin)
        for (deficit, name), begin, end in zip(found, [0, *ends][: len(ends)], ends, strict=True)
    )


def _judged_by(row: Row) -> tuple[str, str, str]:
    return row.scorer, row.served, row.opponent


def _by(row: Row) -> str:
    return f"{row.scorer}{f' ({row.served})' if row.served else ''}" + (
        f" against '{row.opponent[:40]}'" if row.opponent else ""
    )


@dataclass(frozen=True)
class _Shared:
    """A prompt that counts for both."""

    category: str
    id: str
    candidate: float
    champion: float


def _regressed(name: str, pairs: Sequence[_Shared]) -> Regressed:
    lost = tuple(pair.id for pair in pairs if pair.candidate < pair.champion)
    won = sum(pair.candidate > pair.champion for pair in pairs)
    candidate = fsum(pair.candidate for pair in pairs) / len(pairs)
    champion = fsum(pair.champion for pair in pairs) / len(pairs)
    return Regressed(name, candidate, champion, lost, sign_test(won, len(lost)))
