"""No password, key or token is told to others: not in a URI, nor in a text, nor under its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

HIDDEN = "(redacted)"

_LONG = r"password|passwd|secret|credential|signature|api[_-]?key|access[_-]?key|account[_-]?key"
_SHORT = r"token|sas|sig|pwd"  # only as whole words of a name: n_tokens is none
_SECRET = rf"(?:[\w-]*(?:{_LONG})[\w-]*|(?:[\w-]*[_-])?(?:{_SHORT}))"
_NAME = re.compile(_SECRET, re.IGNORECASE)
_HEADERS = {"authorization", "proxy-authorization", "cookie", "set-cookie"}
# Up to the last @ before the path: a password may hold one. With a slash in it the rest looks like a path,
# but what stands after the colon is no port then.
_USER = re.compile(r"(?<=://)(?:[^/\s?#]*@|[^/\s?#:@]*:(?!\d*(?:[/?#\s]|$))\S*@)")
_PAIR = re.compile(rf"(?<![\w-])({_SECRET})(\s*[=:]\s*)([\"']?)[^\s\"'&;,]+", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)


def without_credentials(uri: str) -> str:
    """The URI without user, password, query and fragment, which may be a signature; a plain path as it is."""
    return re.sub(r"[?#].*$", "", _USER.sub("", uri), flags=re.DOTALL) if "://" in uri else uri


def without_secrets(value: Any) -> Any:
    """The value with what is held under the name of a secret hidden, at any depth; all else as it is."""
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if isinstance(held, str) and held and _is_name(str(name)) else without_secrets(held)
            for name, held in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=10_000)
def _is_name(name: str) -> bool:
    return name.lower() in _HEADERS or _NAME.fullmatch(name) is not None


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
