"""The verb `stemma export`: the lake's history to a file, the screen or a server, in other tools' words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import Lake, existing
from infra.settings import endpoint_key
from lineage.export.endpoint import send
from lineage.export.openlineage import Export
from lineage.export.selection import ExportError, events_of


def export(
    of: Annotated[
        str, typer.Argument(help="A model or a run (or its start), with all beneath; or all.")
    ] = "all",
    format: Annotated[str, typer.Option(help="In whose words.")] = "openlineage",
    out: Annotated[str | None, typer.Option(help="A new file, one event per line.")] = None,
    url: Annotated[
        str | None, typer.Option(help="An endpoint that takes events; its key: OPENLINEAGE_API_KEY.")
    ] = None,
    lake: Lake = None,
) -> int:
    """The lake's runs as OpenLineage events, oldest first; without --out and --url to standard output.

    Example: stemma export champion --out champion.ndjson
    """
    if format != "openlineage":
        raise ExportError(f"--format '{format}' is not known; expected openlineage")
    settings = existing(lake)
    if out is not None and url is not None:
        raise ExportError("--out and --url are two places; choose one")
    if out is not None and Path(out).exists():
        raise ExportError(f"--out '{out}' exists; nothing is written over, choose another name")
    events = list(Export(settings).events(events_of(settings, of)))
    if url is not None:
        send(events, to=url, api_key=endpoint_key())
        print(f"{len(events)} events taken")
        return 0
    lines = (json.dumps(event, ensure_ascii=False) + "\n" for event in events)
    if out is None:
        sys.stdout.writelines(lines)
        return 0
    with Path(out).open("x", encoding="utf-8") as file:
        file.writelines(lines)
    print(f"{len(events)} events in {out}")
    return 0
