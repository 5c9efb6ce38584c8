"""Traces that lie on an MLflow tracking server, as a source like any other: exported, then read as a file.

    mlflow:EXPERIMENT  ->  exports/mlflow-EXPERIMENT@DIGEST.jsonl in the lake, one trace a line, oldest first

So every row leads back to bytes that stay, whatever happens on the server. Exported again, a file begins with
the one before it and only what is new is read; where a trace was judged meanwhile it supersedes it.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence

from infra.settings import Settings
from lineage import registry, tables

PREFIX = "mlflow:"


def exported(settings: Settings, sources: Sequence[str]) -> list[str]:
    """The sources, those on the tracking server replaced by files that hold what is there now.

    Raises RegistryError where the server cannot be asked or has no such experiment.
    """
    return [
        _exported(settings, each.removeprefix(PREFIX)) if each.startswith(PREFIX) else each
        for each in sources
    ]


def _exported(settings: Settings, experiment: str) -> str:
    filesystem, folder = tables.open_filesystem(settings, settings.path("exports"))
    filesystem.create_dir(folder, recursive=True)
    partial, digest = f"{folder}/.{uuid.uuid4().hex}", hashlib.sha256()
    with filesystem.open_output_stream(partial) as file:
        for line in registry.exported_traces(settings, experiments=[experiment]):
            whole = line.rstrip(b"\n") + b"\n"
            digest.update(whole)
            file.write(whole)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", experiment)
    place = f"exports/mlflow-{name}@{digest.hexdigest()[:12]}.jsonl"
    filesystem.move(partial, f"{folder.rpartition('/')[0]}/{place}")  # whole or not at all
    return settings.path(place)
