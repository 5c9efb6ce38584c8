"""A demo that is killed wherever it can hurt, and told again each time, ends as one that nobody disturbed.

One lake, one command, one death after the other in the order of the story: what a process does before its
death is what the one before it left undone. Then the lake is held against that of an undisturbed demo.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings, settings_from_environment
from lineage import bans, fsck, models, registry, runs, tables, verdicts
from lineage.consumption import checkpoints
from lineage.schemas import (
    BAN,
    CONSUMPTION,
    CURRICULUM,
    EVENT,
    EXCLUSION,
    MODEL,
    PLAN,
    PREDICTION,
    QUARANTINE,
    REJECTED,
    REPORT,
    ROW_TABLES,
    RUN,
    TRIAL,
    VERDICT,
    TableSpec,
)
from lineage.tables import TableVersion
from search.space import SearchGraph, TrialEvent

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]  # 4 min on two free cores


def stage(name: str) -> dict[str, Any]:
    return before("examples.progress:Stages.stage", name)


def before(call: str, about: str | None = None, nth: int = 1) -> dict[str, Any]:
    return {"call": call, "when": "before", "about": about, "nth": nth}


def after(call: str, about: str | None = None, nth: int = 1) -> dict[str, Any]:
    return {"call": call, "when": "after", "about": about, "nth": nth}


DEATHS: dict[str, dict[str, Any]] = {
    "the lake is being marked as the demo's": before("pathlib:Path.replace"),
    "stage scenario": stage("scenario"),
    "some of the scenario's files are written": before("pathlib:Path.write_bytes", nth=3),
    "stage clean pool": stage("clean pool and evaluation sets"),
    "clean pool: stored, its ingest not finished": after("lineage.tables:commit", "traces"),
    "stage M0": stage("M0, the first champion"),
    "M0: exclusions are there, the curriculum is not": before("lineage.tables:commit", "curricula"),
    "M0: trained, its files still in a hidden folder": before("training.fit:_require_plan"),
    "M0: half trained": before("training.ledger:FedLog.write", nth=2),
    "M0: files are there, consumption is not": before("training.finetune:record_checkpoint"),
    "M0: consumption is there, the checkpoint is not": before("lineage.tables:replace", "checkpoints"),
    "M0: the checkpoint is there, its run not finished": after("lineage.tables:replace", "checkpoints"),
    "M0: trained, MLflow not told": before("lineage.mirror:show_run"),
    "M0: registered, no alias moved": after("lineage.models:register"),
    "M0: champion in the log, not in MLflow": after("lineage.models:move_aliases"),
    "stage traffic": stage("traffic through M0"),
    "stage ingest": stage("ingest and gate"),
    "log: files are there, the commit is not": before("lineage.tables:commit", "traces"),
    "log: stored, no verdict": after("lineage.tables:commit", "traces"),
    "log: judged, the verdict not on record": before("lineage.verdicts:record"),
    "broken batch: stored, no verdict": after("lineage.tables:commit", "traces"),
    "broken batch: refused, not withdrawn": before("lineage.tables:withdraw"),
    "stage curate": stage("curate"),
    "curate: rejections are there, examples are not": after("lineage.tables:replace", "rejected"),
    "curate: examples are there, its run not finished": after("lineage.tables:commit", "examples"),
    "stage finetune": stage("finetune"),
    "finetune: exclusions are there, the curriculum is not": before("lineage.tables:commit", "curricula"),
    "finetune: consumption is there, the checkpoint is not": before("lineage.tables:replace", "checkpoints"),
    "stage search": stage("search"),
    "search: one recipe proposed, another not yet": after("search.searcher:append"),
    "search: one trial has ended, another goes on": before("search.searcher:Searcher.on_trial_complete"),
    "search: one score is logged, another not yet": after("search.searcher:Searcher.on_trial_complete"),
    "search: all scores are logged, MLflow not told": before("lineage.registry:log_run", "search"),
    "stage promote": stage("promote"),
    "promote: registered, no alias moved": after("lineage.models:register"),
    "promote: aliases moved in the log, not in MLflow": after("lineage.models:move_aliases"),
    "stage suspects": stage("suspects"),
    "stage recall": stage("recall"),
    "recall: ordered, nothing banned": after("lineage.recall:_order"),
    "recall: banned, no row taken out": after("lineage.recall:_ban"),
    "recall: rows out of one table, not of the other": after("lineage.tables:take_out"),
    "recall: rows are out, aliases not moved": before("lineage.recall:_move_aliases"),
    "recall: aliases moved in the log, not in MLflow": before("lineage.mirror:show_recalls"),
    "stage once more": stage("the recalled lines once more"),
    "stage retrain": stage("retrain"),
    "retrain: trained, not before the gates": before("search.retrain:promote"),
    "retrain: aliases moved in the log, not in MLflow": after("lineage.models:move_aliases"),
    "stage report": stage("report"),
    "report: predictions are there, the numbers are not": before("lineage.tables:replace", "reports"),
    "stage lineage and fsck": stage("lineage and fsck"),
}
IF_ORDERED = {name for name in DEATHS if name.startswith("retrain: ")}
"""Reached only where the recall felled a champion; elsewhere the demo comes to its end instead."""


@dataclass(frozen=True)
class Survivor:
    """A lake whose demo died at every point, and what the processes told."""

    settings: Settings
    ends: dict[str, int]
    """Exit code of the process that was to die there; -9: it did."""
    last: int
    said: str
    """The last process's screen."""


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Survivor:
    folder = tmp_path_factory.mktemp("killed")
    lake = str(folder / "lake")
    points = [*DEATHS.values(), {}]
    driver = str(ROOT / "tests/examples/killed.py")
    done = subprocess.run(
        [sys.executable, driver, str(folder), "demo", "--scale", "tiny", "--lake", lake],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input="".join(json.dumps(point) + "\n" for point in points),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=1500,
    )
    codes = [json.loads(line)["code"] for line in done.stdout.splitlines()]
    assert len(codes) == len(points)
    said = (folder / f"{len(points) - 1:02d}.out").read_text()
    return Survivor(settings_from_environment(lake), dict(zip(DEATHS, codes, strict=False)), codes[-1], said)


