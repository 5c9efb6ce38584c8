"""One rank's fine-tuning by a plan: one explicit loop.

    Assignment ─▶ model ─▶ each step: feed my packs ─▶ sum gradients over ranks ─▶ update ─▶ write it down
                   ▲                                                                  └─ now and then: a state
                   └── the latest state, if there is one

The loss of a step is the sum over its rows divided by the loss tokens of the whole step, which the plan
knows. So one batch of 8, two minibatches of 4 and two ranks of 4 give the same gradient, whatever the rows'
lengths. Gradients are summed over ranks in one flat all-reduce rather than by DistributedDataParallel: DDP
averages over ranks, wants a forward pass on each of them and synchronises in every backward pass; a plain sum
is exact, comes once per step, and a rank without a row in a small last step takes part with zeros.

Errors: TrainingError; of it GuardError, which every rank raises at the same step.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from infra.models import ModelError
from training import guards, states
from training.assignment import Assignment
from training.feeding import Share, accumulate
from training.ledger import Fed, FedLog, goes
from training.memory import Room
from training.objectives.causal import require_rows_apart
from training.recipe import TrainingConfig
from training.reference import reference_of
from training.schedule import rate_at, seed_of
from training.tunable import digest_of, load_tunable, make_optimizer, save_model, trained_of
from training.world import ALONE, World

log = logging.getLogger("stemma.training")

OnStep = Callable[[Fed, int], None]
"""Called by rank 0 after every step with what it fed and the number of steps."""


@dataclass(frozen=True)
class Trained:
    """A training that came to its end; the same on every rank."""

    adapter_digest_before: str
    adapter_digest: str
    first_grad_norm: float
    """Of step 0, before clipping."""
    in_force: dict[str, Any]
    """Read back from the loaded model and the running process, not from the config."""
    fed: tuple[Fed, ...]
    """What counts, of all ranks and steps."""
    seconds: float
    """From the first step of this go to the last, without loading."""
    tokens_per_s: float
    """Of this go, over all ranks, padding not counted."""
    peak_mb: float
    """Highest resident memory of a rank's process."""
    peak_gpu_mb: float
    """Highest memory that tensors of a rank held on its GPU; 0 without one."""


