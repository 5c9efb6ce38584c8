"""What every part of a page is made of: data as text, numbers as words."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Sequence
from pathlib import PurePosixPath

from infra.screen import harmless
from lineage.registry.pedigree.style import STYLE


def page(title: str, parts: Sequence[str], *, kind: str = "pedigree", head: str = "") -> str:
    """One self-contained page; `head` is what it has there beside the common style."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}: {kind}</title><style>{STYLE}</style>{head}</head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """One section; without content none."""
    body = "".join(parts)
    return f"<section><h2>{heading}</h2>{body}</section>" if body else ""


def text(value: object) -> str:
    """Data as text: markup escaped; what a reader cannot see (control and direction marks) shown as a box."""
    said = str(value).replace("\t", " ").replace("\n", " ")
    return html.escape(harmless(said), quote=True)


def stated(name: str, version: str | None = None) -> str:
    """A name and its version as a table shows them."""
    if name in ("unstated", "not_applicable", "mixed"):
        return f"<span class=quiet>{name.replace('_', ' ')}</span>"
    tail = (
        ""
        if version in (None, "", "unstated", "not_applicable")
        else f"<small>@ {text(short(version, 40))}</small>"
    )
    return f'<span title="{text(clip(name, 300))}">{text(clip(name, 36))}</span>{tail}'


def count(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(part: float, whole: float) -> str:
    """A share; what is there but rounds to nothing is said to be there."""
    share = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


def when(at: dt.datetime | str) -> str:
    """A time in UTC."""
    return text(at) if isinstance(at, str) else f"{at.astimezone(dt.UTC):%d %B %Y, %H:%M} UTC"


def last(uri: str) -> str:
    """The last part of an address."""
    return PurePosixPath(uri).name or uri


def short(digest: str, length: int = 12) -> str:
    """The first characters of a digest, without the name of its algorithm."""
    return digest.removeprefix("sha256:")[:length]


def short_run(run_id: str) -> str:
    """The first characters of a run's identity, and its attempt."""
    identity, dash, attempt = run_id.rpartition("-")
    return clip(f"{identity[:12]}{dash}{attempt}", 16)


def clip(said: str, length: int) -> str:
    """At most so many characters."""
    return said if len(said) <= length else said[: length - 1] + "…"


def slice_class(name: str) -> str:
    """The style class of a curriculum's slice."""
    return f"s-{name}" if name in ("gold", "hard", "replay") else "s-other"
