"""The job behind `stemma finetune`: curriculum -> gate -> plan -> Ray Train -> consumption -> checkpoint.

The plan is stored before the first step; then the adapter's files, their consumption, the checkpoint's row.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field

from expectations.gate import admit, reason
from expectations.reports import keep
from expectations.thresholds import DEFAULTS, chosen
from infra.models import BaseModel as Base
from infra.models import adapter_config_digest
from infra.runtime import Runtime, give_back_memory
from infra.settings import Settings
from lineage import bans, curricula, mirror, models, tables, verdicts
from lineage.consumption import Checkpoint, bitmaps, forget_checkpoint, record_checkpoint, record_plan
from lineage.curricula import Curriculum, DataRecipe
from lineage.runs import Outcome, Run, carry_out, find
from lineage.schemas import EXAMPLE, NOT_APPLICABLE, REJECTED
from lineage.tasks import Task
from training.assignment import Assignment, assign
from training.guards import MethodError
from training.progress import Progress
from training.recipe import Method, Objective, TrainingConfig, TrainingError
from training.sets import frozen
from training.tiny.bases import resolve_base

if TYPE_CHECKING:
    from training.fit import Fitted

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
    base = resolve_base(runtime, config.training.base_model, parent=parent)
    data = with_parent_resolved(runtime, _of_its_tasks(config))
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
    before_it, training = _started_from(runtime.settings, config.training, base)
    recorded = {"data": data.model_dump(), "training": training.model_dump()}
    rows = rows_of(runtime, curriculum)
    adapter = (before_it.uri, before_it.adapter_digest) if before_it else None
    assignment = assign(rows, training, base, adapter=adapter)

    def work(run: Run) -> Outcome:
        return _train(runtime, curriculum, assignment, rows, run, before_it)

    inputs = [f"curriculum:{curriculum.root}", f"base:{base.digest}"]
    inputs += [f"checkpoint:{before_it.name}"] if before_it else []
    inputs += [f"tokens:{assignment.encoded.digest}"]  # what a template or a tokenizer made of the rows
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


def _of_its_tasks(config: FinetuneConfig) -> DataRecipe:
    """The data recipe, for rows of what the objective can learn. Raises TrainingError for others."""
    learnt = _LEARNS[config.training.objective]
    if config.data.tasks is None:
        return config.data.model_copy(update={"tasks": learnt})
    if others := sorted(set(config.data.tasks) - set(learnt)):
        raise TrainingError(
            f'objective = "{config.training.objective}" learns {", ".join(learnt)}, and data.tasks '
            f"names {', '.join(others)}; leave data.tasks out, or choose another objective"
        )
    return config.data


_LEARNS: dict[Objective, tuple[Task, ...]] = {
    "sequence_classification": ("classification",),
    "token_classification": ("tagging",),
    "sft": ("generation",),
    "dpo": ("preference",),
}


def _require_folder(settings: Settings) -> None:
    if not settings.is_local:
        raise TrainingError(
            f"lake '{settings.shown_lake}' is an object store, and an adapter is saved into a folder; "
            "mount the store, and name the folder with --lake"
        )


def _started_from(
    settings: Settings, config: TrainingConfig, base: Base
) -> tuple[Checkpoint | None, TrainingConfig]:
    """The checkpoint whose adapter training goes on from, and the config that names its run: aliases move."""
    if config.adapter_name_or_path is None:
        return None, config
    checkpoint, _ = models.resolve(settings, config.adapter_name_or_path)
    models.require_finished(settings, checkpoint)
    made_of = list(bitmaps(settings)[checkpoint.run_id, checkpoint.step])
    bans.require_clean(settings, made_of, what=config.adapter_name_or_path)
    if checkpoint.base_digest != base.digest:
        raise TrainingError(
            f"{config.adapter_name_or_path} was trained on {checkpoint.base_model} "
            f"({checkpoint.base_digest}), and base_model is {base.name} ({base.digest}); name the same base"
        )
    return checkpoint, config.model_copy(update={"adapter_name_or_path": checkpoint.run_id})


def _train(
    runtime: Runtime,
    curriculum: Curriculum,
    assignment: Assignment,
    rows: pa.Table,
    run: Run,
    before_it: Checkpoint | None,
) -> Outcome:
    settings = runtime.settings
    clear(settings, run)
    scored_on = frozen(settings)  # before anything is learnt
    record_plan(settings, assignment.plan.table, run)
    _record_dropped(settings, assignment, rows, run)
    if assignment.config.num_workers:
        runtime.ray()
    work = Path(settings.path("training", assignment.key))
    fitted, method, failures = _fitted(settings, assignment, work, run)
    give_back_memory()
    base, trained = assignment.base, fitted.trained
    checkpoint = record_checkpoint(
        runtime,
        run,
        eaten=fitted.consumption,
        ids=dict(zip(rows["row_no"].to_pylist(), rows["row_id"].to_pylist(), strict=True)),
        step=assignment.steps,
        uri=fitted.adapter_dir,
        adapter_digest=fitted.adapter_digest,
        adapter_config_digest=adapter_config_digest(fitted.adapter_dir),
        base_model=base.name,
        base_digest=base.digest,
        curriculum=curriculum.root,
        plan=assignment.plan.table,
        steps=fitted.steps,
        started_from=before_it.name if before_it else None,
    )
    shutil.rmtree(work, ignore_errors=True)
    cut = int((assignment.encoded.n_cut > 0).sum()) - sum(
        reason == "longer_than_max_length" for reason in assignment.dropped.values()
    )
    counts = {"rows": rows.num_rows, "eaten": fitted.consumption.num_rows, "truncated": cut}
    counts |= {"dropped": len(assignment.dropped)}
    facets: dict[str, Any] = {
        "adapter_digest": checkpoint.adapter_digest,
        "curriculum": curriculum.root,
        "plan_digest": checkpoint.plan_digest,
        "labels": len(assignment.labels),
        "steps": assignment.steps,
        "losses": [round(loss, 5) for loss in fitted.losses],
        "seconds": round(trained.seconds, 2),
        "tokens_per_s": round(trained.tokens_per_s, 1),
        "peak_mb": round(trained.peak_mb),
        "peak_gpu_mb": round(trained.peak_gpu_mb),
        "method": method,
        "method_failures": failures,
        "lost_steps": int(pc.sum(fitted.steps["lost"].cast(pa.int64())).as_py() or 0),
        "in_force": trained.in_force,
        "sets": scored_on,
    }
    log.info(
        "finetune %s: %d rows, %d steps, %.1f s, %.0f tokens/s, %.0f MB",
        run.id,
        rows.num_rows,
        assignment.steps,
        trained.seconds,
        trained.tokens_per_s,
        trained.peak_gpu_mb or trained.peak_mb,
    )
    return Outcome((f"checkpoint:{checkpoint.name}",), counts, facets)


def _fitted(
    settings: Settings, assignment: Assignment, work: Path, run: Run
) -> tuple[Fitted, Method, dict[str, str]]:
    """Trained by the method that was asked for, or the first after it that does not fail; why those did.

    A method fails at loading, at its first step, or because its model gives no answer. Raises MethodError
    with the first one's reason where all fail, and what else stops a training at once.
    """
    from training.answering import answer_once
    from training.fit import fit

    failures: dict[str, str] = {}
    with Progress(settings, run) as progress:
        for method in assignment.config.methods:
            try:
                fitted = fit(
                    assignment.by(method),
                    run_id=run.id,
                    work=str(work / method),
                    out_dir=settings.path("checkpoints", run.id),
                    storage_path=settings.path("ray"),
                    cache=settings.path("references"),
                    on_step=progress.step,
                )
                answer_once(
                    assignment.base,
                    assignment.config.objective,
                    fitted.adapter_dir,
                    fitted.adapter_digest,
                )
            except MethodError as error:
                failures[method] = str(error)
                log.warning("method %s failed: %s", method, error)
                shutil.rmtree(work / method, ignore_errors=True)
                shutil.rmtree(settings.path("checkpoints", run.id), ignore_errors=True)
            else:
                return fitted, method, failures
    (_, first), *others = failures.items()
    also = f" (and then failed: {', '.join(method for method, _ in others)})" if others else ""
    raise MethodError(f"{first}{also}")


def _record_dropped(settings: Settings, assignment: Assignment, rows: pa.Table, run: Run) -> None:
    """Rows that the plan leaves out go into `rejected`, each with the reason."""
    ids = dict(zip(rows["row_no"].to_pylist(), rows["row_id"].to_pylist(), strict=True))
    who = {"step": "plan", "step_revision": "1", "scorer": NOT_APPLICABLE, "scorer_revision": NOT_APPLICABLE}
    lost = [
        who | {"row_id": ids[row_no], "row_no": row_no, "reason": reason, "run_id": run.id}
        for row_no, reason in sorted(assignment.dropped.items())
    ]
    table = pa.Table.from_pylist(lost, schema=REJECTED.schema)
    tables.replace(settings, table, into=REJECTED, run_id=run.id)


def clear(settings: Settings, run: Run) -> None:
    """Take away what killed goes at the same work have left: the checkpoint's row first, then its files."""
    if run.attempt == 1:
        return
    forget_checkpoint(settings, run)
    for pattern in (f"{run.identity}-*", f".{run.identity}-*"):
        for left in Path(settings.path("checkpoints")).glob(pattern):
            shutil.rmtree(left)


def rows_of(runtime: Runtime, curriculum: Curriculum) -> pa.Table:
    """The curriculum's rows as training reads them, with their weight, sorted by row_id.

    Raises TrainingError when a member is no longer stored or its batch no longer admitted.
    """
    members = curriculum.members.sort_by("row_id")
    wanted = pads.field("row_no").isin(members["row_no"].combine_chunks())
    columns = ["row_id", "row_no", "messages", "text", "answer", "answer_tool_calls", "rejected"]
    found = verdicts.read_admitted(runtime.settings, EXAMPLE, columns=columns, where=wanted).sort_by("row_id")
    if found["row_id"].to_pylist() != members["row_id"].to_pylist():
        raise TrainingError(
            f"of {members.num_rows} members of curriculum {curriculum.root[:12]} only {found.num_rows} are "
            "stored and admitted; make a new curriculum"
        )
    return found.append_column("weight", members["weight"])
