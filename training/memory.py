"""Finds room in memory: smaller forward passes, then activations computed twice. The order of rows stays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from training.recipe import TrainingConfig, TrainingError
from training.tunable import turn_on_gradient_checkpointing

log = logging.getLogger("stemma.training")

Result = TypeVar("Result")
_CPU_SAYS = ("can't allocate memory", "not enough memory")


class Room:
    """How much one rank puts through its model at once; it only ever becomes less."""

    def __init__(self, model: torch.nn.Module, config: TrainingConfig) -> None:
        """Begin with what the config allows."""
        self.most = config.micro_batch_size
        """Packs in a forward pass."""
        self.recomputes = False
        """Is gradient checkpointing on?"""
        self._model = model
        self._may_recompute = config.gradient_checkpointing is None
        if config.gradient_checkpointing:
            self._recompute()

    def fit(self, work: Callable[..., Result], *, give_up: Callable[[], None]) -> Result:
        """Do `work(most=most)`; where memory does not suffice give up what it left, and do it in parts.

        Raises TrainingError where the smallest does not fit.
        """
        while True:
            try:
                return work(most=self.most)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else "out of memory"
            give_up()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.most > 1:
                self.most //= 2
                log.warning(
                    "out of memory; from now on %d rows in a forward pass (%s)", self.most, reason[:200]
                )
            elif self._may_recompute and not self.recomputes:
                log.warning("out of memory; from now on with gradient checkpointing (%s)", reason[:200])
                self._recompute()
            else:
                raise TrainingError(
                    f"one row at a time does not fit into memory ({reason[:200]}); lower max_length or use a "
                    "smaller base"
                )

    def _recompute(self) -> None:
        turn_on_gradient_checkpointing(self._model)
        self.recomputes = True


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error) for words in _CPU_SAYS
    )
