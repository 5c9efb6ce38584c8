"""The champions until now as they were accepted, told from the record of the promotions that crowned them.

Small losses that every step allows would add up: so a candidate is also held against what each champion
passed when it was accepted, on the items that are still evaluated today. An evaluation of then is not made
again; its predictions are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import models, runs, tables
from lineage.schemas import PREDICTION
from training.promotion import Reign
from training.promotion.gate_set import passes, scorers_of

Passed = Mapping[bytes, bool]


@dataclass(frozen=True)
class Crowned:
    """The evaluations behind a champion: its own, and those of its null retrains."""

    version: int
    evaluation: str
    retrains: Sequence[str]


def reigns_of(
    settings: Settings, name: str, items: pa.Table, *, champion: int
) -> tuple[Reign | None, list[Reign]]:
    """The champion on the set it was promoted on, and each that reigned before it, the last one last.

    Without champions that were rolled back, recalled, or whose promotion's evaluations are not on record.
    """
    crowned = {each.version: each for each in _crowned(settings, name)}
    wanted = [v for v in (*models.last_clean(settings, name, but=(champion,)), champion) if v in crowned]
    rules = dict(zip(items["row_id"].to_pylist(), scorers_of(items), strict=True))
    told = _told(settings, [run for v in wanted for run in _evaluations(crowned[v])], rules)
    ids = items["row_id"].to_pylist()
    found = {v: _reign(f"{name}@{v}", crowned[v], told, ids) for v in wanted}
    before = [reign for version, reign in found.items() if version != champion]
    return found.get(champion), before


def _crowned(settings: Settings, name: str) -> list[Crowned]:
    """What the promotions of a model left: of each version that one put on the throne."""
    decided = [
        outcome.facets
        for config, outcome in runs.completed(settings, "promote")
        if config["name"] == name and "evaluations" in outcome.facets
    ]
    challenged: dict[int, list[str]] = {}
    for facets in decided:
        challenged.setdefault(facets["champion"], []).extend(facets["evaluations"]["nulls"])
    return [
        Crowned(facets["version"], facets["evaluations"]["candidate"], challenged.get(facets["version"], []))
        for facets in decided
        if facets["promoted"]
    ]


def _evaluations(crowned: Crowned) -> list[str]:
    return [crowned.evaluation, *crowned.retrains]


def _told(settings: Settings, evaluations: Sequence[str], rules: Mapping[bytes, str]) -> dict[str, Passed]:
    """Evaluation -> row -> was it right? In one read. Rows that another rule scored then are unknown."""
    if not evaluations:
        return {}
    where = pads.field("run_id").isin(sorted(set(evaluations)))
    stored = tables.read(settings, PREDICTION, where=where)
    return {
        run: _passed(part, rules)
        for run in sorted(set(stored["run_id"].to_pylist()))
        if (part := stored.filter(pc.equal(stored["run_id"], run))).num_rows
    }


def _passed(part: pa.Table, rules: Mapping[bytes, str]) -> Passed:
    rows = zip(part["row_id"].to_pylist(), passes(part), scorers_of(part), strict=True)
    return {row: right for row, right, rule in rows if rules.get(row, rule) == rule}


def _reign(version: str, crowned: Crowned, told: Mapping[str, Passed], ids: Sequence[bytes]) -> Reign:
    mine: Passed = told.get(crowned.evaluation, {})
    lost = total = 0
    for run in dict.fromkeys(crowned.retrains):
        both = [row for row in ids if mine.get(row) and row in told.get(run, {})]
        total += len(both)
        lost += sum(not told[run][row] for row in both)
    return Reign(
        version=version,
        known=[row in mine for row in ids],
        passed=[mine.get(row, False) for row in ids],
        retrains_lost=lost,
        retrains_passes=total,
    )
