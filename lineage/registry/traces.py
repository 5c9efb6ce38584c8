"""Traces that a tracking server holds, as the lines that a reader of MLflow's traces takes.

    exported_traces(uri, experiments=("support",))     bytes of `{"info", "data"}`, one line per trace

The same traces give the same bytes, however the server pages them. Reads from any server or file that MLflow
knows, not only from the one that keeps our own books.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from infra.settings import Settings
from lineage.registry.connection import RegistryError, connected

if TYPE_CHECKING:
    from mlflow.entities import Trace
    from mlflow.tracking import MlflowClient

_PAGE = 100  # traces per request, with all their spans; MLflow takes at most 500


def exported_traces(
    settings: Settings, *, experiments: Sequence[str], tracking_uri: str | None = None, where: str = ""
) -> Iterator[bytes]:
    """One line of JSON per trace of the named experiments, sorted by the time of the request, then by id.

    `tracking_uri`: another server than that of the settings. `where`: MLflow's own filter, such as
    `attributes.status = 'OK'`. Raises RegistryError, at the first line asked for, where no experiment is
    named or one is not there, and at any line where the server fails.
    """
    if not experiments:
        raise RegistryError("no experiment is named; name those whose traces are wanted")
    place = settings if tracking_uri is None else replace(settings, tracking_uri=tracking_uri)
    with connected(place) as client:
        ids = [_experiment_id(client, name) for name in sorted(set(experiments))]
    held: list[Trace] = []  # of one moment: their order is known when the next moment comes
    for page in _pages(place, ids, where):
        for trace in page:
            if held and trace.info.request_time != held[0].info.request_time:
                yield from _lines(held)
                held = []
            held.append(trace)
    yield from _lines(held)


def _experiment_id(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise RegistryError(f"experiment '{name}' is not there; name one that the tracking server has")
    return experiment.experiment_id


def _pages(settings: Settings, ids: Sequence[str], where: str) -> Iterator[Sequence[Trace]]:
    token: str | None = None
    while True:
        with connected(settings) as client:
            page = client.search_traces(
                locations=list(ids),
                filter_string=where or None,
                max_results=_PAGE,
                order_by=["timestamp_ms ASC"],
                page_token=token,
            )
        yield page
        token = page.token
        if not token:
            return


def _lines(traces: Sequence[Trace]) -> Iterator[bytes]:
    for trace in sorted(traces, key=lambda each: each.info.trace_id):
        yield _line(trace)


def _line(trace: Trace) -> bytes:
    """Sorted keys, and assessments in the order in which they were made."""
    found = trace.to_dict()
    assessments = found["info"].get("assessments") or []
    assessments.sort(key=lambda each: (each.get("create_time", ""), each.get("assessment_id", "")))
    return json.dumps(found, ensure_ascii=False, sort_keys=True).encode() + b"\n"
