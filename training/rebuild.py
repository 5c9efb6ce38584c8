"""A training once more, from its record alone: which rows, in which order, from what, by which recipe.

Errors: TrainingError, where the record or the base is no longer what the checkpoint was made of.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads

from infra.inference import TEMPLATE_FILE, AdapterRecord
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import curricula, tables
from lineage.consumption import Checkpoint, find_checkpoint
from lineage.runs import find, measured
from lineage.schemas import EXAMPLE
from training.assignment import Assignment, assign
from training.finetune import FinetuneConfig
from training.objectives import OBJECTIVES
from training.recipe import TrainingError
from training.tiny.bases import resolve_base


def rebuild(runtime: Runtime, checkpoint: Checkpoint) -> Assignment:
    """The assignment that a checkpoint was trained by, from what is stored now.

    Rows that left their tables since, by a recall or a gate, are read as they were. Raises TrainingError.
    """
    settings = runtime.settings
    record = find(settings, checkpoint.run_id)
    if record["job"] != "finetune":
        raise TrainingError(
            f"{checkpoint.name} was trained by another trainer (job '{record['job']}'), whose steps are not "
            "on record; only what it ate is: stemma lineage"
        )
    config = FinetuneConfig.model_validate(json.loads(record["config"])).training
    config = config.model_copy(update={"method": measured(record).get("method", config.method)})
    base = resolve_base(runtime, checkpoint.base_model)
    if base.digest != checkpoint.base_digest:
        raise TrainingError(
            f"another base: '{checkpoint.base_model}' has digest {base.digest}, and {checkpoint.name} was "
            f"trained on {checkpoint.base_digest}"
        )
    template = Path(checkpoint.uri, TEMPLATE_FILE)
    if config.chat_template_path is not None and template.is_file():
        config = config.model_copy(update={"chat_template_path": str(template)})
    adapter = None
    if checkpoint.started_from is not None:
        before = find_checkpoint(settings, checkpoint.started_from.rpartition("/")[0])
        adapter = (before.uri, before.adapter_digest)
    members = curricula.load(settings, checkpoint.curriculum).members
    rows = _rows(settings, members, OBJECTIVES[config.objective].columns)
    labels = None if config.decodes else AdapterRecord.read(checkpoint.uri).labels
    return assign(rows, config, base, labels=labels, adapter=adapter)


def _rows(settings: Settings, members: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """The members' rows, whatever became of them since, with their weights."""
    wanted = pads.field("row_no").isin(members["row_no"].combine_chunks())
    names = list(dict.fromkeys(("row_id", "row_no", *columns)))
    found = tables.read_ever(settings, EXAMPLE, columns=names, where=wanted).sort_by("row_id")
    members = members.sort_by("row_id")
    if found["row_id"].to_pylist() != members["row_id"].to_pylist():
        raise TrainingError(
            f"of {members.num_rows} rows of the curriculum {found.num_rows} are stored; run: stemma fsck"
        )
    return found.append_column("weight", members["weight"])
