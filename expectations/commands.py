"""The verbs of this folder: `stemma gate`, `stemma reports`."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO, TypedDict

import typer

from expectations.config import GateConfig
from expectations.gate import NotGated, admit_by, exit_code
from expectations.reports import as_text, attach, build, build_page
from expectations.reports.project import write_project
from expectations.reports.serve import PORT, server
from expectations.suites import SUITES, Suite
from expectations.thresholds import DEFAULTS
from infra.cli import Json, Lake, Set, existing, open_runtime
from infra.screen import harmless
from infra.settings import Settings
from lineage import tables, verdicts, waivers
from lineage.schemas import TABLES
from lineage.tables import TableVersion
from lineage.verdicts import Given, Verdict
from lineage.waivers import Waiver


def gate(
    batch: Annotated[str | None, typer.Argument(help="TABLE@VERSION: the commit to judge.")] = None,
    config: Annotated[str | None, typer.Argument(help="TOML config: thresholds, on_fail, suites.")] = None,
    set: Set = None,
    waive: Annotated[
        str | None, typer.Option(metavar="RULE", help="Let batches of --table break this rule instead.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="With --waive: batches of which table.")] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="With --waive: the last day of it, as 2026-12-31 (UTC)."),
    ] = None,
    reason: Annotated[str, typer.Option(help="With --waive and --revoke: why.")] = "",
    by: Annotated[str, typer.Option(help="With --waive and --revoke: who says so (default you).")] = "",
    long: Annotated[bool, typer.Option("--long", help="With --waive: for more than 90 days.")] = False,
    revoke: Annotated[str | None, typer.Option(metavar="ID", help="End a waiver now instead.")] = None,
    listed: Annotated[bool, typer.Option("--waivers", help="List all waivers instead.")] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Judge the rows of one commit; exit 0 admitted, 1 refused, 2 error. Or waive a rule.

    What is refused is withdrawn, but for what was admitted before: rows may stand on it, and a recall is the
    way to take it back. A rule that crashed decides nothing; mend it and judge again.

    A waiver counts for what is judged while it is in force; a batch that was refused must be stored again. To
    waive a rule of a suite of one's own, name the suite: --set 'suites=["mine.toml"]'.

    Example: stemma gate traces@1
    """
    existing(lake)
    asked = [
        name for name, given in (("--waive", waive), ("--revoke", revoke), ("--waivers", listed)) if given
    ]
    if len(asked) + (batch is not None) != 1:
        raise NotGated("name one commit as TABLE@VERSION, or give one of --waive, --revoke and --waivers")
    if set and asked and not waive:
        raise NotGated(f"{asked[0]} goes by no config; leave it out")
    if not waive and (table or until or long):
        raise NotGated("--table, --until and --long say what to waive, and need --waive RULE")
    if (batch or listed) and (reason or by):
        raise NotGated("--reason and --by belong to --waive or --revoke")
    with open_runtime(lake) as runtime:
        if batch is not None:
            verdict = admit_by(runtime, batch, GateConfig.read(config, set or ()))
            _tell(verdict, runtime.settings, as_json)
            sys.stdout.flush()  # whoever waits for the verdict has it; MLflow takes its time
            attach(runtime, verdict.batch)
            return exit_code(verdict)
        if waive:
            named = _waiver(waive, table, until, GateConfig.read(None, set or ()).suites_in_force)
            given = [waivers.grant(runtime, **named, reason=reason, by=by, long=long)]
        elif revoke:
            given = [waivers.revoke(runtime, revoke, reason=reason, by=by)]
        else:
            given = waivers.all_waivers(runtime.settings)
        _tell_waivers(given, runtime.now(), as_json)
    return 0


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
        given = _verdict_on(settings, batch)
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


def _verdict_on(settings: Settings, reference: str) -> Given:
    """The verdict on TABLE@VERSION, or the newest on a TABLE. Raises NotGated where there is none."""
    version = tables.resolve(settings, reference)
    history = verdicts.history(settings, version.table)
    if "@" in reference:
        history = [each for each in history if each.verdict.batch == version]
    if not history:
        raise NotGated(f"{reference} has no verdict; run: stemma gate {version}")
    return history[-1]


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


def _waiver(rule: str, table: str | None, until: str | None, suites: Mapping[str, Suite]) -> _Asked:
    """What is to be waived, where there is such a rule. Raises WaiverError."""
    if table is None or until is None:
        raise waivers.WaiverError(
            f"--waive {rule} needs --table {{{','.join(suites)}}}, --until DATE and --reason TEXT"
        )
    if table not in suites:
        raise waivers.WaiverError(f"table '{table}' has no suite; gated are: {', '.join(sorted(suites))}")
    rules = suites[table].rule_names(DEFAULTS)
    if rule not in rules:
        raise waivers.WaiverError(f"suite '{table}' has no rule '{rule}'; it has: {', '.join(rules)}")
    try:
        day = dt.date.fromisoformat(until)
    except ValueError as error:
        raise waivers.WaiverError(f"--until '{until}' is no day; expected one as 2026-12-31") from error
    return {"rule": rule, "table": table, "until": day}


class _Asked(TypedDict):
    rule: str
    table: str
    until: dt.date


def _tell_waivers(given: Sequence[Waiver], now: dt.datetime, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(each) | {"state": each.state(now)} for each in given], default=str))
        return
    for each in given:
        until = f"until {each.until:%Y-%m-%d %H:%M}, by {each.by}: {each.reason}"
        print(harmless(f"{each.id}  {each.state(now):<8}  {each.table}: {each.rule}  {until}"))
        if each.revoked:
            told = f"{each.revoked.at:%Y-%m-%d %H:%M} by {each.revoked.by}: {each.revoked.reason}"
            print(harmless(f"{'':<14}revoked {told}"))
    if not given:
        print("nothing is waived")


def _batches(settings: Settings) -> list[TableVersion]:
    judged = (TABLES[name] for name in SUITES)
    return [batch for spec in judged for batch in tables.batches(settings, spec).values()]
