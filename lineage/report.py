"""Report: a number about a model, with n, seed and interval, and the predictions that give it again.

predictions --measured--> reports        a row's score is its scorer's word; a number is made of scores
sealed()                                 each prediction bears a digest, so that an edited one is named
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.runs import Run
from lineage.schemas import PREDICTION, REPORT
from lineage.tables import TableVersion

PASS = 0.5
"""From this score on a model is right about a row."""

LABEL = "label@1"
"""The scorer of rows that name none: an answer and the prediction are the same text."""

_SEALED = (
    "row_id",
    "split",
    "condition",
    "answer",
    "prediction",
    "confidence",
    "scorer",
    "score",
    "log_likelihood",
    "tokens",
)


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
        """The value and its interval, in percent what is a share, and n."""
        if self.metric == "perplexity":
            return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] n={self.n}"


def store_predictions(settings: Settings, predictions: pa.Table, *, run: Run) -> TableVersion:
    """The evidence of an evaluation, as a batch that a gate can judge; in place of a killed go's."""
    return tables.replace(settings, predictions, into=PREDICTION, run_id=run.id, is_batch=True)


def sealed(predictions: pa.Table) -> pa.Table:
    """The predictions, each with the digest of what it says."""
    return predictions.drop_columns(["digest"] if "digest" in predictions.column_names else []).append_column(
        "digest", pa.array(digests(predictions), pa.binary())
    )


def digests(predictions: pa.Table) -> list[bytes]:
    """16 bytes for each prediction, over all that it says of its row; not over runs and numbers."""
    rows = predictions.select(_SEALED).to_pylist()
    return [
        hashlib.blake2b(json.dumps(list(row.values()), default=bytes.hex).encode(), digest_size=16).digest()
        for row in rows
    ]


def scores(predictions: pa.Table) -> np.ndarray:
    """What each row's scorer gave, float64; of rows older than scores, are answer and prediction one?"""
    same = pc.cast(pc.equal(predictions["answer"], predictions["prediction"]), pa.float64())
    return pc.coalesce(predictions["score"], same).to_numpy()


def metric_of(scorer: str) -> str:
    """What the mean of a scorer's scores is called."""
    name = scorer.partition("@")[0]
    return "accuracy" if name == "label" else name


def passed(predictions: pa.Table) -> list[bool]:
    """Whether the model was right, row by row."""
    return (scores(predictions) >= PASS).tolist()


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
    settings: Settings,
    model_run: str,
    *,
    split: str,
    condition: str | None = None,
    evaluation: str | None = None,
) -> pa.Table:
    """What a training run's model said on a split, by this evaluation or the newest; sorted by row_id."""
    where = _about(model_run, split)
    if condition is not None:
        where &= pads.field("condition") == condition
    if evaluation is None:
        made = tables.read(settings, REPORT, columns=["run_id", "at"], where=_about(model_run, split))
        if not made.num_rows:
            return PREDICTION.schema.empty_table()
        evaluation = made.sort_by("at")["run_id"][-1].as_py()
    found = tables.read(settings, PREDICTION, where=where & (pads.field("run_id") == evaluation))
    return found.sort_by("row_id")


def _about(model_run: str, split: str) -> pads.Expression:
    return (pads.field("model_run") == model_run) & (pads.field("split") == split)
