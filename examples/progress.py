"""Progress of the demo's stages: a bar where there is a terminal, a line per stage where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn


class Stages:
    """Shows and times one stage after the other."""

    def __init__(self, total: int):
        columns = (
            "[progress.description]{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=total)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a stage while it goes on."""
        self._progress.update(self._task, description=name)
        start = monotonic()
        yield
        self._progress.advance(self._task)
        self._console.print(f"  {name:<32} {monotonic() - start:6.1f} s", markup=False)

    def __enter__(self) -> Stages:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._progress.stop()
