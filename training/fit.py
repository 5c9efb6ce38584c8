"""Runs a training on Ray Train's workers, or in this process, and brings what they made into its place.

    Assignment ─▶ train() on each rank, started again where one died ─▶ model + ledger ─▶ out_dir, Fitted

The ranks share the folder `work`: logs of what was fed, and the latest state. Whoever comes later with the
same assignment, with as many workers or with others, goes on from there.

Errors: TrainingError; WorkersLost where workers died more often than max_failures.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.chat import template_digest
from infra.inference import TEMPLATE_FILE, AdapterRecord
from infra.models import adapter_digest, resolve
from training.assignment import Assignment
from training.guards import GuardError, MethodError
from training.ledger import consumption, fed_from, read, step_digests, steps_table
from training.loop import OnStep, Trained, train
from training.objectives.causal import tokenizer_of
from training.recipe import TrainingError
from training.tunable import as_it_was
from training.world import World


class WorkersLost(TrainingError):
    """Workers died, and were started again as often as was allowed."""


@dataclass(frozen=True)
class Fitted:
    """A finished fine-tuning: where the adapter lies, what it is, and what it was made of."""

    adapter_dir: str
    adapter_digest: str
    consumption: pa.Table
    """The plan, slot for slot, with the rank that fed it."""
    steps: pa.Table
    """training.ledger.STEPS_SCHEMA: every step of every go, the lost ones marked."""
    losses: list[float]
    """Mean loss per loss token, one per step."""
    trained: Trained


def fit(
    assignment: Assignment,
    *,
    run_id: str,
    work: str,
    out_dir: str,
    storage_path: str,
    cache: str | None = None,
    on_step: OnStep | None = None,
) -> Fitted:
    """Train by the plan and leave the model in `out_dir`, which appears whole or not at all.

    `work` is kept: it is the caller's to remove once the result is on record. An existing `out_dir` is
    replaced: what makes a checkpoint count is the caller's commit of its digest. `storage_path` is Ray
    Train's; nothing there is needed afterwards. `cache` keeps what other trainings need too. `on_step` runs
    in this process. Raises TrainingError.
    """
    _require_devices(assignment)
    target = Path(out_dir).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    place = Path(work).absolute()
    place.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(place):
            trained = _run(
                assignment, run_id, place, folder, storage_path=storage_path, cache=cache, on_step=on_step
            )
        eaten = consumption(assignment.plan.table, trained.fed)
        _require_plan(eaten, assignment)
        _require_tokens(step_digests(trained.fed), assignment)
        found = adapter_digest(folder)
        if found != trained.adapter_digest:
            raise TrainingError(
                f"the saved adapter has digest {found}, the trained one {trained.adapter_digest}; "
                "nothing was kept"
            )
        if assignment.config.chat_template_path is not None:
            shutil.copyfile(assignment.config.chat_template_path, folder / TEMPLATE_FILE)
        _record(assignment, found).write(folder)  # written last: its existence means the folder is complete
        _replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    losses = {fed.step: fed.loss for fed in trained.fed}
    return Fitted(
        adapter_dir=str(target),
        adapter_digest=found,
        consumption=eaten,
        steps=steps_table(place, trained.fed),
        losses=[losses[step] for step in range(assignment.steps)],
        trained=trained,
    )


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """While this process trains in `work` no other does: they would take each other's states away."""
    with open(work / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(
                f"another process is at the same training, in {work}; wait for it or stop it"
            ) from error
        yield  # released when the file is closed, and when the process dies


def _record(assignment: Assignment, digest: str) -> AdapterRecord:
    config = assignment.config
    return AdapterRecord(
        labels=assignment.labels,
        max_length=config.max_length,
        base_model=assignment.base.name,
        base_digest=assignment.base.digest,
        method=config.method,
        quantization=config.quantization,
        adapter_digest=digest,
        objective=config.objective,
        dtype=config.dtype,
        template_digest=template_digest(tokenizer_of(assignment.base, config)) if config.decodes else None,
    )


def _run(
    assignment: Assignment,
    run_id: str,
    work: Path,
    out: Path,
    *,
    storage_path: str,
    cache: str | None,
    on_step: OnStep | None,
) -> Trained:
    """Train on all ranks."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    # one line per fit about the local mode, which is meant here
    logging.getLogger("ray.train.v2.api.config").setLevel(logging.WARNING)
    config = assignment.config
    in_process = config.num_workers == 0
    where = {"run_id": run_id, "work": str(work), "out": str(out), "cache": cache}
    per_worker, backend = _resources(assignment)
    elastic = config.min_workers is not None and not in_process
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={
            # in the object store once, not in every copy of the configuration
            "assignment": assignment if in_process else ray.put(assignment),
            "on_step": on_step if in_process else None,
            **where,
        },
        torch_config=TorchConfig(backend=backend),
        scaling_config=ScalingConfig(
            num_workers=(config.min_workers, config.num_workers) if elastic else config.num_workers,  # type: ignore[arg-type]
            use_gpu=config.use_gpu,
            resources_per_worker=None if in_process else per_worker,
        ),
        # a random name: Ray Train would take up a run of the same name, from a checkpoint that is not ours
        run_config=RunConfig(
            name=f"{run_id}-{uuid.uuid4().hex[:8]}",
            storage_path=storage_path,
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    result = out / _RESULT
    if in_process:
        with as_it_was():
            trainer.fit()
    else:
        with _followed(work, run_id, assignment.steps, on_step):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                failures = getattr(error, "worker_failures", None) or {0: error}
                rank, reason = next(iter(failures.items()))
                raise WorkersLost(
                    f"training failed on rank {rank} of {config.num_workers}, after "
                    f"{config.max_failures} new starts: {reason}"
                ) from error
    if not result.is_file():
        raise TrainingError("the workers ended without a result; see Ray Train's log for what they did")
    told = json.loads(result.read_text())
    result.unlink()
    if "stopped" in told:
        raise (MethodError if told["by_method"] else GuardError)(told["stopped"])
    fed = tuple(fed_from(row) for row in told.pop("fed"))
    return Trained(**told, fed=fed)


_RESULT = "trained.json"


def _train_on_worker(given: dict[str, Any]) -> None:
    """What Ray Train calls on every rank; only this function and `_run` know Ray."""
    import ray
    from ray.train import get_context

    assignment = given["assignment"]
    world = World()
    if isinstance(assignment, ray.ObjectRef):
        assignment = ray.get(assignment)
        context = get_context()
        world = World(context.get_world_rank(), context.get_world_size())
        assignment = _with_base_here(assignment)
    out = Path(given["out"])
    try:
        trained = train(
            assignment,
            run_id=given["run_id"],
            work=Path(given["work"]),
            out=out,
            cache=Path(given["cache"]) if given["cache"] else None,
            world=world,
            on_step=given["on_step"],
        )
        told = asdict(trained)
    except (GuardError, MethodError) as error:
        # every rank says so, and another start would not mend it
        told = {"stopped": str(error), "by_method": isinstance(error, MethodError)}
    if world.rank == 0:
        (out / _RESULT).write_text(json.dumps(told))


def _with_base_here(assignment: Assignment) -> Assignment:
    """The base on this machine, which on a cluster need not be where the driver found it."""
    base = assignment.base
    found = resolve(base.path if Path(base.path).is_dir() else base.name)
    if found.digest != base.digest:
        raise TrainingError(
            f"base '{base.name}' has digest {found.digest} on this worker, expected {base.digest}; "
            "install the same model on every node"
        )
    return replace(assignment, base=replace(found, name=base.name))


def _require_devices(assignment: Assignment) -> None:
    """Raise TrainingError where a GPU is asked for and there is none."""
    config = assignment.config
    if not config.use_gpu:
        _require_cores(assignment)
        return
    if config.num_workers == 0:
        import torch

        there = float(torch.cuda.is_available())
    else:
        import ray

        there = ray.cluster_resources().get("GPU", 0.0)
    if not there:
        where = "this machine" if config.num_workers == 0 else "the cluster"
        raise TrainingError(
            f"use_gpu = true, and {where} has no GPU; set use_gpu = false, or train elsewhere"
        )


def _require_cores(assignment: Assignment) -> None:
    """Raise TrainingError where the workers want more cores than there are: Ray would wait for ever."""
    config = assignment.config
    if config.num_workers == 0:
        return
    import ray

    least = config.min_workers or config.num_workers
    wanted, there = least * config.torch_threads, ray.cluster_resources().get("CPU", 0.0)
    if wanted > there:
        raise TrainingError(
            f"{least} workers of {config.torch_threads} threads need {wanted} cores, and the cluster has "
            f"{there:.0f}; lower num_workers or torch_threads"
        )


def _resources(assignment: Assignment) -> tuple[dict[str, float], str]:
    """What each worker takes, and how workers talk: where GPUs are fewer than workers, these share them."""
    config = assignment.config
    if not config.use_gpu:
        return {"CPU": config.torch_threads}, "gloo"
    if config.num_workers == 0:
        return {}, "gloo"
    import ray

    there = ray.cluster_resources().get("GPU", 0.0)
    if there >= config.num_workers:
        return {"CPU": 1, "GPU": 1}, "nccl"
    share = 1 / math.ceil(config.num_workers / there)
    return {"CPU": 1, "GPU": share}, "gloo"  # nccl wants a GPU of its own for each


@contextmanager
def _followed(work: Path, run_id: str, steps: int, on_step: OnStep | None) -> Iterator[None]:
    """While workers train, hand on what the first of them writes into its log."""
    if on_step is None:
        yield
        return
    done = threading.Event()

    def hand_on() -> None:
        told = 0
        while True:
            last = done.wait(0.5)
            lines = [fed for path in sorted(work.glob(f"fed-{run_id}-*-00000.jsonl")) for fed in read(path)]
            for fed in lines[told:]:
                on_step(fed, steps)
            told = len(lines)
            if last:
                return

    follower = threading.Thread(target=hand_on, name="stemma-progress", daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


def _require_plan(eaten: pa.Table, assignment: Assignment) -> None:
    """Each planned slot exactly once, or TrainingError."""
    same = ["step", "slot", "row_no", "pack", "offset"]
    planned = assignment.plan.table
    if not eaten.select(same).equals(planned.select(same).combine_chunks()):
        raise TrainingError(
            f"the ranks ate {eaten.num_rows} slots of {planned.num_rows} planned, or other rows; "
            "nothing was saved"
        )


def _require_tokens(fed: Mapping[int, str], assignment: Assignment) -> None:
    """The tensors of every step held the planned rows' tokens and targets, or TrainingError."""
    expected = assignment.expected_digests()
    if wrong := [step for step in sorted(expected) if fed.get(step) != expected[step]]:
        raise TrainingError(
            f"at {len(wrong)} steps, first step {wrong[0]}, other tokens went through the model than the "
            "planned rows have; nothing was saved"
        )


def _replace(folder: Path, target: Path) -> None:
    """Put the finished folder in the target's place; a folder can only be renamed onto nothing."""
    folder.chmod(0o755)  # mkdtemp made it private
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        target.rename(old / "adapter")
        folder.rename(target)
        shutil.rmtree(old)
    else:
        folder.rename(target)
