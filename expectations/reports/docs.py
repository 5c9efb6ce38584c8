"""Great Expectations' Data Docs of the newest gates, rendered once each.

Its own renderer makes the pages; its store and its index are left out: storing a result costs more than
showing it, and the index is a table of JavaScript from a public server. Ours stands in its place, so the
pages' link "Home" leads there. A page that stands is not made again: a result never changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pyarrow.fs

from expectations.gate import RESULTS
from expectations.gx import open_context, quiet
from expectations.reports.offline import made_readable
from expectations.suites import SUITES
from expectations.thresholds import DEFAULTS
from infra.screen import harmless
from infra.settings import Settings
from lineage.tables.files import open_filesystem

NEWEST = 50
"""Gates whose Data Docs are kept: some 30 ms and 70 kB each."""


@dataclass(frozen=True)
class Stored:
    """A result of Great Expectations that a gate left in the lake."""

    path: str
    batch: str
    run_id: str

    @property
    def page(self) -> Path:
        """Where its page lies in the site: four folders deep, as the page's own links want it."""
        return Path("validations", self.batch.partition("@")[0], self.run_id, "result", f"{self.batch}.html")


def stored_results(settings: Settings, newest: int) -> list[Stored]:
    """The newest results, newest first."""
    filesystem, folder = open_filesystem(settings, settings.path(*RESULTS))
    found = filesystem.get_file_info(pyarrow.fs.FileSelector(folder, allow_not_found=True))
    latest = sorted(
        (info for info in found if info.extension == "json" and "@" in info.base_name),
        key=lambda info: (info.mtime, info.path),
        reverse=True,
    )
    return [_named(info.path) for info in latest[:newest]]


def content_of(settings: Settings, stored: Stored) -> dict[str, Any]:
    """The result as Great Expectations' JSON."""
    filesystem, _ = open_filesystem(settings, settings.path(*RESULTS))
    with filesystem.open_input_file(stored.path) as source:
        return json.loads(source.read())


def build_docs(settings: Settings, site: Path, *, newest: int = NEWEST) -> dict[str, str]:
    """Render suites and newest results into the site; run id -> its page's address, seen from the site.

    Pages of results that are no longer among the newest are removed.
    """
    wanted = {stored: stored.page for stored in stored_results(settings, newest)}
    missing = {stored: page for stored, page in wanted.items() if not (site / page).is_file()}
    with quiet():
        _render_suites(site)
        if missing:
            _render(settings, site, missing)
    for page in (site / "validations").glob("*/*/*/*.html"):
        if page.relative_to(site) not in wanted.values():
            page.unlink()
            for folder in (page.parent, page.parent.parent):  # its own; its suite's may hold others
                if not any(folder.iterdir()):
                    folder.rmdir()
    return {stored.run_id: quote(page.as_posix()) for stored, page in wanted.items()}


def _render_suites(site: Path) -> None:
    context = open_context({"lake": _site(site)})
    for suite in SUITES.values():
        context.suites.add(suite.build(DEFAULTS))
    context.build_data_docs(build_index=False)
    for page in (site / "expectations").glob("*.html"):
        page.write_text(made_readable(page.read_text(encoding="utf-8")), encoding="utf-8")


def _render(settings: Settings, site: Path, pages: Mapping[Stored, Path]) -> None:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
        expectationSuiteValidationResultSchema,
    )
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    renderer, view = ValidationResultsPageRenderer(), DefaultJinjaPageView()
    for stored, place in pages.items():
        content = content_of(settings, stored)
        # Where the pages look for what was judged; without it they say "Data asset: None".
        content["meta"]["batch_kwargs"] = {"data_asset_name": stored.batch}
        for entry in content["results"]:
            entry["result"] = _escaped(entry.get("result"))
            entry["exception_info"] = _escaped(entry.get("exception_info"))
        result = cast(ExpectationSuiteValidationResult, expectationSuiteValidationResultSchema.load(content))
        shown = view.render(renderer.render(result), show_how_to_buttons=False)
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).write_text(made_readable(shown), encoding="utf-8")


def _escaped(said: Any) -> Any:
    """What was found, with its markup as text: Great Expectations shows values of rows as they are."""
    if isinstance(said, str):
        return escape(harmless(said))
    if isinstance(said, Mapping):
        return {_escaped(key): _escaped(value) for key, value in said.items()}
    return [_escaped(value) for value in said] if isinstance(said, list) else said


def _named(path: str) -> Stored:
    batch, _, rest = Path(path).stem.partition("-")  # traces@2-65fcdc691ac7e3b7-1
    return Stored(path, batch, rest)


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "show_how_to_buttons": False,
    }
