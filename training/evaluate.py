"""The job behind `stemma evaluate`: a model's predictions on a split, and the numbers made of them.

What a model is scored on it was never trained on: a shared text or a shared source is refused before a prediction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.inference import Predictor
from infra.models import resolve as resolve_base
from infra.runtime import Runtime
from lineage import curricula, models, report, tables, verdicts
from lineage.consumption import Checkpoint
from lineage.report import Report
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import EXAMPLE, PREDICTION
from training.metrics import accuracy, bootstrap_interval, ece, macro_f1
from training.recipe import TrainingError

Split = Literal["gate", "report"]


def evaluate(runtime: Runtime, reference: str, *, split: Split, seed: int = 0, parent: Run | None = None) -> Outcome:
    """Score a model on the admitted rows of a split, noisy and clean apart. The facets hold the numbers.

    Raises TrainingError when the split is empty or overlaps with what the model was trained on.
    """
    settings = runtime.settings
    checkpoint, _ = models.resolve(settings, reference)
    columns = ["row_no", "row_id", "text", "answer", "condition", "source_revision", "run_id"]
    rows = verdicts.read_admitted(settings, EXAMPLE, columns=columns, where=pads.field("split") == split)
    rows = rows.sort_by("row_id")
    if not rows.num_rows:
        raise TrainingError(f"no admitted examples stand in split '{split}'; curate some with split = \"{split}\"")
    shared = overlap(runtime, checkpoint, rows)
    if shared:
        raise TrainingError(
            f"{shared} of {rows.num_rows} rows of split '{split}' share a text or a source with what {reference} was "
            "trained on; what is trained on is never what is scored"
        )
    config = {"split": split, "seed": seed, "adapter": checkpoint.adapter_digest}
    inputs = [f"checkpoint:{checkpoint.name}", *sorted({f"examples:{b}" for b in rows["run_id"].to_pylist()})]

    def work(run: Run) -> Outcome:
        return _score(runtime, checkpoint, rows, split, seed, run)

    return carry_out(runtime, "evaluate", config=config, inputs=inputs, work=work, parent=parent)


def overlap(runtime: Runtime, checkpoint: Checkpoint, rows: pa.Table) -> int:
    """How many of the rows share their text or their source with the checkpoint's curriculum."""
    settings = runtime.settings
    members = curricula.load(settings, checkpoint.curriculum).members
    trained = tables.read(
        settings, EXAMPLE, columns=["source_revision"], where=pads.field("row_no").isin(members["row_no"].combine_chunks())
    )
    texts = pc.is_in(pc.utf8_lower(rows["text"]), pc.utf8_lower(members["text"]).combine_chunks())
    sources = pc.is_in(rows["source_revision"], trained["source_revision"].combine_chunks())
    return pc.sum(pc.or_(texts, sources)).as_py() or 0


def _score(runtime: Runtime, checkpoint: Checkpoint, rows: pa.Table, split: Split, seed: int, run: Run) -> Outcome:
    predicted = load_predictor(checkpoint).predict(rows["text"].to_pylist())
    predictions = pa.table(
        {
            "run_id": pa.array([run.id] * rows.num_rows, pa.string()),
            "model_run": pa.array([checkpoint.run_id] * rows.num_rows, pa.string()),
            "row_no": rows["row_no"],
            "row_id": rows["row_id"],
            "split": pa.array([split] * rows.num_rows, pa.string()),
            "condition": rows["condition"],
            "answer": rows["answer"],
            "prediction": pa.array([p.label for p in predicted], pa.string()),
            "confidence": pa.array([p.confidence for p in predicted], pa.float64()),
        }
    ).select(PREDICTION.schema.names)
    reports = [
        number
        for condition in sorted(set(rows["condition"].to_pylist()))
        for number in measure(predictions, condition=condition, seed=seed)
    ]
    versions = report.record(runtime.settings, reports, predictions, run=run, at=runtime.now())
    facets = {f"{r.metric}.{r.condition}": [r.value, r.low, r.high, r.n] for r in reports}
    return Outcome(versions, {"rows": rows.num_rows}, facets)


def measure(predictions: pa.Table, *, condition: str, seed: int) -> list[Report]:
    """The numbers of stored predictions under one condition; computing them again gives them again."""
    mine = predictions.filter(pc.equal(predictions["condition"], condition))
    answers, said = mine["answer"].to_pylist(), mine["prediction"].to_pylist()
    correct = [a == b for a, b in zip(answers, said, strict=True)]
    low, high = bootstrap_interval(correct, seed=seed)
    f1_low, f1_high = _macro_f1_interval(answers, said, seed=seed)
    calibration = ece(mine["confidence"].to_pylist(), correct)
    values = {
        "accuracy": (accuracy(answers, said), low, high),
        "macro_f1": (macro_f1(answers, said), f1_low, f1_high),
        "ece": (calibration, calibration, calibration),
    }
    split, model_run = mine["split"][0].as_py(), mine["model_run"][0].as_py()
    return [
        Report(metric, split, condition, value, lo, hi, len(correct), seed, model_run)
        for metric, (value, lo, hi) in values.items()
    ]


def _macro_f1_interval(answers: list[str], said: list[str], *, seed: int, n: int = 200) -> tuple[float, float]:
    import numpy as np

    truth, guess = np.array(answers), np.array(said)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(truth), len(truth)) for _ in range(n))
    low, high = np.quantile([macro_f1(truth[d].tolist(), guess[d].tolist()) for d in draws], [0.025, 0.975])
    return float(low), float(high)


def load_predictor(checkpoint: Checkpoint) -> Predictor:
    """The checkpoint's model, ready to predict; the last few stay loaded."""
    return _predictor(checkpoint.base_model, checkpoint.uri, checkpoint.adapter_digest)


@lru_cache(maxsize=3)
def _predictor(base_model: str, uri: str, adapter_digest: str) -> Predictor:
    return Predictor.load(resolve_base(base_model), uri)
