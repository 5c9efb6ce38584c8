"""This rank among all: what each has to say, and what all must agree on.

A rank that gave up alone would leave the others waiting for it in the next sum. So what may fail on one rank
only is done through `agreed`: then all fail, with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from training.guards import GuardError, MethodError
from training.recipe import TrainingError

Result = TypeVar("Result")
_KINDS = {kind.__name__: kind for kind in (GuardError, MethodError, TrainingError)}


@dataclass(frozen=True)
class World:
    """A rank, and how many there are."""

    rank: int = 0
    size: int = 1

    def gathered(self, mine: Any) -> list[Any]:
        """What every rank has to say, in the order of ranks."""
        if self.size == 1:
            return [mine]
        import torch

        everyone: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyone, mine)
        return everyone

    def agreed(self, work: Callable[[], Result]) -> Result:
        """What `work` gives on this rank; where it fails on any, its error on all of them."""
        if self.size == 1:
            return work()
        result, failed = None, None
        try:
            result = work()
        except TrainingError as error:
            failed = (type(error).__name__, str(error))
        reasons = [each for each in self.gathered(failed) if each is not None]
        if reasons:
            kind, sentence = reasons[0]
            raise _KINDS.get(kind, TrainingError)(sentence)
        return result  # type: ignore[return-value]

    def require_same(self, value: Any, *, what: str) -> None:
        """Raise TrainingError on all ranks where `value` is not the same on each."""
        if len(set(self.gathered(value))) > 1:
            raise TrainingError(
                f"{what} is not the same on all {self.size} ranks; the lake's folder must be one that all of "
                "them share"
            )


ALONE = World()
