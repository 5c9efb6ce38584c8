"""What reached models wrote, and what came of it: by hand-made generations, and through the real engines."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from expectations.gate import admit
from infra.cli import run
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, fsck, models, tables
from lineage.bans import recall_id
from lineage.consumption import find_checkpoint
from lineage.curricula import DataRecipe
from lineage.impact import impact
from lineage.lift import lift
from lineage.recall import recall, would_move
from lineage.runs import Run
from lineage.schemas import CONSUMPTION, EXAMPLE, TRACE
from lineage.selectors import Selector, SelectorError
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, IngestError, ingest
from training.finetune import FinetuneConfig, finetune
from training.recipe import TrainingConfig

BAD = Selector(rows=("0001",))
THROUGH = Selector(rows=("0001",), through_models=True)
LATER = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)  # when the small lake's versions have long been registered


@pytest.fixture
def lake(small):
    """Trace 1 is bad and 2 is good; each generation's model writes a trace that the next one eats.

    1 -> 11 -> router@2 -> 21 -> 31 -> router@3 -> 41 -> 51 -> router@4;  2 -> 12 -> router@1 -> 22 -> 32
    """
    small.traces([1, 2])
    small.examples({11: (1,), 12: (2,)})
    small.promote(small.train(12))
    small.promote(small.train(12, 11))
    small.traces([21], generator="router", generator_revision="2", extracted_at=LATER)
    small.traces([22], generator="router", generator_revision="1", extracted_at=LATER)
    small.examples({31: (21,), 32: (22,)}, extracted_at=LATER)
    small.promote(small.train(12, 31))
    small.traces([41], generator="router@3", extracted_at=LATER)
    small.examples({51: (41,)}, extracted_at=LATER)
    small.promote(small.train(32, 51))
    return small


def test_what_a_reached_model_wrote_is_told_apart_generation_by_generation(lake):
    found = impact(lake.settings, BAD)
    assert found.rows["row_no"].to_pylist() == [1, 11]
    assert [str(each) for each in found.models] == ["router@2"]
    assert found.written is not None
    assert found.written.rows["row_no"].to_pylist() == [21, 31, 41, 51]
    assert [str(each) for each in found.written.models] == ["router@3", "router@4"]
    assert len(found.written.checkpoints) == 2
    assert found.written.generations == 2
    assert found.as_json()["written"]["rows"] == {"traces": 2, "examples": 2}


def test_through_models_all_of_it_is_reached_and_still_told_which_part_came_so(lake):
    found = impact(lake.settings, THROUGH)
    assert found.rows["row_no"].to_pylist() == [1, 11, 21, 31, 41, 51]
    assert found.rows.filter(found.rows["written"])["row_no"].to_pylist() == [21, 31, 41, 51]
    assert [str(each) for each in found.models] == ["router@2", "router@3", "router@4"]
    assert found.written is not None
    assert found.written.rows["row_no"].to_pylist() == [21, 31, 41, 51]


def test_a_clean_model_that_wrote_much_is_no_reason_to_go_on(lake):
    lake.traces([61, 62], generator="router", generator_revision="1", extracted_at=LATER)
    found = impact(lake.settings, Selector(rows=("0033",)))  # 51, which router@4 ate and which wrote nothing
    assert [str(each) for each in found.models] == ["router@4"]
    assert found.written is None
    assert found.as_json()["written"] is None


def test_what_was_stored_before_a_version_was_registered_is_not_its_work_nor_what_derives_from_it(small):
    small.traces([1])
    small.traces([5], generator="router", generator_revision="1")  # by a model that others called the same
    small.examples({11: (1,)})
    small.promote(small.train(11))
    small.examples({15: (5,)}, generator="router", generator_revision="1", extracted_at=LATER)
    assert impact(small.settings, BAD).written is None
    small.examples({16: (5,)}, generator="another", extracted_at=LATER)
    small.traces([6], generator="router", generator_revision="1", extracted_at=LATER)
    small.examples({17: (6,)}, generator="router", generator_revision="1", extracted_at=LATER)
    written = impact(small.settings, BAD).written
    assert written is not None
    assert written.rows["row_no"].to_pylist() == [6, 17]


def test_of_copies_one_that_no_reached_model_wrote_suffices(lake):
    lake.examples({71: (21, 2), 72: (21, 41)}, kind="alternative", extracted_at=LATER)
    written = impact(lake.settings, BAD).written
    assert written is not None
    assert written.rows["row_no"].to_pylist() == [21, 31, 41, 51, 72]


def test_a_recall_moves_aliases_off_what_came_through_models_only_when_told_to(lake):
    direct, through = (impact(lake.settings, each) for each in (BAD, THROUGH))
    assert ("router@champion", 4, 1) not in would_move(lake.settings, direct)
    assert ("router@champion", 4, 1) in would_move(lake.settings, through)
    recall(lake.runtime, BAD, reason="wrong", anyway=True)
    assert lake.standing["champion"] == 4
    recall(lake.runtime, THROUGH, reason="wrong")
    assert lake.standing == {"champion": 1}
    assert (lake.numbers(TRACE), lake.numbers(EXAMPLE)) == ([2, 22], [12, 32])
    assert fsck.recalls(lake.settings)[1] == []
    assert recall(lake.runtime, THROUGH, reason="wrong").again
    written = impact(lake.settings, THROUGH).written
    assert written is not None
    assert written.rows["row_no"].to_pylist() == [21, 31, 41, 51]
    lift(lake.runtime, recall_id(impact(lake.settings, THROUGH).selector), reason="too much")
    assert (lake.numbers(TRACE), lake.numbers(EXAMPLE)) == ([2, 21, 22, 41], [12, 31, 32, 51])


def test_what_a_reached_model_writes_next_is_refused_however_its_name_is_said(lake):
    recall(lake.runtime, THROUGH, reason="wrong")
    banned = bans.standing(lake.settings)
    said = [("router", "1"), ("router", "2"), ("router@3", "unstated"), ("router@4", "7"), ("router", "5")]
    for number, (name, revision) in enumerate([*said, ("router-2", "2")], start=80):
        lake.traces([number], generator=name, generator_revision=revision, extracted_at=LATER)
    new = tables.read(lake.settings, TRACE)
    new = new.filter(np.array(new["row_no"]) >= 80).sort_by("row_no")
    assert sorted(banned.refused(new, TRACE)) == [1, 2, 3]


def test_a_selector_that_does_not_go_through_models_keeps_its_id_and_alone_means_nothing():
    assert Selector(prompt="router@2").encode() == '{"prompt":"router@2"}'
    assert recall_id(Selector(prompt="router@2")) == "469d4370cd13"
    through = Selector(prompt="router@2", through_models=True)
    assert recall_id(through) != recall_id(Selector(prompt="router@2"))
    assert Selector.parse(through.encode()) == through
    assert str(through) == "--prompt router@2 --through-models"
    with pytest.raises(SelectorError, match="nothing is named"):
        Selector(through_models=True)


# ---------------------------------------------------------------- through the real engines


@pytest.fixture
def settings(trained_lake, tmp_path: Path) -> Settings:
    """A copy of the trained lake: router@1, and a log that names a model so, which was stored before it."""
    return trained_lake.copied(tmp_path / "lake")


def test_contamination_is_followed_and_called_back_through_two_generations(
    settings: Settings, toys: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runtime = Runtime(settings)
    eaten = set(tables.read(settings, CONSUMPTION)["row_no"].to_pylist())
    examples = tables.read(settings, EXAMPLE, columns=["row_no", "row_id", "parents"]).to_pylist()
    bad = next(row for row in examples if row["row_no"] in eaten)["parents"][0].hex()
    assert impact(settings, Selector(rows=(bad,))).written is None

    topics = {"password": "my password", "room": "this room", "outage": "the network"}
    answers = [
        toys.exchange(f"{verb} {words}", topic)
        for topic, words in topics.items()
        for verb in ("what about", "look at", "somebody asks for", "again:")
    ]
    log = toys.write_lines(tmp_path / "answers.jsonl", answers)  # each names router@1, as the reader reads it
    stored = ingest(runtime, IngestConfig(sources=(str(log),), max_quarantined=1))
    assert admit(runtime, stored.outputs[0]).passed
    off = {"scorer_base_model": None, "sources": ("*/answers.jsonl",)}
    made = curate(runtime, CurateConfig.model_validate(off))
    assert admit(runtime, made.outputs[0]).passed
    assert made.counts["out"] >= 9
    training = TrainingConfig(num_train_epochs=1, train_batch_size=8)
    recipe = FinetuneConfig(data=DataRecipe(sources=("*/answers.jsonl",)), training=training)
    second = finetune(runtime, recipe).run_id
    assert models.register(runtime, find_checkpoint(settings, second), name="router").version == 2
    moves = {"champion": 2, "previous": 1}
    models.move_aliases(
        runtime, moves, name="router", kind="promotion", reason="", evidence=[], run=Run("ff", 1, "promote")
    )

    found = impact(settings, Selector(rows=(bad,)))
    assert found.by_table == {"traces": 1, "examples": 1}
    assert [str(each) for each in found.models] == ["router@1"]
    assert found.written is not None
    assert found.written.by_table == {"traces": 12, "examples": made.counts["out"]}
    assert [str(each) for each in found.written.models] == ["router@2"]
    assert len(found.written.curricula) == 1
    words = ["--row", bad, "--lake", settings.lake]
    assert run("impact", words) == 0
    told = capsys.readouterr().out
    assert "written by a reached model" in told
    assert "router@champion (router@2)" in told.partition("written by a reached model")[2]

    assert run("recall", [*words, "--reason", "wrong", "--yes"]) == 0
    assert "router@champion (router@2)" in capsys.readouterr().out
    assert models.aliases(settings)["router"]["champion"] == 2
    assert run("recall", [*words, "--through-models", "--dry-run"]) == 0
    assert "would move router@champion: version 2 -> none" in capsys.readouterr().out
    assert run("recall", [*words, "--through-models", "--reason", "wrong"]) == 1  # no clean version is left
    assert models.aliases(settings)["router"] == {}
    assert tables.read(settings, TRACE)["generator_revision"].to_pylist().count("1") > 20  # the older log

    for version, is_refused in (("router@2", True), ("router@1", True), ("router@3", False)):
        more = [toys.exchange(f"{version} was asked for help {n}", "room") for n in range(3)]
        for line in more:
            line["response"]["model"] = version
        source = toys.write_lines(tmp_path / f"{version}.jsonl", more)
        if is_refused:
            with pytest.raises(IngestError, match="all 3 rows of 1 sources are banned by recall"):
                ingest(runtime, IngestConfig(sources=(str(source),), max_quarantined=1))
        else:
            assert ingest(runtime, IngestConfig(sources=(str(source),), max_quarantined=1)).counts["out"] == 3
    checks = {check.name: check.found for check in fsck.fsck(settings) if check.found}
    assert checks == {}
