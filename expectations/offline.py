"""Data Docs that can be read without the internet.

Great Expectations' pages take their style, and the whole table of their index, from public servers. Behind a
firewall the index would be empty and every status invisible; so each page gets a few lines of style, which
theirs override, and the index a plain table of the gate runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = """<style>
body { font-family: sans-serif; }
table { border-collapse: collapse; margin-bottom: 1em; }
td, th { border-bottom: 1px solid #ccc; padding: .3em .8em; text-align: left; vertical-align: top; }
.fa-check-circle::before { content: "\\2713"; color: #2e7d32; }
.fa-times::before { content: "\\2717"; color: #c62828; }
.fa-exclamation-triangle::before { content: "!"; color: #ef6c00; }
.gates { margin: 1em; }
.gates .fail, .gates .error { color: #c62828; font-weight: bold; }
.gates .pass { color: #2e7d32; }
</style>"""
_OUTCOMES = {"pass": "admitted", "fail": "REFUSED", "error": "ERROR"}


@dataclass(frozen=True)
class GateRun:
    """One line of the index."""

    batch: str
    run: str
    at: str
    outcome: str
    rules: int
    broken: tuple[str, ...]
    """Names of the rules that did not pass."""


def make_readable(site: Path, gates: Sequence[GateRun], *, lake: str) -> None:
    """Add our style to every page of the site, and the table of the gate runs (newest first) to its index."""
    pages = {page.relative_to(site).as_posix(): page for page in sorted(site.rglob("*.html"))}
    for name, page in pages.items():
        content = page.read_text(encoding="utf-8")
        if _STYLE in content:  # a page of an earlier build
            continue
        content = content.replace("<head>", f"<head>{_STYLE}", 1)
        if name == "index.html":
            content = content.replace("<body>", f"<body>{_index(gates, sorted(pages), lake)}", 1)
        page.write_text(content, encoding="utf-8")


def _index(gates: Sequence[GateRun], pages: Sequence[str], lake: str) -> str:
    rows = "".join(_row(gate, pages) for gate in sorted(gates, key=lambda gate: gate.at, reverse=True))
    suites = [page for page in pages if page.startswith("expectations/")]
    links = ", ".join(f'<a href="{escape(page)}">{escape(Path(page).stem)}</a>' for page in suites)
    head = (
        "<tr><th>batch</th><th>verdict</th><th>rules</th><th>did not pass</th><th>when</th><th>run</th></tr>"
    )
    return (
        f'<section class="gates"><h2>Gates of {escape(lake)}</h2><p>Suites: {links}</p>'
        f"<table>{head}{rows}</table></section>"
    )


def _row(gate: GateRun, pages: Sequence[str]) -> str:
    page = next(
        (p for p in pages if p.startswith("validations/") and f"/{gate.batch} run {gate.run}/" in p), None
    )
    batch = escape(gate.batch) if page is None else f'<a href="{escape(page)}">{escape(gate.batch)}</a>'
    cells = (
        batch,
        f'<span class="{gate.outcome}">{_OUTCOMES[gate.outcome]}</span>',
        str(gate.rules),
        escape(", ".join(gate.broken)),
        escape(gate.at),
        escape(gate.run),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
