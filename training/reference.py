"""What the frozen reference of `dpo` gives to each row's two answers: computed once, kept by what it is of.

The reference is the model before the first update. Its numbers are made before anything moves, so no second
model is held, and no gradient can reach it.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lineage.rows import canonical_json
from training.assignment import Assignment
from training.encoded import batch
from training.minibatches import FEWEST_PASSES, PASS_TOKENS, cut
from training.objectives.dpo import log_probabilities

if TYPE_CHECKING:
    import torch

    from training.memory import Room
    from training.world import World


def reference_of(
    model: torch.nn.Module,
    model_digest: str,
    assignment: Assignment,
    *,
    room: Room,
    cache: Path,
    world: World,
) -> np.ndarray:
    """Log-probabilities of answer and rejected, float32 (rows, 2), aligned with the encoded rows.

    `model` is what training starts from, of digest `model_digest`. Each rank computes its share.
    """
    path = cache / f"{_key(model_digest, assignment)}.npy"
    if all(world.gathered(path.is_file())):
        return np.load(path, allow_pickle=False)
    rows = np.arange(assignment.encoded.rows)[world.rank :: world.size]
    compute = partial(_computed, model, assignment, rows)
    shares = world.gathered((rows, room.fit(compute, give_up=lambda: None)))
    found = np.zeros((assignment.encoded.rows, 2), np.float32)
    for mine, values in shares:
        found[mine] = values
    if world.rank == 0:
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.stem}-{os.getpid()}.npy")
        np.save(unfinished, found, allow_pickle=False)
        unfinished.replace(path)
    return found


def _computed(model: torch.nn.Module, assignment: Assignment, rows: np.ndarray, *, most: int) -> np.ndarray:
    """Of some rows, at most `most` in a forward pass."""
    import torch

    config, encoded = assignment.config, assignment.encoded
    found = np.zeros((len(rows), 2), np.float32)
    was_training = model.training
    model.eval()  # no dropout
    pass_tokens = FEWEST_PASSES if config.use_gpu else PASS_TOKENS
    with torch.inference_mode(), torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
        for column, sequences in enumerate(encoded.sequences):
            for part in cut(sequences.lengths[rows], most=most, pass_tokens=pass_tokens):
                packs = [[int(row)] for row in rows[part]]
                fed = batch(sequences, packs, pad_token_id=encoded.pad_token_id).to(config.device)
                found[part, column] = log_probabilities(model, fed).float().cpu().numpy()
    model.train(was_training)
    return found


def _key(model_digest: str, assignment: Assignment) -> str:
    """Over the model as it starts, how it is held, and every token of the rows."""
    config = assignment.config
    of = [model_digest, assignment.base.digest, config.method, config.bf16, str(config.quantization)]
    return hashlib.sha256(canonical_json([*of, assignment.encoded.digest])).hexdigest()[:32]
