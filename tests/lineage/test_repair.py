"""A repair brings what stands beside the record in line with it, and touches nothing where that is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from infra.cli import run
from infra.settings import Settings
from lineage import tables
from lineage.fsck import fsck, repair

HOUR_S = 3600  # what was written in the last minute no repair looks at
BOOKS = [
    "consumption",
    "curricula",
    "events",
    "examples",
    "leases",
    "models",
    "plans",
    "predictions",
    "quarantine",
    "rejected",
    "reports",
    "traces",
    "verdicts",
]


def stored(settings: Settings) -> dict[str, bytes]:
    """All that lies in the lake's tables."""
    found = Path(settings.path("tables")).rglob("*")
    return {str(path): path.read_bytes() for path in found if path.is_file()}


def broken(settings: Settings) -> set[str]:
    return {check.name for check in fsck(settings) if check.found}


@pytest.fixture
def lake(trained_lake, tmp_path: Path) -> Settings:
    """A copy of the trained lake that was made an hour ago."""
    settings = trained_lake.copied(tmp_path / "lake")
    then_s = time.time() - HOUR_S
    for path in Path(settings.path("tables")).rglob("*.parquet"):
        os.utime(path, (then_s, then_s))
    return settings


@pytest.mark.parametrize("book", BOOKS)
def test_whose_log_lost_its_end_a_table_keeps_the_files_of_the_lost_commit_for_when_it_is_back(
    book: str, lake: Settings, tmp_path: Path
):
    entry = max(Path(lake.path("tables", book, "_delta_log")).glob("*.json"))
    client = MlflowClient(lake.tracking_uri, lake.tracking_uri)
    aliases = client.get_registered_model("router").aliases
    entry.rename(tmp_path / "entry.json")
    before = stored(lake)
    mended = repair(lake)
    assert mended.done == ()
    assert mended.left[0].startswith("nothing was repaired, for the record is not whole: ")
    assert stored(lake) == before
    assert client.get_registered_model("router").aliases == aliases
    (tmp_path / "entry.json").rename(entry)
    tables.forget()
    assert broken(lake) == set()
    assert repair(lake).left == ()


def test_the_verb_says_what_it_left_alone_and_why(lake: Settings, tmp_path: Path, capsys):
    entry = max(Path(lake.path("tables/events/_delta_log")).glob("*.json"))
    entry.rename(tmp_path / "entry.json")
    assert run("fsck", ["--repair", "--lake", lake.lake]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("left alone: nothing was repaired, for the record is not whole: books: run ")
    assert told[0].endswith("mend that first, then again")
    assert [line for line in told[1:] if "of 'events'" in line and "is named by no version" in line]
    assert not [line for line in told if line.startswith("repaired")]
