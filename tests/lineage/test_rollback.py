"""Going back: which version serves again, after any order of promotions, rollbacks and recalls."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from infra.cli import run
from infra.settings import Settings
from lineage import models, tables
from lineage.fsck import books
from lineage.models import ModelError
from lineage.recall import recall
from lineage.restored import restored
from lineage.rollback import roll_back
from lineage.rows import rows_digest
from lineage.runs import RunError
from lineage.schemas import EVENT
from lineage.selectors import Selector


@pytest.fixture
def lake(small):
    """Versions 1 to 3 reigned in turn; each ate an example of its own trace, and was scored on a fourth."""
    small.traces([1, 2, 3, 9])
    small.examples({11: (1,), 12: (2,), 13: (3,), 19: (9,)})
    for eaten in (11, 12, 13):
        small.reign(eaten, scored=[19])
    return small


def test_each_rollback_goes_one_further_back_until_there_is_nothing(lake):
    moved = roll_back(lake.runtime, reason="complaints").facets
    assert (moved["name"], moved["from"], moved["to"]) == ("router", 3, 2)
    assert (lake.standing["champion"], lake.standing["previous"]) == (2, 1)
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 1
    assert "previous" not in lake.standing
    before = lake.versions()
    with pytest.raises(ModelError, match="router@1 has no clean champion before it, so nothing was moved"):
        roll_back(lake.runtime, reason="complaints")
    assert lake.versions() == before


def test_what_was_recalled_is_passed_over_and_refused_by_name(lake):
    recall(lake.runtime, Selector(rows=("0002",)), reason="wrong", anyway=True)
    with pytest.raises(ModelError, match="router@2 ate rows that were recalled; it cannot serve again"):
        roll_back(lake.runtime, reason="complaints", to=2)
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"to": 9}, "router@9 is no champion of before; those are: router@1, router@2"),
        ({"to": 3}, "router@3 is the champion already"),
        ({"to": -1}, "router@-1 is no champion of before"),
        ({"name": "nobody"}, "model 'nobody' has no champion to roll back; models with one: router"),
        ({"reason": ""}, "a rollback needs a reason"),
    ],
)
def test_what_cannot_be_gone_back_to_is_named_and_nothing_moves(wanted: dict, said: str, lake):
    before = lake.versions()
    with pytest.raises(ModelError, match=said):
        roll_back(lake.runtime, **{"reason": "complaints"} | wanted)
    assert lake.versions() == before


def test_what_was_rolled_back_is_no_rollbacks_to_restore_and_the_way_back_is_named(lake):
    roll_back(lake.runtime, reason="complaints", to=1)
    for version in (2, 3):
        with pytest.raises(
            ModelError, match=rf"was rolled back.*: stemma promote router@{version} --name router"
        ):
            roll_back(lake.runtime, reason="it was better", to=version)
    assert lake.standing["champion"] == 1


def test_of_several_models_one_has_to_be_named(lake):
    lake.promote(lake.train(11), name="other")
    with pytest.raises(
        ModelError, match="several models have a champion; say which with --name: other, router"
    ):
        roll_back(lake.runtime, reason="complaints")


def test_a_lake_without_a_champion_says_so(small):
    small.traces([1])
    with pytest.raises(ModelError, match="this lake has no champion to roll back; models with one: none"):
        roll_back(small.runtime, reason="complaints")


def test_a_rollback_waits_for_a_recall_that_is_going_on_but_not_for_a_training(lake, another_process):
    with (
        another_process(lake.settings, "recall") as run_id,
        pytest.raises(RunError, match=f"run {run_id} .recall. is in progress"),
    ):
        roll_back(lake.runtime, reason="complaints")
    assert lake.standing["champion"] == 3
    with another_process(lake.settings, "finetune"):
        assert roll_back(lake.runtime, reason="complaints").facets["to"] == 2


@given(
    st.lists(st.tuples(st.sampled_from(["promotion", "rollback", "recall"]), st.integers(0, 5)), max_size=12)
)
@settings(max_examples=60, deadline=None)
def test_who_reigned_below_whom_is_a_stack(moves: list[tuple[str, int]]):
    stack: list[int] = []
    log: list[dict[str, Any]] = []
    for kind, number in moves:
        before = stack[-1] if stack else 0
        if kind == "promotion":
            to = number + 1
            stack = [*stack, to]
        else:
            to = stack[number % len(stack)] if stack and number < 5 else 0  # 0: the alias is removed
            stack = stack[: max((place for place, v in enumerate(stack) if v == to), default=-1) + 1]
        move = {"kind": kind, "alias": "champion", "from_version": before, "to_version": to}
        said = {"name": "router", "reason": "", "evidence": "[]", "actor": "ann", "run_id": "r-1"}
        log.append(
            move | said | {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=len(log))}
        )
    with TemporaryDirectory() as folder:
        lake = Settings(lake=folder, tracking_uri="")
        tables.record(lake, log, into=EVENT)
        assert models.reigns(lake, "router") == stack


def test_every_move_is_on_record_with_its_reason(lake):
    roll_back(lake.runtime, reason="complaints about rooms")
    last = [event for event in models.events(lake.settings) if event.kind == "rollback"]
    assert {(event.alias, event.from_version, event.to_version) for event in last} == {
        ("champion", 3, 2),
        ("previous", 2, 1),
    }
    assert {event.reason for event in last} == {"complaints about rooms"}


def test_what_serves_again_with_a_version_is_on_record_as_a_whole(lake):
    moved = roll_back(lake.runtime, reason="complaints").facets
    checkpoint, _ = models.resolve(lake.settings, "router@2")
    back = moved["restored"]
    assert (back["model"], back["checkpoint"]) == ("router@2", checkpoint.name)
    assert (
        back["adapter_digest"]
        == checkpoint.adapter_digest
        != models.resolve(lake.settings, "router@3")[0].adapter_digest
    )
    assert (back["curriculum"], back["curriculum_version"]) == (checkpoint.curriculum, "curricula@2")
    assert back["config"]["training"] == {"seed": 7}
    (evaluation,) = back["evaluations"]
    assert (evaluation["split"], evaluation["rows"]) == ("gate", 1)
    assert evaluation["digest"] == rows_digest([b"\x00\x13" + bytes(14)])
    assert evaluation["reports"] == {"accuracy.clean": [1.0, 1.0, 1.0, 1]}
    events = [event for event in models.events(lake.settings) if event.kind == "rollback"]
    assert {event.alias for event in events} == {"champion", "previous"}
    assert all(json.loads(event.evidence) == [json.loads(json.dumps(back))] for event in events)


def second(lake: Any) -> Path:
    return Path(models.resolve(lake.settings, "router@2")[0].uri)


def eaten_file(settings: Settings, run_id: str) -> Path:
    return Path(settings.path("tables", "consumption", f"{run_id}.parquet"))


def lose(lake: Any, table: str, where: str) -> None:
    DeltaTable(lake.settings.path("tables", table)).delete(where)


LOST: dict[str, tuple[Callable[[Any], object], str]] = {
    "the adapter is gone": (lambda lake: shutil.rmtree(second(lake)), "holds no adapter_model.safetensors"),
    "the adapter is another": (
        lambda lake: save_file(
            {"weight": np.zeros(1, np.float32)}, second(lake) / "adapter_model.safetensors"
        ),
        "is not the one that was trained",
    ),
    "its config is cut": (
        lambda lake: (second(lake) / "adapter_config.json").write_text("{"),
        "adapter_config.json' is no JSON",
    ),
    "its config is another": (
        lambda lake: (second(lake) / "adapter_config.json").write_text('{"lora_alpha": 3200}'),
        "the config beside the adapter .* is not the one that was committed",
    ),
    "the curriculum is gone": (lambda lake: lose(lake, "curricula", "row_no = 12"), "names no curriculum"),
    "a member weighs otherwise": (
        lambda lake: DeltaTable(lake.settings.path("tables/curricula")).update(
            {"weight": "2.0"}, predicate="row_no = 12"
        ),
        "no longer hashes to its root",
    ),
    "an example is gone": (lambda lake: lose(lake, "examples", "row_no = 12"), "1 rows that are not stored"),
    "an evaluation row is gone": (
        lambda lake: lose(lake, "examples", "row_no = 19"),
        "the evaluation set of run .* holds 1 rows that are not stored",
    ),
    "the evaluations are gone": (lambda lake: lose(lake, "predictions", "true"), "no evaluation of it"),
    "the record of what it ate is gone": (
        lambda lake: lose(lake, "consumption", "row_no = 12"),
        "ate no longer hashes to its root",
    ),
    "a file of that record is gone": (
        lambda lake: eaten_file(lake.settings, models.resolve(lake.settings, "router@2")[0].run_id).unlink(),
        "table 'consumption' cannot be used: file .* is gone",
    ),
    "the run is gone": (lambda lake: lose(lake, "runs", "job = 'finetune'"), "no run starts with"),
}


@pytest.mark.parametrize("what", LOST)
def test_a_version_of_which_a_part_is_lost_does_not_serve_again(what: str, lake):
    spoil, said = LOST[what]
    spoil(lake)
    with pytest.raises(ModelError, match=f"router@2 cannot serve again: .*{said}"):
        roll_back(lake.runtime, reason="complaints")
    assert lake.standing["champion"] == 3


def test_a_config_that_is_not_on_record_keeps_nobody_from_serving_again(lake):
    DeltaTable(lake.settings.path("tables/checkpoints")).update({"adapter_config_digest": "null"})
    (second(lake) / "adapter_config.json").write_text('{"lora_alpha": 3200}')
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 2


def test_also_in_a_lake_that_is_named_by_a_uri_an_altered_adapter_does_not_serve_again(lake):
    named = replace(lake.settings, lake=f"file://{lake.settings.lake}")
    assert restored(named, "router@2").model == "router@2"
    second(lake).joinpath("adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"router@2 cannot serve again: .*holds no adapter_model"):
        restored(named, "router@2")


def test_the_history_of_an_alias_says_who_moved_it_when_and_why(lake, capsys: pytest.CaptureFixture[str]):
    roll_back(lake.runtime, reason="complaints about rooms")
    assert run("status", ["--history", "--json", "--lake", lake.settings.lake]) == 0
    told = [each for each in json.loads(capsys.readouterr().out) if each["alias"] == "router@champion"]
    assert [(each["from"], each["to"]) for each in told] == [
        ("nothing", "version 1"),
        ("version 1", "version 2"),
        ("version 2", "version 3"),
        ("version 3", "version 2"),
    ]
    assert told[-1]["why"] == "complaints about rooms"
    assert (told[-1]["by"], told[-1]["kind"]) == (getpass.getuser(), "rollback")
    assert [each["at"] for each in told] == sorted(each["at"] for each in told)
    assert run("status", ["--history", "--lake", lake.settings.lake]) == 0
    assert "complaints about rooms" in capsys.readouterr().out


def cut_off(monkeypatch: pytest.MonkeyPatch, lake: Any, **wanted: Any) -> None:
    """A rollback that dies when the alias has moved, before MLflow and its own record know."""

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(models, "mirror_aliases", dies)
        with pytest.raises(KeyboardInterrupt):
            roll_back(lake.runtime, reason="complaints", **wanted)


def test_one_that_was_cut_off_is_finished_once_and_the_next_goes_by_what_stands_then(lake, monkeypatch):
    cut_off(monkeypatch, lake)
    assert lake.standing["champion"] == 2
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 2
    lake.move({"champion": 3}, kind="promotion")
    moved = roll_back(lake.runtime, reason="worse").facets
    assert (moved["from"], moved["to"]) == (3, 2)
    assert lake.standing["champion"] == 2
    assert roll_back(lake.runtime, reason="worse").facets["to"] == 1
    assert lake.standing["champion"] == 1


def test_after_one_that_was_cut_off_another_version_may_be_asked_for(lake, monkeypatch):
    cut_off(monkeypatch, lake)
    moved = roll_back(lake.runtime, reason="no, further", to=1).facets
    assert (moved["from"], moved["to"]) == (2, 1)
    assert lake.standing["champion"] == 1


def test_finished_under_other_code_it_is_not_finished_again_and_again(lake, monkeypatch):
    cut_off(monkeypatch, lake)
    monkeypatch.setattr("lineage.runs.code_revision", lambda: "sha256:newer")
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 2
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 1
    assert lake.standing["champion"] == 1


def test_fsck_names_a_rollback_whose_move_is_lost(lake):
    run_id = roll_back(lake.runtime, reason="complaints").run_id
    before = books(lake.settings)[1]
    assert run_id not in " ".join(before)
    lose(lake, "events", "kind = 'rollback'")
    (sentence,) = set(books(lake.settings)[1]) - set(before)
    assert sentence.startswith(f"run {run_id} (rollback) left 'champion' of 'router' on version 2")
