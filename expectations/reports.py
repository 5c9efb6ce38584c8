"""What a gate decided, for people: a verdict as text, and Great Expectations' Data Docs of the whole lake.

A gate only stores its result; the site is built from the stored results when somebody asks, once per command.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow.fs

from expectations.evaluation import name_of, outcome_of, overall
from expectations.gate import RESULTS
from expectations.gx import open_context, quiet
from expectations.offline import GateRun, make_readable
from expectations.suites import SUITES
from expectations.thresholds import DEFAULTS
from infra.runtime import Runtime, log
from infra.settings import Settings, SettingsError
from lineage.tables.files import open_filesystem
from lineage.tables.reads import withdrawn
from lineage.verdicts import Rule, RuleOutcome, Verdict

_WIDTH = 100
_HEADINGS = {"pass": "ADMITTED", "fail": "REFUSED", "error": "ERROR"}
_MARKS = {"pass": "ok", "fail": "FAILED", "error": "CRASHED"}
_NEXT_WHEN_ADMITTED = {
    "traces": "stemma curate FILE.toml",
    "documents": "stemma generate FILE.toml",
    "examples": "stemma finetune FILE.toml",
    "curricula": "stemma finetune FILE.toml",
}
_NEXT_WHEN_REFUSED = {
    "traces": "stemma ingest SOURCE",
    "documents": "stemma ingest SOURCE",
    "examples": "stemma curate FILE.toml",
    "curricula": "stemma finetune FILE.toml",
}


def as_text(verdict: Verdict, settings: Settings) -> str:
    """The verdict on 100 columns: what did not pass, on which rows, every rule, the next command to type."""
    gone = withdrawn(settings, verdict.batch.spec).get(str(verdict.batch))
    lines = [*_heading(verdict, withdrawn=gone is not None)]
    for rule in verdict.rules:
        if rule.outcome != "pass":
            lines += ["", *_paragraph(rule)]
    lines += ["", *_table(verdict), "", *_advice(verdict, withdrawn=gone is not None)]
    return "\n".join(lines)


def in_brief(verdict: Verdict, settings: Settings) -> str:
    """The verdict on one line."""
    gone = withdrawn(settings, verdict.batch.spec).get(str(verdict.batch))
    return "; ".join(_heading(verdict, withdrawn=gone is not None))


def _heading(verdict: Verdict, *, withdrawn: bool) -> tuple[str, str]:
    state = ", withdrawn" if withdrawn else ""
    passed = sum(rule.outcome == "pass" for rule in verdict.rules)
    return (
        f"{verdict.batch}: {_HEADINGS[verdict.outcome]}{state}",
        f"{verdict.rows:,} rows, {passed} of {len(verdict.rules)} rules passed, suite '{verdict.suite}' "
        f"{verdict.suite_digest[:23]}",
    )


def data_docs(runtime: Runtime, *, into: Path | None = None, newest: int = 200) -> str:
    """Build Great Expectations' Data Docs of this lake and return the path of their index.html.

    One site shows the suites and the newest results. It is written to `into`, by default docs/data_docs of a
    local lake; for an object store `into` must be given (SettingsError). About 0.05 s for each result.
    """
    settings = runtime.settings
    if into is None and not settings.is_local:
        raise SettingsError(
            f"lake '{settings.shown_lake}' is no local folder; say where to build the Data Docs"
        )
    site = (into or Path(settings.path("docs", "data_docs"))).absolute()
    stored = _stored_results(settings, newest)
    with runtime.timed(f"data docs of {len(stored)} gate results"), quiet():
        from great_expectations.core.expectation_validation_result import (
            ExpectationSuiteValidationResult,
            expectationSuiteValidationResultSchema,
        )
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
            ValidationResultIdentifier,
        )

        context = open_context({"lake": _site(site)})
        for suite in SUITES.values():
            context.suites.add(suite.build(DEFAULTS))
        for content in stored:
            # Where the pages look for what was judged; without it they say "Data asset: None".
            content["meta"]["batch_kwargs"] = {"data_asset_name": _batch(content)}
            result = cast(
                ExpectationSuiteValidationResult, expectationSuiteValidationResultSchema.load(content)
            )
            key = ValidationResultIdentifier(
                expectation_suite_identifier=ExpectationSuiteIdentifier(result.suite_name),
                run_id=RunIdentifier(**cast(dict[str, str], result.meta["run_id"])),
                batch_identifier=_batch(content),
            )
            context.validation_results_store.set(key, result)
        context.build_data_docs()
    make_readable(site, [_gate_run(content) for content in stored], lake=settings.shown_lake)
    index = site / "index.html"
    log.info("data docs: %s", index)
    return str(index)


def _paragraph(rule: Rule) -> list[str]:
    lines = textwrap.wrap(
        f"{_MARKS[rule.outcome]} {rule.name}: {rule.sentence}",
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
    )
    if rule.examples:
        shown = ", ".join(row_id[:12] for row_id in rule.examples[:5])
        more = f" and {rule.failing - 5:,} more" if rule.failing > 5 else ""
        lines.append(f"    rows: {shown}{more}")
    return lines


def _table(verdict: Verdict) -> list[str]:
    rows = [("rule", "", "observed", "threshold", "failing")]
    for rule in verdict.rules:
        failing = f"{rule.failing:,}" if rule.failing else ""
        rows.append((rule.name, _MARKS[rule.outcome], _observed(rule), _threshold(rule), failing))
    widths = (30, 7, 31, 15, 7)
    return [
        "  ".join(_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _observed(rule: Rule) -> str:
    if rule.observed is None:
        return "-" if rule.outcome == "error" else "no row concerned"
    if isinstance(rule.observed, Mapping):
        return ", ".join(f"{name} {share:.0%}" for name, share in rule.observed.items())
    return f"{rule.observed:.1%} hold" if isinstance(rule.threshold, float) else f"{rule.observed:,}"


def _threshold(rule: Rule) -> str:
    if isinstance(rule.threshold, float):
        return f"{rule.threshold:.1%}"
    limits = {name.partition("_")[0]: value for name, value in (rule.threshold or {}).items()}
    return ", ".join(f"{name} {limits[name]:g}" for name in ("min", "max") if name in limits) or "-"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _advice(verdict: Verdict, *, withdrawn: bool) -> list[str]:
    table = verdict.batch.table
    if verdict.passed:
        return [f"next: {_NEXT_WHEN_ADMITTED[table]}"]
    if not withdrawn:
        return [
            "The batch is not withdrawn yet: the gate was ended too early.",
            f"next: stemma gate {verdict.batch}",
        ]
    correct = "Correct the rule" if verdict.outcome == "error" else "Correct what the rules name"
    told = f"The batch stays readable as {verdict.batch}; no job reads it. {correct}, then store it again."
    return [*textwrap.wrap(told, _WIDTH), f"next: {_NEXT_WHEN_REFUSED[table]}"]


def _stored_results(settings: Settings, newest: int) -> list[dict[str, Any]]:
    filesystem, folder = open_filesystem(settings, settings.path(*RESULTS))
    found = filesystem.get_file_info(pyarrow.fs.FileSelector(folder, allow_not_found=True))
    latest = sorted(
        (info for info in found if info.extension == "json"), key=lambda info: (info.mtime, info.path)
    )
    contents = []
    for info in latest[-newest:]:
        with filesystem.open_input_file(info.path) as source:
            contents.append(json.loads(source.read()))
    return contents


def _batch(content: Mapping[str, Any]) -> str:
    return content["meta"]["active_batch_definition"]["data_asset_name"]


def _gate_run(content: Mapping[str, Any]) -> GateRun:
    outcomes: dict[str, RuleOutcome] = {name_of(entry): outcome_of(entry) for entry in content["results"]}
    run = content["meta"]["run_id"]
    return GateRun(
        batch=_batch(content),
        run=run["run_name"].rpartition(" ")[2],
        at=run["run_time"],
        outcome=overall(outcomes.values()),
        rules=len(outcomes),
        broken=tuple(name for name, outcome in outcomes.items() if outcome != "pass"),
    )


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "show_how_to_buttons": False,
    }
