"""The job behind `stemma evaluate`: a model's predictions on a split, and the numbers made of them.

What a model is scored on it was never trained on: a shared text or source is refused before a prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.gate import admit, reason
from infra.runtime import Runtime, give_back_memory
from lineage import curricula, mirror, models, report, tables, verdicts
from lineage.consumption import Checkpoint, line_of
from lineage.heed import NEEDED, heed
from lineage.inputs import normalised
from lineage.report import Report
from lineage.rows import rows_digest
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import EXAMPLE, MIXED, PREDICTION
from training.answering import load_predictor
from training.metrics import ece, macro_f1
from training.recipe import TrainingError

Split = Literal["gate", "report"]
RESAMPLES = 500  # of the 95 % bootstrap intervals


def evaluate(
    runtime: Runtime, reference: str, *, split: Split, seed: int = 0, parent: Run | None = None
) -> Outcome:
    """Score a model on the admitted rows of a split, noisy and clean apart. The facets hold the numbers.

    Rows that a reviewer rejected or relabelled are left out, and counted. Raises TrainingError when the split
    is empty or overlaps with what the model was trained on.
    """
    settings = runtime.settings
    checkpoint, _ = models.resolve(settings, reference)
    columns = ["row_no", "row_id", "text", "answer", "condition", "source_revision"]
    wanted, mine = list(dict.fromkeys((*columns, *NEEDED))), pads.field("split") == split
    stored = verdicts.read_admitted(settings, EXAMPLE, columns=wanted, where=mine)
    heeded = heed(settings, stored)
    rows = heeded.left(stored).select(columns).sort_by("row_id")
    if not rows.num_rows:
        raise TrainingError(
            f"no admitted examples stand in split '{split}'; run: stemma curate --set split={split}"
        )
    shared = overlap(runtime, checkpoint, rows)
    if shared:
        raise TrainingError(
            f"{shared} of {rows.num_rows} rows of split '{split}' share a text or a source with what "
            f"{reference} was trained on; what is trained on is never what is scored"
        )
    config = {"split": split, "seed": seed, "adapter": checkpoint.adapter_digest}
    inputs = [f"checkpoint:{checkpoint.name}", f"examples:{rows_digest(rows['row_id'].to_pylist())}"]
    inputs += heeded.inputs

    def work(run: Run) -> Outcome:
        scored = _score(runtime, checkpoint, rows, split, seed, run)
        left_out = {"left_out_by_reviewers": len(heeded.left_out)} if heeded.left_out else {}
        return replace(scored, counts={**scored.counts, **left_out})

    outcome = carry_out(runtime, "evaluate", config=config, inputs=inputs, work=work, parent=parent)
    mirror.show_outcome(settings, outcome)
    return outcome


def overlap(runtime: Runtime, checkpoint: Checkpoint, rows: pa.Table) -> int:
    """How many of the rows share their text or their source with what the checkpoint is made of."""
    settings = runtime.settings
    line = line_of(settings, checkpoint)
    members = pa.concat_tables([curricula.load(settings, each.curriculum).members for each in line])
    mine = pads.field("row_no").isin(members["row_no"].combine_chunks())
    trained = tables.read_ever(settings, EXAMPLE, columns=["source_revision"], where=mine)
    learnt = {normalised(text) for text in members["text"].to_pylist()}
    sources = set(trained["source_revision"].to_pylist()) - {MIXED}
    scored = zip(rows["text"].to_pylist(), rows["source_revision"].to_pylist(), strict=True)
    return sum(normalised(text) in learnt or source in sources for text, source in scored)


def _score(
    runtime: Runtime, checkpoint: Checkpoint, rows: pa.Table, split: Split, seed: int, run: Run
) -> Outcome:
    predicted = load_predictor(runtime, checkpoint).predict(rows["text"].to_pylist())
    give_back_memory()
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
    batch = report.store_predictions(runtime.settings, predictions, run=run)
    verdict = admit(runtime, batch, parent=run)
    if not verdict.passed:
        raise TrainingError(f"the gate refused {batch} ({reason(verdict)}); see: stemma reports {batch}")
    reports = [
        number
        for condition in sorted(set(rows["condition"].to_pylist()))
        for number in measure(predictions, condition=condition, seed=seed)
    ]
    numbers = report.record(runtime.settings, reports, run=run, at=runtime.now())
    facets = {f"{r.metric}.{r.condition}": [r.value, r.low, r.high, r.n] for r in reports}
    return Outcome((str(batch), str(numbers)), {"rows": rows.num_rows}, facets)


def measure(predictions: pa.Table, *, condition: str, seed: int) -> list[Report]:
    """The numbers of stored predictions under one condition; computing them again gives them again."""
    mine = predictions.filter(pc.equal(predictions["condition"], condition))
    answers, said = np.array(mine["answer"].to_pylist()), np.array(mine["prediction"].to_pylist())
    confidence = mine["confidence"].to_numpy()
    correct = answers == said
    _, codes = np.unique(np.concatenate([answers, said]), return_inverse=True)
    truth, guess = codes[: len(answers)], codes[len(answers) :]
    metrics: dict[str, Callable[[np.ndarray], float]] = {
        "accuracy": lambda drawn: float(correct[drawn].mean()),
        "macro_f1": lambda drawn: macro_f1(truth[drawn], guess[drawn]),
        "ece": lambda drawn: ece(confidence[drawn], correct[drawn]),
    }
    rng = np.random.default_rng(seed)
    draws = [np.arange(len(answers)), *rng.integers(0, len(answers), (RESAMPLES, len(answers)))]
    split, model_run = mine["split"][0].as_py(), mine["model_run"][0].as_py()
    reports = []
    for name, metric in metrics.items():
        value, *resampled = (metric(drawn) for drawn in draws)
        low, high = np.quantile(resampled, [0.025, 0.975])
        reports.append(
            Report(name, split, condition, value, float(low), float(high), len(answers), seed, model_run)
        )
    return reports
