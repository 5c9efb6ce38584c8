"""Which runs a reference means: all of the lake, one with its parts, or all that a model rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infra.settings import Settings
from lineage import models, runs, tables
from lineage.ancestry import runs_beneath
from lineage.consumption import Checkpoint, CheckpointError, eaten_by
from lineage.schemas import RUN

Event = Mapping[str, Any]


class ExportError(tables.TableError):
    """Something cannot be exported, or the other side does not take it; the message says what."""


def events_of(settings: Settings, reference: str) -> list[dict[str, Any]]:
    """The events of the runs that are meant, oldest first: `all`, a run's id or its start, or a model.

    A run comes with its parts, a model with every run that its rows, its curriculum, its numbers and its
    verdicts come from. Raises ExportError where the reference means nothing.
    """
    history = tables.read(settings, RUN).to_pylist()
    history.sort(key=lambda event: (event["at"], event["status"] != "START", event["run_id"]))
    if not history:
        raise ExportError("no run is on record in this lake; carry one out first, such as stemma ingest")
    if reference == "all":
        return history
    chosen = _chosen(settings, reference, history)
    return [event for event in history if event["run_id"] in chosen]


def _chosen(settings: Settings, reference: str, history: Sequence[Event]) -> set[str]:
    try:
        checkpoint, version = models.resolve(settings, reference)
    except (CheckpointError, models.ModelError) as no_model:
        try:
            return _with_parts({runs.find(settings, reference)["run_id"]}, history)
        except runs.RunError as no_run:
            raise ExportError(f"'{reference}' is no model ({no_model}) and no run ({no_run})") from no_run
    return _beneath(settings, checkpoint, str(version) if version else None, history)


def _with_parts(chosen: set[str], history: Sequence[Event]) -> set[str]:
    while True:
        parts = {event["run_id"] for event in history if event["parent_run"] in chosen} - chosen
        if not parts:
            return chosen
        chosen = chosen | parts


def _beneath(
    settings: Settings, checkpoint: Checkpoint, version: str | None, history: Sequence[Event]
) -> set[str]:
    """The training, its parts, and the runs that made, judged and measured what it ate and what it became."""
    eaten = np.unique(eaten_by(settings, checkpoint)["row_no"].to_numpy())
    chosen = {checkpoint.run_id} | {run_id for _, run_id in runs_beneath(settings, eaten)}
    for event in history:
        if json.loads(event["facets"]).get("curriculum") == checkpoint.curriculum:
            chosen.add(event["run_id"])
    made = {
        output for event in history if event["run_id"] in chosen for output in json.loads(event["outputs"])
    }
    about = {f"checkpoint:{checkpoint.name}", *made}
    for event in history:
        named = {*json.loads(event["inputs"]), *json.loads(event["outputs"])}
        judges = event["job"] in ("gate", "evaluate", "promote") and named & about
        if judges or (version and f"model:{version}" in named):
            chosen.add(event["run_id"])
    chosen = _with_parts(chosen, history)
    parents = {event["run_id"]: event["parent_run"] for event in history}
    for run_id in list(chosen):
        while (run_id := parents.get(run_id, "")) in parents:
            chosen.add(run_id)  # what it was a part of, without that one's other parts
    return chosen
