"""Check what is stored against what must hold.

Each check is a function from the lake to how much it looked at and the sentences it found wrong.

stored.py
    files         every file of every version of a table is as it was written; no commit of a run is lost
    commits       every commit of a table of rows was made by a run, none by hand
    sources       of a sample of source rows: what lies at the span of an unchanged source gives the row again
    closure       every parent (by id and number), consumed row, curriculum member and reviewed row is a row
                  that is stored, or was recalled; parents are earlier rows, so nothing comes from itself; a
                  member says what its example says
    exactly_once  no row id, row number or place in a source is stored twice
trained.py
    admitted      no curriculum or checkpoint was built from a batch without a passing verdict
    ledger        what a checkpoint ate is what was planned, each slot once, and what its bitmap holds; of
                  another trainer's, which draws its own order, it is among what that was offered
    roots         every digest of a curriculum, plan, consumption and adapter recomputes: of the adapter's
                  tensors and, where that is on record, of the config beside them
    reports       every accuracy recomputes from its predictions; every number is what its run measured
kept.py
    runs          every run's id is the digest of its job, config, inputs and code; it began before it ended
    pins          every registered version leads to its checkpoint and curriculum; no vacuum took what a live
                  model or a recall rests on
recorded.py
    balance       rows in (+ created) = rows out + merged + rejected + quarantined + empty, for every finished
                  run
    books         what finished runs, commits and row numbers speak of is on record
    aliases       every alias names a registered version whose checkpoint is there, here and in MLflow
    mirrored      MLflow, where it can be asked, shows every version with the tags that follow from the record
    recalls       nothing that was recalled is stored, nor what fell with it; no alias stands on what ate it;
                  what was lifted is back

A check that needs a damaged file of a run's plan or consumption names it and goes on with the other runs.

What killed jobs left breaks nothing: runs that nobody ended, files that no version names, folders of
trainings without a checkpoint. They are told as remarks, under `leftovers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import mirror, models, registry, upkeep
from lineage.fsck.kept import pins, runs
from lineage.fsck.recorded import aliases, astray, balance, books, mirrored, recalls
from lineage.fsck.stored import Findings, closure, commits, exactly_once, files, sources
from lineage.fsck.trained import admitted, ledger, reports, roots
from lineage.runs import require_idle
from lineage.tables import TableError


@dataclass(frozen=True)
class Check:
    """One invariant, and what breaks it; empty: it holds."""

    name: str
    looked_at: int
    """How many things were checked: a check that looked at nothing proves nothing."""

    found: tuple[str, ...]

    remarks: tuple[str, ...] = ()
    """What is left over and breaks nothing."""


CHECKS: dict[str, Callable[[Settings], Findings]] = {
    "files": files,
    "commits": commits,
    "sources": sources,
    "balance": balance,
    "books": books,
    "closure": closure,
    "exactly_once": exactly_once,
    "admitted": admitted,
    "ledger": ledger,
    "roots": roots,
    "reports": reports,
    "runs": runs,
    "pins": pins,
    "aliases": aliases,
    "mirrored": mirrored,
    "recalls": recalls,
}


RECORD = ("files", "commits", "balance", "books", "closure", "ledger")
"""The checks that find it when a part of the record is lost."""


def fsck(settings: Settings) -> list[Check]:
    """Run every check, and look for leftovers. A check that cannot be carried out counts as broken."""
    done = [_checked(name, check, settings) for name, check in CHECKS.items()]
    try:
        left = upkeep.leftovers(settings)
    except TableError:  # what is wrong with that table is told above
        return done
    return [*done, Check("leftovers", left.looked_at, (), tuple(left.told()))]


def _checked(name: str, check: Callable[[Settings], Findings], settings: Settings) -> Check:
    try:
        looked_at, found = check(settings)
    except TableError as error:
        looked_at, found = 0, [f"could not be checked: {error}"]
    except Exception as error:  # a lake that cannot be read is not sound
        sentence = " ".join(str(error).split())[:300]
        looked_at, found = 0, [f"could not be checked: {type(error).__name__}: {sentence}"]
    return Check(name, looked_at, tuple(found))


@dataclass(frozen=True)
class Repair:
    """What a repair did, a sentence each."""

    done: tuple[str, ...]

    left: tuple[str, ...] = ()
    """What it would have done and left alone, and first of all why."""


def repair(settings: Settings) -> Repair:
    """Bring what stands beside the record in line with it: what killed jobs left, and MLflow.

    Runs whose process died are marked, and what killed jobs left is removed. Aliases in MLflow that were
    moved by hand, or not mirrored, are put where the lake's log says they stand, and tags of versions say
    again what the lake does. Nothing of that is done
    while a part of the record is lost: the file that no version names may be the last copy of a commit, and
    a log that lost its end says where aliases once stood.

    Raises RunError while a job of another process is in progress here.
    """
    runtime = Runtime(settings)
    require_idle(settings, to="remove what killed jobs left")
    checked = [_checked(name, CHECKS[name], settings) for name in RECORD]
    lost = [f"{check.name}: {sentence}" for check in checked for sentence in check.found]
    if lost:
        more = f" (and {len(lost) - 1} more: stemma fsck)" if lost[1:] else ""
        why = (
            f"nothing was repaired, for the record is not whole: {lost[0]}{more}; mend that first, then again"
        )
        return Repair((), (why, *_would_do(settings)))
    done = upkeep.clear(runtime)
    for name in models.aliases(settings):
        if astray(settings, name):
            models.mirror_aliases(settings, name, anew=True)
            done.append(f"aliases of '{name}' in MLflow stand again where the lake's log says")
    for name in sorted({version.name for version in models.versions(settings)}):
        registry.if_reachable(
            lambda name=name: done.extend(
                f"the tags of {version} in MLflow say again what the lake says"
                for version in mirror.mend_tags(settings, name)
            )
        )
    return Repair(tuple(done))


def _would_do(settings: Settings) -> Iterator[str]:
    """What there is to repair, as far as a damaged lake tells."""
    found: list[str] = []
    try:
        found += upkeep.leftovers(settings).told()
        for name in models.aliases(settings):
            registry.if_reachable(lambda name=name: found.extend(astray(settings, name)))
        found += mirrored(settings)[1]
    except TableError as error:
        found.append(f"and more that cannot be told: {error}")
    yield from found


__all__ = [
    "CHECKS",
    "RECORD",
    "Check",
    "Findings",
    "Repair",
    "admitted",
    "aliases",
    "balance",
    "books",
    "closure",
    "commits",
    "exactly_once",
    "files",
    "fsck",
    "ledger",
    "mirrored",
    "pins",
    "recalls",
    "repair",
    "reports",
    "roots",
    "runs",
    "sources",
]
