"""An ingest that is killed at each of its phases, and run again, stores what an undisturbed one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.settings import Settings, settings_from_environment
from lineage import runs, sources, tables
from lineage.fsck import fsck
from lineage.schemas import DOCUMENT, QUARANTINE, REJECTED, SOURCE, TRACE, TableSpec
from tests.pipelines.log_lake import Lake

ROOT = Path(__file__).parents[2]
_OF_THE_RUN = {"row_no", "run_id", "extracted_at", "at", "code_revision"}


def at(call: str, when: str, about: str | None = None) -> dict[str, Any]:
    return {"call": call, "when": when, "about": about}


PHASES = {
    "recognised": at("infra.storage:survey_all", "before"),
    "surveyed": at("infra.storage:survey_all", "after"),
    "leased": at("lineage.tables:reserve", "after"),
    "files written": at("lineage.tables:replace", "before", QUARANTINE.name),
    "quarantine committed": at("lineage.tables:replace", "after", QUARANTINE.name),
    "sources recorded": at("lineage.sources:record", "after"),
    "documents committed, traces not": at("lineage.tables:commit", "after", DOCUMENT.name),
    "traces recorded once more": at("lineage.sources:record", "after"),
    "committed, its run not finished": at("lineage.tables:commit", "after", TRACE.name),
}


@dataclass(frozen=True)
class Survivor:
    """A lake whose ingest died at every phase, and one that was left in peace."""

    settings: Settings
    undisturbed: Settings
    ends: dict[str, int]
    """Exit code of the process that was to die there; -9: it did."""

    said: str
    """The last process's screen."""


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Survivor:
    """Each process is a driver of its own in the Ray session of these tests."""
    import ray

    from tests.conftest import exchange, write_lines

    folder = tmp_path_factory.mktemp("killed")
    toys = SimpleNamespace(exchange=exchange, write_lines=write_lines)
    here = Lake(settings_from_environment(str(folder / "lake")), folder / "logs", toys)
    there = Lake(settings_from_environment(str(folder / "undisturbed")), folder / "logs", toys)
    log = here.log("log.jsonl", "a", "b")
    for each in (here, there):
        each.ingest(log)
    log.write_bytes(log.read_bytes() + b"{1\n" + here.log("more.txt", "c", "d").read_bytes())
    (folder / "logs/more.txt").unlink()
    here.log("other.jsonl", "x")
    here.write("guide.md", "---", "title: Guide", "---", "# One", "words", "# Two", "more words")
    words = ["ingest", str(folder / "logs"), "--no-gate", "--max-quarantined", "1"]
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests/examples/killed.py"),
            str(folder),
            *words,
            "--lake",
            here.settings.lake,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        input="".join(json.dumps(point) + "\n" for point in (*PHASES.values(), {})),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=400,
    )
    there.ingest(folder / "logs")
    tables.forget()
    codes = [json.loads(line)["code"] for line in done.stdout.splitlines()]
    said = (folder / f"{len(PHASES):02d}.out").read_text()
    return Survivor(here.settings, there.settings, dict(zip((*PHASES, "last"), codes, strict=True)), said)


@pytest.mark.timeout(500)
def test_each_phase_was_reached_and_the_last_go_ends_well(survivor: Survivor):
    assert survivor.ends == {**dict.fromkeys(PHASES, -9), "last": 0}
    assert "records read" in survivor.said


@pytest.mark.parametrize("spec", [TRACE, DOCUMENT, QUARANTINE, REJECTED, SOURCE], ids=lambda spec: spec.name)
def test_what_it_leaves_is_what_an_undisturbed_ingest_leaves(survivor: Survivor, spec: TableSpec):
    whole = content(survivor.undisturbed, spec)
    assert whole or spec is REJECTED
    assert content(survivor.settings, spec) == whole


def test_its_counts_are_those_of_an_undisturbed_ingest(survivor: Survivor):
    done = [runs.completed(each, "ingest")[-1][1] for each in (survivor.settings, survivor.undisturbed)]
    here, there = (
        {name: number for name, number in each.counts.items() if name != "sources_stored_before"}
        for each in done
    )
    assert here == there


def test_the_lake_is_sound(survivor: Survivor):
    assert [found for check in fsck(survivor.settings) for found in check.found] == []
    assert sources.superseded(survivor.settings) == []


def content(settings: Settings, spec: TableSpec) -> Counter[str]:
    """What stands in a table, and how often, without what names the run."""
    columns = [name for name in spec.schema.names if name not in _OF_THE_RUN]
    return Counter(str(row) for row in tables.read(settings, spec, columns=columns).to_pylist())
