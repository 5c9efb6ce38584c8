"""Where an alias stands now, and how the desk gets there: the log of events is looked at, not listened to.

A look costs a few file stats while nothing changes. Where the alias moved, the new model is loaded beside the
one that answers, and takes its place between two batches. One that does not load is tried again later, and
the old one goes on, unless it was recalled: then nobody answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from infra.runtime import give_back_memory
from infra.settings import Settings
from lineage import models, tables
from lineage.consumption import Checkpoint
from lineage.models import ModelVersion
from lineage.schemas import BAN, EVENT, LIFT
from training.serving.desk import Desk
from training.serving.served import Served, servable

log = logging.getLogger("stemma.serve")

POLL_S = 2.0
RETRY_S = 30.0
_TELLS = (EVENT, BAN, LIFT)

Load = Callable[[Checkpoint, ModelVersion], Served]


class Follower:
    """Keeps a desk on what a reference names."""

    def __init__(
        self,
        settings: Settings,
        reference: str,
        desk: Desk,
        load: Load,
        *,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Follow `reference`; `load` makes a model that answers."""
        self._settings = settings
        self._reference = reference
        self._desk = desk
        self._load = load
        self._retry_s = retry_s
        self._clock = clock
        self._seen: tuple[int, ...] = ()
        self._retry_at: float | None = None
        self._said = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> ModelVersion:
        """Load what the reference names, or raise: nobody has to be kept waiting yet."""
        self._seen = self._newest()
        checkpoint, version = servable(self._settings, self._reference)
        if models.aliases(self._settings).get(version.name, {}).get(self._reference) == version.version:
            # Another model may get this alias, too; of it we follow this model's.
            self._reference = f"{version.name}@{self._reference}"
        self._desk.swap(self._load(checkpoint, version))
        return version

    def follow(self, *, every_s: float = POLL_S) -> None:
        """Look again and again, in a thread, until stop()."""
        self._thread = threading.Thread(target=self._run, args=(every_s,), name="follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Look once, and put the desk where the reference points. What goes wrong is logged, never raised."""
        try:
            newest = self._newest()
            is_due = self._retry_at is not None and self._clock() >= self._retry_at
            if newest == self._seen and not is_due:
                return
            self._seen, self._retry_at = newest, self._clock() + self._retry_s
            self._go()
            self._retry_at, self._said = None, ""
        except Exception as error:  # the old model goes on, whatever this is
            self._say(f"{error}; {self._desk.served.version if self._desk.served else 'nobody'} goes on")
            self._withdraw_recalled(str(error))

    def _go(self) -> None:
        checkpoint, version = servable(self._settings, self._reference)
        standing = self._desk.served
        if standing is not None and standing.version == version:
            return
        since = self._clock()
        self._desk.swap(self._load(checkpoint, version))
        give_back_memory()
        before, seconds = standing.version if standing else "nobody", self._clock() - since
        log.info("serve %s: %s instead of %s, in %.1f s", self._reference, version, before, seconds)

    def _withdraw_recalled(self, error: str) -> None:
        standing = self._desk.served
        try:
            if standing is not None and standing.version.version in models.recalled_versions(
                self._settings, standing.version.name
            ):
                why = f"{standing.version} was recalled, and nothing takes its place: {error}"
                self._desk.swap(None, why_none=why)
                self._say(f"nobody answers from now on: {why}")
        except Exception as again:  # nor can that be told now: the next try tells
            self._say(str(again))

    def _say(self, what: str) -> None:
        if what != self._said:  # each try says the same
            log.error("serve %s: %s", self._reference, what)
        self._said = what

    def _newest(self) -> tuple[int, ...]:
        found = (tables.snapshot(self._settings, spec) for spec in _TELLS)
        return tuple(each.version if each else -1 for each in found)

    def _run(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            self.look()
