"""Are runs what their ids say, and is everything kept that models rest on?"""

from __future__ import annotations

import json

import pyarrow as pa

from infra.settings import Settings
from lineage import models, tables
from lineage.curricula import CurriculumError, load
from lineage.fsck.stored import Findings
from lineage.pins import pins as pinned_versions
from lineage.runs import identity, identity_of
from lineage.schemas import RUN
from lineage.tables import TableError


def runs(settings: Settings) -> Findings:
    """A run's id is the digest of its job, config, inputs and code; and it began before it ended."""
    events = tables.read(settings, RUN).to_pylist()
    found: list[str] = []
    begun = {event["run_id"]: event["at"] for event in events if event["status"] == "START"}
    for event in events:
        run_id, job = event["run_id"], event["job"]
        if event["status"] in ("START", "COMPLETE"):  # of other ends, not all that was known was written once
            config, inputs = json.loads(event["config"]), json.loads(event["inputs"])
            code = json.loads(event["agent"])["code"]
            if identity(job, config, inputs, code=code) != identity_of(run_id):
                found.append(
                    f"run {run_id} ({job}, {event['status']}) is not the digest of its job, config, inputs "
                    "and code: one of them was changed since"
                )
        if run_id not in begun or event["at"] < begun[run_id]:
            found.append(f"run {run_id} ({job}) has its {event['status']}, but had not begun by then")
    return len(events), found


def pins(settings: Settings) -> Findings:
    """Every registered version leads to its checkpoint and curriculum, and what must stay readable is there.

    That is, no vacuum took a file of a version that a live model or a recall rests on.
    """
    found: list[str] = []
    versions = models.versions(settings)
    for version in versions:
        try:
            checkpoint, _ = models.resolve(settings, str(version))
            load(settings, checkpoint.curriculum)
        except (models.ModelError, CurriculumError) as error:
            found.append(f"{version}: {error}")
    try:
        pinned = pinned_versions(settings)
    except (TableError, pa.ArrowException):  # what leads nowhere, or was rewritten by hand, others tell
        return len(versions), found
    for name, numbers in pinned.items():
        for number, why in numbers.items():
            lost = tables.lost(settings, tables.TableVersion(name, number))
            if lost:
                found.append(f"{name}@{number} lacks '{lost[0]}', which a vacuum removed, though {why}")
    return len(versions) + sum(map(len, pinned.values())), found
