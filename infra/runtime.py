"""The one live thing: a Ray session and the clock. Everything else is a frozen value.

with Runtime(settings) as runtime:
    runtime.ray()               # starts Ray on first use, once
    runtime.now()               # the only clock
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from infra.settings import Settings, SettingsError, prepare_environment

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
        """The `ray` module with a session behind it: the one at `settings.ray_address`, or one of our own.

        Raises SettingsError when the address is a dashboard's, where only jobs are taken.
        """
        if (self.settings.ray_address or "").startswith(("http://", "https://")):
            raise SettingsError(
                "RAY_ADDRESS is a dashboard's URL, where jobs are submitted; run: stemma submit -- VERB, or "
                "unset it to run here"
            )
        prepare_environment()
        import ray

        if not ray.is_initialized():
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
                job_config=_job_config(),
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


def _job_config() -> Any:
    """A job whose workers import from where this process imports, in its order.

    Left alone, Ray puts the driver's current folder first on its workers' sys.path, and a folder of the
    user's named `training` hides ours. What stands before the standard library here (a script's folder,
    PYTHONPATH) is what workers do not know. What is installed they find themselves: it must not come first.
    """
    from ray.job_config import JobConfig

    class Job(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:  # "it has": nothing is added to the folders given
            return True

    ours = str(Path(__file__).parents[1])
    folders = [os.path.abspath(p) for p in takewhile(lambda p: p != sysconfig.get_path("stdlib"), sys.path)]
    if ours not in folders and Path(ours).name not in ("site-packages", "dist-packages"):
        folders.append(ours)
    return Job(_py_driver_sys_path=folders[::-1])  # a worker puts each before the one before it


def give_back_memory() -> None:
    """Return what was freed to the system: after a fine-tuning the allocator keeps some 600 MB for itself."""
    import ctypes
    import gc

    gc.collect()
    with suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
