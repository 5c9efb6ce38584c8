"""The sets that models are scored on: frozen by digest before a training, and the report opened once.

    finetune  --frozen()-->  its facet `sets`  --as_frozen()-->  the rows that stood before the training
    evaluate on `report`  --opened()-->  a run `open-report` per reading, on record

Search and gates read `gate` only. Who reads `report` again and again chooses by it, and then it tells nothing
of what no choice was made by.

Errors: TrainingError.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.inference import AdapterRecord
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, report, runs, verdicts
from lineage.consumption import Checkpoint
from lineage.rows import rows_digest
from lineage.runs import Outcome, Run, carry_out, completed
from lineage.schemas import EXAMPLE
from training.recipe import TrainingError

log = logging.getLogger("stemma.evaluate")


def frozen(settings: Settings) -> dict[str, Any]:
    """Rows and digest of each set that stands now, and the highest row number: later ones came after."""
    scored = pads.field("split").isin(["gate", "report"])
    stored = verdicts.read_admitted(
        settings, EXAMPLE, columns=["row_id", "row_no", "split"], where=scored
    ).sort_by("row_id")
    last = pc.max(stored["row_no"]).as_py()
    return {"last": -1 if last is None else last} | {
        split: _told(stored.filter(pc.equal(stored["split"], split))) for split in ("gate", "report")
    }


def as_frozen(settings: Settings, checkpoint: Checkpoint, stored: pa.Table, *, split: str) -> pa.Table:
    """Of the rows of a set (row_id, row_no) those that stood before the checkpoint was trained.

    A recall may have taken some away; that is logged. Where none stood then, as for a checkpoint older than
    this record, all of them. Raises TrainingError where others stand there now.
    """
    record = runs.measured(runs.find(settings, checkpoint.run_id)).get("sets")
    if record is None or not record[split]["rows"]:
        return stored
    left = stored.filter(pc.less_equal(stored["row_no"], record["last"]))
    told, was = _told(left.sort_by("row_id")), record[split]
    if told["rows"] < was["rows"]:
        log.warning("evaluate: %d rows of '%s' are gone since training", was["rows"] - told["rows"], split)
    elif told != was:
        raise TrainingError(
            f"split '{split}' is not the one that was frozen before {checkpoint.name} was trained: "
            f"{told['rows']} rows of digest {told['digest'][:12]}, then {was['rows']} of digest "
            f"{was['digest'][:12]}; train again, or withdraw what was admitted since"
        )
    return left


def require_promoted(settings: Settings, checkpoint: Checkpoint, reference: str) -> None:
    """Raise TrainingError where a model was never promoted past one that reigned: choices are made by `gate`.

    The first champion of a name counts only where no model of the same task reigned under another: to beat
    the commonest answer under a name of one's own would open the report for every candidate.
    """
    moves = [e for e in models.events(settings) if (e.alias, e.kind) == ("champion", "promotion")]
    mine = {
        (version.name, version.version)
        for version in models.versions(settings)
        if (version.run_id, version.step) == (checkpoint.run_id, checkpoint.step)
    }
    reigned = [(n, move) for n, move in enumerate(moves) if (move.name, move.to_version) in mine]
    if not reigned:
        raise TrainingError(
            f"{reference} was never champion, and split 'report' tells of promoted models only; choose by "
            "split 'gate', then: stemma promote"
        )
    if any(move.from_version for _, move in reigned):
        return
    when, crowned = reigned[0]
    task = _task_of(checkpoint)
    for move in moves[:when]:
        other, _ = models.resolve(settings, f"{move.name}@{move.to_version}")
        if move.name != crowned.name and _task_of(other) == task:
            raise TrainingError(
                f"{reference} is the first champion of '{crowned.name}' and beat none, while "
                f"{move.name}@{move.to_version} of the same task reigned; put it before that gate: stemma "
                f"promote {checkpoint.run_id} --name {move.name}"
            )


def _task_of(checkpoint: Checkpoint) -> tuple[str, frozenset[str]]:
    """What a model answers: its objective and its labels."""
    record = AdapterRecord.read(checkpoint.uri)
    return record.objective, frozenset(record.labels)


def reported(settings: Settings, checkpoint: Checkpoint) -> Outcome | None:
    """The evaluation that opened the report for a model, whose predictions still stand; None before it."""
    for config, outcome in completed(settings, "evaluate"):
        if (config["split"], config["adapter"]) == ("report", checkpoint.adapter_digest) and (
            report.predictions_of(settings, checkpoint.run_id, split="report").num_rows
        ):
            return replace(outcome, again=True)
    return None


def opened(runtime: Runtime, checkpoint: Checkpoint, evaluation: str, *, parent: Run | None) -> None:
    """Put on record that somebody was told the report's numbers of a model."""
    before = sum(
        config["checkpoint"] == checkpoint.name for config, _ in completed(runtime.settings, "open-report")
    )
    carry_out(
        runtime,
        "open-report",
        config={"checkpoint": checkpoint.name, "reading": before + 1},
        inputs=[f"checkpoint:{checkpoint.name}", f"evaluation:{evaluation}"],
        work=lambda run: Outcome(counts={"reading": before + 1}),
        parent=parent,
    )


def _told(rows: pa.Table) -> dict[str, Any]:
    return {"rows": rows.num_rows, "digest": rows_digest(rows["row_id"].to_pylist())}
