from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.story import NAME
from lineage import models, tables
from lineage.fsck import CHECKS
from lineage.schemas import PROVENANCE, TRACE

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def stemma(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=560)


@pytest.fixture(scope="module")
def champion(told) -> dict[str, Any]:
    """`stemma lineage champion --json`."""
    done = stemma("lineage", "champion", "--json", "--lake", told.settings.lake)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_demo_ends_well_and_shows_what_became_of_rows_model_and_promises(told):
    first = told.runs[0]
    assert first.returncode == 0, first.stderr[-3000:]
    assert "Traceback" not in first.stderr
    for shown in ("traffic log -> traces", "broken exporter's batch", "linear probe", "champion now"):
        assert shown in first.stdout
    kept = [line for line in first.stdout.splitlines() if line.startswith("kept  ")]
    assert len(kept) == 8
    assert "BROKEN" not in first.stdout


def test_told_again_it_does_nothing_twice(told):
    again = told.runs[1]
    assert again.returncode == 0, again.stderr[-3000:]
    assert told.versions[1] == told.versions[0]
    assert "None" not in told.versions[0].values()  # every table that is compared was written
    assert told.seconds[1] < told.seconds[0]


def test_every_row_the_champion_ate_carries_its_whole_provenance(champion: dict[str, Any]):
    rows = champion["rows"]
    assert len(rows) > 18  # more than M0 had
    names = {column.name for column in PROVENANCE} | {"slice", "first_step"}
    for row in rows:
        assert names <= row.keys()
        assert not [name for name in names if row[name] is None]
    assert sum(champion["slices"].values()) == len(rows)


def test_the_bytes_at_each_source_are_the_exchange_that_became_the_row(told, champion: dict[str, Any]):
    traces = {row["row_id"].hex(): row for row in tables.read(told.settings, TRACE).to_pylist()}
    sources = [(row, source) for row in champion["rows"] for source in row["sources"]]
    assert len(sources) >= len(champion["rows"])
    for row, source in sources:
        first, end = map(int, source["source_span"].removeprefix("bytes:").split("-"))
        record = Path(source["source_uri"].removeprefix("file://")).read_bytes()[first:end]
        logged = json.loads(record)
        asked = logged.get("request", logged)["messages"]  # of the log, or of the clean pool
        said = [m["content"] for m in asked if m["role"] == "user"]
        assert said == [row["text"]]
        stored = traces[source["row_id"]]
        assert [m["content"] for m in stored["messages"] if m["role"] == "user"] == said
        assert {stored[name] for name in ("source_uri", "source_span")} <= set(source.values())


def test_the_lake_it_leaves_is_sound(told):
    done = stemma("fsck", "--json", "--lake", told.settings.lake)
    assert done.returncode == 0, done.stdout
    checks = json.loads(done.stdout)
    assert [check["name"] for check in checks] == [*CHECKS, "leftovers"]
    assert all(check["looked_at"] > 0 for check in checks)


def test_the_broken_exporters_batch_is_shown_as_refused_and_stays_readable_by_time_travel(told):
    done = stemma("status", "--json", "--lake", told.settings.lake)
    refused = [b for b in json.loads(done.stdout)["batches"] if b["verdict"] == "fail, withdrawn"]
    assert len(refused) == 1
    batch = tables.resolve(told.settings, refused[0]["batch"])
    rows = tables.read_batch(told.settings, batch)
    assert rows.num_rows == 60
    now = tables.read(told.settings, TRACE)["run_id"].to_pylist()
    assert refused[0]["run"] not in now


def test_it_ends_with_a_champion_that_no_recalled_row_reaches(told, champion: dict[str, Any]):
    assert champion["model"] == "helpdesk-router@3"
    prompts = {s["prompt_version"] for row in champion["rows"] for s in row["sources"]}
    assert prompts == {"1", "3"}
    done = stemma("impact", "--prompt", "router@2", "--json", "--lake", told.settings.lake)
    reached = json.loads(done.stdout)
    assert reached["rows"]["traces"] > 0
    assert reached["rows"]["examples"] > 0
    assert [model["model"] for model in reached["models"]] == ["helpdesk-router@2"]
    assert reached["aliases"] == []
    assert 0 < reached["checkpoints"][0]["share"] < 1


def test_the_log_of_moves_tells_the_story(told):
    moves = [e for e in models.events(told.settings, NAME) if e.alias == "champion"]
    told_by = [(e.kind, e.from_version, e.to_version) for e in moves]
    assert told_by == [("promotion", 0, 1), ("promotion", 1, 2), ("recall", 2, 1), ("promotion", 1, 3)]
    assert all(e.actor and e.reason for e in moves)


def test_the_recalled_model_is_still_on_record_and_says_what_was_called_back(told):
    done = stemma("lineage", f"{NAME}@2", "--lake", told.settings.lake)
    assert done.returncode == 0, done.stderr
    assert "of its rows were called back by" in done.stdout


def test_a_recalled_model_cannot_be_promoted_again(told):
    done = stemma("promote", f"{NAME}@2", "--name", NAME, "--lake", told.settings.lake)
    assert done.returncode == 2
    assert "took back" in done.stderr
    assert "Traceback" not in done.stderr
