"""What came of each hook: a small JSON file per event and hook, in the lake's folder `hooks`."""

from __future__ import annotations

import datetime as dt
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.fs

Status = Literal["running", "ok", "failed", "timeout", "not_started"]
_PLACE = "hooks"


@dataclass(frozen=True)
class Outcome:
    """How one hook took one event."""

    event: str
    """The event's id."""
    kind: str
    model: str
    hook: str
    target: str
    """Where it led: a program, or a URL's scheme and host."""
    status: Status
    started: str
    """ISO 8601, UTC."""
    until: str
    """By when it is over, come what may."""
    ended: str = ""
    seconds: float = 0.0
    exit_code: int = -1
    """Of a command; minus the signal that ended it. -1 where there is none."""
    http_status: int = 0
    """Of a webhook; 0 where there is none."""
    output: str = ""
    """The last 2,048 characters of what it said, without secrets; or why it did not start."""

    def was_told(self, now: dt.datetime) -> bool:
        """Has the hook had the event, or is it at it? One that runs long after its time was cut off."""
        return self.status != "running" or now < dt.datetime.fromisoformat(self.until)


class Outcomes:
    """The files of one lake, local or in an object store."""

    def __init__(self, lake: str) -> None:
        """The outcomes of the lake at this root."""
        self._lake = lake

    def write(self, outcome: Outcome) -> None:
        """Store an outcome in place of what was known before, for its owner alone. Raises OSError."""
        filesystem, folder = self._open()
        path = f"{folder}/{outcome.event}-{outcome.hook}.json"
        text = json.dumps(asdict(outcome), indent=2, ensure_ascii=False) + "\n"
        if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
            return _write_private(Path(path), text)
        with filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(text.encode())

    def read(self, event: str, hook: str) -> Outcome | None:
        """What came of an event with a hook; None where nothing is known, or the file was cut off."""
        filesystem, folder = self._open()
        return _read(filesystem, f"{folder}/{event}-{hook}.json")

    def last(self) -> list[Outcome]:
        """All that is known, the last begun last."""
        filesystem, folder = self._open()
        selector = pyarrow.fs.FileSelector(folder, allow_not_found=True)
        found = [_read(filesystem, each.path) for each in filesystem.get_file_info(selector)]
        return sorted((each for each in found if each), key=lambda each: (each.started, each.hook))

    def _open(self) -> tuple[pyarrow.fs.FileSystem, str]:
        if "://" not in self._lake:
            return pyarrow.fs.LocalFileSystem(), f"{self._lake}/{_PLACE}"
        filesystem, path = pyarrow.fs.FileSystem.from_uri(self._lake)
        return filesystem, f"{path}/{_PLACE}"


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(PermissionError):  # another user's, who settles who may read it
        path.parent.chmod(0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text.encode(errors="replace"))


def _read(filesystem: pyarrow.fs.FileSystem, path: str) -> Outcome | None:
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            values: dict[str, Any] = json.loads(stream.read())
        return Outcome(**values)
    except (OSError, ValueError, TypeError):  # not there, or not whole
        return None
