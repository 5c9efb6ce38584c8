"""The verb of this folder that tells what is there: `stemma status`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from infra.cli import Json, Lake, existing
from infra.screen import print_table
from infra.settings import Settings
from lineage import bans, models, runs, sources, tables, verdicts
from lineage.schemas import BOOKS, ROW_TABLES, TABLES


def status(
    history: Annotated[
        bool, typer.Option("--history", help="Every move of an alias instead: who, when and why.")
    ] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """What the lake holds: tables, batches and their verdicts, rewritten sources, runs, models and aliases.

    Example: stemma status
    """
    settings = existing(lake)
    if history:
        moved = list(_history(settings))
        if as_json:
            print(json.dumps(moved))
        for move in () if as_json else moved:
            told = "{at}  {alias}: {from} -> {to}, by {by}, {kind}\n    {why} (run {run})"
            print(told.format(**move))
        return 0
    found = _status(settings)
    if as_json:
        print(json.dumps(found, default=str))
        return 0
    print_table("tables", found["tables"])
    print_table("batches", found["batches"])
    gone = [each | {name: each[name][:23] for name in ("revision", "by")} for each in found["superseded"]]
    print_table("superseded sources", gone)
    print_table("models", found["models"])
    print_table("recalls", found["recalls"])
    print_table("last runs", found["runs"][-15:])
    return 0


def _status(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    held, batches = [], []
    for spec in TABLES.values():
        newest = tables.snapshot(settings, spec)
        if newest is not None:
            rows = sum(each["num_records"] for each in newest.files)
            held.append({"table": f"{spec.name}@{newest.version}", "rows": rows, "holds": spec.purpose})
    gone = {str(b) for s in ROW_TABLES for b in tables.withdrawn(settings, s)}
    given = verdicts.all_latest(settings)
    for spec in (*ROW_TABLES, *(book for book in BOOKS if book.name == "curricula")):
        for run_id, batch in tables.batches(settings, spec).items():
            verdict = given.get(batch)
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
            "state": f"lifted: {each.lift.reason}" if each.lift else "stands",
        }
        for each in bans.all_recalls(settings)
    ]
    return {
        "tables": held,
        "batches": batches,
        "superseded": [
            {"source": each.source_uri, "revision": each.source_revision, "by": each.by}
            for each in sources.superseded(settings)
        ],
        "models": registered,
        "recalls": called_back,
        "runs": runs.latest(settings),
    }


def _history(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every move of an alias, oldest first; what serves again after a rollback is its event's evidence."""
    for event in models.events(settings):
        was, now = (f"version {n}" if n else "nothing" for n in (event.from_version, event.to_version))
        yield {
            "at": event.at.isoformat(timespec="seconds"),
            "alias": f"{event.name}@{event.alias}",
            "from": was,
            "to": now,
            "by": event.actor,
            "kind": event.kind,
            "why": event.reason,
            "run": event.run_id,
        }
