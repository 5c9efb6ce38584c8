"""Many pairs before one judge, and the numbers: who wins how often, and could chance have done it?

All that was said stands in the rows, from which `tally` gives the numbers again. Numbers of two judges, or of
two models behind one name, are never compared.

Errors: TrainingError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from scipy import stats

from infra.endpoints import Cost
from training.judge import Judge, JudgeVersion, Pair, Ruling, verdict_of
from training.metrics import Difference, bootstrap_interval, paired_difference
from training.recipe import TrainingError

SCORE: Mapping[str, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
"""What a verdict is worth to the candidate; what is not here does not count."""
_GIVE_UP = 3  # pairs in a row that got no answer: the next would not get one either


@dataclass(frozen=True)
class Contest:
    """What a judge said to many pairs. Made by `tally`, whose rows give it again."""

    version: JudgeVersion
    served: tuple[str, ...]
    """The models that answered, by their own word, sorted; none for a judge that is no model."""
    rows: tuple[Mapping[str, Any], ...]
    """A pair each, sorted by id: its texts, what was said in both orders, the verdict, and why."""
    wins: int
    losses: int
    ties: int
    no_count: int
    inconsistent: int
    """Ties because the judge held to a place: it said A twice, or B twice."""
    win_rate: float
    """Wins and half of the ties, of all pairs that count."""
    low: float
    """Of the 95 % bootstrap interval of the win rate."""
    high: float
    p: float
    """Two-sided sign test of wins against losses; 1.0 where there are neither."""

    def __str__(self) -> str:
        """The numbers as a sentence."""
        return (
            f"{self.wins} wins, {self.losses} losses, {self.ties} ties ({self.inconsistent} for a judge that "
            f"held to a place), {self.no_count} without a verdict: win rate {self.win_rate:.1%} "
            f"[{self.low:.1%}, {self.high:.1%}], sign test p = {self.p:.3f}, by {self.version}"
        )

    @property
    def counted(self) -> int:
        """The denominator."""
        return self.wins + self.losses + self.ties


def judge_pairs(
    judge: Judge, pairs: Sequence[Pair], *, seed: int = 0, workers: int = 4
) -> tuple[Contest, Cost]:
    """Have all pairs judged, and what that cost; `seed` is the bootstrap's.

    Raises TrainingError as `rulings` and `tally` do.
    """
    rows, cost = rulings(judge, pairs, workers=workers)
    return tally(judge.version, rows, seed=seed), cost


def rulings(judge: Judge, pairs: Sequence[Pair], *, workers: int = 4) -> tuple[list[dict[str, Any]], Cost]:
    """A row per pair in the order given, `workers` at a time, and what that cost.

    Raises TrainingError where two pairs have one id, and after the judge gave no answer at all to three pairs
    in a row.
    """
    if len({pair.id for pair in pairs}) != len(pairs):
        doubled = sorted(id for id, n in Counter(pair.id for pair in pairs).items() if n > 1)
        raise TrainingError(f"pairs have one id: {', '.join(doubled[:5])}; each pair needs its own")
    rows, cost, lost = [], Cost(), 0
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, len(pairs), workers):
            some = pairs[start : start + workers]
            for pair, ruling in zip(some, pool.map(judge.rule, some), strict=True):
                rows.append(_row(pair, ruling, judge.version))
                cost += ruling.cost
                lost = lost + 1 if ruling.is_lost else 0
                if lost >= min(_GIVE_UP, len(pairs)):
                    raise TrainingError(f"judge {judge.version} answers no more: {ruling.why}")
    return rows, cost


def tally(version: JudgeVersion, rows: Sequence[Mapping[str, Any]], *, seed: int = 0) -> Contest:
    """The numbers of stored rows, from what was said to each pair.

    Raises TrainingError where there are none or none counts, where a row's verdict is not what was said in
    it, and where rows are of another judge.
    """
    for row in rows:
        if row["judge"] != str(version):
            raise TrainingError(f"row '{row['id']}' was judged by {row['judge']}, the others by {version}")
        if verdict_of(row["said"]) != row["verdict"]:
            raise TrainingError(
                f"row '{row['id']}' is a '{row['verdict']}', but its judge said {list(row['said'])}, a "
                f"'{verdict_of(row['said'])}'; the row was changed"
            )
    ordered = sorted(rows, key=lambda row: row["id"])
    found = Counter(row["verdict"] for row in ordered)
    scores = [SCORE[row["verdict"]] for row in ordered if row["verdict"] in SCORE]
    if not scores:
        why = f" ({ordered[0]['why']})" if ordered else ""
        raise TrainingError(f"of {len(ordered)} pairs none has a verdict{why}; a win rate needs some")
    wins, losses = found["win"], found["loss"]
    low, high = bootstrap_interval(scores, seed=seed)
    return Contest(
        version=version,
        served=tuple(sorted({row["served"] for row in ordered} - {""})),
        rows=tuple(ordered),
        wins=wins,
        losses=losses,
        ties=found["tie"],
        no_count=found["no_count"],
        inconsistent=sum(tuple(row["said"]) in (("A", "A"), ("B", "B")) for row in ordered),
        win_rate=sum(scores) / len(scores),
        low=low,
        high=high,
        p=sign_test(wins, losses),
    )


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p value of wins against losses, ties left out; 1.0 where there are neither."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def gained(now: Contest, then: Contest, *, seed: int = 0) -> Difference:
    """How much more often one candidate wins than another did, on the pairs that count in both.

    Both must be judged by one version, by the same served model, against the same opponent's answers: else
    TrainingError, which names both.
    """
    require_one_judge(now, then)
    mine, theirs = ({row["id"]: row for row in each.rows} for each in (now, then))
    if mine.keys() != theirs.keys():
        raise TrainingError(f"the win rates are of other pairs: {len(mine)} against {len(theirs)}")
    for id, row in mine.items():
        if any(row[name] != theirs[id][name] for name in ("question", "opponent", "reference")):
            raise TrainingError(f"pair '{id}' asks otherwise, or has another opponent's answer")
    both = [i for i in mine if mine[i]["verdict"] in SCORE and theirs[i]["verdict"] in SCORE]
    scores = [[SCORE[side[i]["verdict"]] for i in both] for side in (mine, theirs)]
    return paired_difference(*scores, seed=seed)


def require_one_judge(now: Contest, then: Contest) -> None:
    """Raise TrainingError where two results are of two judges, or of two models behind one name."""
    if now.version != then.version:
        raise TrainingError(
            f"judged by {now.version} {dict(now.version.settings)} and by {then.version} "
            f"{dict(then.version.settings)}: two judges' numbers are not compared; judge both by one"
        )
    if now.served != then.served:
        raise TrainingError(
            f"{now.version} was served by {_listed(now.served)} and then by {_listed(then.served)}: two "
            "models' numbers are not compared; judge both by one"
        )


def _row(pair: Pair, ruling: Ruling, version: JudgeVersion) -> dict[str, Any]:
    return {
        "id": pair.id,
        "question": pair.question,
        "candidate": pair.candidate,
        "opponent": pair.opponent,
        "reference": pair.reference,
        "said": list(ruling.said),
        "verdict": ruling.verdict,
        "why": ruling.why,
        "served": ruling.served,
        "judge": str(version),
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "a model that does not say which it is"
