"""Data Docs that can be read without the internet, and that load nothing from it.

Great Expectations' pages take style, scripts and pictures from public servers. Behind a firewall every status
would be invisible, and elsewhere other people's scripts would run beside other people's text; so each page
loses what it would load, and gets a style of ours for its classes.
"""

from __future__ import annotations

import re

_LOADED = re.compile(
    r"<script\b.*?</script>|<footer\b.*?</footer>"
    r"|<(?:link|img)\b[^>]*\b(?:href|src)\s*=\s*[\"']?https?://[^>]*>",
    re.DOTALL,
)
_FORBIDDEN = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data: file: 'self'\">"
)

_STYLE = """<style>
:root{color-scheme:light dark;--paper:#fbf9f3;--sheet:#fffefa;--ink:#211d17;--soft:#6f675b;--line:#e4ddce;
--seal:#8f2f2a;--ok:#4d7a5f}
@media(prefers-color-scheme:dark){:root{--paper:#16140f;--sheet:#1e1b15;--ink:#ece5d6;--soft:#a2988a;
--line:#363126;--seal:#d9786c;--ok:#83b596}}
body{margin:0 auto;max-width:1120px;padding:32px 28px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:3px}
table{border-collapse:collapse;margin:6px 0 18px;background:var(--sheet);border:1px solid var(--line)}
td,th{border-bottom:1px solid var(--line);padding:7px 12px;text-align:left;vertical-align:top}
h4,h5,h6,.h6{font-size:15px}h5{font:600 20px Palatino,Georgia,serif;margin:26px 0 4px}
.ge-breadcrumbs{list-style:none;margin:0 0 18px;padding:0;color:var(--soft);font-size:13.5px}
.navbar-brand,.ge-index-page-site-name-title,.fixed-bottom,footer{display:none}
#side-bar .ge-navigation-sidebar-container,#section-1-container{display:block}
nav ul{columns:4;list-style:none;padding:0;font-size:13.5px}
.badge{border:1px solid var(--line);border-radius:6px;padding:1px 8px}
.text-danger,.fa-times{color:var(--seal)}.text-success,.fa-check-circle{color:var(--ok)}
.fa-check-circle::before{content:"\\2713"}.fa-times::before{content:"\\2717"}
.fa-exclamation-triangle::before{content:"!"}
.collapse{display:block}.card.mb-3{display:none}
</style>"""


def made_readable(page: str) -> str:
    """A page of Great Expectations' that loads nothing, with our style; one that is so stays as it is."""
    if _STYLE in page:
        return page
    return _LOADED.sub("", page).replace("<head>", f"<head>{_FORBIDDEN}{_STYLE}", 1)