def test_every_point_was_reached_and_killed_its_process(survivor: Survivor):
    assert survivor.ends.keys() == DEATHS.keys()
    lived = {name for name, code in survivor.ends.items() if code != -9}
    ordered = any(recall.orders for recall in bans.recalls(survivor.settings))
    assert lived == (set() if ordered else IF_ORDERED)
    assert all(survivor.ends[name] == 0 for name in lived)


def test_told_a_last_time_it_ends_well_and_shows_what_an_undisturbed_demo_shows(survivor: Survivor, told):
    assert survivor.last == 0
    assert "BROKEN" not in survivor.said
    assert shown(survivor.said, survivor.settings) == shown(told.runs[1].stdout, told.settings)


COMPARED = (*ROW_TABLES, CURRICULUM, EXCLUSION, QUARANTINE, REJECTED, PLAN, CONSUMPTION)
COMPARED += (MODEL, EVENT, BAN, PREDICTION, REPORT)
CONTENT: Mapping[str, Callable[[Settings], Any]] = {
    **{spec.name: lambda settings, spec=spec: entries_of(settings, spec) for spec in COMPARED},
    "checkpoints": lambda settings: Counter(
        (c.adapter_digest, c.curriculum, c.consumption_root, c.step) for c in checkpoints(settings)
    ),
    "aliases": models.aliases,
    "recalls": lambda settings: [(each.id, each.reason, len(each.orders)) for each in bans.recalls(settings)],
    "verdicts": lambda settings: Counter(judged(settings)),
    "withdrawn batches": lambda settings: Counter(
        rows_in(settings, tables.resolve(settings, batch))
        for spec in ROW_TABLES
        for batch in tables.withdrawn(settings, spec)
    ),
    "trials": lambda settings: tried(settings),
    "finished runs": lambda settings: finished(settings),
    "finished runs in MLflow": lambda settings: Counter(
        run.data.tags["stemma.job"] for run in in_mlflow(settings) if run.info.status == "FINISHED"
    ),
    "models in MLflow": lambda settings: {
        name: [
            (each.version, each.tags["stemma.adapter_digest"])
            for each in registry.model_versions(settings, name)
        ]
        for name in sorted(models.aliases(settings))
    },
}


@pytest.mark.parametrize("what", CONTENT)
def test_what_it_leaves_is_what_an_undisturbed_demo_leaves(survivor: Survivor, told, what: str):
    whole = CONTENT[what](told.settings)
    assert whole or what == "documents"
    assert CONTENT[what](survivor.settings) == whole


