"""Space is given back and nothing is lost by it: models, recalls and fsck tell what they told before."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from infra.cli import run
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, queries, tables, upkeep
from lineage.consumption import checkpoints
from lineage.fsck import Repair, fsck, repair
from lineage.pins import pins
from lineage.recall import recall
from lineage.runs import Outcome, Run, RunError, carry_out, latest
from lineage.schemas import CHECKPOINT, CONSUMPTION, CURRICULUM, EXAMPLE, RUN, TABLES, TRACE
from lineage.selectors import Selector
from lineage.tables import TableError

ROOT = Path(__file__).parents[2]


def spare(settings: Settings, keep_days: int = 0) -> upkeep.Spare:
    return upkeep.spare(settings, keep_days=keep_days, now=dt.datetime.now(dt.UTC))


def vacuumed(settings: Settings, keep_days: int = 0) -> Outcome:
    return upkeep.vacuum(Runtime(settings), spare(settings, keep_days))


def parquet(settings: Settings) -> dict[str, set[str]]:
    folder = Path(settings.path("tables"))
    return {name: {path.name for path in (folder / name).glob("*.parquet")} for name in TABLES}


def aged(path: Path, *, hours: float) -> Path:
    """The file, as if it had been written earlier."""
    then_s = time.time() - hours * 3600
    os.utime(path, (then_s, then_s))
    return path


def orphan(settings: Settings, name: str, *, hours: float) -> str:
    """A file of examples that no version names, so many hours old."""
    path = Path(settings.path("tables", "examples", f"{name}.parquet"))
    path.write_bytes(b"cut off")
    return aged(path, hours=hours).name


def broken(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {check.name: check.found for check in fsck(settings) if check.found}


def told(settings: Settings, reference: str) -> Any:
    """A model's lineage, as `stemma lineage --json` says it."""
    checkpoint, _ = models.resolve(settings, reference)
    return json.dumps(queries.as_json(queries.lineage(settings, checkpoint)))


def refused_batch(settings: Settings) -> tables.TableVersion:
    """A batch that came, was refused and withdrawn."""

    def work(run: Run) -> Outcome:
        first = tables.reserve(settings, 3, run_id=run.id)
        rows = tables.read(settings, TRACE).slice(0, 3).to_pylist()
        again = [
            row | {"row_id": bytes([n]) * 16, "row_no": first + n, "run_id": run.id}
            for n, row in enumerate(rows)
        ]
        table = pa.Table.from_pylist(again, schema=TRACE.schema)
        file = tables.write_file(settings, table, into=TRACE, name="refused-00000")
        batch = tables.commit(settings, [file], into=TRACE, run_id=run.id, keys=["source:refused"])
        tables.withdraw(settings, batch, run_id=run.id, reason="refused")
        return Outcome((str(batch),))

    done = carry_out(Runtime(settings), "ingest", config={"sources": ["refused"]}, inputs=[], work=work)
    return tables.resolve(settings, done.outputs[0])


@pytest.fixture
def used(trained_lake, tmp_path: Path) -> Settings:
    """A batch was withdrawn, a row that the champion ate was recalled, and jobs left what they left."""
    settings = trained_lake.copied(tmp_path / "lake")
    refused_batch(settings)
    eaten = min(tables.read(settings, CONSUMPTION)["row_no"].to_pylist())
    recall(Runtime(settings), Selector(where=f"row_no = {eaten}"), reason="wrong")
    orphan(settings, "0123456789abcdef-1-00000", hours=25)
    assert broken(settings) == {}
    return settings


def test_after_a_vacuum_the_lake_is_sound_and_every_model_and_recall_still_told(used: Settings):
    lineage, ever = told(used, "router@1"), tables.read_ever(used, EXAMPLE)
    newest = {name: tables.read(used, spec).num_rows for name, spec in TABLES.items() if name != "runs"}
    before, kept = parquet(used), pins(used)
    done = vacuumed(used)
    gone = {name: before[name] - left for name, left in parquet(used).items() if before[name] - left}
    assert "refused-00000.parquet" in gone["traces"]
    assert gone["examples"] == {"0123456789abcdef-1-00000.parquet"}  # the recall needs its two versions
    assert len(gone["checkpoints"]) == 1  # the row that the copy wrote anew
    assert done.counts["files"] == sum(map(len, gone.values()))
    assert broken(used) == {}
    assert told(used, "router@1") == lineage
    assert "recalled" in lineage
    assert tables.read_ever(used, EXAMPLE).sort_by("row_no") == ever.sort_by("row_no")
    assert newest == {name: tables.read(used, TABLES[name]).num_rows for name in newest}
    assert {name: len(versions) for name, versions in kept.items()} == {"examples": 2}
    for name, versions in kept.items():
        for version in versions:
            tables.read(used, tables.TableVersion(name, version))


