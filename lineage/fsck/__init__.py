"""Check what is stored against what must hold.

Each check is a function from the lake to how much it looked at and the sentences it found wrong.

stored.py
    files         every file of every version of a table is as it was written; no commit of a run is lost
    commits       every commit of a table of rows was made by a run, none by hand
    sources       of a sample of source rows: what lies at the span of an unchanged source gives the row again
    closure       every parent (by id and number), consumed row and curriculum member is a row that is stored,
                  or was recalled; a member says what its example says
    exactly_once  no row id or row number is stored twice
trained.py
    admitted      no curriculum or checkpoint was built from a batch without a passing verdict
    ledger        what a checkpoint ate is what was planned, each slot once, and what its bitmap holds
    roots         every curriculum, plan and consumption digest, and every adapter, recomputes
    reports       every accuracy recomputes from its predictions; every number is what its run measured
recorded.py
    balance       rows in (+ created) = rows out + merged + rejected + quarantined, for every finished run
    books         what finished runs, commits and row numbers speak of is on record
    aliases       every alias names a registered version whose checkpoint is there, here and in MLflow
    recalls       nothing that was recalled is stored, nor what fell with it; no alias stands on what ate it;
                  what was lifted is back
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from infra.settings import Settings
from lineage import models
from lineage.fsck.recorded import aliases, astray, balance, books, recalls
from lineage.fsck.stored import Findings, closure, commits, exactly_once, files, sources
from lineage.fsck.trained import admitted, ledger, reports, roots
from lineage.tables import TableError


@dataclass(frozen=True)
class Check:
    """One invariant, and what breaks it; empty: it holds."""

    name: str
    looked_at: int
    """How many things were checked: a check that looked at nothing proves nothing."""

    found: tuple[str, ...]


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
    "aliases": aliases,
    "recalls": recalls,
}


def fsck(settings: Settings) -> list[Check]:
    """Run every check. A check that cannot be carried out counts as broken."""
    done: list[Check] = []
    for name, check in CHECKS.items():
        try:
            looked_at, found = check(settings)
        except TableError as error:
            looked_at, found = 0, [f"could not be checked: {error}"]
        except Exception as error:  # a lake that cannot be read is not sound
            sentence = " ".join(str(error).split())[:300]
            looked_at, found = 0, [f"could not be checked: {type(error).__name__}: {sentence}"]
        done.append(Check(name, looked_at, tuple(found)))
    return done


def repair(settings: Settings) -> list[str]:
    """Mend what can be mended without a choice; a sentence per repair.

    Aliases in MLflow that were moved by hand, or not mirrored, are put where the lake's log says they stand.
    """
    done: list[str] = []
    for name in models.aliases(settings):
        if astray(settings, name):
            models.mirror_aliases(settings, name, anew=True)
            done.append(f"aliases of '{name}' in MLflow stand again where the lake's log says")
    return done


__all__ = [
    "CHECKS",
    "Check",
    "Findings",
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
    "recalls",
    "repair",
    "reports",
    "roots",
    "sources",
]
