"""Data Docs that can be read without the internet.

Great Expectations' pages take their style from public servers. Behind a firewall every status would be
invisible; so each page gets a few lines of style, which theirs override.
"""

from __future__ import annotations

_STYLE = """<style>
body { font-family: sans-serif; }
table { border-collapse: collapse; margin-bottom: 1em; }
td, th { border-bottom: 1px solid #ccc; padding: .3em .8em; text-align: left; vertical-align: top; }
.fa-check-circle::before { content: "\\2713"; color: #2e7d32; }
.fa-times::before { content: "\\2717"; color: #c62828; }
.fa-exclamation-triangle::before { content: "!"; color: #ef6c00; }
</style>"""


def made_readable(page: str) -> str:
    """A page of Great Expectations' with our style; one that has it stays as it is."""
    return page if _STYLE in page else page.replace("<head>", f"<head>{_STYLE}", 1)
