"""The job behind `stemma finetune`: curriculum -> gate -> plan -> Ray Train -> consumption -> checkpoint.

The plan is stored before the first step; then the adapter's files, their consumption, the checkpoint's row.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field

from expectations.gate import admit, reason
from expectations.reports import keep
from expectations.thresholds import DEFAULTS, chosen
from infra.models import BaseModel as Base
from infra.models import adapter_config_digest
from infra.models import resolve as resolve_base
from infra.runtime import Runtime, give_back_memory
from infra.settings import Settings
from lineage import curricula, mirror, models, verdicts
from lineage.consumption import Checkpoint, forget_checkpoint, record_checkpoint, record_plan
from lineage.curricula import Curriculum, DataRecipe
from lineage.runs import Outcome, Run, carry_out, find
from lineage.schemas import EXAMPLE
from training.recipe import TrainingConfig, TrainingError

log = logging.getLogger("stemma.finetune")


class FinetuneConfig(BaseModel):
    """What `stemma finetune` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataRecipe = DataRecipe()
    """Which rows."""

    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """Which hyperparameters."""


def finetune(runtime: Runtime, config: FinetuneConfig, *, parent: Run | None = None) -> Outcome:
    """Train an adapter. The outcome's facets name the curriculum, the adapter's digest and the losses.

    Raises TrainingError when training fails or the lake is no folder, NotAdmitted when the curriculum is
    refused.
    """
    _require_folder(runtime.settings)
    base = resolve_base(config.training.base_model)
    data = with_parent_resolved(runtime, config.data)
    selected = curricula.build(runtime, data, parent=parent)
    curriculum = curricula.load(runtime.settings, selected.facets["curriculum"])
    before = verdicts.latest(runtime.settings, curriculum.version)
    thresholds = chosen(before.thresholds) if before else DEFAULTS  # by whoever admitted it
    verdict = admit(runtime, curriculum.version, thresholds=thresholds, parent=parent)
    if verdict.stands:
        raise TrainingError(
            f"{curriculum.version} was admitted, and today's suite does not admit it ({reason(verdict)}); "
            f"see: stemma gate {curriculum.version}"
        )
    keep(runtime, curriculum.version)
    verdicts.require(runtime.settings, curriculum.version)
    recorded = {"data": data.model_dump(), "training": config.training.model_dump()}

    def work(run: Run) -> Outcome:
        return _train(runtime, curriculum, config.training, base, run)

    inputs = [f"curriculum:{curriculum.root}", f"base:{base.digest}"]
    outcome = carry_out(runtime, "finetune", config=recorded, inputs=inputs, work=work, parent=parent)
    mirror.show_outcome(runtime.settings, outcome)
    return outcome


def config_of(runtime: Runtime, checkpoint: Checkpoint) -> FinetuneConfig:
    """The config that a checkpoint was trained with, from its run's record."""
    return FinetuneConfig.model_validate(json.loads(find(runtime.settings, checkpoint.run_id)["config"]))


def with_parent_resolved(runtime: Runtime, data: DataRecipe) -> DataRecipe:
    """A parent named by its model becomes the root of that model's curriculum: aliases move, roots do not."""
    if data.parent is None or len(data.parent) == 64:
        return data
    checkpoint, _ = models.resolve(runtime.settings, data.parent)
    return data.model_copy(update={"parent": checkpoint.curriculum})


def _require_folder(settings: Settings) -> None:
    if not settings.is_local:
        raise TrainingError(
            f"lake '{settings.shown_lake}' is an object store, and an adapter is saved into a folder; "
            "mount the store, and name the folder with --lake"
        )


def _train(runtime: Runtime, curriculum: Curriculum, config: TrainingConfig, base: Base, run: Run) -> Outcome:
    from training.loop import fit
    from training.objectives import encode_rows
    from training.plan import make_plan

    settings = runtime.settings
    clear(settings, run)
    rows = rows_of(runtime, curriculum)
    labels = sorted(set(rows["label"].to_pylist()))
    encoded = encode_rows(rows, labels, base=base, config=config)
    plan = make_plan(
        rows,
        n_tokens=encoded.n_tokens.tolist(),
        n_loss_tokens=encoded.n_loss_tokens.tolist(),
        seed=config.seed,
        num_train_epochs=config.num_train_epochs,
        train_batch_size=config.train_batch_size,
    )
    record_plan(settings, plan.table, run)
    if config.num_workers:
        runtime.ray()
    fitted = fit(
        rows=rows,
        labels=labels,
        plan=plan,
        config=config,
        base=base,
        out_dir=settings.path("checkpoints", run.id),
        storage_path=settings.path("ray"),
    )
    give_back_memory()
    checkpoint = record_checkpoint(
        runtime,
        run,
        eaten=fitted.consumption,
        ids=dict(zip(rows["row_no"].to_pylist(), rows["row_id"].to_pylist(), strict=True)),
        step=fitted.steps,
        uri=fitted.adapter_dir,
        adapter_digest=fitted.adapter_digest,
        adapter_config_digest=adapter_config_digest(fitted.adapter_dir),
        base_model=base.name,
        base_digest=base.digest,
        curriculum=curriculum.root,
        plan=plan.table,
    )
    counts = {"rows": rows.num_rows, "eaten": fitted.consumption.num_rows, "truncated": fitted.truncated_rows}
    facets: dict[str, Any] = {
        "adapter_digest": checkpoint.adapter_digest,
        "curriculum": curriculum.root,
        "plan_digest": checkpoint.plan_digest,
        "labels": len(labels),
        "steps": fitted.steps,
        "losses": [round(loss, 5) for loss in fitted.losses],
        "seconds": round(fitted.seconds, 2),
        "rows_per_s": round(fitted.rows_per_s, 1),
        "peak_mb": round(fitted.peak_mb),
        "in_force": fitted.in_force,
    }
    log.info("finetune %s: %d rows, %d steps, %.1f s", run.id, rows.num_rows, fitted.steps, fitted.seconds)
    return Outcome((f"checkpoint:{checkpoint.name}",), counts, facets)


def clear(settings: Settings, run: Run) -> None:
    """Take away what killed goes at the same work have left: the checkpoint's row first, then its files."""
    if run.attempt == 1:
        return
    forget_checkpoint(settings, run)
    for pattern in (f"{run.identity}-*", f".{run.identity}-*"):
        for left in Path(settings.path("checkpoints")).glob(pattern):
            shutil.rmtree(left)


def rows_of(runtime: Runtime, curriculum: Curriculum) -> pa.Table:
    """The curriculum's rows as training reads them: row_no, row_id, text, label, weight, sorted by row_id.

    Raises TrainingError when a member is no longer stored or its batch no longer admitted.
    """
    members = curriculum.members.sort_by("row_id")
    wanted = pads.field("row_no").isin(members["row_no"].combine_chunks())
    columns = ["row_id", "row_no", "text", "answer"]
    found = verdicts.read_admitted(runtime.settings, EXAMPLE, columns=columns, where=wanted).sort_by("row_id")
    if found["row_id"].to_pylist() != members["row_id"].to_pylist():
        raise TrainingError(
            f"of {members.num_rows} members of curriculum {curriculum.root[:12]} only {found.num_rows} are "
            "stored and admitted; make a new curriculum"
        )
    found = found.rename_columns(["label" if name == "answer" else name for name in found.column_names])
    return found.append_column("weight", members["weight"])