def train(
    assignment: Assignment,
    *,
    run_id: str,
    work: Path,
    out: Path,
    cache: Path | None = None,
    world: World = ALONE,
    on_step: OnStep | None = None,
) -> Trained:
    """Train from the latest state in `work`, or from the beginning; rank 0 leaves the model in `out`.

    `work` and `out` are folders that all ranks share, and `cache`, for what other trainings need too: the
    references of `dpo`; None: they are kept in `work`. An ordinary function: with a world of one it needs
    neither Ray nor torch.distributed. Raises TrainingError.
    """
    config = assignment.config
    torch.set_num_threads(config.torch_threads)
    model, in_force = world.agreed(lambda: _loaded(assignment))
    trained = trained_of(model)
    optimizer = make_optimizer(trained, config)
    guards.require_trainable(trained, optimizer)
    before, frozen = digest_of(model), guards.frozen_checksum(model)
    guards.require_start(before, assignment.adapter)
    room = Room(model, config)
    reference = None
    if config.objective == "dpo":
        reference = reference_of(model, before, assignment, room=room, cache=cache or work, world=world)

    resumed = states.latest(work)
    counted: list[Fed] = list(resumed.fed) if resumed else []
    if resumed:
        states.restore(resumed, trained=trained, optimizer=optimizer)
        log.info("goes on after step %d of %d", resumed.step, assignment.steps)
    first = resumed.step if resumed else 0
    world.require_same(first, what="the state to go on from")
    go = max(world.gathered(goes(work, run_id))) + 1
    ledger = FedLog(work, run_id=run_id, go=go, rank=world.rank)

    model.train()  # a loaded model comes in eval mode
    pending: list[Fed] = []
    started = time.perf_counter()
    for step in range(first, assignment.steps):
        began = time.perf_counter()
        seed = seed_of(config.seed, step, world.rank)
        torch.manual_seed(seed)
        rate = rate_at(step, assignment.steps, config)
        packs = assignment.packs_of(step, rank=world.rank, world_size=world.size)
        loss_tokens = assignment.loss_tokens_of(step)
        feed = partial(accumulate, model, assignment, packs, loss_tokens=loss_tokens, reference=reference)
        work_on = partial(room.fit, feed, give_up=partial(_begin_again, optimizer, seed))
        share = world.agreed(partial(_tried, work_on)) if step == first else work_on()
        loss = _sum_over_ranks(list(trained.values()), share.loss, world)
        norm = float(torch.nn.utils.clip_grad_norm_(trained.values(), config.max_grad_norm))
        guards.require_finite(loss, norm, step=step, rows=share.rows, rate=config.learning_rate)
        if step == 0:
            guards.require_gradient(norm)
            if config.objective == "dpo" and config.lora_dropout == 0:
                guards.require_indifference(loss)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate
        optimizer.step()
        optimizer.zero_grad()
        fed = Fed(
            run_id=run_id,
            go=go,
            step=step,
            rank=world.rank,
            world_size=world.size,
            slots=share.slots,
            rows=share.rows,
            tokens=share.tokens,
            loss_tokens=share.loss_tokens,
            digest=share.digest,
            loss=loss,
            grad_norm=norm,
            micro_batch_size=room.most,
            seconds=round(time.perf_counter() - began, 6),
        )
        ledger.write(fed)
        pending.append(fed)
        if on_step and world.rank == 0:
            on_step(fed, assignment.steps)
        if (step + 1) % config.save_steps == 0 and step + 1 < assignment.steps:
            counted += [each for rank in world.gathered(pending) for each in rank]
            pending = []
            if world.rank == 0:
                states.save(work, step=step + 1, trained=trained, optimizer=optimizer, fed=counted)
    seconds = time.perf_counter() - started
    ledger.close()

    counted += [each for rank in world.gathered(pending) for each in rank]
    after = digest_of(model)
    world.require_same(after, what="the trained tensors")
    guards.require_moved(before, after, steps=assignment.steps)
    world.agreed(lambda: guards.require_unchanged(frozen, guards.frozen_checksum(model)))
    if world.rank == 0:
        save_model(model, out)
    mine = [fed for fed in counted if (fed.run_id, fed.go) == (run_id, go)]
    return Trained(
        adapter_digest_before=before,
        adapter_digest=after,
        first_grad_norm=next(fed.grad_norm for fed in counted if fed.step == 0),
        in_force=in_force | _in_force(trained, optimizer, config, world, room),
        fed=tuple(counted),
        seconds=seconds,
        tokens_per_s=sum(fed.tokens for fed in mine) / max(seconds, 1e-9),
        peak_mb=max(world.gathered(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)),  # kilobytes
        peak_gpu_mb=max(world.gathered(torch.cuda.max_memory_allocated() / 2**20 if config.use_gpu else 0.0)),
    )


def _loaded(assignment: Assignment) -> tuple[Any, dict[str, Any]]:
    """The model to train. Raises MethodError where it does not load so, GuardError where it cannot pack."""
    config = assignment.config
    adapter = assignment.adapter[0] if assignment.adapter else None
    try:
        found = load_tunable(assignment.base, assignment.labels, config, adapter=adapter)
    except ModelError as error:
        raise guards.MethodError(str(error)) from error
    if config.packing:
        require_rows_apart(found[0])
    return found


def _tried(work: Callable[[], Share]) -> Share:
    """The first step of a go. What fails here for want of a kernel fails at every step: the method does."""
    try:
        return work()
    except (RuntimeError, NotImplementedError) as error:
        raise guards.MethodError(f"the first step failed: {str(error).strip().splitlines()[0]}") from error


def _begin_again(optimizer: torch.optim.Optimizer, seed: int) -> None:
    """A step that found no room leaves no gradient, and draws the same dropout when it is taken again."""
    optimizer.zero_grad()
    torch.manual_seed(seed)


def _sum_over_ranks(trained: list[torch.nn.Parameter], loss: float, world: World) -> float:
    """Replace every gradient by its sum over ranks and return the summed loss, in one all-reduce."""
    if world.size == 1:
        return loss
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
    flat = torch.cat([g.reshape(-1) for g in grads] + [torch.tensor([loss], device=grads[0].device)])
    torch.distributed.all_reduce(flat)
    sizes = [p.numel() for p in trained]
    for parameter, total in zip(trained, flat[:-1].split(sizes), strict=True):
        parameter.grad = total.view_as(parameter).clone()
    return float(flat[-1])


def _in_force(
    trained: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    world: World,
    room: Room,
) -> dict[str, Any]:
    return {
        "optimizer": type(optimizer).__name__.lower(),
        "betas": list(optimizer.defaults["betas"]),
        "trainable_parameters": sum(p.numel() for p in trained.values()),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if config.use_gpu else None,
        "world_size": world.size,
        "micro_batch_size": room.most,
        "gradient_checkpointing": room.recomputes,
    }
