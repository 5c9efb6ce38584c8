"""Proves a checkpoint: trains it again from its record alone, and compares what every step fed and gave.

    stemma reproduce MODEL ─▶ a fresh process ─▶ rebuild ─ order ─▶ fit ─ steps ─▶ adapter digest
                                                   └─ as planned?     └─ as recorded?   └─ as committed?

On the same machine, in the same configuration, all of it is identical, bit for bit. Elsewhere kernels round
otherwise: then it says at which step the first difference is and how large, and the order of rows is
verified all the same. It writes nothing into the lake.

Errors: TrainingError, where the record cannot be trained by any more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from infra.cli import explain
from infra.code import lock
from infra.runtime import Runtime
from infra.settings import Settings, settings_from_environment
from lineage import curricula, runs, tables
from lineage.consumption import Checkpoint, checkpoints, plan_digest, steps_of
from lineage.curricula import root_of
from lineage.schemas import PLAN
from training.ledger import STEPS_SCHEMA
from training.rebuild import rebuild
from training.recipe import TrainingError


@dataclass(frozen=True)
class Reproduction:
    """What came of training a checkpoint again."""

    checkpoint: str
    identical: bool
    """Order, every step and the adapter."""
    same_order: bool
    """Each planned slot holds the row that the record says, and that was eaten."""
    adapter_digest: str = ""
    """Of the new one; empty where it did not come to training."""
    recorded_adapter_digest: str = ""
    steps: int = 0
    """Steps that were compared; 0 where the record tells of none."""
    first_step: int | None = None
    """The first step that differs."""
    first_difference: str = ""
    """What of it: the rows' tokens, the loss, or the gradient; and by how much."""
    environment: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What is another than in the record: versions, kernels, threads."""
    sentence: str = ""
    """Why it did not come to training."""


def reproduce(settings: Settings, checkpoint: Checkpoint) -> Reproduction:
    """Train a checkpoint again, in a fresh process. Raises TrainingError."""
    with tempfile.TemporaryDirectory(prefix="stemma-reproduce-") as folder:
        told = Path(folder, "told.json")
        command = [
            sys.executable,
            "-m",
            "training.reproduce",
            settings.lake,
            checkpoint.name,
            folder,
            str(told),
        ]
        done = subprocess.run(command, check=False)
        if done.returncode or not told.is_file():
            raise TrainingError(
                f"the process that trained {checkpoint.name} again ended with code {done.returncode}; its "
                "words are above"
            )
        found = json.loads(told.read_text())
    return Reproduction(**found | {"environment": {k: tuple(v) for k, v in found["environment"].items()}})


def reproduced(runtime: Runtime, checkpoint: Checkpoint, folder: Path) -> Reproduction:
    """Train a checkpoint again, in this process, into an empty folder."""
    settings = runtime.settings
    name = checkpoint.name
    if root_of(curricula.load(settings, checkpoint.curriculum).members) != checkpoint.curriculum:
        return _stopped(name, f"curriculum {checkpoint.curriculum[:12]} no longer hashes to its root")
    try:
        assignment = rebuild(runtime, checkpoint)
    except TrainingError as error:
        return _stopped(name, str(error))
    stored = tables.read(settings, PLAN, where=pads.field("run_id") == checkpoint.run_id)
    if difference := _other_order(stored, assignment.plan.table, checkpoint):
        return _stopped(name, difference)
    from training.fit import fit

    if assignment.config.num_workers:
        runtime.ray()
    try:
        fitted = fit(
            assignment,
            run_id="reproduction-1",
            work=str(folder / "work"),
            out_dir=str(folder / "model"),
            storage_path=str(folder / "ray"),
        )
    except TrainingError as error:
        return replace(_stopped(name, str(error)), same_order=True)
    recorded = steps_of(settings, checkpoint).select(STEPS_SCHEMA.names)
    step, difference = first_difference(recorded, fitted.steps)
    return Reproduction(
        checkpoint=name,
        identical=step is None and fitted.adapter_digest == checkpoint.adapter_digest,
        same_order=True,
        adapter_digest=fitted.adapter_digest,
        recorded_adapter_digest=checkpoint.adapter_digest,
        steps=len(recorded["step"].unique()),
        first_step=step,
        first_difference=difference,
        environment=_environment(settings, checkpoint, fitted.trained.in_force),
    )


def first_difference(recorded: pa.Table, found: pa.Table) -> tuple[int | None, str]:
    """The first step of two trainings (STEPS_SCHEMA) that differs, and in what; None where none does."""
    ours = {row["step"]: row for row in found.to_pylist() if not row["lost"]}
    fed: dict[int, list[int]] = {}
    for table, sign in ((recorded, 1), (found, -1)):
        for step, digest, lost in zip(
            *(table[n].to_pylist() for n in ("step", "digest", "lost")), strict=True
        ):
            if not lost:
                fed.setdefault(step, []).append(sign * int(digest, 16))
    for row in sorted(recorded.to_pylist(), key=lambda row: row["step"]):
        step = row["step"]
        if step not in ours:
            return step, "it was not taken again"
        if sum(fed[step]) % 2**128:
            return step, "other tokens were fed"
        for name in ("loss", "grad_norm"):
            then, now = row[name], ours[step][name]
            if then != now:
                by = ("world_size", "micro_batch_size")
                were, are = (tuple(each[part] for part in by) for each in (row, ours[step]))
                cut = "" if were == are else _CUT.format(*were, *are)
                return step, f"{name} {now!r} instead of {then!r} ({abs(now - then):.1e} apart){cut}"
    return None, ""


_CUT = "; it was taken by {} workers with {} rows in a pass, and now by {} with {}"


def _other_order(stored: pa.Table, planned: pa.Table, checkpoint: Checkpoint) -> str:
    """Where the plan on record and the one made anew part; nothing where they do not."""
    if not stored.num_rows:
        return "its plan is not on record; run: stemma fsck"
    digest = plan_digest(planned)
    if plan_digest(stored) == digest == checkpoint.plan_digest:
        return ""
    names = ("step", "slot", "row_id")
    order = [("step", "ascending"), ("slot", "ascending")]
    then, now = (
        [*zip(*(t.sort_by(order)[n].to_pylist() for n in names), strict=True)] for t in (stored, planned)
    )
    for (step, slot, row_id), (_, _, found) in zip(then, now, strict=False):
        if row_id != found:
            return (
                f"other rows: step {step} slot {slot} was to eat {row_id.hex()[:12]}, and by the record's "
                f"seed and curriculum it is {found.hex()[:12]}"
            )
    if len(then) != len(now):
        return f"other rows: the plan on record has {len(then)} slots, by its curriculum it is {len(now)}"
    return "other token counts or places than planned, or a plan that is not the checkpoint's"


def _environment(
    settings: Settings, checkpoint: Checkpoint, in_force: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    record = runs.find(settings, checkpoint.run_id)
    then = runs.measured(record).get("in_force", {}) | {
        "packages": json.loads(record["agent"]).get("lock", "")
    }
    now = {**in_force, "packages": lock()}
    return {
        name: (str(then[name]), str(now[name])) for name in then if name in now and then[name] != now[name]
    }


def _stopped(name: str, sentence: str) -> Reproduction:
    return Reproduction(name, identical=False, same_order=False, sentence=sentence)


def _main(lake: str, name: str, folder: str, told: str) -> None:
    settings = settings_from_environment(lake)
    checkpoint = next(each for each in checkpoints(settings) if each.name == name)
    with Runtime(settings) as runtime:
        try:
            found = reproduced(runtime, checkpoint, Path(folder))
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            found = _stopped(name, sentence)
    Path(told).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
