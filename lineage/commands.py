"""The verbs of this folder that tell what is there: `stemma` status, fsck."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from infra.cli import Json, Lake, existing
from infra.screen import print_table
from infra.settings import Settings
from lineage import bans, models, runs, tables, verdicts
from lineage import fsck as checks
from lineage.schemas import BOOKS, ROW_TABLES, TABLES


def status(lake: Lake = None, as_json: Json = False) -> int:
    """What the lake holds: tables, batches and their verdicts, runs, models and aliases.

    Example: stemma status
    """
    settings = existing(lake)
    found = _status(settings)
    if as_json:
        print(json.dumps(found, default=str))
        return 0
    print_table("tables", found["tables"])
    print_table("batches", found["batches"])
    print_table("models", found["models"])
    print_table("recalls", found["recalls"])
    print_table("last runs", found["runs"][-15:])
    return 0


def fsck(
    repair: Annotated[
        bool, typer.Option("--repair", help="First set aliases in MLflow back to where the lake's log says.")
    ] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Check every invariant of the lake; exit 1 if one is broken.

    Example: stemma fsck
    """
    settings = existing(lake)
    for sentence in checks.repair(settings) if repair else ():
        print(f"repaired: {sentence}", file=sys.stderr)
    done = checks.fsck(settings)
    if as_json:
        print(json.dumps([vars(check) for check in done]))
    else:
        for check in done:
            print(
                f"{'ok    ' if not check.found else 'BROKEN'}  {check.name:<13} {check.looked_at:>8,} checked"
            )
            for sentence in check.found[:20]:
                print(f"        {sentence}")
    return 1 if any(check.found for check in done) else 0


def _status(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    held, batches = [], []
    for spec in TABLES.values():
        version = tables.current(settings, spec)
        if version is not None:
            rows = tables.read(settings, spec, columns=[spec.schema.names[0]]).num_rows
            held.append({"table": str(version), "rows": rows, "holds": spec.purpose})
    gone = {str(b) for s in ROW_TABLES for b in tables.withdrawn(settings, s)}
    for spec in (*ROW_TABLES, *(book for book in BOOKS if book.name == "curricula")):
        for run_id, batch in tables.batches(settings, spec).items():
            verdict = verdicts.latest(settings, batch)
            state = verdict.outcome if verdict else "not gated"
            state += ", withdrawn" if str(batch) in gone else ""
            batches.append({"batch": str(batch), "verdict": state, "run": run_id})
    moved = models.aliases(settings)
    registered = [
        {
            "model": str(version),
            "run": version.run_id,
            "aliases": ", ".join(
                alias for alias, n in moved.get(version.name, {}).items() if n == version.version
            ),
        }
        for version in models.versions(settings)
    ]
    called_back = [
        {
            "recall": each.id,
            "what": str(each.selector),
            "reason": each.reason,
            "by": each.actor,
            "at": each.at,
        }
        for each in bans.recalls(settings)
    ]
    return {
        "tables": held,
        "batches": batches,
        "models": registered,
        "recalls": called_back,
        "runs": runs.latest(settings),
    }
