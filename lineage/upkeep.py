"""Upkeep: give back the space that nothing rests on any more, and clear what killed jobs have left.

vacuum     files of withdrawn batches, of rows that a recall took out and of books that were written anew,
           where no pinned version and no version of the last days needs them; as a Run
leftovers  what a job that was killed left beside the tables: nobody reads it, nobody misses it
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import math
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import runs, tables
from lineage.agents import is_here
from lineage.consumption import checkpoints
from lineage.pins import Pins, pins
from lineage.rows import canonical_json
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import RUN, TABLES
from lineage.tables import TableError

log = logging.getLogger("stemma.upkeep")

KEEP_DAYS = 30  # as long as Delta's own log is kept by default
_CLOCKS_S = 60  # what the clocks of two machines, or of one and its storage, may be apart


class UpkeepError(TableError):
    """A vacuum was not begun; the message says why."""


@dataclass(frozen=True)
class Spare:
    """What a vacuum would remove, and what it must not."""

    files: dict[str, dict[str, int]]
    """Table -> path -> bytes."""

    pinned: Pins
    keep_hours: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(size for files in self.files.values() for size in files.values())


def spare(settings: Settings, *, keep_days: int, now: dt.datetime) -> Spare:
    """What could go; changes nothing. Raises RunError while a job of another process is in progress here."""
    if keep_days < 0:
        raise UpkeepError(f"cannot keep the versions of the last {keep_days} days; expected 0 or more")
    runs.require_idle(settings, to="remove files")
    pinned = pins(settings)
    keep_hours = max(24 * keep_days, _going_on_elsewhere(settings, now))
    files = {
        name: tables.spare(settings, spec, keep_versions=pinned.get(name, {}), keep_hours=keep_hours)
        for name, spec in TABLES.items()
    }
    return Spare({name: found for name, found in files.items() if found}, pinned, keep_hours)


def vacuum(runtime: Runtime, found: Spare) -> Outcome:
    """Remove what is spare. The facets hold `bytes` per table; where nothing is spare, nothing is done."""
    settings = runtime.settings
    if not found.files:
        return Outcome(counts={"files": 0, "bytes": 0}, facets={"bytes": {}})

    def work(run: Run) -> Outcome:
        runs.require_idle(settings, to="remove files")
        gone = {
            name: tables.vacuum(settings, TABLES[name], files, run_id=run.id)
            for name, files in found.files.items()
        }
        freed = {name: sum(files.values()) for name, files in gone.items()}
        counts = {"files": sum(map(len, gone.values())), "bytes": sum(freed.values())}
        log.info("vacuum %s: %d files, %s bytes", run.id, counts["files"], f"{counts['bytes']:,}")
        return Outcome((), counts, {"bytes": freed})

    listed = hashlib.sha256(canonical_json(found.files)).hexdigest()
    config = {"keep_hours": found.keep_hours}
    return carry_out(runtime, "vacuum", config=config, inputs=[f"files:{listed}"], work=work)


@dataclass(frozen=True)
class Leftovers:
    """What killed jobs left; `looked_at` counts the runs, files and folders that were asked about."""

    looked_at: int
    starts: tuple[dict[str, Any], ...]
    """START events of runs whose process died here, and which are on record as going on."""

    files: dict[str, dict[str, int]]
    """Table -> path -> bytes, of files that no version names, and that no job can have written that was in
    progress when the listing began, or began since. The last minute's are not looked at."""

    folders: tuple[str, ...]
    """Folders of trainings that came to no checkpoint and are not going on."""

    def told(self) -> list[str]:
        """A sentence for each."""
        said = [
            f"run {each['run_id']} ({each['job']}) is on record as going on, but its process is dead"
            for each in self.starts
        ]
        said += [
            f"file '{path}' of '{name}' ({size:,} bytes) is named by no version"
            for name, files in self.files.items()
            for path, size in files.items()
        ]
        return said + [f"folder '{folder}' is of a training that came to no end" for folder in self.folders]


def leftovers(settings: Settings) -> Leftovers:
    """What could be cleared; changes nothing."""
    since_s = time.time()  # before the runs are read: who begins after that is not among them
    history = tables.read(settings, RUN).sort_by("at").to_pylist()
    starts = runs.left_behind(settings)
    dead = {each["run_id"] for each in starts}
    going_on = [each for each in runs.not_ended(history) if each["run_id"] not in dead]
    ended = {each["run_id"] for each in history} - {each["run_id"] for each in going_on}
    before_s = min([since_s, *(each["at"].timestamp() for each in going_on)]) - _CLOCKS_S
    files = {name: tables.orphans(settings, spec, before_s=before_s) for name, spec in TABLES.items()}
    made = {checkpoint.run_id for checkpoint in checkpoints(settings)}
    made |= {each["run_id"] for each in history if each["status"] == "COMPLETE"}  # whose row is lost
    folders = [
        (folder, match[1])
        for folder in _folders(settings)
        if (match := re.fullmatch(r"\.?([0-9a-f]{16}-\d+)\b.*", folder.name))
    ]
    left = tuple(str(folder) for folder, run_id in folders if run_id in ended and run_id not in made)
    looked_at = len({each["run_id"] for each in history}) + len(folders)
    return Leftovers(looked_at, tuple(starts), {n: found for n, found in files.items() if found}, left)


def clear(runtime: Runtime) -> list[str]:
    """Mark and remove what is left over; a sentence for each.

    Raises RunError while a job of another process is in progress here.
    """
    runs.require_idle(runtime.settings, to="remove what killed jobs left")
    found = leftovers(runtime.settings)
    runs.mark_dead(runtime, found.starts)
    for name, files in found.files.items():
        tables.remove_orphans(runtime.settings, TABLES[name], files)
    for folder in found.folders:
        shutil.rmtree(folder)
    return found.told()


def _folders(settings: Settings) -> list[Path]:
    """Where checkpoints lie on this machine's disk; in an object store there are no hidden folders."""
    place = Path(settings.path("checkpoints"))
    return sorted(place.iterdir()) if settings.is_local and place.is_dir() else []


def _going_on_elsewhere(settings: Settings, now: dt.datetime) -> int:
    """Hours since the first run of another machine began that is not on record as ended; 0: there is none.

    It may have written files that it has not committed yet.
    """
    history = tables.read(settings, RUN, columns=["run_id", "status", "agent", "at"]).to_pylist()
    begun = [each["at"] for each in runs.not_ended(history) if not is_here(json.loads(each["agent"]))]
    return math.ceil((now - min(begun)).total_seconds() / 3600) + 1 if begun else 0
