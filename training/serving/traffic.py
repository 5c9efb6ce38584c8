"""The log of what was asked and answered: lines of JSON in files of the lake's folder `traffic`.

    <label>-<when it began>-<process>-0001.jsonl, -0002.jsonl, ...      each of one process alone

Lines are written whole and at once. What a crash tears is the last line of a file that nobody appends to
again: `stemma ingest` puts it into quarantine, and the others are as they were.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from training.serving.requests import ServingError

MAX_BYTES = 64 * 1024 * 1024


class TrafficLog:
    """Appends lines; safe to call from many threads."""

    def __init__(self, folder: Path, label: str, *, began: dt.datetime, max_bytes: int = MAX_BYTES) -> None:
        """Write into a folder, which is made where absent; the first file comes with the first line.

        Raises ServingError where the folder cannot be written.
        """
        self.folder = folder
        self._head = f"{re.sub(r'[^0-9A-Za-z_-]', '-', label)}-{began:%Y%m%dT%H%M%SZ}-{os.getpid()}"
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._size = self._number = 0
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServingError(f"the traffic cannot be logged in '{folder}': {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ServingError(f"the traffic cannot be logged in '{folder}', which is read-only for you")

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, each with its line end. Raises OSError, and leaves no part of them."""
        if not lines:
            return
        written = b"".join(lines)
        with self._lock:
            if self._file is not None and self._size + len(written) > self._max_bytes:
                self._end()
            file = self._file if self._file is not None else self._begin()
            try:
                rest = memoryview(written)
                while rest:
                    rest = rest[os.write(file, rest) :]
            except OSError:  # a full disk: what is there must still be lines
                os.ftruncate(file, self._size)
                os.lseek(file, self._size, os.SEEK_SET)
                raise
            self._size += len(written)

    def close(self) -> None:
        """Have all that was written reach the disk."""
        with self._lock:
            if self._file is not None:
                self._end()

    def _begin(self) -> int:
        while True:
            self._number += 1
            path = self.folder / f"{self._head}-{self._number:04d}.jsonl"
            try:
                self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
            except FileExistsError:  # of a process of that number on another machine
                continue
            self._size = 0
            return self._file

    def _end(self) -> None:
        file, self._file = self._file, None
        assert file is not None
        try:
            os.fsync(file)
        finally:
            os.close(file)
