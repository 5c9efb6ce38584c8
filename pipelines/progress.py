"""How far an ingest is: a bar with rows/s and bytes/s on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import logging
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pipelines.runner import Told

log = logging.getLogger("stemma.ingest")

_EVERY_S = 10.0


class ReadingProgress:
    """Shows what `ingest` tells of itself; a context manager that takes the bar away again."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("reading"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[rows_per_s]:,.0f} rows/s"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, rows_per_s=0.0, start=False)
        self._began = self._told_at = 0.0

    def show(self, told: Told) -> None:
        """Take in how far it is."""
        now = monotonic()
        if not self._began:
            self._began = self._told_at = now
            self._bar.start_task(self._task)
        took = max(now - self._began, 1e-3)
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(
                self._task, total=told.all_bytes, completed=told.read_bytes, rows_per_s=told.rows / took
            )
        elif now - self._told_at > _EVERY_S and told.read_bytes < told.all_bytes:
            self._told_at = now
            share = told.read_bytes / max(told.all_bytes, 1)
            speed = told.read_bytes / took / 1e6
            line = "%.0f %% of %.1f GB, %.0f MB/s, %s rows/s"
            log.info(line, 100 * share, told.all_bytes / 1e9, speed, f"{told.rows / took:,.0f}")

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar.live.is_started:  # rich ends what was never begun with an empty line
            self._bar.stop()

    def __enter__(self) -> ReadingProgress:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away, whatever happened."""
        self.stop()
