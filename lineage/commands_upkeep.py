"""The verbs that look after a lake: `stemma` fsck, vacuum."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from infra.cli import Json, Lake, existing, open_runtime
from infra.screen import SHOWN, print_table
from lineage import fsck as checks
from lineage.upkeep import KEEP_DAYS, Spare, UpkeepError, spare
from lineage.upkeep import vacuum as give_back


def fsck(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="First set aliases and tags in MLflow back to what the lake says, mark runs whose process "
            "died, and remove what killed jobs left; nothing of it while a part of the record is lost.",
        ),
    ] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Check every invariant of the lake; exit 1 if one is broken. What killed jobs left breaks none.

    Example: stemma fsck
    """
    settings = existing(lake)
    if repair:
        mended = checks.repair(settings)
        for sentence in mended.done:
            print(f"repaired: {sentence}", file=sys.stderr)
        for sentence in mended.left:
            print(f"left alone: {sentence}", file=sys.stderr)
    done = checks.fsck(settings)
    if as_json:
        print(json.dumps([vars(check) for check in done]))
    else:
        for check in done:
            state = "BROKEN" if check.found else "remark" if check.remarks else "ok"
            print(f"{state:<6}  {check.name:<13} {check.looked_at:>8,} checked")
            told = [*check.found, *check.remarks]
            for sentence in told[:SHOWN]:
                print(f"        {sentence}")
            if len(told) > SHOWN:
                print(f"        and {len(told) - SHOWN} more: --json")
    return 1 if any(check.found for check in done) else 0


def vacuum(
    yes: Annotated[bool, typer.Option("--yes", help="Remove the files; without it they are listed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them, which is the default.")] = False,
    keep_days: Annotated[
        int, typer.Option(help="Keep what versions of the last so many days need.")
    ] = KEEP_DAYS,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Remove files that no live model, no recall and no version of the last days needs.

    Example: stemma vacuum --keep-days 90
    """
    if yes and dry_run:
        raise UpkeepError("--dry-run lists and --yes removes; give one of them")
    existing(lake)
    with open_runtime(lake) as runtime:
        found = spare(runtime.settings, keep_days=keep_days, now=runtime.now())
        removed = give_back(runtime, found) if yes else None
    if as_json:
        freed = removed.facets["bytes"] if removed else {}
        print(json.dumps({"files": found.files, "pinned": found.pinned, "removed": freed}))
        return 0
    _spare(found)
    if removed:
        print(f"removed {removed.counts['files']:,} files, {removed.counts['bytes']:,} bytes")
    elif found.files:
        print(f"{found.bytes:,} bytes could go; remove them: stemma vacuum --keep-days {keep_days} --yes")
    return 0


def _spare(found: Spare) -> None:
    rows = [
        {
            "table": name,
            "files": len(files),
            "bytes": f"{sum(files.values()):,}",
            "versions pinned": len(found.pinned.get(name, {})),
        }
        for name, files in found.files.items()
    ]
    print_table("spare", rows)
    if not rows:
        print("nothing is spare")
