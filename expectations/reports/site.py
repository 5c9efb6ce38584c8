"""The site of a lake's verdicts: an index, a page per judged commit, and on request the Data Docs.

    index.html  index-2.html ...   all verdicts, newest first
    verdicts/examples@7.html       ours, one per commit
    validations/  expectations/    Great Expectations' Data Docs

It is built when somebody asks, never by a gate, and a page that stands is not built again: a page looks back,
so only another verdict changes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from expectations.reports import failing, index, page, style, text, trend
from expectations.reports.docs import NEWEST, build_docs
from infra.runtime import Runtime, log
from infra.settings import Settings, SettingsError
from lineage import tables, verdicts
from lineage.registry.pedigree import marks
from lineage.registry.pedigree import style as common
from lineage.schemas import TABLES
from lineage.tables import TableVersion
from lineage.verdicts import Given

PAGES = 200
"""Commits that have a page of ours, the newest and those built before: 5 ms and 30 kB each."""

_BUILT = "built.json"  # page -> what it was built from


def build(
    runtime: Runtime,
    *,
    into: Path | None = None,
    docs: bool = False,
    newest: int = PAGES,
    newest_docs: int = NEWEST,
) -> Path:
    """Build the site and return its index.html.

    It is written to `into`, by default docs/reports of a local lake. Raises SettingsError where an object
    store is the lake and `into` is not given, and for a place that cannot be written.
    """
    settings = runtime.settings
    site = _place(settings, into)
    history = verdicts.history(settings)
    with runtime.timed(f"reports of {len(history)} verdicts"), _writing(site):
        gone = _withdrawn(settings, history)
        linked = build_docs(settings, site, newest=newest_docs) if docs else {}
        shown = _pages(settings, site, history, history[::-1][:newest], gone)
        entries = [
            index.Entry(
                given,
                f"verdicts/{given.verdict.batch}.html" if given.verdict.batch in shown else "",
                linked.get(given.run_id, ""),
            )
            for given in reversed(history)
        ]
        notes = _notes(len(history), len(shown), len(linked), docs=docs)
        for name, content in index.pages(entries, lake=settings.shown_lake, notes=notes).items():
            _write(site / name, content)
    log.info("reports: %s", site / "index.html")
    return site / "index.html"


def build_page(runtime: Runtime, given: Given, *, into: Path | None = None) -> Path:
    """Build the page of one commit within the site, and return it. Raises as `build`."""
    settings, batch = runtime.settings, given.verdict.batch
    site = _place(settings, into)
    history = verdicts.history(settings, batch.table)
    with _writing(site):
        _pages(settings, site, history, [given], _withdrawn(settings, [given]))
    return site / "verdicts" / f"{batch}.html"


def _place(settings: Settings, into: Path | None) -> Path:
    if into is None and not settings.is_local:
        raise SettingsError(
            f"lake '{settings.shown_lake}' is no local folder; say where to build with --into"
        )
    return (into or Path(settings.path("docs", "reports"))).absolute()


@contextmanager
def _writing(site: Path) -> Iterator[None]:
    """A disk that cannot be written, or is full, is told in one sentence."""
    try:
        (site / "verdicts").mkdir(parents=True, exist_ok=True)
        if not os.access(site, os.W_OK):
            raise PermissionError(13, "Permission denied", str(site))
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(site)):
            raise
        said = error.strerror or type(error).__name__
        raise SettingsError(
            f"reports cannot be written to '{site}' ({said}); choose a folder with --into"
        ) from error


def _pages(
    settings: Settings,
    site: Path,
    history: Sequence[Given],
    wanted: Sequence[Given],
    gone: frozenset[str],
) -> frozenset[TableVersion]:
    """Build what is missing of the wanted pages; the batches that have a page now."""
    built = _built(site)
    by_table: dict[str, list[Given]] = {}
    for given in history:
        by_table.setdefault(given.verdict.batch.table, []).append(given)
    for given in wanted:
        batch = given.verdict.batch
        state = f"{given.run_id} {str(batch) in gone} {_look()}"
        if built.get(str(batch)) == state:
            continue
        facts = page.facts_of(settings, given, by_table[batch.table], withdrawn=str(batch) in gone)
        _write(site / "verdicts" / f"{batch}.html", page.verdict_html(facts, home="../index.html"))
        built[str(batch)] = state
    _write(site / _BUILT, json.dumps(built, indent=0, sort_keys=True))
    return frozenset(each.verdict.batch for each in history if str(each.verdict.batch) in built)


def _built(site: Path) -> dict[str, str]:
    """What stands; of a page that somebody removed nothing."""
    try:
        known: Mapping[str, str] = json.loads((site / _BUILT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    there = set(os.listdir(site / "verdicts"))
    return {batch: state for batch, state in known.items() if f"{batch}.html" in there}


def _withdrawn(settings: Settings, history: Sequence[Given]) -> frozenset[str]:
    names = sorted({given.verdict.batch.table for given in history})
    return frozenset(batch for name in names for batch in tables.withdrawn(settings, TABLES[name]))


def _notes(verdicts_: int, pages: int, docs_pages: int, *, docs: bool) -> list[str]:
    notes = []
    if pages < verdicts_:
        notes.append(
            f"A page of its own have the newest {pages:,} of {verdicts_:,}; for another: "
            "<code>stemma reports TABLE@VERSION --html</code>"
        )
    if not docs:
        notes.append("Great Expectations' Data Docs: <code>stemma reports --docs</code>")
    elif docs_pages < verdicts_:
        notes.append(
            f"Data Docs are kept of the newest {docs_pages:,} of {verdicts_:,} gates; "
            "each takes Great Expectations some 30 ms to draw."
        )
    return notes


def _write(path: Path, content: str) -> None:
    """Whole or not at all: a reader of the site never meets half a page."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(content, encoding="utf-8")
    draft.replace(path)


@cache
def _look() -> str:
    """What pages look like, and say: with other code they are built again."""
    code = (page, trend, failing, text, style, common, marks)
    content = b"".join(Path(str(module.__file__)).read_bytes() for module in code)
    return hashlib.sha256(content).hexdigest()[:8]
