"""What may bear a version, and where its aliases stand."""

from __future__ import annotations

import datetime as dt

import pytest

from infra.runtime import Runtime
from lineage import fsck, models, tables, verdicts
from lineage.consumption import find_checkpoint
from lineage.models import ModelError
from lineage.recall import recall
from lineage.review import review, standing
from lineage.rollback import roll_back
from lineage.schemas import EXAMPLE, RUN
from lineage.selectors import Selector
from lineage.verdicts import Verdict
from tests.lineage.conftest import AT, blank


def test_a_checkpoint_of_a_training_that_was_cut_off_gets_no_version_until_the_training_ends(small):
    small.traces([1])
    small.examples({11: (1,)})
    run_id = small.train(11)

    def told(status: str):
        event = blank(RUN) | {"run_id": run_id, "job": "finetune", "status": status, "at": AT}
        tables.record(small.settings, [event], into=RUN)

    told("START")
    checkpoint = find_checkpoint(small.settings, run_id)
    with pytest.raises(ModelError, match=f"{run_id}/1 is of a training that did not come to its end"):
        models.register(small.runtime, checkpoint, name="router")
    assert models.versions(small.settings) == []
    told("COMPLETE")
    assert models.register(small.runtime, checkpoint, name="router").version == 1


def slow(small) -> Runtime:
    """Whose clock goes half an hour after that of all who came before."""
    return Runtime(small.settings, now=lambda: AT - dt.timedelta(minutes=30))


def test_a_recall_by_a_clock_that_goes_after_moves_the_champion_all_the_same(small):
    small.traces([1, 2])
    small.examples({11: (1,), 12: (2,)})
    for eaten in (11, 12):
        small.promote(small.train(eaten))
    outcome = recall(slow(small), Selector(rows=("0002",)), reason="wrong")
    assert ["router@champion", 2, 1] in outcome.facets["moved"]
    assert small.standing == {"champion": 1}
    assert fsck.recalls(small.settings)[1] == []


def test_a_rollback_by_a_clock_that_goes_after_stands_and_fsck_finds_its_move(small):
    small.traces([1, 2, 9])
    small.examples({11: (1,), 12: (2,), 19: (9,)})
    for eaten in (11, 12):
        small.reign(eaten, scored=[19])
    before = fsck.books(small.settings)[1]
    roll_back(slow(small), reason="complaints")
    assert small.standing["champion"] == 1
    assert fsck.books(small.settings)[1] == before


def test_the_last_word_on_a_row_and_on_a_batch_is_the_last_by_whatever_clock(small):
    small.traces([1])
    batch = small.store(EXAMPLE, [{"row_no": 11, "derivation": "joint", "parent_nos": [1]}])
    for runtime, word, outcome in (
        (small.runtime, "approved", "pass"),
        (slow(small), "rejected", "fail"),
        (slow(small), "approved", "pass"),
        (slow(small), "rejected", "fail"),
    ):
        review(runtime, ["0001"], word, reason="seen", reviewer="ann")
        (said,) = standing(small.settings).last.values()
        assert said.verdict == word
        verdict = Verdict(batch, outcome, "examples", "", 1, ())
        verdicts.record(runtime, verdict, batch_run=small.runs[-1], run_id="gate-1")
        assert verdicts.latest(small.settings, batch).outcome == outcome
        assert bool(verdicts.admitted(small.settings, EXAMPLE)) == (outcome == "pass")


def test_one_checkpoint_may_be_the_first_version_of_two_names(small):
    small.traces([1])
    small.examples({11: (1,)})
    checkpoint = find_checkpoint(small.settings, small.train(11))
    for name in ("router", "other"):
        models.register(small.runtime, checkpoint, name=name)
    assert [str(each) for each in models.versions(small.settings)] == ["other@1", "router@1"]
