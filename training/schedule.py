"""What a step's number decides: the learning rate, and the seed of what is random in it.

Both follow from the step alone, so a training that goes on in the middle needs to remember neither.
"""

from __future__ import annotations

import hashlib
import math

from training.recipe import TrainingConfig


def rate_at(step: int, steps: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate: rises over the warm-up, then falls as lr_scheduler_type says."""
    warmup = math.ceil(config.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if config.lr_scheduler_type == "linear":
        return max(0.0, 1 - done)
    if config.lr_scheduler_type == "cosine":
        return (1 + math.cos(math.pi * min(1.0, done))) / 2
    return 1.0


def seed_of(seed: int, step: int, rank: int) -> int:
    """Seeds the dropout of a rank's step, 63 bits."""
    told = hashlib.blake2b(b"%d,%d,%d" % (seed, step, rank), digest_size=8).digest()
    return int.from_bytes(told, "big") >> 1
