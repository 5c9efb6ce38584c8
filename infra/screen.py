"""What verbs print: values as text and JSON, and tables that fit a screen or a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 50  # rows on the screen (A20); files take any number
WIDTH = 120  # a pipe has no width of its own; this holds our tables without a fold


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
