"""The verbs of this folder: `stemma gate`, `stemma reports`."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer

from expectations.gate import NotGated, admit, exit_code
from expectations.reports import as_text, attach, build, build_page
from expectations.reports.project import write_project
from expectations.reports.serve import PORT, server
from infra.cli import Json, Lake, existing, open_runtime
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.schemas import CURRICULUM, ROW_TABLES
from lineage.tables import TableVersion
from lineage.verdicts import Verdict


def gate(
    batch: Annotated[str, typer.Argument(help="TABLE@VERSION: the commit to judge.")],
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Judge the rows of one commit; exit 0 admitted, 1 refused and withdrawn, 2 error.

    Example: stemma gate traces@1
    """
    existing(lake)
    with open_runtime(lake) as runtime:
        verdict = admit(runtime, batch)
        _tell(verdict, runtime.settings, as_json)
        sys.stdout.flush()  # whoever waits for the verdict has it; MLflow takes its time
        attach(runtime, verdict.batch)
    return exit_code(verdict)


def reports(
    batch: Annotated[
        str | None, typer.Argument(help="TABLE@VERSION; without it, every batch in one line.")
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Build the page (without a batch: all), say where.")
    ] = False,
    docs: Annotated[
        bool, typer.Option("--docs", help="Build all pages and Great Expectations' Data Docs, say where.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Build all pages and serve them on 127.0.0.1.")
    ] = False,
    port: Annotated[int, typer.Option(help="Where --serve serves.", min=0, max=65535)] = PORT,
    into: Annotated[
        Path | None, typer.Option(help="Where to build (default: docs/reports of the lake).")
    ] = None,
    gx: Annotated[
        Path | None, typer.Option(help="Write suites and results as a project of Great Expectations here.")
    ] = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """A verdict as text: rule, observed, threshold, failing rows, next command; the same as pages.

    Example: stemma reports traces@1
    """
    settings = existing(lake)
    if batch is not None:
        version = tables.resolve(settings, batch)
        given = next(
            (g for g in verdicts.history(settings, version.table) if g.verdict.batch == version), None
        )
        if given is None:
            raise NotGated(f"{version} has no verdict; run: stemma gate {version}")
        _tell(given.verdict, settings, as_json)
        if html:
            with open_runtime(lake) as runtime:
                print(f"page: {build_page(runtime, given, into=into)}", file=_aside(as_json))
    elif not (html or docs or serve or gx):
        _list(settings, as_json)
    if docs or serve or (html and batch is None):
        with open_runtime(lake) as runtime:
            index = build(runtime, into=into, docs=docs)
        print(f"reports: {index}", file=_aside(as_json))
        if serve:
            _serve(index.parent, port)
    if gx is not None:
        written = write_project(settings, gx)
        print(
            f"{written} results; gx.get_context(mode='file', project_root_dir={str(gx)!r})",
            file=_aside(as_json),
        )
    return 0


def _serve(site: Path, port: int) -> None:
    with server(site, port) as http:
        print(f"http://127.0.0.1:{http.server_port}/  (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            http.serve_forever()


def _aside(as_json: bool) -> TextIO:
    """Where it is said what else was done: JSON has the output for itself."""
    return sys.stderr if as_json else sys.stdout


def _list(settings: Settings, as_json: bool) -> None:
    given = verdicts.all_latest(settings)
    rows = [(each, given.get(each)) for each in _batches(settings)]
    if as_json:
        told = [
            {"batch": str(each), "outcome": v.outcome if v else None, "rows": v.rows if v else None}
            for each, v in rows
        ]
        print(json.dumps(told))
        return
    for each, verdict in rows:
        print(f"{each!s:<16} {f'{verdict.outcome}, {verdict.rows} rows' if verdict else 'not gated'}")


def _tell(verdict: Verdict, settings: Settings, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(verdict) | {"batch": str(verdict.batch)}, default=str))
    else:
        print(as_text(verdict, settings))


def _batches(settings: Settings) -> list[TableVersion]:
    return [batch for spec in (*ROW_TABLES, CURRICULUM) for batch in tables.batches(settings, spec).values()]
