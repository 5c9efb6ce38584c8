"""A line of a source as a JSON object, or the reason why it is none."""

from __future__ import annotations

import json
from typing import Any

from pipelines.readers import Unreadable


def decode_json(content: bytes) -> Any:
    """Content as JSON. Raises Unreadable."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unreadable("not_utf8", f"byte {error.start} is no UTF-8") from error
    except ValueError as error:
        raise Unreadable("not_json", str(error)) from error
    except RecursionError as error:
        raise Unreadable("too_deep", "nested too deeply") from error


def decode_json_object(record: bytes) -> dict[str, Any]:
    """A record as a JSON object. Raises Unreadable with what was found instead."""
    value = decode_json(record)
    if not isinstance(value, dict):
        raise Unreadable("not_an_object", f"a JSON {type(value).__name__}, expected an object")
    return value


def parse_json_line(record: bytes) -> dict[str, Any] | None:
    """A record as a JSON object, or None: for looking at a source before anybody reads it in earnest."""
    try:
        return decode_json_object(record)
    except Unreadable:
        return None
