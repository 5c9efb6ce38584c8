"""What a run names among its inputs and outputs, as OpenLineage datasets: a namespace, a name and a version.

traces@7               LAKE  traces              version 7
examples:DIGEST        LAKE  examples            version rows:DIGEST     these rows of it
rows:DIGEST            LAKE  traces, examples    version rows:DIGEST     what a recall reached
curriculum:ROOT        LAKE  curricula           version ROOT
checkpoint:RUN/STEP    LAKE  checkpoints/RUN/STEP
model:NAME@3           LAKE  models/NAME         version 3
evaluation:RUN         LAKE  reports             version RUN
recall:ID              LAKE  recalls             version ID
base:DIGEST            base-models  NAME         version DIGEST
file:///a.jsonl#DIGEST file  /a.jsonl            version DIGEST
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from infra.redaction import redacted, without_credentials
from infra.settings import Settings
from lineage import models
from lineage.consumption import Checkpoint, checkpoints
from lineage.schemas import CURRICULUM, RECALL, REPORT, TABLES

Dataset = dict[str, Any]
Facet = dict[str, Any]

_HOLDS = {"curriculum": CURRICULUM.name, "evaluation": REPORT.name, "recall": RECALL.name}
"""What is named by its own id -> the table that holds it."""


@dataclass(frozen=True)
class Place:
    """A dataset before its facets: where it is, which version, and what it was called in the run."""

    reference: str
    namespace: str
    name: str
    version: str = ""


@dataclass(frozen=True)
class Names:
    """How things of one lake are called."""

    settings: Settings

    @cached_property
    def lake(self) -> str:
        """The lake's URI without credentials: the namespace of whatever lies in it."""
        place = self.settings.lake
        return without_credentials(place) if "://" in place else f"file://{place}"

    @cached_property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """RUN/STEP -> the checkpoint."""
        return {each.name: each for each in checkpoints(self.settings)}

    @cached_property
    def versions(self) -> dict[str, Checkpoint | None]:
        """NAME@VERSION -> the checkpoint that bears the name."""
        known = models.versions(self.settings)
        return {str(each): self.checkpoints.get(f"{each.run_id}/{each.step}") for each in known}

    def places(self, reference: str, event: Mapping[str, Any], *, reached: Sequence[str]) -> Iterator[Place]:
        """What a run's input or output is; `reached`: the tables that a recall took rows out of."""
        kind, _, rest = reference.partition(":")
        table = re.fullmatch(r"([a-z_]+)@(\d+)", reference)
        if table:
            yield Place(reference, self.lake, table[1], table[2])
        elif kind == "rows":
            for name in reached or ("rows",):
                yield Place(reference, self.lake, name, reference)
        elif kind in TABLES:
            yield Place(reference, self.lake, kind, f"rows:{rest}")
        elif kind in _HOLDS:
            yield Place(reference, self.lake, _HOLDS[kind], rest)
        elif kind == "checkpoint":
            yield Place(reference, self.lake, f"checkpoints/{rest}")
        elif kind == "model":
            name, _, version = rest.rpartition("@")
            yield Place(reference, self.lake, f"models/{name}", version)
        elif kind == "base":
            named = event["config"].get("training", {}).get("base_model")
            yield Place(reference, "base-models", str(named or rest), rest)
        elif "://" in reference:
            yield _source(reference)
        else:
            yield Place(reference, self.lake, kind, rest)

    def checkpoint_of(self, place: Place) -> Checkpoint | None:
        """The checkpoint behind a checkpoint or a model version."""
        kind, _, rest = place.reference.partition(":")
        return {"checkpoint": self.checkpoints, "model": self.versions}.get(kind, {}).get(rest)


def _source(reference: str) -> Place:
    """A file by its path, anything else as scheme://host and a path; a query may hold keys, and is left."""
    uri, _, revision = reference.partition("#")
    parts = urlsplit(redacted(uri))
    path = unquote(parts.path)
    if parts.scheme == "file":
        return Place(reference, "file", path, revision)
    return Place(reference, f"{parts.scheme}://{parts.netloc}", path.lstrip("/") or "/", revision)


def fields_of(table: str) -> list[Facet]:
    """A table's columns as the fields of a schema facet; none for what is no table."""
    spec = TABLES.get(table)
    if spec is None:
        return []
    return [
        {"name": column.name, "type": str(column.type), "description": column.meaning}
        for column in spec.columns
    ]
