"""The verb of this folder that tells what is there: `stemma status`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from infra.cli import Json, Lake, existing
from infra.runtime import Runtime
from infra.screen import one_line, print_table
from infra.settings import Settings
from lineage import bans, models, runs, sources, tables, verdicts, waivers
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
    for each in found["champions"]:
        print(_reign_of(each))
    print_table("recalls", found["recalls"])
    if found["waivers"]:
        print_table("waivers in force", found["waivers"])
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
        "champions": [
            _champion(settings, name) for name in sorted({v.name for v in models.versions(settings)})
        ],
        "recalls": called_back,
        "waivers": [
            {
                "waiver": each.id,
                "what": f"{each.table}: {each.rule}",
                "reason": each.reason,
                "by": each.by,
                "until": each.until,
            }
            for each in waivers.all_waivers(settings)
            if each.state(Runtime(settings).now()) == "in force"
        ],
        "runs": runs.latest(settings),
    }


def _champion(settings: Settings, name: str) -> dict[str, Any]:
    """Who reigns, since when and why, and what was refused since: by the last decision on record."""
    moves = [event for event in models.events(settings, name) if event.alias == "champion"]
    crowned = moves[-1] if moves else None
    refused = _refused(settings, name)
    return {
        "model": name,
        "champion": crowned.to_version if crowned else 0,
        "since": crowned.at if crowned else None,
        "by": crowned.kind if crowned else "",
        "refused": refused[-1] if refused else None,
    }


def _refused(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Each refused candidate of a model, and the checks that it failed; oldest first."""
    decided = [
        outcome for config, outcome in runs.completed(settings, "promote") if config.get("name") == name
    ]
    return [
        {
            "version": outcome.facets["version"],
            "failed": [each["name"] for each in outcome.facets["checks"] if not each["passed"]],
            "why": next((each["text"] for each in outcome.facets["checks"] if not each["passed"]), ""),
            "run": outcome.run_id,
        }
        for outcome in decided
        if not outcome.facets["promoted"]
    ]


def _reign_of(each: Mapping[str, Any]) -> str:
    """A line for each model."""
    name, refused = each["model"], each["refused"]
    if each["champion"]:
        since = f"{each['since']:%Y-%m-%d %H:%M}"
        told = f"{name}: {name}@{each['champion']} reigns since {since} UTC ({each['by']})"
    else:
        told = f"{name}: no champion"
    if refused is None:
        return told
    failed = ", ".join(refused["failed"])
    return f"{told}; last refused {name}@{refused['version']} by {failed}: {one_line(refused['why'], 160)}"


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
