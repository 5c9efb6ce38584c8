"""The one live thing: a Ray session and the clock. Everything else is a frozen value.

with Runtime(settings) as runtime:
    runtime.ray()               # starts Ray on first use, once
    runtime.now()               # the only clock
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from infra.settings import Settings, let_workers_import_us, prepare_environment

log = logging.getLogger("stemma")


class Runtime:
    """Holds what is alive during one command; a context manager that ends what it started."""

    def __init__(
        self, settings: Settings, *, now: Callable[[], dt.datetime] | None = None, num_cpus: int | None = None
    ):
        self.settings = settings
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._num_cpus = num_cpus
        self._started_ray = False

    def __enter__(self) -> Runtime:
        """The runtime itself; Ray starts at its first use."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop Ray if this runtime started it."""
        if self._started_ray:
            import ray

            ray.shutdown()

    def now(self) -> dt.datetime:
        """The time, in UTC, with microseconds."""
        return self._now()

    def ray(self) -> Any:
        """The `ray` module with a session behind it: the one at `settings.ray_address`, or one of our own."""
        prepare_environment()
        import ray

        if not ray.is_initialized():
            if self.settings.ray_address is None:
                let_workers_import_us()  # to a cluster our code travels as a wheel
            import ray.data

            # Ray tells of its token file and of every dataset it runs; errors still come through.
            for name in ("ray", "ray.data"):
                logging.getLogger(name).setLevel(logging.ERROR)
            ray.init(
                address=self.settings.ray_address,
                num_cpus=None if self.settings.ray_address else self._num_cpus,
                include_dashboard=False if self.settings.ray_address is None else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                # Plasma on a small machine: our blocks are small, and memory is for models.
                object_store_memory=None if self.settings.ray_address else 512 * 1024 * 1024,
            )
            self._started_ray = True
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            context.execution_options.preserve_order = True
        return ray

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Log how long something took."""
        start = time.monotonic()
        yield
        log.info("%s: %.1f s", what, time.monotonic() - start)
