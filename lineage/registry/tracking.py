"""Stemma's runs in MLflow: one run there for one run here, found again by the tag `stemma.run_id`.

    prepare(settings)                                      the store and the experiment are there
    open_run(settings, run_id=..., job="search", tags={})  a run whose children nest under it while it goes on
    log_run(settings, run_id=..., job="finetune", ...)     a finished run, whole, in one call
    close_run(settings, run_id=..., status="COMPLETE")
    shown_runs(settings)                                   those that need not be logged again

The same run_id again updates the same MLflow run. A parent and its children may come in any order.
"""

from __future__ import annotations

import datetime as dt
import json
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from infra.redaction import without_credentials
from infra.settings import Settings
from lineage.registry.connection import RegistryError, connected, is_server, lock
from lineage.registry.inputs import show_fed, table_text, tables_tag

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

    from lineage.fed import Fed

EXPERIMENT = "stemma"
RUN_TAG = "stemma.run_id"
PARENT_TAG = (
    "stemma.parent_run"  # kept beside MLflow's own tag: a parent that comes later finds its children by it
)

SHOWN_TAG = "stemma.shown"  # written last: the run is there as this code shows it
SHOWN = "2"  # raise it when runs are shown in another way: `stemma mlflow-sync` brings older ones up to date

Ending = Literal["COMPLETE", "FAIL", "ABORT"]
"""How a run ended, in the words of the table `runs`."""

_STATUS = {"COMPLETE": "FINISHED", "FAIL": "FAILED", "ABORT": "KILLED"}  # MLflow's words for it

# What MLflow 3.17 takes (mlflow/utils/validation.py).
_MAX_PARAM, _MAX_TAG, _MAX_KEY = 6_000, 8_000, 250
_MAX_POINTS = 1_000  # of one series: one request; the chart shows no more, and the lake has them all


def prepare(settings: Settings) -> None:
    """Make the tracking store ready, so that the first real call is quick. May run in a thread, and again."""
    with connected(settings) as client:
        experiment_of(client, settings)
        client.search_registered_models(max_results=1)  # the registry's store opens on first use


def open_run(
    settings: Settings,
    *,
    run_id: str,
    job: str,
    tags: Mapping[str, str],
    parent_run_id: str | None = None,
    started: dt.datetime | None = None,
) -> str:
    """Show a run that goes on, so that its children nest under it. Returns MLflow's run id."""
    tags = _run_tags(run_id, job, tags)
    with connected(settings) as client:
        run, is_new = _find_or_create(client, settings, run_id, tags, parent_run_id, started)
        if not is_new:
            client.log_batch(run.info.run_id, tags=_run_tag_entities(tags))
            client.update_run(run.info.run_id, status="RUNNING")
        return run.info.run_id


def log_progress(
    settings: Settings, *, run_id: str, job: str, step: int, metrics: Mapping[str, float]
) -> None:
    """Show how far a run is that goes on: its numbers at a step, which `log_run` completes."""
    with connected(settings) as client:
        run, _ = _find_or_create(client, settings, run_id, _run_tags(run_id, job, {}), None, None)
        from mlflow.entities import Metric

        points = [Metric(_key(name), value, run.info.start_time, step) for name, value in metrics.items()]
        client.log_batch(run.info.run_id, metrics=points)


def log_run(
    settings: Settings,
    *,
    run_id: str,
    job: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    parent_run_id: str | None = None,
    series: Mapping[str, Sequence[float]] = {},
    fed: Sequence[Fed] = (),
    tables: Mapping[str, pa.Table] = {},
    files: Mapping[str, str] = {},
    started: dt.datetime | None = None,
    ended: dt.datetime | None = None,
) -> str:
    """Log one finished run, and return MLflow's run id.

    `params` may nest: `{"lora": {"r": 16}}` becomes `lora.r`. A value or key over MLflow's limits is cut, and
    then the whole of `params` is attached as `params.json`. `series` has one value per step, from 0; a long
    one is thinned to 1,000 points, the last one kept. `fed` are the rows that it read; `tables` rows that
    the UI shows as tables, by file name, the first 10,000 of each; `files` texts that it shows as artifacts.

    Logged again: metrics, tags, tables and inputs are brought up to date. RegistryError if a param changed,
    since a run id stands for one config, or if a name is both a metric and a series.
    """
    if both := sorted(metrics.keys() & series.keys()):
        raise RegistryError(
            f"'{both[0]}' is a metric and a series of run {run_id}; expected one of them: rename one"
        )
    run_tags = _run_tags(run_id, job, tags)
    flat, is_cut = _flat_params(params)
    texts = {"params.json": _json(params), **files} if is_cut else dict(files)
    texts |= {name: table_text(rows) for name, rows in tables.items()}
    with connected(settings) as client:
        run, is_new = _find_or_create(client, settings, run_id, run_tags, parent_run_id, started)
        points = _points(metrics, series, run.info.start_time)
        if not is_new:
            flat = _unlogged_params(run, run_id, flat)
            points = _changed_points(client, run, points)
        from mlflow.entities import Param

        client.log_batch(
            run.info.run_id,
            metrics=points,
            params=[Param(key, value) for key, value in flat.items()],
            tags=_run_tag_entities(({} if is_new else run_tags) | tables_tag(run, list(tables))),
        )
        show_fed(client, run, fed)
        with written(texts) as folder:
            if folder:
                client.log_artifacts(run.info.run_id, folder)
        # One that was shown before we knew when it began may have begun, there, after it ended.
        at = None if ended is None else max(_millis(ended) or 0, run.info.start_time)
        client.set_terminated(run.info.run_id, _STATUS["COMPLETE"], at)
        client.set_tag(run.info.run_id, SHOWN_TAG, SHOWN)
        return run.info.run_id


