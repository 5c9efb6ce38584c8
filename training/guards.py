"""Checks that are always on: a training that does nothing, or harm, is stopped and leaves no checkpoint.

What only one rank may meet, all are told of (training.world), so that none waits for one that gave up.

Errors: GuardError; MethodError is raised where a method is at fault, not the recipe.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from training.recipe import TrainingError

if TYPE_CHECKING:
    import torch

_LN_2_TOLERANCE = 0.02  # bfloat16 products of another batch shape moved the loss at step 0 by up to 0.004


class GuardError(TrainingError):
    """The training does not do what it should; nothing of it is kept."""


class MethodError(TrainingError):
    """A method does not work on this base and machine, whatever the rows: another may."""


def require_trainable(trained: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Something is trained, and the optimiser holds all of it."""
    if not trained:
        raise GuardError("no parameter is trainable: target_modules match no layer of this base")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if left := [name for name, parameter in trained.items() if id(parameter) not in held]:
        raise GuardError(f"the optimiser does not hold {len(left)} trained tensors, first {left[0]}")


def require_finite(loss: float, grad_norm: float, *, step: int, rows: Iterable[int], rate: float) -> None:
    """Neither the loss nor the gradient is infinite or no number."""
    if not math.isfinite(loss + grad_norm):
        raise GuardError(
            f"the loss of step {step} is {loss} and its gradient has norm {grad_norm}; this rank had fed "
            f"rows {list(rows)[:5]}; lower learning_rate = {rate} or look at these rows"
        )


def require_gradient(grad_norm: float) -> None:
    """The first step has a gradient."""
    if grad_norm == 0:
        raise GuardError(
            f"the gradient of the first step has norm {grad_norm}: the trained layers do not learn"
        )


def require_start(found: str, adapter: tuple[str, str] | None) -> None:
    """What training goes on from is the adapter that the record names (folder, digest)."""
    if adapter is not None and found != adapter[1]:
        raise GuardError(
            f"the adapter at {adapter[0]} has digest {found}, expected {adapter[1]}: its files were changed "
            "after it was trained; restore them from a copy of the lake"
        )


def require_indifference(loss: float) -> None:
    """Before the first update the policy is its reference, so the loss of `dpo` is ln 2."""
    if abs(loss - math.log(2)) > _LN_2_TOLERANCE:
        raise GuardError(
            f"the loss of dpo at step 0 is {loss:.4f}, expected ln 2 = {math.log(2):.4f}: the reference is "
            "not the model that training starts from"
        )


def require_moved(before: str, after: str, *, steps: int) -> None:
    """The adapter is another than before."""
    if before == after:
        raise GuardError(f"{steps} steps did not change the adapter ({after}); raise learning_rate")


def require_unchanged(before: str, after: str) -> None:
    """The frozen weights are what they were."""
    if before != after:
        raise GuardError(
            f"the frozen weights of the base changed in training ({before[:19]} to {after[:19]})"
        )


def frozen_checksum(model: torch.nn.Module) -> str:
    """A checksum of every frozen weight as it lies in memory, quantised or not; computed where it lies.

    Two sums over the raw words of each tensor, of the words and of their squares: for an accident, not for
    an adversary; what the base is, its files' digest says.
    """
    import torch

    sums = []
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            continue
        raw = parameter.detach().contiguous().reshape(-1).view(torch.uint8)
        raw = raw[: len(raw) // 4 * 4].view(torch.int32) if len(raw) >= 4 else raw
        words = raw.sum(dtype=torch.int64), (raw * raw).sum(dtype=torch.int64)
        sums.append((name, torch.stack(words)))
    told = [[name, *values.tolist()] for name, values in sums]
    return f"sha256:{hashlib.sha256(json.dumps(told).encode()).hexdigest()}"
