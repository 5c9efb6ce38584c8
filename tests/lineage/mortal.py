"""A job that is cut off at one of its writes, as SIGKILL would do: nothing is written or cleaned up after it.

    with Mortal(3, is_done=False) as mortal:
        ingest(...)                 # dies at the third write, unless it needs fewer
    mortal.died

The writes are those at our borders: Delta's transactions, Parquet files, what a training leaves on the disk.
Whoever looks at the record afterwards finds the number of a process that has ended.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, wraps
from types import TracebackType
from typing import Any
from unittest.mock import patch

import deltalake
import pyarrow.parquet as pq

from lineage import runs, tables
from lineage.tables import leases

WRITES: tuple[tuple[Any, str], ...] = (
    (deltalake.DeltaTable, "create_write_transaction"),
    (deltalake.DeltaTable, "create"),
    (leases, "write_deltalake"),
    (pq.ParquetWriter, "write_table"),  # before it the file is there, and empty
    (pathlib.Path, "write_text"),
    (pathlib.Path, "rename"),
)
CLEAN_UP: tuple[tuple[Any, str], ...] = ((shutil, "rmtree"), (pathlib.Path, "unlink"))


class Killed(BaseException):
    """The end of the process: no `except Exception` sees it."""


class Mortal:
    """A context in which the nth write is the last thing that is done, or is not done any more."""

    def __init__(self, writes: int, *, is_done: bool):
        self._left, self._is_last_done = writes, is_done
        self._patches = ExitStack()
        self.died = False

    def __enter__(self) -> Mortal:
        ended = replace(runs.agent(), process=_ended_process(), started=0)
        self._patches.enter_context(patch.object(runs, "agent", lambda: ended))
        for owner, name in WRITES:
            self._replace(owner, name, self._counted)
        for owner, name in CLEAN_UP:
            self._replace(owner, name, self._refused)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._patches.close()
        if self.died:
            tables.forget()  # the next process remembers nothing
        return self.died

    def _replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        wrapped = wrap(getattr(owner, name))
        is_static = owner is deltalake.DeltaTable and name == "create"
        self._patches.enter_context(
            patch.object(owner, name, staticmethod(wrapped) if is_static else wrapped)
        )

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._refuse_the_dead()
            self._left -= 1
            if self._left:
                return write(*args, **kwargs)
            if self._is_last_done:
                write(*args, **kwargs)
            self.died = True
            raise Killed

        return counted

    def _refused(self, clean: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(clean)
        def refused(*args: Any, **kwargs: Any) -> Any:
            self._refuse_the_dead()
            return clean(*args, **kwargs)

        return refused

    def _refuse_the_dead(self) -> None:
        if self.died:
            raise Killed


@cache
def _ended_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([shutil.which("true") or os.devnull]) as process:
        process.wait()
    return process.pid
