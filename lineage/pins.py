"""Which versions of which tables must stay readable, and for whom.

    a model that serves, served or may serve again  ->  its curriculum, the batches of what it ate and was
                                                        scored on, and of everything those were derived from
    a recall, or a gate that moved rows             ->  the versions before and after it, between which lies
                                                        what it took out: a recalled model's lineage is told
                                                        from there

The newest version of a table is never in question.
"""

from __future__ import annotations

import numpy as np
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import curricula, models, tables
from lineage.ancestry import runs_beneath
from lineage.consumption import Checkpoint, eaten_by
from lineage.models import ModelVersion
from lineage.schemas import CURRICULUM, PREDICTION, ROW_TABLES, TableSpec

Pins = dict[str, dict[int, str]]
"""Table -> version -> why."""


def pins(settings: Settings) -> Pins:
    """The versions that live models and recalls rest on; a version that several need says who came first."""
    found: Pins = {spec.name: _recalls(settings, spec) for spec in ROW_TABLES}
    batches = {spec.name: tables.batches(settings, spec) for spec in ROW_TABLES}
    found[CURRICULUM.name] = {}
    for version in live(settings):
        checkpoint, _ = models.resolve(settings, str(version))
        selected = curricula.load(settings, checkpoint.curriculum).version
        found[CURRICULUM.name].setdefault(selected.version, f"{version} was trained on it")
        for table, run_id in runs_beneath(settings, _rows(settings, checkpoint)):
            batch = batches[table].get(run_id)
            if batch is not None:
                found[table].setdefault(batch.version, f"{version} rests on rows of it")
    return {table: dict(sorted(pinned.items())) for table, pinned in found.items() if pinned}


def live(settings: Settings) -> list[ModelVersion]:
    """The versions on which an alias stands, that reigned below a champion, or that ate nothing recalled."""
    found: list[ModelVersion] = []
    standing = models.aliases(settings)
    for name in sorted({version.name for version in models.versions(settings)}):
        named = {*standing.get(name, {}).values(), *models.reigns(settings, name)}
        gone = models.recalled_versions(settings, name) - named
        found += [version for version in models.versions(settings, name) if version.version not in gone]
    return found


def _recalls(settings: Settings, spec: TableSpec) -> dict[int, str]:
    """The version before each recall, which holds what it took out, and the recall's own, which does not.

    And before and after each gate that moved rows to `rejected`.
    """
    found: dict[int, str] = {}
    for entry in tables.commits(settings, spec):
        for name, who in (("stemma.recall", "recall"), ("stemma.routed", "the gate of")):
            if name in entry:
                found[entry["version"] - 1] = f"{who} {entry[name]} took rows out of it"
                found.setdefault(entry["version"], f"{who} {entry[name]} left this")
    return found


def _rows(settings: Settings, checkpoint: Checkpoint) -> np.ndarray:
    """Numbers of what a checkpoint ate, and of what it was scored on."""
    eaten = eaten_by(settings, checkpoint)["row_no"].to_numpy()
    about = pads.field("model_run") == checkpoint.run_id
    scored = tables.read(settings, PREDICTION, columns=["row_no"], where=about)["row_no"].to_numpy()
    return np.union1d(eaten, scored)
