"""What a search has visited: a graph of recipes, folded from the append-only log of its trials.

    proposed   a recipe is about to be tried
    scored     its trial ended with a score
    failed     its trial ended without one

The log (table `trials`) is the only truth, and this module its only writer. Nothing in it is changed or
deleted; the graph is the same in whatever order the events are read. A search that was killed goes on from
its log: the attempts of one search share an identity, and the fold goes over the events of all of them.

Errors of this folder: SearchError.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.recipe import Recipe
from lineage.rows import canonical_json
from lineage.schemas import NOT_APPLICABLE, TRIAL

Mode = Literal["max", "min"]
EventKind = Literal["proposed", "scored", "failed"]
_RANK: dict[EventKind, int] = {"proposed": 0, "scored": 1, "failed": 2}


class SearchError(Exception):
    """A search cannot be carried out or gone on with; the message says what was found and what to do."""


@dataclass(frozen=True)
class TrialEvent:
    """One entry of the log: what happened to which vertex. It says the whole recipe and needs no other."""

    search_run: str
    """The attempt that wrote it: the search's run id. A vertex has each kind of event once per attempt."""

    vertex: str
    event: EventKind
    parents: tuple[str, ...]
    """Vertices that the recipe was edited from."""

    recipe: str
    """Canonical JSON."""

    at: dt.datetime
    """Strictly later than every earlier event of the same search: the order of the log."""

    run_id: str = NOT_APPLICABLE
    score: float | None = None


@dataclass(frozen=True)
class Vertex:
    """One recipe that a search has proposed."""

    key: str
    """The recipe's key: equal recipes are one vertex."""

    recipe: Recipe
    parents: tuple[str, ...]
    """Vertices it was edited from, sorted; a parent need not itself have been proposed."""

    status: EventKind
    """What was heard of it last; once scored it stays scored."""

    score: float | None = None
    """Never empty where the status is scored, else always."""

    run_id: str = NOT_APPLICABLE
    """The child run that tried it."""


@dataclass(frozen=True)
class SearchGraph:
    """A directed graph without cycles: vertices in order of their first proposal, edges to their parents."""

    vertices: Mapping[str, Vertex]

    @classmethod
    def fold(cls, events: Iterable[TrialEvent]) -> SearchGraph:
        """The graph that the events tell of, in whatever order they come; no events give an empty graph.

        A first score stands, whatever is logged later. Raises SearchError when a vertex is not its recipe's.
        """
        vertices: dict[str, Vertex] = {}
        mentioned: dict[str, int] = {}
        for event in in_order(events):
            for key in (*event.parents, event.vertex):
                mentioned.setdefault(key, len(mentioned))
            vertices[event.vertex] = _after(event, vertices.get(event.vertex), mentioned)
        return cls(vertices)

    @property
    def scored(self) -> tuple[Vertex, ...]:
        """The vertices that have a score."""
        return tuple(vertex for vertex in self.vertices.values() if vertex.status == "scored")

    @property
    def unscored(self) -> tuple[Vertex, ...]:
        """The vertices that have none: in flight, failed, or cut off by the end of their attempt."""
        return tuple(vertex for vertex in self.vertices.values() if vertex.status != "scored")

    def best(self, mode: Mode) -> Vertex | None:
        """The vertex with the best score; of equals the one proposed first. None where nothing is scored."""
        sign = 1 if mode == "max" else -1
        return max(self.scored, key=lambda vertex: sign * (vertex.score or 0.0), default=None)

    def children(self, key: str) -> tuple[Vertex, ...]:
        """The vertices that were edited from this one."""
        return tuple(vertex for vertex in self.vertices.values() if key in vertex.parents)


def append(settings: Settings, event: TrialEvent) -> None:
    """Write one event to the log."""
    tables.record(settings, [{**asdict(event), "parents": list(event.parents)}], into=TRIAL)


def read_events(settings: Settings, search_identity: str) -> tuple[TrialEvent, ...]:
    """What all attempts of a search have logged, in order."""
    # An attempt's run id is the identity, a hyphen and a number; "." follows the hyphen in ASCII.
    search_run = pads.field("search_run")
    of_search = (search_run >= f"{search_identity}-") & (search_run < f"{search_identity}.")
    rows = tables.read(settings, TRIAL, where=of_search).to_pylist()
    return in_order(TrialEvent(**{**row, "parents": tuple(row["parents"])}) for row in rows)


def in_order(events: Iterable[TrialEvent]) -> tuple[TrialEvent, ...]:
    """Events in the order in which they were logged."""
    return tuple(
        sorted(events, key=lambda event: (event.at, _RANK[event.event], event.vertex, event.search_run))
    )


def log_digest(events: Sequence[TrialEvent]) -> str:
    """SHA-256 over a log, in hex: the same exactly when the events and their order are."""
    return hashlib.sha256(canonical_json([asdict(event) for event in events])).hexdigest()


def _after(event: TrialEvent, known: Vertex | None, mentioned: Mapping[str, int]) -> Vertex:
    """The vertex once this event has happened."""
    recipe = known.recipe if known else Recipe.parse(event.recipe)
    if recipe.key != event.vertex:
        raise SearchError(
            f"the log has vertex {event.vertex} with the recipe of {recipe.key}; was it edited by hand?"
        )
    # An edge leads from what was mentioned earlier to what came later, so there can be no cycle:
    # an edit that undoes another leads back to a vertex that exists, and adds no edge to it.
    earlier = {parent for parent in event.parents if mentioned[parent] < mentioned[event.vertex]}
    parents = tuple(sorted(earlier.union(known.parents if known else ())))
    if known and known.status == "scored":
        return replace(known, parents=parents)
    score = event.score if event.event == "scored" else None
    return Vertex(event.vertex, recipe, parents, event.event, score, event.run_id)
