"""Going back: which version serves again, after any order of promotions, rollbacks and recalls."""

from __future__ import annotations

import datetime as dt
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import Settings
from lineage import models, tables
from lineage.models import ModelError
from lineage.recall import recall
from lineage.rollback import roll_back
from lineage.runs import RunError
from lineage.schemas import EVENT
from lineage.selectors import Selector


@pytest.fixture
def lake(small):
    """Versions 1 to 3 reigned in turn; each ate an example of its own trace."""
    small.traces([1, 2, 3])
    small.examples({11: (1,), 12: (2,), 13: (3,)})
    for eaten in (11, 12, 13):
        small.promote(small.train(eaten))
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
    assert roll_back(lake.runtime, reason="worse").facets == {"name": "router", "from": 3, "to": 2}
    assert lake.standing["champion"] == 2
    assert roll_back(lake.runtime, reason="worse").facets["to"] == 1
    assert lake.standing["champion"] == 1


def test_after_one_that_was_cut_off_another_version_may_be_asked_for(lake, monkeypatch):
    cut_off(monkeypatch, lake)
    assert roll_back(lake.runtime, reason="no, further", to=1).facets == {
        "name": "router",
        "from": 2,
        "to": 1,
    }
    assert lake.standing["champion"] == 1


def test_finished_under_other_code_it_is_not_finished_again_and_again(lake, monkeypatch):
    cut_off(monkeypatch, lake)
    monkeypatch.setattr("lineage.runs.code_revision", lambda: "sha256:newer")
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 2
    assert roll_back(lake.runtime, reason="complaints").facets["to"] == 1
    assert lake.standing["champion"] == 1
