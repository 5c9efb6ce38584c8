"""Each event of a run as an OpenLineage RunEvent (specification 2-0-2), under the same ids at every export.

A recall may change what facets say of earlier runs. What OpenLineage has no word for stands in facets of our
own, described by openlineage-facets-1-0-0.json.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from infra.redaction import redacted
from infra.settings import Settings
from lineage import runs, tables
from lineage.bans import banned
from lineage.export.datasets import Dataset, Facet, Names, Place, fields_of
from lineage.schemas import CURRICULUM, NOT_APPLICABLE, RUN, TABLES

PRODUCER = "urn:stemma:export:1-0-0"
FACETS = "urn:stemma:openlineage-facets:1-0-0"
"""The $id of the schema file beside this module: what our facets hold."""

_SPEC = "https://openlineage.io/spec"


@dataclass(frozen=True)
class Export:
    """The events of one lake in OpenLineage's words."""

    settings: Settings

    def events(self, history: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """One RunEvent per event of the table `runs`, in the order given."""
        for event in history:
            yield self._event({**event, **{name: json.loads(event[name]) for name in _JSON}})

    @cached_property
    def _names(self) -> Names:
        return Names(self.settings)

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        """Run id -> its job, when it began, and every table that it wrote."""
        found: dict[str, dict[str, Any]] = {}
        for event in tables.read(self.settings, RUN).sort_by("at").to_pylist():
            run = found.setdefault(event["run_id"], {"job": event["job"], "at": event["at"], "wrote": []})
            run["wrote"] += [output.partition("@")[0] for output in json.loads(event["outputs"])]
        return found

    @cached_property
    def _slices(self) -> dict[str, tuple[Counter[str], Counter[str]]]:
        """Curriculum -> its rows per slice, and per recall that took some of them back."""
        members = tables.read(self.settings, CURRICULUM, columns=["curriculum", "row_no", "slice"])
        gone = banned(self.settings)
        found: dict[str, tuple[Counter[str], Counter[str]]] = {}
        for row in members.to_pylist():
            slices, recalls = found.setdefault(row["curriculum"], (Counter(), Counter()))
            slices[row["slice"]] += 1
            if row["row_no"] in gone:
                recalls[gone[row["row_no"]]] += 1
        return found

    def _event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "eventType": event["status"],
            "eventTime": _time(event["at"]),
            "producer": PRODUCER,
            "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
            "run": {"runId": self._uuid(event["run_id"]), "facets": self._run_facets(event)},
            "job": {
                "namespace": self._names.lake,
                "name": event["job"],
                "facets": {
                    "jobType": _standard(
                        "2-0-4/JobTypeJobFacet", processingType="BATCH", integration="STEMMA", jobType="JOB"
                    ),
                    "sourceCodeLocation": _standard(
                        "1-1-0/SourceCodeLocationJobFacet",
                        type="digest",
                        url=f"urn:stemma:code:{event['agent']['code']}",
                        version=event["agent"]["code"],
                    ),
                },
            },
            "inputs": [self._dataset(place) for place in self._places(event, "inputs")],
            "outputs": [
                self._dataset(place) | {"outputFacets": _statistics(place, event)}
                for place in self._places(event, "outputs")
            ],
        }

    def _uuid(self, run_id: str) -> str:
        """Of the run's id and when it began, not of where the lake lies: moved, it is the same lake."""
        return str(uuid5(NAMESPACE_URL, f"urn:stemma:run:{run_id}:{_time(self._known[run_id]['at'])}"))

    def _run_facets(self, event: Mapping[str, Any]) -> dict[str, Facet]:
        agent = {name: value for name, value in event["agent"].items() if value is not None}
        facets = {
            "stemma_agent": _ours("StemmaAgentRunFacet", **agent),
            "stemma_provenance": _ours("StemmaProvenanceRunFacet", **self._provenance(event)),
        }
        if event["config"]:
            facets["stemma_config"] = _ours("StemmaConfigRunFacet", config=redacted(event["config"]))
        if event["counts"] or event["facets"]:
            measured = {"counts": event["counts"], "measured": redacted(event["facets"])}
            facets["stemma_counts"] = _ours("StemmaCountsRunFacet", **measured)
        if event["parent_run"] in self._known:
            facets["parent"] = _standard(
                "1-2-0/ParentRunFacet",
                run={"runId": self._uuid(event["parent_run"])},
                job={"namespace": self._names.lake, "name": self._known[event["parent_run"]]["job"]},
            )
        if event["error"]:
            words = {"message": redacted(event["error"]), "programmingLanguage": "PYTHON"}
            facets["errorMessage"] = _standard("1-0-1/ErrorMessageRunFacet", **words)
        return facets

    def _provenance(self, event: Mapping[str, Any]) -> Facet:
        said: Facet = {
            "run_id": event["run_id"],
            "identity": runs.identity_of(event["run_id"]),
            "attempt": event["attempt"],
            "inputs": redacted(event["inputs"]),
            "outputs": redacted(event["outputs"]),
        }
        if event["parent_run"] != NOT_APPLICABLE:
            said["parent_run"] = event["parent_run"]
        named = (i.removeprefix("curriculum:") for i in event["inputs"] if i.startswith("curriculum:"))
        curriculum = event["facets"].get("curriculum") or next(named, None)
        if curriculum in self._slices:
            slices, recalls = self._slices[curriculum]
            said |= {"curriculum": curriculum, "slices": dict(slices), "recalled_by": dict(recalls)}
        return said

    def _places(self, event: Mapping[str, Any], side: str) -> Iterator[Place]:
        reached = [name for name in dict.fromkeys(self._known[event["run_id"]]["wrote"]) if name in TABLES]
        for reference in event[side]:
            yield from self._names.places(reference, event, reached=reached)

    def _dataset(self, place: Place) -> Dataset:
        facets = {
            "stemma_reference": _ours("StemmaReferenceDatasetFacet", reference=redacted(place.reference))
        }
        if place.version:
            facets["version"] = _standard("1-0-1/DatasetVersionDatasetFacet", datasetVersion=place.version)
        fields = fields_of(place.name) if place.namespace == self._names.lake else []
        if fields:
            facets["schema"] = _standard("1-2-0/SchemaDatasetFacet", fields=fields)
        checkpoint = self._names.checkpoint_of(place)
        if checkpoint:
            named = [name for name, behind in self._names.versions.items() if behind == checkpoint]
            facets["stemma_model"] = _ours(
                "StemmaModelDatasetFacet",
                run_id=checkpoint.run_id,
                step=checkpoint.step,
                adapter_digest=checkpoint.adapter_digest,
                base_model=checkpoint.base_model,
                base_digest=checkpoint.base_digest,
                curriculum=checkpoint.curriculum,
                consumption_root=checkpoint.consumption_root,
                registered_as=named,
            )
        return {"namespace": place.namespace, "name": place.name, "facets": facets}


_JSON = ("inputs", "outputs", "config", "agent", "counts", "facets")


def _statistics(place: Place, event: Mapping[str, Any]) -> dict[str, Facet]:
    """How many rows the run wrote there, where its counts say so."""
    counts = event["counts"]
    written = {
        "ingest": {"traces": "out", "documents": "out"},
        "curate": {"examples": "out"},
        "curriculum": {"curricula": "out"},
        "evaluate": {"predictions": "rows"},
    }
    counted = written.get(event["job"], {}).get(place.name)
    if counted not in counts or len([o for o in event["outputs"] if o.startswith(f"{place.name}@")]) != 1:
        return {}
    rows = counts[counted] - counts.get("known", 0)  # what is stored already is not stored again
    return {"outputStatistics": _standard("1-0-2/OutputStatisticsOutputDatasetFacet", rowCount=rows)}


def _time(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _standard(which: str, **said: Any) -> Facet:
    name = which.rpartition("/")[2]
    return {"_producer": PRODUCER, "_schemaURL": f"{_SPEC}/facets/{which}.json#/$defs/{name}", **said}


def _ours(name: str, **said: Any) -> Facet:
    return {"_producer": PRODUCER, "_schemaURL": f"{FACETS}#/$defs/{name}", **said}
