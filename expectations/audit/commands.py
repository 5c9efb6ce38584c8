"""The verb `stemma audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli import Json, Lake, open_runtime
from infra.runtime import Runtime
from lineage.tables import TableError


class AuditError(TableError):
    """What was asked for is no suite, or the page has no place."""


def audit(
    suite: Annotated[
        str | None, typer.Argument(help="A table whose suite is meant; without it all of them.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Which suites, thresholds and waivers admitted its rows, and who approved."),
    ] = None,
    what_if: Annotated[
        str | None,
        typer.Option("--what-if", metavar="NAME=VALUE", help="Which rows another threshold would flip."),
    ] = None,
    mutations: Annotated[
        bool, typer.Option("--mutations", help="Plant the frozen list of damage; minutes for all tables.")
    ] = False,
    made: Annotated[
        bool, typer.Option("--made", help="With --mutations: into made rows, whatever the lake holds.")
    ] = False,
    page: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write the audit as one HTML page.")
    ] = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Judge the suites: history, columns without a rule, rules that cannot fail, drift, waivers, what slips.

    --json has the keys suites, mutations, model and what_if; what was not asked for is null. With --model or
    --what-if alone, only that is answered.

    Example: stemma audit examples --what-if bigram_repetition=0.3
    """
    from expectations.suites import SUITES

    if suite is not None and suite not in SUITES:
        raise AuditError(f"'{suite}' has no suite; there are: {', '.join(SUITES)}")
    if made and not mutations:
        raise AuditError("--made says where --mutations plants; add --mutations")
    if page is not None:
        _require_place(page)
    names = list(SUITES) if suite is None else [suite]
    with open_runtime(lake) as runtime:
        has_lake = not runtime.settings.is_local or Path(runtime.settings.lake, "tables").is_dir()
        if (model or what_if) and not has_lake:
            raise AuditError(
                f"there is no lake at '{runtime.settings.shown_lake}', which --model and --what-if ask; "
                "choose with --lake"
            )
        found = _found(runtime, names, suite, model, what_if, mutations, made, has_lake)
    if page is not None:
        from expectations.audit.page import audit_html

        _write(page, audit_html(found["json"]))
    elif as_json:
        print(json.dumps(found["json"]))
    else:
        for line in found["lines"]:
            print(line)
    return 0


def _found(
    runtime: Runtime,
    names: list[str],
    suite: str | None,
    model: str | None,
    what_if: str | None,
    mutations: bool,
    made: bool,
    has_lake: bool,
) -> dict[str, Any]:
    """Everything that was asked for: as JSON, and as lines."""
    from expectations.audit import counterfactual, screen, standing
    from expectations.audit.mutations import mutations as planted
    from expectations.audit.report import audit as report
    from expectations.audit.sample import from_lake, toy
    from infra.screen import plain

    settings = runtime.settings if has_lake else None
    told: dict[str, Any] = {"suites": None, "mutations": None, "model": None, "what_if": None}
    lines: list[str] = []
    if not (model or what_if) or (suite is not None and not what_if):
        told |= report(settings, names, now=runtime.now())
        for each in told["suites"]:
            lines += [*screen.suite_lines(each), ""]
    if mutations:
        chosen = toy if made or settings is None else lambda table: from_lake(settings, table)
        wanted = names if suite is not None else None
        result = planted(wanted, sample_of=chosen)
        told["mutations"] = result.as_json()
        lines += [*screen.mutation_lines(result), ""]
    if model:
        above = standing.as_json(standing.of_model(runtime.settings, model))
        told["model"] = above
        lines += [*screen.model_lines(above), ""]
    if what_if:
        asked = counterfactual.what_if(runtime.settings, what_if, names=names)
        told["what_if"] = plain(asked.as_json())
        lines += [*screen.what_if_lines(asked), ""]
    return {"json": told, "lines": lines[:-1]}


def _require_place(page: str) -> None:
    """Raise AuditError where no file can be written, before what takes time."""
    place = Path(page).expanduser().absolute()
    if not place.parent.is_dir():
        raise AuditError(f"--html '{page}': there is no folder '{place.parent}'; make it first")
    if place.is_dir():
        raise AuditError(f"--html '{page}' is a folder; expected the name of a file")


def _write(page: str, html: str) -> None:
    try:
        Path(page).expanduser().write_text(html, encoding="utf-8")
    except OSError as error:
        raise AuditError(f"--html '{page}' cannot be written: {error.strerror}; choose another") from error
    print(f"the audit is in {page}")
