"""The page and the text of a verdict on its MLflow run: made once, kept in the lake, shown from there."""

from __future__ import annotations

from expectations.reports.page import facts_of, verdict_html
from expectations.reports.text import as_text
from infra.runtime import Runtime
from lineage import mirror, registry, tables, verdict_pages, verdicts
from lineage.tables import TableVersion


def keep(runtime: Runtime, batch: TableVersion) -> None:
    """Make page and text of a commit's verdict and keep them: a job that MLflow shows takes them from there.

    Without a verdict nothing is kept.
    """
    settings = runtime.settings
    history = verdicts.history(settings, batch.table)
    given = next((each for each in history if each.verdict.batch == batch), None)
    if given is None:
        return
    gone = str(batch) in tables.withdrawn(settings, batch.spec)
    page = verdict_html(facts_of(settings, given, history, withdrawn=gone))
    verdict_pages.keep(settings, batch, {"html": page, "txt": as_text(given.verdict, settings) + "\n"})


def attach(runtime: Runtime, batch: TableVersion) -> None:
    """Show a commit's gate in MLflow, page and text attached; an MLflow that is away costs a line of the log.

    `stemma mlflow-sync` shows it later.
    """
    keep(runtime, batch)
    run_id = verdict_pages.show_gate(runtime.settings, batch)
    if run_id is not None:
        registry.if_reachable(mirror.show_run, runtime.settings, run_id)