def test_no_row_stands_twice(survivor: Survivor):
    for spec in (*ROW_TABLES, CURRICULUM, EXCLUSION, BAN, MODEL, PREDICTION, REPORT, PLAN, CONSUMPTION):
        stored = tables.read(survivor.settings, spec, columns=list(spec.keys)).to_pylist()
        assert not [key for key, n in Counter(map(str, stored)).items() if n > 1], spec.name


def test_the_lake_is_sound(survivor: Survivor):
    checks = fsck.fsck(survivor.settings)
    assert [found for check in checks for found in check.found] == []
    assert all(check.looked_at for check in checks)


def test_mlflow_shows_every_alias_where_the_log_left_it_and_no_run_as_going_on(survivor: Survivor):
    said = models.aliases(survivor.settings)
    standing = {name: registry.indexed_aliases(survivor.settings, name) for name in said}
    assert {
        name: {alias: each.version for alias, each in found.items() if each.version}
        for name, found in standing.items()
    } == said
    assert [run.data.tags for run in in_mlflow(survivor.settings) if run.info.status == "RUNNING"] == []


def test_every_run_that_was_killed_is_on_record_as_ended(survivor: Survivor):
    last = runs.latest(survivor.settings)
    assert [run for run in last if run["status"] == "START"] == []
    assert sum(run["status"] == "ABORT" for run in last) > 10


def test_nothing_of_a_killed_training_is_left(survivor: Survivor):
    left = {path.name for path in Path(survivor.settings.lake, "checkpoints").iterdir()}
    assert left == {checkpoint.run_id for checkpoint in checkpoints(survivor.settings)}


# ---------------------------------------------------------------- what is compared

_OF_THE_RUN = {
    "row_no",
    "parent_nos",
    "run_id",
    "model_run",
    "extracted_at",
    "at",
    "code_revision",
    "evidence",
}
"""Columns that two lakes of one story differ in: numbers, runs, times, and links made of them."""


def entries_of(settings: Settings, spec: TableSpec) -> Counter[str]:
    """What stands in a table, without what names this lake or these runs, and how often."""
    columns = [name for name in spec.schema.names if name not in _OF_THE_RUN]
    stored = tables.read(settings, spec, columns=columns).to_pylist()
    return Counter(str(row).replace(settings.lake, "LAKE") for row in stored)


def judged(settings: Settings) -> Iterable[tuple[Any, ...]]:
    """Each batch that was gated, by the rows it holds, and the verdict that counts."""
    gone = replaced(settings)
    gated = {(row["table"], row["version"]) for row in tables.read(settings, VERDICT).to_pylist()}
    for name, version in gated:
        batch = TableVersion(name, version)
        verdict = verdicts.latest(settings, batch)
        assert verdict is not None
        if str(batch) not in gone:
            yield (name, rows_in(settings, batch), verdict.outcome, verdict.suite_digest, verdict.rows)


def finished(settings: Settings) -> Counter[str]:
    """How many runs of each job came to their end, but for gates of what a later attempt replaced."""
    gone = replaced(settings)
    return Counter(
        event["job"]
        for event in tables.read(settings, RUN).to_pylist()
        if event["status"] == "COMPLETE" and gone.isdisjoint(json.loads(event["inputs"]))
    )


def replaced(settings: Settings) -> frozenset[str]:
    """The batches of predictions in whose place a later attempt at the evaluation put its own."""
    standing = set(tables.read(settings, PREDICTION, columns=["run_id"])["run_id"].to_pylist())
    stored = tables.batches(settings, PREDICTION)
    return frozenset(str(batch) for run_id, batch in stored.items() if run_id not in standing)


def rows_in(settings: Settings, batch: TableVersion) -> frozenset[bytes]:
    """The ids of a batch's rows."""
    return frozenset(tables.read_batch(settings, batch, columns=["row_id"])["row_id"].to_pylist())


def tried(settings: Settings) -> dict[str, tuple[str, float | None]]:
    """Each recipe of the search, what became of it, and its score."""
    rows = tables.read(settings, TRIAL).to_pylist()
    graph = SearchGraph.fold(TrialEvent(**{**row, "parents": tuple(row["parents"])}) for row in rows)
    return {key: (vertex.status, vertex.score) for key, vertex in graph.vertices.items()}


def in_mlflow(settings: Settings) -> list[Any]:
    """All runs that MLflow shows."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(settings.tracking_uri)
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def shown(screen: str, settings: Settings) -> list[str]:
    """The words of the summary, without the lake's place, the batch's number and how lines were broken."""
    text = re.sub(r"traces@\d+", "traces@N", screen.replace(settings.lake, "LAKE"))
    return text.split()
