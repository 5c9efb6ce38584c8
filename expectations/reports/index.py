"""The index of all verdicts: newest first, so many to a page, with a filter; it works from a file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from expectations.reports.style import STILL, STYLE
from expectations.reports.text import HEADINGS
from expectations.reports.trend import strip
from lineage.registry.pedigree.marks import page, text
from lineage.verdicts import Given

PER_PAGE = 1_000
"""Verdicts on one page of the index: 250 kB, and the filter answers at once."""

_STRIP = 28  # verdicts in a table's strip
_BROKEN = 4  # names of broken rules on a line

_FILTER = """
const box=document.querySelector("#filter"),only=document.querySelector("#only");
const told=document.querySelector("#told");
const lines=[...document.querySelectorAll("tr[data-outcome]")].map(e=>[e,e.textContent.toLowerCase()]);
function sift(){const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);let n=0;
for(const [line,said] of lines){
const on=words.every(w=>said.includes(w))&&(!only.checked||line.dataset.outcome!=="pass");
line.hidden=!on;n+=on}told.textContent=n+" of "+lines.length}
box.addEventListener("input",sift);only.addEventListener("change",sift);
document.querySelector(".tools").hidden=false;sift();
"""
_FILTER_DIGEST = base64.b64encode(hashlib.sha256(_FILTER.encode()).digest()).decode()


@dataclass(frozen=True)
class Entry:
    """One line: a verdict, and where its pages lie, seen from the index; empty where there is none."""

    given: Given
    page: str
    docs: str = ""


def pages(entries: Sequence[Entry], *, lake: str, notes: Sequence[str] = ()) -> dict[str, str]:
    """File name -> page: index.html has the newest, index-2.html those before, ...

    `entries` newest first. `notes` are sentences below the table, and are HTML.
    """
    cut = [entries[first : first + PER_PAGE] for first in range(0, len(entries), PER_PAGE)] or [[]]
    summary = _cards(entries)
    return {
        _name(number): _page(part, number, len(cut), summary, lake=lake, all_=len(entries), notes=notes)
        for number, part in enumerate(cut, start=1)
    }


def _page(
    entries: Sequence[Entry],
    number: int,
    of: int,
    summary: str,
    *,
    lake: str,
    all_: int,
    notes: Sequence[str],
) -> str:
    more = "".join(
        f"<span>{each}</span> " if each == number else f'<a href="{_name(each)}">{each}</a> '
        for each in range(1, of + 1)
    )
    parts = [
        f"<header><p class=kicker>Verdicts</p><h1>{_batches(all_)}</h1>"
        f"<p class=lead>What was gated in <code>{text(lake)}</code>, newest first.</p></header>",
        summary if number == 1 else "",
        _TOOLS + _table(entries) if entries else "<p class=quiet>Nothing was gated yet.</p>",
        f"<p class=quiet>Pages: {more}</p>" if of > 1 else "",
        *(f"<p class=quiet>{note}</p>" for note in notes),
        "<footer>Built from the lake's record; build it again: <code>stemma reports --html</code></footer>",
        f"<script>{_FILTER}</script>" if entries else "",
    ]
    return page(
        "Verdicts", parts, kind="index", head=STILL.format(scripts=f"'sha256-{_FILTER_DIGEST}'") + STYLE
    )


_TOOLS = (
    "<div class=tools hidden><input id=filter type=search placeholder='table, rule, run, outcome …' "
    "aria-label='Filter'><label><input id=only type=checkbox> only what did not pass</label>"
    "<span id=told></span></div>"
)


def _name(number: int) -> str:
    return "index.html" if number == 1 else f"index-{number}.html"


def _cards(entries: Sequence[Entry]) -> str:
    """Per table: how many batches, how many of them were not admitted, the last ones as a strip."""
    by_table = sorted(entries, key=lambda entry: entry.given.verdict.batch.table)
    cards = []
    for table, group in groupby(by_table, key=lambda entry: entry.given.verdict.batch.table):
        newest_first = list(group)
        refused = sum(not entry.given.verdict.passed for entry in newest_first)
        said = f"<em>{refused:,} not admitted</em>" if refused else "all admitted"
        past = [entry.given for entry in newest_first[:_STRIP]][::-1]
        cards.append(
            f"<div class=card-><b>{text(table)}</b>"
            f"<p>{_batches(len(newest_first))}, {said}</p>{strip(past)}</div>"
        )
    return f"<div class=cards>{''.join(cards)}</div>" if cards else ""


def _batches(number: int) -> str:
    return f"{number:,} batch{'' if number == 1 else 'es'}"


def _table(entries: Sequence[Entry]) -> str:
    head = (
        "<th>Batch</th><th>Verdict</th><th>What did not hold</th><th class=num>Rows</th><th>Judged</th>"
        "<th>By run</th><th></th>"
    )
    return (
        f"<div class=scroll><table class=batches><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(map(_line, entries))}</tbody></table></div>"
    )


def _line(entry: Entry) -> str:
    given, verdict = entry.given, entry.given.verdict
    batch = text(verdict.batch)
    named = f'<a href="{text(entry.page)}">{batch}</a>' if entry.page else batch
    broken = [rule.name for rule in verdict.rules if rule.outcome != "pass"]
    covered = sum(bool(rule.waived) for rule in verdict.rules)
    shown = ", ".join(broken[:_BROKEN]) + (
        f" and {len(broken) - _BROKEN} more" if len(broken) > _BROKEN else ""
    )
    shown = text(shown) + (f" <span class=quiet>({covered} waived)</span>" if covered else "")
    mark = {"pass": "ok", "fail": "failed", "error": "crashed"}[verdict.outcome]
    docs = f'<a href="{text(entry.docs)}">docs</a>' if entry.docs else ""
    return (
        f"<tr data-outcome={verdict.outcome}><td>{named}</td>"
        f"<td><span class='mark {mark}'>{HEADINGS[verdict.outcome].lower()}</span></td><td>{shown}</td>"
        f"<td class=num>{verdict.rows:,}</td><td class=at>{given.at:%Y-%m-%d %H:%M}</td>"
        f"<td class='mono run'><small>{text(given.run_id)}</small></td><td class=run>{docs}</td></tr>"
    )
