"""What the demo tells, and at which size: the scales, and the facts that one stage leaves for the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from examples.helpdesk.generator import Pools
from infra.settings import Settings
from lineage import recall, runs
from lineage.runs import Outcome
from lineage.selectors import Selector
from training.recipe import TrainingConfig

Scale = Literal["full", "tiny"]
NAME = "helpdesk-router"
CULPRIT = Selector(prompt="router@2")
"""What is wrong with the log; the demo uses it where the log is too small for `suspects` to find it."""


class DemoError(Exception):
    """The demo cannot run here; the message says what to do."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the full demo and the tiny one."""

    first_rows: int
    """How many rows M0's recipe draws from the clean pool. D5: 100 to 200 for classification."""
    first: TrainingConfig
    """How M0 is trained on them."""
    successor: TrainingConfig
    """The base recipe of its successor."""
    trials: int


SIZES: Mapping[Scale, Sizes] = {
    "full": Sizes(
        first_rows=120,
        first=TrainingConfig(num_train_epochs=5, train_batch_size=16),
        successor=TrainingConfig(num_train_epochs=3, train_batch_size=32),
        trials=4,
    ),
    "tiny": Sizes(
        first_rows=18,
        first=TrainingConfig(num_train_epochs=1, train_batch_size=8),
        successor=TrainingConfig(num_train_epochs=3, train_batch_size=16),
        trials=2,
    ),
}


@dataclass
class Story:
    """What the demo has seen so far: each stage adds what the summary and the promises need."""

    pools: Pools
    scale: Scale
    over_http: bool = False
    """Does the traffic go through `stemma serve`, and not straight to the model?"""
    facts: dict[str, Any] = field(default_factory=dict)
    promises: dict[str, bool] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Is it our own scenario at full size? Of other data and of tiny logs little can be promised."""
        return self.scale == "full" and self.pools.name == "helpdesk"


def once(settings: Settings, job: str, work: Callable[[], Outcome], **config: Any) -> Outcome:
    """Carry out a stage that comes before the recall; once the recall is ordered, tell it from the record.

    Carried out after the recall, on what it left, it would be another stage. `config` tells the job's runs
    apart, by the values that theirs must have.
    """
    if recall.find(settings, CULPRIT) is None:
        return work()
    for done, outcome in reversed(runs.completed(settings, job)):
        if config.items() <= done.items():
            return outcome
    raise DemoError(f"the recall is on record, but no {job} before it; begin again with another --lake")
