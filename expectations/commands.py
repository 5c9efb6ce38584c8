"""The verbs of this folder: `stemma gate`, `stemma reports`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from expectations.gate import NotGated, admit, exit_code
from expectations.reports import as_text, data_docs
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
    return exit_code(verdict)


def reports(
    batch: Annotated[
        str | None, typer.Argument(help="TABLE@VERSION; without it, every batch in one line.")
    ] = None,
    docs: Annotated[bool, typer.Option(help="Build the Data Docs and say where they lie.")] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """A verdict as text: rule, observed, threshold, failing rows, next command; and the Data Docs.

    Example: stemma reports traces@1
    """
    settings = existing(lake)
    if batch is not None:
        version = tables.resolve(settings, batch)
        verdict = verdicts.latest(settings, version)
        if verdict is None:
            raise NotGated(f"{version} has no verdict; run: stemma gate {version}")
        _tell(verdict, settings, as_json)
    else:
        given = verdicts.all_latest(settings)
        for each in _batches(settings):
            verdict = given.get(each)
            print(f"{each!s:<16} {f'{verdict.outcome}, {verdict.rows} rows' if verdict else 'not gated'}")
    if docs:
        with open_runtime(lake) as runtime:
            print(f"Data Docs: {data_docs(runtime)}")
    return 0


def _tell(verdict: Verdict, settings: Settings, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(verdict) | {"batch": str(verdict.batch)}, default=str))
    else:
        print(as_text(verdict, settings))


def _batches(settings: Settings) -> list[TableVersion]:
    return [batch for spec in (*ROW_TABLES, CURRICULUM) for batch in tables.batches(settings, spec).values()]
