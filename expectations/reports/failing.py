"""The rows that broke rules: which, how many rules each, and where each comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.runs import identity_of, of_any_attempt
from lineage.schemas import EXAMPLE, NOT_APPLICABLE, ROW_TABLES, UNEXPECTED, UNSTATED, TableSpec
from lineage.tables import TableError
from lineage.verdicts import Given, Verdict

WORST = 20
"""Rows that a page shows."""

_ORIGIN = (
    "row_id",
    "source_uri",
    "source_span",
    "prompt_name",
    "prompt_version",
    "generator",
    "generator_revision",
    "scorer",
    "scorer_revision",
)
_SAID = {
    "traces": ("messages", "response"),
    "documents": ("text",),
    "examples": ("text", "answer"),
}


@dataclass(frozen=True)
class Origin:
    """Where a row comes from, and what it says."""

    source_uri: str
    span: str
    prompt: str
    generator: str
    scorer: str
    text: str
    answer: str = ""

    @property
    def place(self) -> str:
        """The source, and where in it."""
        return f"{self.source_uri} {self.span}".strip()

    @property
    def makers(self) -> str:
        """Prompt, generator and scorer on one line; what does not apply is left out, `unstated` is not."""
        named = (("prompt", self.prompt), ("generator", self.generator), ("scorer", self.scorer))
        return ", ".join(f"{what} {name}" for what, name in named if name)


@dataclass(frozen=True)
class Failing:
    """A row that broke rules. Without an origin its file is gone."""

    row_id: str
    rules: tuple[str, ...]
    origin: Origin | None


def worst(settings: Settings, given: Given, *, most: int = WORST) -> tuple[list[Failing], int]:
    """The rows that broke the most rules, and how many rows are known to have broken any.

    Rules that are waived or only warn count as well: they were broken.
    """
    broke, count = _all_broken(settings, given)
    if not count:
        broke = _examples(given.verdict)
    ranked = sorted(broke, key=lambda row_id: (-len(broke[row_id]), row_id))[:most]
    known = origins(settings, given.verdict, ranked)
    failing = [Failing(row_id, broke[row_id], known.get(row_id)) for row_id in ranked]
    return failing, count or len(broke)


def origins(settings: Settings, verdict: Verdict, row_ids: Collection[str]) -> dict[str, Origin]:
    """Row id (hex) -> where it comes from, of rows of the judged commit; else of the examples that they name.

    What can no longer be read is left out.
    """
    if not row_ids:
        return {}
    is_own = verdict.batch.spec in ROW_TABLES
    spec: TableSpec = verdict.batch.spec if is_own else EXAMPLE
    among = pads.field("row_id").isin(pa.array([bytes.fromhex(each) for each in row_ids], pa.binary()))
    columns = [*_ORIGIN, *_SAID[spec.name]]
    try:
        if is_own:
            found = tables.read_batch(settings, verdict.batch, columns=columns, where=among)
        else:
            found = tables.read_ever(settings, spec, columns=columns, where=among)
    except TableError:  # vacuumed or damaged: fsck says so, the verdict stands without it
        return {}
    return {row["row_id"].hex(): _origin(row) for row in found.to_pylist()}


def _all_broken(settings: Settings, given: Given) -> tuple[dict[str, tuple[str, ...]], int]:
    """(the worst rows in the book of all that broke rules, each with these rules; how many rows it has)."""
    of_gate = of_any_attempt(identity_of(given.run_id))
    rows = tables.read(settings, UNEXPECTED, columns=["rule", "row_id"], where=of_gate)
    counted = rows.group_by("row_id").aggregate([("rule", "count")])
    order = [("rule_count", "descending"), ("row_id", "ascending")]
    top = counted.sort_by(order)["row_id"].slice(0, WORST)
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows.filter(pc.is_in(rows["row_id"], top.combine_chunks())).to_pylist():
        found[row["row_id"].hex()].append(row["rule"])
    return {row_id: tuple(rules) for row_id, rules in found.items()}, counted.num_rows


def _examples(verdict: Verdict) -> dict[str, tuple[str, ...]]:
    """The same from the verdict alone, which names up to 20 rows of each rule."""
    found: dict[str, list[str]] = defaultdict(list)
    for rule in verdict.rules:
        for row_id in rule.examples:
            found[row_id].append(rule.name)
    return {row_id: tuple(rules) for row_id, rules in found.items()}


def _origin(row: Mapping[str, Any]) -> Origin:
    said = row.get("text")
    if said is None:
        asked = [message["content"] for message in row["messages"] or () if message["role"] == "user"]
        said = asked[-1] if asked else ""
    return Origin(
        source_uri=_stated(row["source_uri"]),
        span=_stated(row["source_span"]),
        prompt=_versioned(row["prompt_name"], row["prompt_version"]),
        generator=_versioned(row["generator"], row["generator_revision"]),
        scorer=_versioned(row["scorer"], row["scorer_revision"]),
        text=said or "",
        answer=row.get("answer") or row.get("response") or "",
    )


def _stated(value: str | None) -> str:
    return "" if value in (None, NOT_APPLICABLE) else value


def _versioned(name: str | None, version: str | None) -> str:
    named, at = _stated(name), _stated(version)
    return f"{named}@{at}" if named not in ("", UNSTATED) and at else named