def shown_runs(settings: Settings) -> frozenset[str]:
    """Our ids of the runs that are in MLflow whole, as this code shows them."""
    with connected(settings) as client:
        found = _search_all(client, experiment_of(client, settings), SHOWN_TAG, SHOWN)
        return frozenset(run.data.tags[RUN_TAG] for run in found if RUN_TAG in run.data.tags)


def open_runs(settings: Settings) -> frozenset[str]:
    """Our ids of the runs that MLflow shows as going on."""
    with connected(settings) as client:
        place = experiment_of(client, settings)
        found = _pages(client, place, "attributes.status = 'RUNNING'")
        return frozenset(run.data.tags[RUN_TAG] for run in found if RUN_TAG in run.data.tags)


def is_shown(settings: Settings, run_id: str) -> bool:
    """Whether a run is in MLflow whole, as this code shows it."""
    with connected(settings) as client:
        run = _search(client, experiment_of(client, settings), RUN_TAG, run_id)
        return run is not None and run.data.tags.get(SHOWN_TAG) == SHOWN


def close_run(
    settings: Settings,
    *,
    run_id: str,
    status: Ending,
    ended: dt.datetime | None = None,
) -> None:
    """End a run that open_run showed. Raises RegistryError if it never did."""
    with connected(settings) as client:
        run = find_run(client, experiment_of(client, settings), run_id)
        client.set_terminated(run.info.run_id, _STATUS[status], _millis(ended))


