"""The same with a lake and sources in an object store, and by several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.settings import Settings, SettingsError, settings_from_environment
from lineage import tables
from lineage.fsck import fsck
from lineage.runs import Outcome
from lineage.schemas import TRACE
from pipelines.ingest import IngestConfig, ingest
from tests.lineage.in_process import RuntimeHere

ROOT = Path(__file__).parents[2]
INGEST = (
    "import sys\n"
    "from infra.settings import settings_from_environment\n"
    "from pipelines.ingest import IngestConfig, ingest\n"
    "from tests.lineage.in_process import RuntimeHere\n"
    "lake, *sources = sys.argv[1:]\n"
    "runtime = RuntimeHere(settings_from_environment(lake))\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "ingest(runtime, IngestConfig(sources=tuple(sources)))\n"
)


@pytest.fixture
def store(object_store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket that delta-rs, too, is led to."""
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    return object_store


def questions(settings: Settings) -> list[str]:
    tables.forget()
    return sorted(row["messages"][-1]["content"] for row in tables.read(settings, TRACE).to_pylist())


def lines(toys: SimpleNamespace, folder: Path, *asked: str) -> bytes:
    return toys.write_lines(folder / "lines", [toys.exchange(each, "a") for each in asked]).read_bytes()


def test_a_lake_and_its_sources_may_lie_in_an_object_store(
    store: Any, tmp_path: Path, toys: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    settings = settings_from_environment(f"s3://{store.bucket}/lake")
    runtime = RuntimeHere(settings)

    def read(**more: Any) -> Outcome:
        return ingest(
            runtime, IngestConfig(sources=(f"s3://{store.bucket}/logs/",), max_quarantined=1, **more)
        )

    store.put("logs/log.jsonl", lines(toys, tmp_path, "a", "b"))
    store.put("logs/bad.jsonl", lines(toys, tmp_path, "z") + b"{1\n")
    first = read()
    assert (first.counts["in"], first.counts["quarantined"], questions(settings)) == (4, 1, ["a", "b", "z"])
    assert read().again
    store.put("logs/log.jsonl", lines(toys, tmp_path, "a", "b", "c"))
    assert read().counts["in"] == 1
    assert questions(settings) == ["a", "b", "c", "z"]
    with pytest.raises(SettingsError, match="set STEMMA_PII_KEY"):
        read(pii="redact")
    monkeypatch.setenv("STEMMA_PII_KEY", "kept elsewhere")
    assert read(pii="redact").counts["records_stored"] == 4
    assert [found for check in fsck(settings) for found in check.found if check.name != "aliases"] == []


@pytest.mark.parametrize("where", ["folder", "object store"])
def test_processes_that_ingest_overlapping_sources_at_once_store_each_row_once(
    store: Any, tmp_path: Path, toys: SimpleNamespace, where: str
):
    """One has the log as it was, another as it grew, a third the same and more."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, asked in {"short": "ab", "log": "abc", "x": "x", "y": "y"}.items():
        (logs / f"{name}.jsonl").write_bytes(lines(toys, tmp_path, *asked))
    lake = f"s3://{store.bucket}/lake" if where == "object store" else str(tmp_path / "lake")
    sets = (("short", "x"), ("log", "y"), ("log", "x", "y"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", INGEST, lake, *(str(logs / f"{name}.jsonl") for name in names)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for names in sets
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    settings = settings_from_environment(lake)
    assert questions(settings) == ["a", "b", "c", "x", "y"]
    stored = tables.read(settings, TRACE)
    assert len(set(stored["row_id"].to_pylist())) == stored.num_rows