def test_a_model_that_serves_keeps_the_batches_that_it_rests_on(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    found = pins(settings)
    batches = {name: {b.version for b in tables.batches(settings, TABLES[name]).values()} for name in found}
    assert {name: set(versions) for name, versions in found.items()} == batches
    assert found.keys() == {"traces", "examples", "curricula"}
    assert all("router@1" in why for versions in found.values() for why in versions.values())


def test_a_model_keeps_the_batches_beneath_what_it_ate_and_was_scored_on_and_no_others(small):
    small.traces([1, 2])
    small.traces([3])
    small.traces([4])
    small.examples({11: (1, 3), 12: ()})
    small.examples({13: (11,)})
    small.examples({14: (4,)})
    small.examples({15: ()})
    small.reign(13, 13, scored=[15])
    found = {name: set(versions) for name, versions in pins(small.settings).items()}
    assert found == {"traces": {1, 2}, "examples": {1, 2, 4}, "curricula": {1}}


def test_where_a_parent_of_what_a_model_ate_is_lost_nothing_is_cleared_up(small):
    small.traces([1])
    small.examples({11: (1,)})
    small.examples({12: (11,)})
    small.reign(12, scored=[])
    tables.withdraw(small.settings, tables.TableVersion("traces", 1), run_id="gate-1", reason="smells")
    with pytest.raises(TableError, match=r"row 000b0{28} names a parent that is not stored"):
        spare(small.settings)


def test_where_a_model_that_serves_lacks_its_curriculum_nothing_is_cleared_up(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    tables.withdraw(settings, min(tables.batches(settings, CURRICULUM).values()), run_id="x-1", reason="test")
    with pytest.raises(TableError, match="names no curriculum"):
        spare(settings)


def test_a_batch_that_a_vacuum_removed_says_so_when_it_is_asked_for(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    lost = refused_batch(settings)
    assert tables.read_batch(settings, lost).num_rows == 3
    vacuumed(settings)
    with pytest.raises(TableError, match=r"a version of 'traces' that was asked for needs .* vacuum removed"):
        tables.read_batch(settings, lost)
    assert broken(settings) == {}


def test_what_is_younger_than_the_limit_stays(used: Settings):
    assert spare(used, keep_days=2).files == {}
    before = parquet(used)
    assert vacuumed(used, keep_days=2).counts == {"files": 0, "bytes": 0}
    assert parquet(used) == before


def test_what_a_starting_writer_has_not_committed_yet_is_not_spare_at_any_limit(used: Settings):
    young = orphan(used, "fedcba9876543210-1-00000", hours=23)
    assert spare(used).files["examples"].keys() == {"0123456789abcdef-1-00000.parquet"}
    vacuumed(used)
    assert young in parquet(used)["examples"]


def test_a_vacuum_removes_the_files_that_it_listed_and_no_others(used: Settings):
    listed, before = spare(used), parquet(used)
    late = orphan(used, "fedcba9876543210-1-00000", hours=25)
    upkeep.vacuum(Runtime(used), listed)
    assert late in parquet(used)["examples"]
    assert before["examples"] - parquet(used)["examples"] == listed.files["examples"].keys()
    assert broken(used) == {}


def test_a_second_vacuum_finds_nothing_and_changes_nothing(used: Settings):
    vacuumed(used)
    before = {name: tables.resolve(used, name).version for name in parquet(used) if parquet(used)[name]}
    assert spare(used).files == {}
    assert vacuumed(used).counts["files"] == 0
    assert before == {name: tables.resolve(used, name).version for name in before}


def test_a_file_that_no_vacuum_removed_is_still_missed(used: Settings):
    vacuumed(used)
    log = [
        json.loads(line)
        for path in sorted(Path(used.path("tables/examples/_delta_log")).glob("*.json"))
        for line in path.read_text().splitlines()
    ]
    named = {each["add"]["path"] for each in log if "add" in each}
    lost = sorted(named & parquet(used)["examples"])[0]
    Path(used.path("tables", "examples", lost)).unlink()
    assert lost in broken(used)["files"][0]


def test_a_vacuum_by_hand_is_named(used: Settings):
    DeltaTable(used.path("tables/traces")).vacuum(
        retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True
    )
    found = broken(used)
    assert {"files", "commits"} <= found.keys()
    assert "VACUUM START" in found["commits"][0]


def test_while_a_job_is_in_progress_nothing_is_removed(used: Settings, another_process):
    with (
        another_process(used, "ingest") as run_id,
        pytest.raises(RunError, match=f"{run_id} .*to remove files"),
    ):
        spare(used)


def test_a_run_of_another_machine_that_has_not_ended_keeps_its_files(used: Settings):
    (start, *_) = [e for e in tables.read(used, RUN).to_pylist() if e["status"] == "START"]
    agent = json.dumps({**json.loads(start["agent"]), "host": "elsewhere"})
    began = {"at": start["at"] - dt.timedelta(days=2)}
    tables.record(used, [{**start, **began, "run_id": "ab-1", "agent": agent}], into=RUN)
    assert spare(used).files == {}


def test_the_verb_lists_unless_it_is_told_to_remove(used: Settings, capsys: pytest.CaptureFixture[str]):
    before = parquet(used)
    words = ["--lake", used.lake, "--keep-days", "0"]
    assert run("vacuum", words) == 0
    assert "traces" in capsys.readouterr().out
    assert parquet(used) == before
    assert run("vacuum", [*words, "--yes", "--dry-run"]) == 2
    assert run("vacuum", ["--lake", used.lake, "--keep-days", "-1"]) == 2
    assert "expected 0 or more" in capsys.readouterr().err
    assert run("vacuum", [*words, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert run("vacuum", [*words, "--yes", "--json"]) == 0
    removed = json.loads(capsys.readouterr().out)["removed"]
    assert removed == {name: sum(files.values()) for name, files in listed["files"].items()}
    assert parquet(used) != before


# ---------------------------------------------------------------- what killed jobs left

DIES = """
import os, sys
from pathlib import Path
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.runs import carry_out
from lineage.schemas import EXAMPLE
lake = Settings({lake!r}, "")
def work(run):
    tables.write_file(lake, EXAMPLE.schema.empty_table(), into=EXAMPLE, name=run.id + "-00000")
    for name in (f".{{run.id}}-part", run.id):
        Path(lake.path("checkpoints", name)).mkdir(parents=True)
    os.write(1, run.id.encode())
    os._exit(9)
carry_out(Runtime(lake), "finetune", config={{}}, inputs=[], work=work)
"""


@pytest.fixture
def killed(trained_lake, tmp_path: Path) -> tuple[Settings, str]:
    """A lake and the run that died in it."""
    settings = trained_lake.copied(tmp_path / "lake")
    words = [sys.executable, "-c", DIES.format(lake=settings.lake)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 9
    aged(Path(settings.path("tables", "examples", f"{done.stdout}-00000.parquet")), hours=1)
    return settings, done.stdout


def test_what_a_killed_job_left_is_told_as_a_remark_and_breaks_nothing(
    killed: tuple[Settings, str], capsys: pytest.CaptureFixture[str]
):
    settings, run_id = killed
    assert run("fsck", ["--lake", settings.lake]) == 0
    said = capsys.readouterr().out
    assert "remark  leftovers" in said
    for left in (
        f"run {run_id} (finetune) is on record as going on, but its process is dead",
        f"file '{run_id}-00000.parquet' of 'examples'",
        f"checkpoints/.{run_id}-part' is of a training",
        f"checkpoints/{run_id}' is of a training",
    ):
        assert left in said


def test_a_repair_marks_the_run_and_removes_what_it_left_and_nothing_else(killed: tuple[Settings, str]):
    settings, run_id = killed
    files, folders = parquet(settings), {path.name for path in Path(settings.path("checkpoints")).iterdir()}
    assert len(repair(settings).done) == 4
    assert files["examples"] - parquet(settings)["examples"] == {f"{run_id}-00000.parquet"}
    left = {path.name for path in Path(settings.path("checkpoints")).iterdir()}
    assert folders - left == {run_id, f".{run_id}-part"}
    assert left == {checkpoint.run_id for checkpoint in checkpoints(settings)} | (left & {".tmp"})
    assert next(each for each in latest(settings) if each["run_id"] == run_id)["status"] == "ABORT"
    assert repair(settings) == Repair(())
    assert not [check for check in fsck(settings) if check.found or check.remarks]


def test_what_a_living_job_has_written_is_nobodys_leftover(killed: tuple[Settings, str], another_process):
    settings, run_id = killed
    files = parquet(settings)["examples"]
    with another_process(settings, "ingest") as living:
        tables.write_file(settings, EXAMPLE.schema.empty_table(), into=EXAMPLE, name=f"{living}-00000")
        Path(settings.path("checkpoints", f".{living}-part")).mkdir()
        assert living not in " ".join(upkeep.leftovers(settings).told())
        with pytest.raises(RunError, match=f"{living} .*to remove what killed jobs left"):
            repair(settings)
    assert parquet(settings)["examples"] == files | {f"{living}-00000.parquet"}
    assert Path(settings.path("checkpoints", f".{living}-part")).is_dir()
    repair(settings)
    assert f"{run_id}-00000.parquet" not in parquet(settings)["examples"]


def test_a_file_written_since_the_listing_began_is_never_an_orphan(
    trained_lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = trained_lake.copied(tmp_path / "lake")
    left = orphan(settings, "0123456789abcdef-1-00000", hours=1)
    read = tables.read

    def read_before_a_writer_starts(asked: Settings, *what: Any, **how: Any) -> pa.Table:
        found = read(asked, *what, **how)
        orphan(settings, "fedcba9876543210-1-00000", hours=0)
        return found

    monkeypatch.setattr(tables, "read", read_before_a_writer_starts)
    assert upkeep.leftovers(settings).files == {"examples": {left: len(b"cut off")}}


def test_a_finished_training_whose_row_is_lost_keeps_its_files(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    tables.replace(settings, CHECKPOINT.schema.empty_table(), into=CHECKPOINT, run_id=trained_lake.trained)
    repair(settings)
    assert Path(settings.path("checkpoints", trained_lake.trained)).is_dir()
