from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lineage import tables
from lineage.schemas import PROVENANCE, TRACE

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def stemma(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)


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
    for shown in ("traffic log -> traces", "broken exporter's batch", "linear probe", "rows trained"):
        assert shown in first.stdout
    kept = [line for line in first.stdout.splitlines() if line.startswith("kept  ")]
    assert len(kept) == 5
    assert "BROKEN" not in first.stdout


def test_told_again_it_does_nothing_twice(told):
    again = told.runs[1]
    assert again.returncode == 0, again.stderr[-3000:]
    assert told.versions[1] == told.versions[0]
    assert "None" not in told.versions[0].values()  # every table that is compared was written
    assert told.seconds[1] < told.seconds[0]


def test_every_row_the_champion_ate_carries_its_whole_provenance(champion: dict[str, Any]):
    rows = champion["rows"]
    assert len(rows) == 18
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
        said = [m["content"] for m in json.loads(record)["messages"] if m["role"] == "user"]
        assert said == [row["text"]]
        stored = traces[source["row_id"]]
        assert [m["content"] for m in stored["messages"] if m["role"] == "user"] == said
        assert {stored[name] for name in ("source_uri", "source_span")} <= set(source.values())


def test_the_lake_it_leaves_is_sound(told):
    done = stemma("fsck", "--json", "--lake", told.settings.lake)
    assert done.returncode == 0, done.stdout
    checks = json.loads(done.stdout)
    assert len(checks) == 7
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
