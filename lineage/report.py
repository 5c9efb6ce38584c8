"""Report: a number about a model, with n, seed and interval, and the predictions that give it again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.runs import Run
from lineage.schemas import PREDICTION, REPORT
from lineage.tables import TableVersion


@dataclass(frozen=True)
class Report:
    """One number."""

    metric: str
    split: str
    condition: str
    value: float
    low: float
    high: float
    n: int
    seed: int
    model_run: str
    run_id: str = ""

    def __str__(self) -> str:
        """The value and its interval in percent, and n."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] n={self.n}"


def store_predictions(settings: Settings, predictions: pa.Table, *, run: Run) -> TableVersion:
    """The evidence of an evaluation, as a batch that a gate can judge; in place of a killed go's."""
    return tables.replace(settings, predictions, into=PREDICTION, run_id=run.id, is_batch=True)


def record(settings: Settings, reports: Sequence[Report], *, run: Run, at: dt.datetime) -> TableVersion:
    """Store the numbers made of an evaluation's predictions, once those are admitted."""
    at = tables.after_all(settings, at, REPORT)  # the newest evaluation counts
    rows = [
        {name: getattr(report, name) for name in Report.__dataclass_fields__} | {"run_id": run.id, "at": at}
        for report in reports
    ]
    return tables.replace(
        settings, pa.Table.from_pylist(rows, schema=REPORT.schema), into=REPORT, run_id=run.id
    )


def reports_of(settings: Settings, model_run: str) -> list[Report]:
    """All numbers about the model of a training run."""
    rows = tables.read(settings, REPORT, where=pads.field("model_run") == model_run).sort_by("at").to_pylist()
    return [Report(**{name: row[name] for name in Report.__dataclass_fields__}) for row in rows]


def predictions_of(
    settings: Settings, model_run: str, *, split: str, condition: str | None = None
) -> pa.Table:
    """What the model of a training run said on a split, by the newest evaluation, sorted by row_id."""
    where = _about(model_run, split)
    if condition is not None:
        where &= pads.field("condition") == condition
    evaluations = tables.read(settings, REPORT, columns=["run_id", "at"], where=_about(model_run, split))
    if not evaluations.num_rows:
        return PREDICTION.schema.empty_table()
    newest = evaluations.sort_by("at")["run_id"][-1].as_py()
    found = tables.read(settings, PREDICTION, where=where & (pads.field("run_id") == newest))
    return found.sort_by("row_id")


def _about(model_run: str, split: str) -> pads.Expression:
    return (pads.field("model_run") == model_run) & (pads.field("split") == split)
