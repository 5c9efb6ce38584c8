"""Feeds a rank's packs of a step through the model: forward passes, gradients, and what exactly went in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.assignment import Assignment
from training.encoded import Batch, batch
from training.ledger import slot_digest, summed
from training.minibatches import FEWEST_PASSES, PASS_TOKENS, cut
from training.objectives import OBJECTIVES, Minibatch


@dataclass(frozen=True)
class Share:
    """What a rank fed in a step, and its share of the loss."""

    loss: float
    slots: tuple[int, ...]
    rows: tuple[int, ...]
    """The row_no of what was fed in each slot."""
    tokens: int
    loss_tokens: int
    digest: str


def accumulate(
    model: torch.nn.Module,
    assignment: Assignment,
    packs: Sequence[np.ndarray],
    *,
    loss_tokens: int,
    most: int,
    reference: np.ndarray | None = None,
) -> Share:
    """Add the gradient of these packs, at most `most` in a forward pass.

    Packs of like length go together, which saves padding and changes nothing else: the loss is a sum.
    """
    encoded, config = assignment.encoded, assignment.config
    objective = OBJECTIVES[config.objective]
    lengths = [int(encoded.n_tokens[assignment.row[pack]].sum()) for pack in packs]
    total, digests = torch.zeros((), device=config.device), []
    for part in cut(lengths, most=most, pass_tokens=FEWEST_PASSES if config.use_gpu else PASS_TOKENS):
        chosen = [packs[index] for index in part]
        rows = [assignment.row[pack] for pack in chosen]
        batches = tuple(
            batch(each, rows, pad_token_id=encoded.pad_token_id, packed=config.packing)
            for each in encoded.sequences
        )
        digests += [
            _digest(assignment, batches, sequence, line)
            for sequence, pack in enumerate(chosen)
            for line in pack.tolist()
        ]
        refer = None
        if reference is not None:
            refer = torch.from_numpy(reference[np.concatenate(rows)]).to(config.device)
        minibatch = Minibatch(tuple(each.to(config.device) for each in batches), refer)
        with torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
            loss = objective.loss_sum(model, minibatch, config) / loss_tokens
        loss.backward()
        total += loss.detach()
    lines = np.sort(np.concatenate(packs)) if packs else np.empty(0, dtype=np.int64)
    fed_rows = assignment.row[lines]
    return Share(
        loss=float(total),
        slots=tuple(assignment.slot[lines].tolist()),
        rows=tuple(assignment.number[fed_rows].tolist()),
        tokens=int(encoded.n_tokens[fed_rows].sum()),
        loss_tokens=int(encoded.n_loss_tokens[fed_rows].sum()),
        digest=summed(digests),
    )


def _digest(assignment: Assignment, batches: Sequence[Batch], sequence: int, line: int) -> int:
    """What stands in the tensors at the place of one line of the plan."""
    offset, row = int(assignment.offset[line]), assignment.row[line]
    lengths = (int(each.lengths[row]) for each in assignment.encoded.sequences)
    parts = [fed.row_digest(sequence, offset, length) for fed, length in zip(batches, lengths, strict=True)]
    return slot_digest(int(assignment.step[line]), int(assignment.slot[line]), parts)
