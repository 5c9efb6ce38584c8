"""Rows as token ids and targets, and how some of them become one batch of tensors.

    rows --an objective--> Encoded --batch(packs)--> Batch --model--> loss

A row is one sequence (for `dpo` two: the answer and the rejected one). Its targets are aligned with its
tokens, -100 where the loss does not look; the label of a whole text stands at its first token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

NO_LOSS = -100


@dataclass(frozen=True)
class Sequences:
    """One token sequence per row, end to end."""

    input_ids: np.ndarray
    """int32 (tokens,), special tokens included."""
    targets: np.ndarray
    """int32 (tokens,), NO_LOSS where the loss does not look."""
    starts: np.ndarray
    """int64 (rows + 1,), the place of each row's first token, and the end."""

    @classmethod
    def of(cls, input_ids: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Sequences:
        """From one list per row."""
        lengths = [len(row) for row in input_ids]
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(_end_to_end(input_ids), _end_to_end(targets), starts)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (rows,), tokens per row."""
        return np.diff(self.starts)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and targets of a row."""
        mine = slice(self.starts[index], self.starts[index + 1])
        return self.input_ids[mine], self.targets[mine]


def _end_to_end(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), np.int32)


@dataclass(frozen=True)
class Encoded:
    """Rows as the model is fed, aligned with the table that they came from."""

    sequences: tuple[Sequences, ...]
    """One; for `dpo` two: the answers, and the rejected ones."""
    n_loss_tokens: np.ndarray
    """int32 (rows,), how many terms the row adds to the loss."""
    n_cut: np.ndarray
    """int32 (rows,), tokens that were cut off to fit max_length."""
    dropped: Mapping[int, str]
    """Rows that cannot be trained on, and the machine-readable reason."""
    pad_token_id: int

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.n_loss_tokens)

    @cached_property
    def digest(self) -> str:
        """Of every token and target, in hex."""
        digest = hashlib.sha256()
        for each in self.sequences:
            for values in (each.starts, each.input_ids, each.targets):
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @cached_property
    def n_tokens(self) -> np.ndarray:
        """int32 (rows,), tokens of all its sequences."""
        return sum((each.lengths for each in self.sequences), np.zeros(self.rows, np.int64)).astype(np.int32)


@dataclass(frozen=True)
class Batch:
    """Some rows of one kind of sequence, as a model takes them."""

    input_ids: torch.Tensor  # int64 (sequences, length)
    targets: torch.Tensor  # int64 (sequences, length), NO_LOSS where the loss does not look
    attention_mask: torch.Tensor | None
    """int64 (sequences, length), 1 for tokens; None with packing, where position_ids tell rows apart: an
    all-ones mask would let every row see those before it."""
    position_ids: torch.Tensor | None  # int64 (sequences, length), from 0 in each row; None without packing

    def to(self, device: str) -> Batch:
        """The same on a device."""
        moved = (self.input_ids, self.targets, self.attention_mask, self.position_ids)
        return Batch(*(None if each is None else each.to(device, non_blocking=True) for each in moved))  # type: ignore[arg-type]

    def in_one_line(self) -> Batch:
        """Packed rows end to end in a single line, which is all that flash attention keeps rows apart in."""
        flat = (self.input_ids, self.targets, self.position_ids)
        input_ids, targets, position_ids = (None if each is None else each.reshape(1, -1) for each in flat)
        return Batch(input_ids, targets, None, position_ids)  # type: ignore[arg-type]

    def row_digest(self, sequence: int, offset: int, length: int) -> bytes:
        """What stands in the tensors where a row was put, 16 bytes."""
        mine = slice(offset, offset + length)
        return tokens_digest(self.input_ids[sequence, mine].numpy(), self.targets[sequence, mine].numpy())


def tokens_digest(input_ids: np.ndarray, targets: np.ndarray) -> bytes:
    """Of a row's tokens and targets, 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for values in (input_ids, targets):
        digest.update(values.astype("<i8").tobytes())
    return digest.digest()


def batch(
    sequences: Sequences,
    packs: Sequence[Sequence[int] | np.ndarray],
    *,
    pad_token_id: int,
    packed: bool = False,
) -> Batch:
    """The rows of each pack, end to end in one line of the batch, lines filled up at their ends.

    Filling is told by length, never by token id: a padding token may be a real one. With `packed` the
    filling is a row of its own, without loss.
    """
    import torch

    width = max(int(sequences.lengths[list(pack)].sum()) for pack in packs)
    input_ids = np.full((len(packs), width), pad_token_id, dtype=np.int64)
    targets = np.full((len(packs), width), NO_LOSS, dtype=np.int64)
    positions = np.zeros((len(packs), width), dtype=np.int64)
    filled = np.zeros((len(packs), width), dtype=np.int64)
    for line, pack in enumerate(packs):
        end = 0
        for row in pack:
            ids, wanted = sequences.row(row)
            mine = slice(end, end + len(ids))
            input_ids[line, mine], targets[line, mine] = ids, wanted
            positions[line, mine] = np.arange(len(ids))
            end += len(ids)
        filled[line, :end] = 1
        positions[line, end:] = np.arange(width - end)
    mask = None if packed else torch.from_numpy(filled)
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(targets),
        mask,
        torch.from_numpy(positions) if packed else None,
    )
