"""How far a training is: a bar with loss and tokens/s on a terminal, elsewhere a line now and then.

MLflow shows the same numbers while a training goes on for longer than half a minute.
"""

from __future__ import annotations

import logging
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from infra.settings import Settings
from lineage import registry
from lineage.runs import Run
from training.ledger import Fed

log = logging.getLogger("stemma.training")

_EVERY_S = 10.0
_MIRROR_EVERY_S = 30.0


class Progress:
    """Shows what a training tells of its steps; a context manager that takes the bar away again."""

    def __init__(self, settings: Settings, run: Run) -> None:
        """Nothing is shown before the first step."""
        self._settings, self._run = settings, run
        self._what = what = f"finetune {run.id}"
        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}, {task.fields[speed]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, loss=0.0, speed=0.0)
        self._tokens = 0
        self._began = self._told_at = self._mirrored_at = monotonic()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def step(self, fed: Fed, steps: int) -> None:
        """Take in a step of rank 0."""
        now = monotonic()
        self._tokens += fed.tokens * fed.world_size  # all ranks take about as many
        speed = self._tokens / max(now - self._began, 1e-3)
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(self._task, total=steps, completed=fed.step + 1, loss=fed.loss, speed=speed)
        elif now - self._told_at > _EVERY_S and fed.step + 1 < steps:
            self._told_at = now
            line = "%s: step %d of %d, loss %.3f, %s tokens/s"
            log.info(line, self._what, fed.step + 1, steps, fed.loss, f"{speed:,.0f}")
        if now - self._mirrored_at > _MIRROR_EVERY_S:
            self._mirrored_at = now
            shown = {"run_id": self._run.id, "job": self._run.job, "step": fed.step}
            numbers = {"loss": round(fed.loss, 5), "tokens_per_s": round(speed, 1)}
            registry.if_reachable(registry.log_progress, self._settings, **shown, metrics=numbers)
