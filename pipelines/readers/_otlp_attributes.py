"""Attributes of OpenTelemetry as plain values under dotted names, and the lists that such names spell out.

[{"key": "n", "value": {"intValue": "3"}}]              ->  {"n": 3}
{"llm": {"tools": [{"tool.json_schema": "..."}]}}       ->  {"llm.tools.0.tool.json_schema": "..."}
{"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hi"}  ->  {0: {"role": "user", "content": "hi"}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.readers import Unreadable, values

_FLAT = ("llm", "openinference", "annotation", "annotations", "evaluation", "evaluations", "input", "output")


def attributes_of(value: Any) -> dict[str, Any]:
    """Attributes as an object: from a list of keys and typed values, or one already. Raises Unreadable."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list):
        raise Unreadable(
            "bad_attributes", f"'attributes' is {type(value).__name__}, expected a list or object"
        )
    found = {}
    for each in value:
        if not isinstance(each, Mapping) or not isinstance(each.get("key"), str):
            raise Unreadable("bad_attributes", "an attribute without a key, expected {'key', 'value'}")
        found[each["key"]] = plain(each.get("value"))
    return found


def plain(value: Any) -> Any:
    """A typed value without its type; what is not typed, as it is."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return value or None if isinstance(value, Mapping) else value
    (kind, inner), *_ = value.items()
    if kind in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        return inner
    if kind == "intValue":
        return _whole(inner)
    if kind == "arrayValue" and isinstance(inner, Mapping):
        listed = inner.get("values") or []
        return [plain(each) for each in listed] if isinstance(listed, list) else value
    if kind == "kvlistValue" and isinstance(inner, Mapping):
        return attributes_of(inner.get("values") or [])
    return value


def flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """OpenInference's attributes by dotted names, where an export nests them; all others as they are."""
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        _flatten(key, value, found, is_open=key.partition(".")[0] in _FLAT)
    return found


def indexed(attributes: Mapping[str, Any], prefix: str) -> dict[int, dict[str, Any]]:
    """The objects of a list that dotted names spell out, `prefix.N.field`, by their places in order."""
    found: dict[int, dict[str, Any]] = {}
    for key in names_under(attributes, prefix):
        place, _, name = key[len(prefix) + 1 :].partition(".")
        found.setdefault(int(place), {})[name] = attributes[key]
    return dict(sorted(found.items()))


def names_under(attributes: Mapping[str, Any], prefix: str) -> list[str]:
    """The names that `indexed` reads."""
    return [key for key in attributes if key.startswith(f"{prefix}.") and _is_place(key[len(prefix) + 1 :])]


def first(attributes: Mapping[str, Any], names: Sequence[str]) -> tuple[str | None, Any]:
    """The name of the first attribute that is stated, and its value; None and None where none is."""
    name = next((each for each in names if attributes.get(each) not in (None, "")), None)
    return name, attributes[name] if name else None


def parsed(value: Any) -> Any:
    """JSON in a text as what it says; a text that is no JSON, and all else, as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def count(value: Any) -> int | None:
    """A count that a column holds: whole, and not larger than it; the attribute stays where it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if values.fits(value) else None


def _is_place(path: str) -> bool:
    place = path.partition(".")[0]
    return place.isascii() and place.isdigit() and len(place) < 7


def _flatten(key: str, value: Any, into: dict[str, Any], *, is_open: bool) -> None:
    if is_open and isinstance(value, Mapping) and value:
        for name, item in value.items():
            _flatten(f"{key}.{name}", item, into, is_open=True)
    elif is_open and isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        for place, item in enumerate(value):
            _flatten(f"{key}.{place}", item, into, is_open=True)
    else:
        into[key] = value


def _whole(value: Any) -> Any:
    """A whole number that may stand in a text, as the wire format has those of 64 bits."""
    if isinstance(value, str) and len(value) < 20:
        try:
            return int(value)
        except ValueError:
            return value
    return value
