"""What the page of a promotion tells: numbers, the items that moved, and where those come from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra.settings import Settings
from lineage.models import ModelVersion
from lineage.report import Report, reports_of
from training.metrics import bootstrap_interval
from training.promotion import Arm, Decision, Evidence, First, Gate, Group, Reign, arm_of, groups_of
from training.promotion.contest import Contest
from training.promotion.gate_set import examples_of, items_of, said_on

SHOWN = 60
"""Rows won and rows lost that the page lists; the record has more."""

_COLUMNS = (
    "text",
    "source_uri",
    "source_span",
    "prompt_name",
    "prompt_version",
    "scorer",
    "scorer_revision",
)


@dataclass(frozen=True)
class Standing:
    """One model on the gate's items."""

    who: str
    accuracy: float
    low: float
    high: float
    arm: Arm | None
    """Beside the champion; of the champion itself none."""


@dataclass(frozen=True)
class Moved:
    """An item that the candidate wins or loses."""

    row_id: str
    text: str
    answer: str
    champion: str
    candidate: str
    nulls_right: int
    nulls: int
    source: str
    span: str
    prompt: tuple[str, str]
    scorer: tuple[str, str]
    category: str


@dataclass(frozen=True)
class PageFacts:
    """All of it; plain values."""

    version: str
    champion: str
    """As `name@version`; empty where there was none."""
    run_id: str
    at: dt.datetime
    decision: Decision
    gate: Mapping[str, Any]
    standings: Sequence[Standing]
    reports: Sequence[tuple[str, Report]]
    """Whose, and the number."""
    groups: Sequence[Group]
    losses: Sequence[Moved]
    wins: Sequence[Moved]
    lost: int
    won: int
    reigns: Sequence[tuple[Reign, int]]
    """Champions that were accepted before, and how many of their passes the candidate loses."""
    evaluations: Mapping[str, str]


def facts_of(
    settings: Settings,
    contest: Contest,
    evidence: Evidence | First,
    decision: Decision,
    *,
    version: ModelVersion,
    run_id: str,
    at: dt.datetime,
    gate: Gate,
) -> PageFacts:
    """What there is to tell of a decision that was just made; its evaluations must be stored."""
    items = items_of(settings, contest.candidate.run_id, evaluation=contest.evaluations[0])
    candidate = np.asarray(evidence.candidate, dtype=bool)
    lost = won = np.array([], dtype=int)
    groups: list[Group] = []
    reigns: list[tuple[Reign, int]] = []
    if isinstance(evidence, Evidence):
        champion = np.asarray(evidence.champion, dtype=bool)
        lost, won = np.flatnonzero(champion & ~candidate), np.flatnonzero(candidate & ~champion)
        groups = groups_of(evidence)
        known = [*evidence.history, *([evidence.previous] if evidence.previous else [])]
        reigns = [(reign, int((reign.kept & ~candidate).sum())) for reign in known]
    return PageFacts(
        version=str(version),
        champion=f"{contest.name}@{contest.reigning}" if contest.champion else "",
        run_id=run_id,
        at=at,
        decision=decision,
        gate=gate.model_dump(mode="json"),
        standings=_standings(evidence),
        reports=_reports(settings, contest),
        groups=groups,
        losses=_moved(settings, contest, evidence, items, lost[:SHOWN]),
        wins=_moved(settings, contest, evidence, items, won[:SHOWN]),
        lost=len(lost),
        won=len(won),
        reigns=reigns,
        evaluations=_named(contest),
    )


def _standings(evidence: Evidence | First) -> list[Standing]:
    def standing(who: str, right: Sequence[bool], arm: Arm | None) -> Standing:
        low, high = bootstrap_interval(right, seed=0)
        return Standing(who, float(np.mean(right)), low, high, arm)

    if isinstance(evidence, First):
        return [standing("candidate", evidence.candidate, None)]
    found = [standing("candidate", evidence.candidate, arm_of(evidence.champion, evidence.candidate))]
    found.append(standing("champion", evidence.champion, None))
    for index, null in enumerate(evidence.nulls, start=1):
        found.append(standing(f"null retrain {index}", null, arm_of(evidence.champion, null)))
    return found


def _reports(settings: Settings, contest: Contest) -> list[tuple[str, Report]]:
    models = {"candidate": contest.candidate, "champion": contest.champion}
    return [
        (who, each)
        for who, checkpoint in models.items()
        if checkpoint
        for each in reports_of(settings, checkpoint.run_id)
        if each.run_id in contest.evaluations
    ]


def _named(contest: Contest) -> dict[str, str]:
    candidate, *others = contest.evaluations
    named = {"candidate": candidate}
    if others:
        named["champion"] = others[0]
        named |= {f"null retrain {index}": run for index, run in enumerate(others[1:], start=1)}
    return named


def _moved(
    settings: Settings, contest: Contest, evidence: Evidence | First, items: pa.Table, which: np.ndarray
) -> list[Moved]:
    if not len(which) or isinstance(evidence, First) or contest.champion is None:
        return []
    chosen = items.take(which)
    before = said_on(settings, contest.champion.run_id, chosen, evaluation=contest.evaluations[1])[
        "prediction"
    ].to_pylist()
    told = examples_of(settings, chosen["row_no"].to_pylist(), _COLUMNS)
    categories: Sequence[str] = evidence.categories or [""] * items.num_rows
    return [
        Moved(
            row_id=row["row_id"].hex(),
            text=example["text"],
            answer=row["answer"],
            champion=then,
            candidate=row["prediction"],
            nulls_right=sum(bool(null[index]) for null in evidence.nulls),
            nulls=len(evidence.nulls),
            source=example["source_uri"],
            span=example["source_span"],
            prompt=(example["prompt_name"], example["prompt_version"]),
            scorer=(example["scorer"], example["scorer_revision"]),
            category=str(categories[index]),
        )
        for index, row, then, example in zip(which.tolist(), chosen.to_pylist(), before, told, strict=True)
    ]
