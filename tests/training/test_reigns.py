"""What champions passed when they were accepted is told from the record, not evaluated again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import PREDICTION
from training.promotion.reigns import reigns_of

ITEMS = pa.table(
    {
        "row_id": pa.array([bytes([number]) * 16 for number in range(6)], pa.binary()),
        "scorer": pa.nulls(6, pa.string()),
    }
)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(Settings(lake=str(tmp_path / "lake"), tracking_uri=""))


def evaluated(runtime: Runtime, run_id: str, right: dict[int, bool]) -> None:
    """An evaluation on the items with these numbers."""
    rows = [
        {
            "run_id": run_id,
            "model_run": f"model of {run_id}",
            "row_no": number,
            "row_id": bytes([number]) * 16,
            "split": "gate",
            "condition": "noisy",
            "answer": "room",
            "prediction": "room" if passed else "door",
            "confidence": 0.9,
        }
        for number, passed in right.items()
    ]
    tables.record(runtime.settings, rows, into=PREDICTION)


def decided(runtime: Runtime, version: int, evaluation: str, *, over: int, nulls: tuple[str, ...]) -> None:
    """A promotion that put a version in the place of another."""

    def work(run: Run) -> Outcome:
        moves = {"champion": version, **({"previous": over} if over else {})}
        models.move_aliases(runtime, moves, name="desk", kind="promotion", reason="", evidence=[], run=run)
        evaluations: dict[str, Any] = {"candidate": evaluation, "champion": "", "nulls": list(nulls)}
        facets = {"promoted": True, "version": version, "champion": over, "evaluations": evaluations}
        return Outcome(facets=facets)

    carry_out(runtime, "promote", config={"name": "desk", "version": version}, inputs=[], work=work)


@pytest.fixture
def line(runtime: Runtime) -> Runtime:
    """desk@1, then desk@2, then desk@3; each judged on other items, the first held against two retrains."""
    evaluated(runtime, "first", {0: True, 1: True, 2: True, 3: False, 9: True})
    evaluated(runtime, "null-a", {0: True, 1: False, 2: True, 3: True})
    evaluated(runtime, "null-b", {0: False, 1: False, 5: True})
    evaluated(runtime, "second", {0: True, 1: True, 4: True, 5: False})
    evaluated(runtime, "null-c", {0: True, 1: True, 4: False})
    evaluated(runtime, "third", {number: True for number in range(6)})
    decided(runtime, 1, "first", over=0, nulls=())
    decided(runtime, 2, "second", over=1, nulls=("null-a", "null-b"))
    decided(runtime, 3, "third", over=2, nulls=("null-c",))
    return runtime


def test_each_champion_is_told_with_what_it_passed_and_what_its_own_retrains_lost(line: Runtime):
    previous, (first, second) = reigns_of(line.settings, "desk", ITEMS, champion=3)
    assert previous is not None
    assert (previous.version, list(previous.known)) == ("desk@3", [True] * 6)
    assert first.version == "desk@1"
    assert list(first.known) == [True, True, True, True, False, False]
    assert first.kept.tolist() == [True, True, True, False, False, False]
    # of its passes a knows 0, 1, 2 and lost 1; b knows 0 and 1 and lost both
    assert (first.retrains_lost, first.retrains_passes) == (3, 5)
    assert second.kept.tolist() == [True, True, False, False, True, False]
    assert (second.retrains_lost, second.retrains_passes) == (1, 3)
    assert (previous.retrains_lost, previous.retrains_passes) == (0, 0)


def test_a_champion_that_was_rolled_back_binds_nobody(line: Runtime):
    by = Run("ee" * 8, 1, "rollback")
    models.move_aliases(line, {"champion": 2}, name="desk", kind="rollback", reason="", evidence=[{}], run=by)
    previous, history = reigns_of(line.settings, "desk", ITEMS, champion=2)
    assert previous is not None
    assert previous.version == "desk@2"
    assert [reign.version for reign in history] == ["desk@1"]


def test_a_champion_without_a_record_is_not_judged_by(runtime: Runtime):
    by = Run("ff" * 8, 1, "promote")
    models.move_aliases(
        runtime, {"champion": 1}, name="desk", kind="promotion", reason="", evidence=[], run=by
    )
    assert reigns_of(runtime.settings, "desk", ITEMS, champion=1) == (None, [])
