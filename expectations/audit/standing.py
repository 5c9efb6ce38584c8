"""Under which rules a model came to be: suites, thresholds and waivers in force when its rows were admitted.

    checkpoint -> rows it ate -> the batches of those, and of all they were derived from -> their verdicts
                                                                             and its curriculum's

and who approved: whose gates, whose reviews of rows, whose promotions.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.dataset as pads

from expectations.audit.fates import Judged, judged, who
from expectations.suites import SUITES, digest
from expectations.thresholds import DEFAULTS
from infra.screen import plain
from infra.settings import Settings
from lineage import models, review, tables
from lineage.ancestry import runs_beneath
from lineage.consumption import Checkpoint, eaten_by
from lineage.schemas import CURRICULUM
from lineage.waivers import Waiver, all_waivers


def in_force(given: Sequence[Waiver], table: str, at: dt.datetime) -> list[dict[str, Any]]:
    """The waivers of a table that were in force at a time: id, rule, reason, by, at, until."""
    shown = ("id", "rule", "reason", "by", "at", "until")
    return [
        {name: getattr(each, name) for name in shown}
        for each in given
        if each.table == table and each.at <= at and each.state(at) == "in force"
    ]


def of_model(settings: Settings, reference: str) -> dict[str, Any]:
    """Everything that stood above a model's rows.

    Stable keys: model, run_id, step, rows, batches, suites, waivers, unadmitted, reviews, moves. A batch has
    the verdict that counted when the checkpoint was written. Raises ModelError and CheckpointError for what
    names no model.
    """
    checkpoint, version = models.resolve(settings, reference)
    rows = eaten_by(settings, checkpoint)
    numbers = np.unique(rows["row_no"].to_numpy()).astype(np.int64)
    batches = _batches(settings, checkpoint, numbers)
    known, lacking = [], []
    given = all_waivers(settings)
    verdicts = {table: judged(settings, table, every=True) for table in sorted({t for t, _ in batches})}
    for table, run_id in sorted(batches):
        counted = [v for v in verdicts[table] if v.stored_by == run_id and v.at <= checkpoint.at]
        if not counted:
            lacking.append({"table": table, "run_id": run_id})
            continue
        known.append(_batch(settings, counted[-1], given))
    return {
        "model": str(version) if version else None,
        "run_id": checkpoint.run_id,
        "step": checkpoint.step,
        "rows": len(numbers),
        "batches": known,
        "suites": _suites(known),
        "waivers": _used(known),
        "unadmitted": lacking + [each for each in known if each["outcome"] != "pass"],
        "reviews": _reviews(settings, numbers),
        "moves": _moves(settings, version),
    }


def _batches(settings: Settings, checkpoint: Checkpoint, numbers: np.ndarray) -> set[tuple[str, str]]:
    """Table and run of what it ate, of all that was derived from, and of its curriculum."""
    mine = pads.field("curriculum") == checkpoint.curriculum
    selected = tables.read(settings, CURRICULUM, columns=["run_id"], where=mine)["run_id"].unique()
    return runs_beneath(settings, numbers) | {(CURRICULUM.name, run) for run in selected.to_pylist()}


def _batch(settings: Settings, verdict: Judged, given: Sequence[Waiver]) -> dict[str, Any]:
    return {
        "batch": str(verdict.batch),
        "table": verdict.batch.table,
        "run_id": verdict.stored_by,
        "outcome": verdict.outcome,
        "at": verdict.at,
        "rows": verdict.rows,
        "suite_digest": verdict.suite_digest,
        "rules": len(verdict.rules),
        "thresholds": dict(verdict.thresholds)
        or {rule["name"]: rule["threshold"] for rule in verdict.rules if rule["threshold"] is not None},
        "broken": [rule["name"] for rule in verdict.rules if rule["outcome"] != "pass"],
        "waived": {rule["name"]: rule["waived"] for rule in verdict.rules if rule.get("waived")},
        "in_force": in_force(given, verdict.batch.table, verdict.at),
        "gated_by": who(settings, verdict.run_id),
        "gate": verdict.run_id,
    }


def _suites(known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Table and digest of each suite that admitted, how many batches, and whether it is the present one."""
    count = Counter((each["table"], each["suite_digest"]) for each in known)
    now = {name: digest(SUITES[name].build(DEFAULTS)) for name in {t for t, _ in count} if name in SUITES}
    return [
        {"table": table, "suite_digest": each, "batches": number, "is_present": now.get(table) == each}
        for (table, each), number in sorted(count.items())
    ]


def _used(known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The waivers without which a batch would not have passed: id, rule, batches, and why they stood."""
    used: dict[str, dict[str, Any]] = {}
    for batch in known:
        told = {each["id"]: each for each in batch["in_force"]}
        for rule, waiver in batch["waived"].items():
            entry = used.setdefault(waiver, {**told.get(waiver, {"id": waiver}), "rule": rule, "batches": []})
            entry["batches"].append(batch["batch"])
    return list(used.values())


def _reviews(settings: Settings, numbers: np.ndarray) -> list[dict[str, Any]]:
    """What people said of rows that it ate, oldest first."""
    eaten = set(numbers.tolist())
    shown = ("verdict", "label", "reviewer", "reason", "at")
    return [
        {"row_id": each.row_id.hex(), **{name: getattr(each, name) for name in shown}}
        for each in review.history(settings)
        if each.row_no in eaten
    ]


def _moves(settings: Settings, version: models.ModelVersion | None) -> list[dict[str, Any]]:
    """The moves of aliases onto it: kind, alias, actor, reason, at, run_id."""
    if version is None:
        return []
    shown = ("kind", "alias", "actor", "reason", "at", "run_id")
    moves = [each for each in models.events(settings, version.name) if each.to_version == version.version]
    return [{name: getattr(each, name) for name in shown} for each in moves]


def as_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, in values that JSON can say."""
    return plain(dict(found))
