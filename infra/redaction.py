"""No password, key or token is told to others: not in a URI, nor in a text, nor under its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(redacted)"

_LONG = r"password|passwd|secret|credential|signature|api[_-]?key|access[_-]?key|account[_-]?key"
_SHORT = r"token|sas|sig|pwd"  # only as whole words of a name: n_tokens is none
_SECRET = rf"(?:[\w-]*(?:{_LONG})[\w-]*|(?:[\w-]*[_-])?(?:{_SHORT}))"
_NAME = re.compile(_SECRET, re.IGNORECASE)
# Up to the last @ before the path: a password may hold one. With a slash in it the rest looks like a path,
# but what stands after the colon is no port then.
_USER = re.compile(r"(?<=://)(?:[^/\s?#]*@|[^/\s?#:@]*:(?!\d*(?:[/?#\s]|$))\S*@)")
_PAIR = re.compile(rf"(?<![\w-])({_SECRET})(\s*[=:]\s*)([\"']?)[^\s\"'&;,]+", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)


def without_credentials(uri: str) -> str:
    """The URI without user, password, query and fragment, which may be a signature; a plain path as it is."""
    return re.sub(r"[?#].*$", "", _USER.sub("", uri), flags=re.DOTALL) if "://" in uri else uri


def redacted(value: Any) -> Any:
    """The value without secrets: in texts, in lists and under the keys of mappings."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {
            _text(str(name)): HIDDEN if _is_secret(str(name), held) else redacted(held)
            for name, held in value.items()
        }
    return [redacted(item) for item in value] if isinstance(value, list | tuple) else value


def _text(text: str) -> str:
    text = _USER.sub("", text)
    text = _PAIR.sub(rf"\1\2\3{HIDDEN}", text)
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def _is_secret(name: str, held: Any) -> bool:
    return bool(held) and isinstance(held, str) and _NAME.fullmatch(name) is not None
