"""Reads sources on Ray Data and commits their rows, once per table.

    works -> lease of row numbers -> tasks of many stretches -> quarantine, rejected, sources -> commit

A task makes one file of what it reads: at least LEAST of input where there is that much, at most MOST.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from infra import storage
from infra.runtime import Runtime
from infra.settings import Settings
from infra.storage import StorageError
from lineage import bans, sources, tables
from lineage.runs import Run, code_revision, identity_of, of_any_attempt
from lineage.schemas import QUARANTINE, REJECTED, ROW_TABLES
from lineage.sources import Entry
from lineage.stamp import Stamp
from lineage.tables import TableVersion, WrittenFile
from pipelines.runner.losses import RunnerError, check_balance, counted, require_same_bans
from pipelines.runner.reading import COUNTED, Done, Keeping, Stretch, Task, Work, carry_out
from pipelines.runner.rows import together

log = logging.getLogger("stemma.runner")

LEAST, MOST = 32 * 1024 * 1024, 256 * 1024 * 1024  # bytes of input behind one file
_TASKS_PER_CPU = 3  # so that the last one does not keep the others waiting for long
_RETRIES = 2  # of a part whose worker died
_ROWS_PER_RECORD = 16  # of Parquet
_BYTES_PER_ROW = 16  # no format says a row in less, where a reader makes several of a record


class TooManyQuarantined(RunnerError):
    """More records than allowed could not be read; they are in quarantine, and no row was stored."""


@dataclass(frozen=True)
class Told:
    """How far a job is: for whoever shows it."""

    read_bytes: int
    all_bytes: int
    rows: int


def read_sources(
    runtime: Runtime,
    works: Sequence[Work],
    *,
    run: Run,
    entries: Sequence[Entry] = (),
    keeping: Keeping | None = None,
    most_quarantined: float = 1.0,
    show: Callable[[Told], None] = lambda told: None,
) -> tuple[list[TableVersion], dict[str, int]]:
    """Read all works and commit their rows, one batch per table; without a new row nothing is committed.

    Returns the batches, and the counts. Raises AlreadyStored where another process stored one of the works
    meanwhile, StorageError where a source changed while it was read, RunnerError where a recall came, and
    TooManyQuarantined above `most_quarantined` (share of the records read). Then nothing is visible.
    """
    settings, keeping = runtime.settings, keeping or Keeping()
    stamp = Stamp(run.id, code_revision(), runtime.now())
    banned = bans.standing(settings)
    done: list[tuple[Task, Done]] = []
    told = Told(0, sum(block.end - block.first for work in works for block in work.blocks), 0)
    show(told)
    for round_of in _rounds(works):
        given = frozenset().union(*(each.ids for _, each in done))
        tasks = _tasks(
            runtime, [replace(work, known=work.known | given) for work in round_of], run, len(done)
        )
        last = len(round_of) == len(works)
        for task, result in _carried_out(
            runtime,
            tasks,
            settings=settings,
            stamp=stamp,
            banned=banned,
            keeping=keeping,
            ids_wanted=not last,
        ):
            done.append((task, result))
            size = sum(each.block.end - each.block.first for each in task.stretches)
            told = Told(told.read_bytes + size, told.all_bytes, told.rows + result.counts["out"])
            show(told)
    counts = _summed(each for _, each in done)
    check_balance(counts)
    _require_unchanged(works)
    earlier = _Earlier.of(settings, run)
    tables.replace(
        settings,
        together(QUARANTINE, (*earlier.quarantined(settings, run), *(each.quarantine for _, each in done))),
        into=QUARANTINE,
        run_id=run.id,
    )
    if counts["quarantined"] > most_quarantined * counts["in"]:
        raise TooManyQuarantined(
            f"{counts['quarantined']} of {counts['in']} records could not be read, more than the "
            f"{most_quarantined:.0%} that are allowed, so nothing was stored; see: "
            f"stemma query \"select reason, count(*) from quarantine where run_id = '{run.id}' group by 1\"; "
            "allow more with --max-quarantined"
        )
    tables.replace(
        settings,
        earlier.rejected(settings, run, together(REJECTED, (each.rejected for _, each in done))),
        into=REJECTED,
        run_id=run.id,
    )
    sources.record(settings, entries, run_id=run.id, at=runtime.now())
    require_same_bans(settings, banned)
    versions = []
    for spec in {task.into.name: task.into for task, _ in done}.values():
        files: list[WrittenFile] = [each.file for task, each in done if task.into is spec and each.file]
        mine = [work for work in works if work.reader.writes is spec]
        if files:
            versions.append(
                tables.commit(
                    settings,
                    files,
                    into=spec,
                    run_id=run.id,
                    keys=[work.key for work in mine],
                    facts={"counts": _summed(each for task, each in done if task.into is spec)},
                    counted=dict(work.beginning for work in mine if work.beginning is not None),
                )
            )
    log.info("ingest %s: %s", run.id, counted(counts))
    return versions, counts


def _summed(done: Iterable[Done]) -> dict[str, int]:
    together = list(done)
    return {name: sum(each.counts[name] for each in together) for name in COUNTED}


@dataclass(frozen=True)
class _Earlier:
    """What an earlier go at the same work committed before it died: what that lost stays on record."""

    keys: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, run: Run) -> _Earlier:
        keys: set[str] = set()
        for version in stored_earlier(settings, run):
            keys.update(tables.facts(settings, version)["keys"])
        return cls(frozenset(keys))

    def quarantined(self, settings: Settings, run: Run) -> list[pa.Table]:
        if not self.keys:
            return []
        left = tables.read(settings, QUARANTINE, where=of_any_attempt(run.identity))
        named = zip(left["source_revision"].to_pylist(), left["reader"].to_pylist(), strict=True)
        mine = [self._holds(f"source:{revision}:{reader}") for revision, reader in named]
        return [left.filter(pa.array(mine, pa.bool_()))]

    def rejected(self, settings: Settings, run: Run, new: pa.Table) -> pa.Table:
        if not self.keys:
            return new
        left = tables.read(settings, REJECTED, where=of_any_attempt(run.identity))
        again = set(new["row_id"].to_pylist())
        named = zip(left["row_id"].to_pylist(), left["step"].to_pylist(), strict=True)
        mine = [row_id not in again and self._holds(step) for row_id, step in named]
        return pa.concat_tables([new, left.filter(pa.array(mine, pa.bool_()))])

    def _holds(self, reader: str) -> bool:
        return any(f"{reader}@" in key for key in self.keys)


def beginning(origin: bytes, reader: str) -> str:
    """What the commits that hold a source, or one that begins alike, are counted under."""
    return f"beginning:{origin.hex()}:{reader}"


def stored_earlier(settings: Settings, run: Run) -> list[TableVersion]:
    """The batches that earlier goes at the same work committed, and that were not withdrawn."""
    found: list[TableVersion] = []
    for spec in ROW_TABLES:
        mine = [v for by, v in tables.batches(settings, spec).items() if identity_of(by) == run.identity]
        gone = tables.withdrawn(settings, spec) if mine else {}
        found += [version for version in mine if str(version) not in gone]
    return found


def _rounds(works: Sequence[Work]) -> list[list[Work]]:
    """Works by rounds, such that no two of one round can give the same row.

    Only sources that begin with the same record can; they go in turn.
    """
    rounds: list[list[Work]] = []
    seen: dict[tuple[bytes, str], int] = {}
    for work in works:
        begins = (work.source.origin, work.reader.fingerprint.name)
        turn = seen[begins] = seen.get(begins, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(work)
    return rounds


def _tasks(runtime: Runtime, works: Sequence[Work], run: Run, number: int) -> list[Task]:
    """Stretches in order, several to a task; numbers follow from their places, so nobody need agree."""
    stretches = [
        (work, block, _most_rows(work, block.lines, block.end - block.first))
        for work in works
        for block in work.blocks
    ]
    next_no = tables.reserve(runtime.settings, sum(most for *_, most in stretches), run_id=run.id)
    whole = sum(block.end - block.first for _, block, _ in stretches)
    cpus = int(runtime.ray().cluster_resources().get("CPU", 1))
    size_of_file = min(max(whole // (cpus * _TASKS_PER_CPU), LEAST), MOST)
    tasks: list[Task] = []
    open_tasks: dict[str, tuple[list[Stretch], int]] = {}

    def close(name: str) -> None:
        mine, _ = open_tasks.pop(name)
        into = mine[0].work.reader.writes
        tasks.append(Task(f"{run.id}-{number + len(tasks):05d}", into, tuple(mine)))

    for work, block, most in stretches:
        name = work.reader.writes.name
        mine, size = open_tasks.get(name, ([], 0))
        mine.append(Stretch(work, block, next_no, most))
        next_no += most
        open_tasks[name] = (mine, size + block.end - block.first)
        if open_tasks[name][1] >= size_of_file:
            close(name)
    for name in list(open_tasks):
        close(name)
    return tasks


def _most_rows(work: Work, lines: int, size: int) -> int:
    if work.framing == "lines" and (most := getattr(work.reader, "rows_per_record", None)) is not None:
        return lines * most
    if work.framing == "parquet":  # what is said again and again takes no room in it
        lines *= _ROWS_PER_RECORD
    return size // _BYTES_PER_ROW + lines + 1


def _carried_out(runtime: Runtime, tasks: Sequence[Task], **how: Any) -> Iterable[tuple[Task, Done]]:
    """Each task with what became of it. A worker that dies is retried; past that the job fails."""
    ray = runtime.ray()

    def on_worker(row: dict[str, Any]) -> dict[str, Any]:
        number = row["id"]
        return {"number": number, "done": pickle.dumps(carry_out(tasks[number], **how))}

    numbers = ray.data.from_items(
        [{"id": number} for number in range(len(tasks))], override_num_blocks=len(tasks)
    )
    found: dict[int, Done] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of these arguments none other sets max_retries
        # Left alone, Ray Data tries for ever: a record that kills its worker would hold the job up for good.
        read = numbers.map(on_worker, ray_remote_args_fn=lambda: {"max_retries": _RETRIES})
    try:
        for row in read.iter_rows():
            found[row["number"]] = pickle.loads(row["done"])
            yield tasks[row["number"]], found[row["number"]]
    except ray.exceptions.WorkerCrashedError as error:
        raise RunnerError(
            f"a worker died {_RETRIES + 1} times while it read the same part, so nothing was stored; it may "
            "have run out of memory"
        ) from error
    if len(found) != len(tasks):
        raise RunnerError(
            f"{len(tasks) - len(found)} of {len(tasks)} tasks came to no end; nothing was stored"
        )


def _require_unchanged(works: Sequence[Work]) -> None:
    for work in works:
        if not storage.unchanged(work.file) and not _merely_grew(work):
            raise StorageError(
                f"source '{work.file.uri}' changed while it was read, so nothing was stored; run it again"
            )


def _merely_grew(work: Work) -> bool:
    """Does it still begin with what was read? A log that is written to must not have to stand still."""
    if work.framing == "parquet":
        return False
    size = work.file.size
    try:
        return (
            storage.survey(work.file.uri, prefixes=(size,)).prefix_revisions.get(size) == work.file.revision
        )
    except StorageError:
        return False
