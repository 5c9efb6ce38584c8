"""The facts of a model's pedigree, gathered from the lake.

What a model ate is only ever grouped here, never walked through: a page of 10 and one of 10 million rows cost
about the same. lineage.registry draws the pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyroaring import BitMap64

from infra.settings import Settings
from lineage import tables
from lineage.ancestry import ancestors_of
from lineage.bans import recalls
from lineage.consumption import bitmaps
from lineage.models import ModelVersion, aliases, versions
from lineage.queries import Lineage
from lineage.registry import Pedigree
from lineage.report import reports_of
from lineage.schemas import EXAMPLE
from lineage.waivers import behind

FEW = 40
"""Rows that are listed one by one; of a model that ate more, only groups are."""

_LISTED = 8  # values of a provenance column
_GROUPS = 120
_SERIES = 7
_REST = "\0"  # no value of a column
_ANCESTORS = 12  # of one row

_FOLDS = {
    "source": ("source_uri", "source_revision"),
    "prompt": ("prompt_name", "prompt_version"),
    "scorer": ("scorer", "scorer_revision"),
    "generator": ("generator", "generator_revision"),
    "slice": ("slice",),
}
_GROUPED = (
    "source_revision",
    "source_uri",
    "prompt_name",
    "prompt_version",
    "scorer",
    "scorer_revision",
    "generator",
    "generator_revision",
)
_PORTION = ("rows", "loss_tokens", "recalled")


def of_model(settings: Settings, found: Lineage, version: ModelVersion | None) -> Pedigree:
    """What a person wants to know of a model on one page; without a version, of its checkpoint."""
    checkpoint = found.checkpoint
    known = versions(settings)
    standing = aliases(settings).get(version.name, {}) if version else {}
    before = [
        each for each in known if version and each.name == version.name and each.version < version.version
    ]
    count = found.count
    groups, others = _listed(_portions(found, _GROUPED), _GROUPS)
    facts = {
        "model": {
            "name": version.name if version else checkpoint.run_id,
            "version": version.version if version else 0,
            "run_id": checkpoint.run_id,
            "adapter_digest": checkpoint.adapter_digest,
            "base_model": checkpoint.base_model,
            "base_digest": checkpoint.base_digest,
            "at": checkpoint.at,
        },
        "curriculum": {"root": checkpoint.curriculum, "rows": count, "slices": found.slices},
        "groups": groups,
        "others": others,
        "folds": [_fold(found, name, by) for name, by in _FOLDS.items()],
        "strips": _strips(found),
        "rows": _rows(settings, found) if count <= FEW else [],
        "reports": [asdict(report) for report in reports_of(settings, checkpoint.run_id)],
        "recalls": _recalls(settings, found),
        "waivers": [
            {name: getattr(each, name) for name in ("id", "table", "rule", "reason", "by", "at", "until")}
            for each in behind(settings, checkpoint)
        ],
        "previous": _relative(before[-1]) if before else None,
        "parents": _parents(found, known, version),
        "children": _children(settings, known, version),
        "aliases": sorted(alias for alias, n in standing.items() if version and n == version.version),
    }
    return cast(Pedigree, facts)


def _portions(found: Lineage, by: Sequence[str]) -> pa.Table:
    """Rows, loss tokens, rows called back and steps per value; most rows first."""
    parts = found.grouped((*by, "recalled"))
    kept = pc.equal(parts["recalled"], "")
    parts = parts.drop_columns(["recalled"]).append_column("recalled", pc.if_else(kept, 0, parts["rows"]))
    steps = [("first_step", "min"), ("last_step", "max")]
    sums = parts.group_by(list(by)).aggregate([*((name, "sum") for name in _PORTION), *steps])
    names = [*by, *_PORTION, "first_step", "last_step"]
    aggregated = [*by, *(f"{name}_sum" for name in _PORTION), "first_step_min", "last_step_max"]
    return (
        sums.select(aggregated)
        .rename_columns(names)
        .sort_by([("rows", "descending"), *((name, "ascending") for name in by)])
    )


def _listed(portions: pa.Table, most: int) -> tuple[list[dict[str, Any]], dict[str, int] | None]:
    """The largest portions, among them what was called back; and all others in one."""
    if portions.num_rows <= most + 1:
        return portions.to_pylist(), None
    hit = pc.indices_nonzero(pc.greater(portions["recalled"], 0))[: most // 2].to_pylist()
    listed = sorted(list(dict.fromkeys([*hit, *range(most)]))[:most])
    hidden = np.ones(portions.num_rows, bool)
    hidden[listed] = False
    shown, rest = portions.take(listed), portions.filter(pa.array(hidden))
    others = {name: pc.sum(rest[name]).as_py() for name in _PORTION}
    others |= {
        "first_step": pc.min(rest["first_step"]).as_py(),
        "last_step": pc.max(rest["last_step"]).as_py(),
    }
    return shown.to_pylist(), others | {"values": rest.num_rows}


def _fold(found: Lineage, name: str, by: Sequence[str]) -> dict[str, Any]:
    portions = _portions(found, by)
    values, others = _listed(portions, _LISTED)
    shown = [
        {key: value[key] for key in (*_PORTION, "first_step", "last_step")}
        | {"name": value[by[0]], "revision": value[by[1]] if len(by) > 1 else ""}
        for value in values
    ]
    return {"by": name, "values": shown, "others": others}


def _strips(found: Lineage) -> list[dict[str, Any]]:
    """When it was eaten: by slice, by prompt version where there are several, and what was called back."""
    made = [_strip(found, by) for by in ("slice", "prompt_version", "recalled")]
    return [
        s
        for s in made
        if s["by"] == "slice" or len(s["series"]) > 1 or (s["by"] == "recalled" and s["series"])
    ]


def _strip(found: Lineage, by: str) -> dict[str, Any]:
    eaten = found.timeline(by)
    starts = sorted({start for start, _, _ in eaten})
    at = {start: index for index, start in enumerate(starts)}
    slots: dict[str, list[int]] = {}
    for start, value, number in eaten:
        if value or by != "recalled":
            slots.setdefault(value, [0] * len(starts))[at[start]] += number
    portions = _portions(found, (by,)).to_pylist() if by != "recalled" else []
    bad = {each[by] for each in portions if 2 * each["recalled"] >= each["rows"]}
    ranked = sorted(slots, key=lambda value: (-sum(slots[value]), value))
    shown, names = ranked, {}
    if len(ranked) > _SERIES + 1:
        first = [value for value in ranked if value in bad][: _SERIES // 2]  # few rows, but the ones to see
        chosen = {*first, *[value for value in ranked if value not in first][: _SERIES - len(first)]}
        shown, rest = [v for v in ranked if v in chosen], [v for v in ranked if v not in chosen]
        slots[_REST] = [sum(numbers) for numbers in zip(*(slots[value] for value in rest), strict=True)]
        shown, names = [*shown, _REST], {_REST: f"{len(rest)} others"}
    series = [{"name": names.get(v, v), "slots": slots[v], "recalled": v in bad} for v in shown]
    return {"by": by, "steps": found.checkpoint.step, "starts": starts, "series": series}


def _rows(settings: Settings, found: Lineage) -> list[dict[str, Any]]:
    graph = ancestors_of(settings, found.rows["row_no"].to_pylist())
    told = []
    for row in found.rows.to_pylist():
        line = _line(graph, row["row_id"])
        told.append(
            {
                "row_id": row["row_id"].hex(),
                "text": row["text"],
                "answer": row["answer"],
                "slice": row["slice"],
                "first_step": row["first_step"],
                "times": row["times"],
                "prompt": f"{row['prompt_name']} @ {row['prompt_version']}",
                "scorer": f"{row['scorer']} @ {row['scorer_revision']}",
                "recalled": row["recalled"],
                "made_by": f"{row['step']} r{row['step_revision']}",
                "ancestors": line[:_ANCESTORS],
                "more": max(0, len(line) - _ANCESTORS),
            }
        )
    return told


def _line(graph: Mapping[bytes, dict[str, Any]], row_id: bytes) -> list[dict[str, Any]]:
    """Every ancestor of a row, nearest first."""
    found: list[dict[str, Any]] = []
    seen, level, depth = {row_id}, [row_id], 0
    while level:
        depth += 1
        level = sorted({p for each in level for p in graph[each]["parents"]} - seen)
        seen |= set(level)
        for parent in level:
            row = graph[parent]
            found.append(
                {
                    "depth": depth,
                    "table": row["table"],
                    "row_id": parent.hex(),
                    "step": f"{row['step']} r{row['step_revision']}",
                    "prompt": f"{row['prompt_name']} @ {row['prompt_version']}",
                    "source_uri": row["source_uri"],
                    "span": "" if row["parents"] else row["source_span"],
                }
            )
    return found


def _recalls(settings: Settings, found: Lineage) -> list[dict[str, Any]]:
    known = {each.id: each for each in recalls(settings)}
    return [
        {
            "id": hit["recalled"],
            "selector": str(known[hit["recalled"]].selector) if hit["recalled"] in known else "",
            "reason": known[hit["recalled"]].reason if hit["recalled"] in known else "",
            "rows": hit["rows"],
            "first_step": hit["first_step"],
        }
        for hit in found.grouped(("recalled",)).to_pylist()
        if hit["recalled"]
    ]


def _parents(
    found: Lineage, known: Sequence[ModelVersion], version: ModelVersion | None
) -> list[dict[str, Any]]:
    """Versions of ours that wrote rows which it ate, as the rows say; not itself."""
    written = found.grouped(("generator", "generator_revision")).to_pylist()
    rows = {f"{each['generator']}@{each['generator_revision']}": each["rows"] for each in written}
    mine = [each for each in known if str(each) in rows and each != version]
    return [_relative(each) | {"rows": rows[str(each)]} for each in mine]


def _children(
    settings: Settings, known: Sequence[ModelVersion], version: ModelVersion | None
) -> list[dict[str, Any]]:
    """Versions of ours that ate rows which it wrote."""
    if version is None:
        return []
    said = (pads.field("generator") == version.name) & (
        pads.field("generator_revision") == str(version.version)
    )
    wrote = BitMap64(
        tables.read_ever(settings, EXAMPLE, columns=["row_no"], where=said)["row_no"].to_pylist()
    )
    ate = bitmaps(settings)
    eaten = {each: len(ate.get((each.run_id, each.step), BitMap64()) & wrote) for each in known}
    return [_relative(each) | {"rows": rows} for each, rows in eaten.items() if rows and each != version]


def _relative(version: ModelVersion) -> dict[str, Any]:
    return {"name": version.name, "version": version.version, "run_id": version.run_id}