def experiment_of(client: MlflowClient, settings: Settings) -> str:
    """MLflow's id of our experiment, created on first use."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            # A server knows where its artifacts go; without one they lie in the lake.
            place = None if is_server(settings) else without_credentials(settings.path("mlartifacts"))
            return client.create_experiment(EXPERIMENT, place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(EXPERIMENT)  # another process was quicker
    if experiment is None or experiment.lifecycle_stage != "active":
        store = without_credentials(settings.tracking_uri)
        raise RegistryError(f"experiment '{EXPERIMENT}' was deleted in MLflow at {store}; restore it there")
    return experiment.experiment_id


def find_run(client: MlflowClient, experiment_id: str, run_id: str) -> Run:
    """The MLflow run of one of our runs. Raises RegistryError if there is none."""
    run = logged_run(client, experiment_id, run_id)
    if run is None:
        raise RegistryError(
            f"run {run_id} is not in MLflow; expected it to be logged first: run stemma mlflow-sync"
        )
    return run


def logged_run(client: MlflowClient, experiment_id: str, run_id: str) -> Run | None:
    """The MLflow run of one of our runs, or None where there is none."""
    return _search(client, experiment_id, RUN_TAG, run_id)


@contextmanager
def written(texts: Mapping[str, str]) -> Iterator[str | None]:
    """The texts as files in a folder that is gone afterwards, for one upload; None if there are none."""
    if not texts:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts or relative == PurePosixPath("."):
                raise RegistryError(f"artifact name '{name}' leaves its folder; expected a relative path")
            path = Path(folder, relative)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("utf-8", errors="replace"))  # a trace may hold half a surrogate pair
        yield folder


def _find_or_create(
    client: MlflowClient,
    settings: Settings,
    run_id: str,
    tags: Mapping[str, str],
    parent_run_id: str | None,
    started: dt.datetime | None,
) -> tuple[Run, bool]:
    """The run with this tag, under its parent and above its children, and whether it was created now."""
    with lock:
        experiment_id = experiment_of(client, settings)
        nesting: dict[str, str] = {}
        if parent_run_id is not None:
            parent = _search(client, experiment_id, RUN_TAG, parent_run_id)
            nesting = {PARENT_TAG: parent_run_id}
            nesting |= {"mlflow.parentRunId": parent.info.run_id} if parent else {}
        found = _search(client, experiment_id, RUN_TAG, run_id)
        if found is not None:
            for key in sorted(nesting.keys() - found.data.tags.keys()):
                client.set_tag(found.info.run_id, key, nesting[key])
            return found, False
        name = tags["mlflow.runName"]
        run = client.create_run(experiment_id, _millis(started), {**tags, **nesting}, run_name=name)
        for child in _search_all(client, experiment_id, PARENT_TAG, run_id):
            client.set_tag(child.info.run_id, "mlflow.parentRunId", run.info.run_id)
        return run, True


def _search(client: MlflowClient, experiment_id: str, tag: str, value: str) -> Run | None:
    return next(iter(_search_all(client, experiment_id, tag, value)), None)


def _search_all(client: MlflowClient, experiment_id: str, tag: str, value: str) -> list[Run]:
    if "'" in value:
        raise RegistryError(f"run id {value!r} holds a quote; expected letters, digits and dashes")
    return _pages(client, experiment_id, f"tags.`{tag}` = '{value}'")


def _pages(client: MlflowClient, experiment_id: str, condition: str) -> list[Run]:
    found, token = [], None
    while True:
        page = client.search_runs([experiment_id], condition, max_results=1_000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _run_tags(run_id: str, job: str, tags: Mapping[str, str]) -> dict[str, str]:
    own = {
        RUN_TAG: run_id,
        "stemma.job": job,
        "mlflow.runName": f"{job} {run_id}",
        "mlflow.source.name": f"stemma {job}",
    }
    return {
        key[:_MAX_KEY]: _storable(str(value), _MAX_TAG)
        for key, value in {**own, **tags, RUN_TAG: run_id}.items()
    }


def _run_tag_entities(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def _flat_params(params: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """Params as MLflow takes them, in order, and whether any of them had to be changed."""
    flat, is_cut = {}, False
    for name, value in _leaves(params):
        text = value if isinstance(value, str) else _json(value)
        key, kept = _key(name), _storable(text, _MAX_PARAM)
        is_cut = is_cut or key != name or kept != text or key in flat
        flat.setdefault(key, kept)
    return flat, is_cut


def _leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _key(name: str) -> str:
    """The nearest name that MLflow takes for a param or metric (mlflow/utils/validation.py)."""
    name = re.sub(r"[^/\w.\- :]", "_", name)[:_MAX_KEY]
    is_plain = posixpath.normpath(name) == name and not name.startswith((".", "/"))
    return name if is_plain else re.sub(r"^\.+|/", "_", name) or "_"


def _storable(text: str, limit: int) -> str:
    """Text as a database takes it: half surrogate pairs and NULs replaced, cut with a mark at the limit."""
    text = text.encode("utf-8", errors="replace").decode().replace("\0", "?")
    if len(text) <= limit:
        return text
    mark = f" ... ({len(text)} characters)"
    return text[: limit - len(mark)] + mark


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _points(metrics: Mapping[str, float], series: Mapping[str, Sequence[float]], at: int) -> list[Metric]:
    """All numbers at one time, the run's start in ms: the same number again is the same row in MLflow."""
    from mlflow.entities import Metric

    points = [Metric(_key(name), float(value), at, 0) for name, value in metrics.items()]
    for name, values in series.items():
        points += [Metric(_key(name), float(values[step]), at, step) for step in _thinned(len(values))]
    return points


def _thinned(length: int) -> list[int]:
    if length <= _MAX_POINTS:
        return list(range(length))
    return [round(index * (length - 1) / (_MAX_POINTS - 1)) for index in range(_MAX_POINTS)]


def _unlogged_params(run: Run, run_id: str, params: Mapping[str, str]) -> dict[str, str]:
    logged = run.data.params
    for key in sorted(params.keys() & logged.keys()):
        if logged[key] != params[key]:
            raise RegistryError(
                f"run {run_id} was logged with {key} = {logged[key][:80]}, now {params[key][:80]}; a run id "
                "stands for one config: log it under its own"
            )
    return {key: value for key, value in params.items() if key not in logged}


def _changed_points(client: MlflowClient, run: Run, points: Sequence[Metric]) -> list[Metric]:
    """The points that MLflow does not show yet, each dated after what stands at its step, so that it wins."""
    from mlflow.entities import Metric

    standing: dict[tuple[str, int], Metric] = {}
    for key in sorted({point.key for point in points} & run.data.metrics.keys()):
        for logged in client.get_metric_history(run.info.run_id, key):
            place = (key, logged.step)
            if place not in standing or standing[place].timestamp < logged.timestamp:
                standing[place] = logged
    changed = []
    for point in points:
        logged = standing.get((point.key, point.step))
        if logged is None:
            changed.append(point)
        elif not (
            logged.value == point.value or (logged.value != logged.value and point.value != point.value)
        ):
            changed.append(Metric(point.key, point.value, logged.timestamp + 1, point.step))
    return changed


def _millis(moment: dt.datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
