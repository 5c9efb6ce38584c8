from __future__ import annotations

import datetime as dt

import pyarrow as pa

from infra.settings import Settings
from lineage import report
from lineage.report import Report
from lineage.runs import Run
from lineage.schemas import PREDICTION


def evaluation(settings: Settings, number: int, rows: int, *, day: int | None = None) -> None:
    """One evaluation of the same model, on a growing gate set."""
    run = Run(f"{9 - number}{'0' * 15}", 1, "evaluate")  # later runs have smaller ids
    row = {"run_id": run.id, "model_run": "m-1", "split": "gate", "condition": "noisy"}
    row |= {"answer": "a", "prediction": "a", "confidence": 1.0}
    predictions = [row | {"row_no": n, "row_id": bytes([n])} for n in range(rows)]
    number_of = Report("accuracy", "gate", "noisy", 1.0, 1.0, 1.0, rows, 0, "m-1")
    at = dt.datetime(2026, 1, day or number, tzinfo=dt.UTC)
    table = pa.Table.from_pylist(predictions, schema=PREDICTION.schema)
    report.store_predictions(settings, table, run=run)
    report.record(settings, [number_of], run=run, at=at)


def test_the_newest_evaluation_is_the_one_that_counts(settings: Settings):
    for number, rows in ((1, 2), (2, 5), (3, 7)):
        evaluation(settings, number, rows)
        found = report.predictions_of(settings, "m-1", split="gate", condition="noisy")
        assert found.num_rows == rows
    evaluation(settings, 4, 3, day=1)  # by a clock that goes after
    assert report.predictions_of(settings, "m-1", split="gate", condition="noisy").num_rows == 3


def test_a_model_that_was_never_evaluated_has_no_predictions(settings: Settings):
    assert report.predictions_of(settings, "m-1", split="gate").num_rows == 0
