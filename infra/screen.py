"""What verbs print: values as text and JSON, and tables that fit a screen or a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 50  # rows on the screen (A20); files take any number
WIDTH = 120  # a pipe has no width of its own; this holds our tables without a fold
_NARROWEST = 20  # characters to which a long column may be folded in a table that is still read


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per row, headed by the first row's keys; without rows nothing is printed."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(harmless(str(plain(value))) for value in row.values()))
    width = None if sys.stdout.isatty() else WIDTH
    Console(markup=False, highlight=False, width=width).print(table)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """As `print_table`; rows that no table of readable columns holds are shown one below the other.

    Then each column has a line, and what is longer than the line is cut, with its length.
    """
    from rich.console import Console

    width = Console().width if sys.stdout.isatty() else WIDTH
    if not rows or _fits(rows, width):
        return print_table("", rows)
    head = max(map(len, rows[0])) + 1
    for number, row in enumerate(rows, start=1):
        print(f"-- row {number}")
        for name, value in row.items():
            print(f"{harmless(name) + ':':<{head}} {one_line(str(plain(value)), width - head - 1)}")


def _fits(rows: Sequence[Mapping[str, Any]], width: int) -> bool:
    """Does a table hold them when columns are folded to 20 characters, and no further?"""
    natural = (max(len(name), *(len(str(plain(row[name]))) for row in rows)) for name in rows[0])
    least = [min(length, _NARROWEST) for length in natural]
    return sum(least) + 2 * (len(least) - 1) <= width  # two characters between columns


def one_line(text: str, width: int) -> str:
    """Somebody's text on one line of so many characters; where it is cut, its length is told."""
    flat = harmless(" ".join(text.split()))
    if len(flat) <= width:
        return flat
    mark = f"… ({len(text):,} characters)"
    return flat[: max(width - len(mark), 0)] + mark


_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)


def harmless(text: str) -> str:
    """Text that somebody else wrote, for a screen or a page: what would steer either is shown as a box.

    That is control and escape codes, marks that turn text around or take no space, and halves of characters.
    """
    return _UNSEEN.sub("\ufffd", text)


def plain(value: Any) -> Any:
    """A stored value as JSON can say it: bytes in hex, times in ISO 8601, in lists and mappings, too."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else value
