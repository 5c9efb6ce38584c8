"""Values of a record in the shape of a column: text, numbers, times, chat messages.

What every reader needs to turn loosely typed JSON into rows without losing anything of it. To be used by its
name: `values.text(record.get("model"))`.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.readers import Unreadable

_INLINE = 1024  # characters of base64 that are kept as they are; longer ones by reference and digest
_IN_COLUMNS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})

_PASS = frozenset({"pass", "passed", "correct", "right", "true", "yes", "1", "1.0"})
_FAIL = frozenset({"fail", "failed", "incorrect", "wrong", "false", "no", "0", "0.0"})


@contextmanager
def readable() -> Iterator[None]:
    """While a record is turned into rows: what is nested too deeply for that is Unreadable."""
    try:
        yield
    except RecursionError as error:
        raise Unreadable("too_deep", "nested too deeply to be read or kept as JSON text") from error


def messages(value: Any) -> list[dict[str, Any]]:
    """Chat messages as the column `messages` holds them. Raises Unreadable where they are none."""
    if not isinstance(value, list):
        raise Unreadable("no_messages", f"'messages' is {type(value).__name__}, expected a list")
    return [message(each) for each in value]


def message(value: Any) -> dict[str, Any]:
    """One chat message: its text joined, other parts and fields kept in `extra`, long base64 by reference.

    Raises Unreadable.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise Unreadable("bad_message", "a message without a role, expected {'role', 'content'}")
    extra = {key: item for key, item in value.items() if key not in _IN_COLUMNS and item is not None}
    return said(
        value["role"],
        content(value.get("content")),
        name=text(value.get("name")),
        tool_calls=tool_calls(value.get("tool_calls")),
        tool_call_id=text(value.get("tool_call_id")),
        extra=by_reference(extra | beyond_text(value.get("content"))),
    )


def said(
    role: str,
    words: str | None,
    *,
    name: str | None = None,
    tool_calls: Any = None,
    tool_call_id: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A message of the column `messages` from its parts; tool calls and extra become JSON text."""
    return {
        "role": role,
        "content": words,
        "name": name,
        "tool_calls": json_text(tool_calls),
        "tool_call_id": tool_call_id,
        "extra": json_text(extra or None),
    }


def tool_call(call_id: str | None, name: Any, arguments: Any) -> dict[str, Any]:
    """A tool call in the one shape that `tool_calls` holds, OpenAI's; arguments as JSON text."""
    function = {"name": name, "arguments": text(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def tool_calls(value: Any) -> Any:
    """OpenAI-shaped calls, arguments as JSON text where a source has them as objects; all else as it is."""
    return [_with_text_arguments(call) for call in value] if isinstance(value, list) else value


def content(value: Any) -> str | None:
    """The text of a message's content: a string, or a list of parts, whose texts are joined."""
    if isinstance(value, list):
        return "".join(words for part in value if (words := _text_of(part)) is not None)
    return text(value)


def beyond_text(value: Any) -> dict[str, list[Any]]:
    """The parts of a content, whole, under its name; empty where its text says all."""
    if isinstance(value, list) and any(_text_of(part) is None for part in value):
        return {"content": value}  # images and the like: kept beside the text
    return {}


def object_in(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty where there is none. Raises Unreadable for anything else."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Unreadable("bad_shape", f"'{key}' is {type(value).__name__}, expected an object")
    return value


def without(value: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The fields that have no column."""
    return {key: item for key, item in value.items() if key not in keys}


def extra_of(**parts: Any) -> str | None:
    """The column `extra`: JSON text of the parts that are not empty, or null."""
    return json_text(
        {name: value for name, value in parts.items() if value not in (None, {}, [], "")} or None
    )


def inner(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty where there is anything else, which is then left where it is."""
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def objects_in(parent: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The list of objects under a key; empty where there is none. Raises Unreadable for anything else."""
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Unreadable("bad_shape", f"'{key}' is no list of objects, expected one")
    return value


def by_reference(value: Any) -> Any:
    """The value with each long base64 text in it replaced by digest and size; the source keeps the bytes.

    Data URLs, and base64 fields of images, audio and files: {"sha256": ..., "bytes": n, "media_type": ...}.
    """
    if isinstance(value, str):
        return value if len(value) <= _INLINE else _reference(value)
    if isinstance(value, Mapping):
        return {key: by_reference(item) for key, item in value.items()}
    return [by_reference(item) for item in value] if isinstance(value, list | tuple) else value


def text(value: Any) -> str | None:
    """A string as it is, anything else as JSON text; null stays null."""
    if value is None or isinstance(value, str):
        return value
    return json_text(value)


def json_text(value: Any) -> str | None:
    """JSON text with sorted keys; null stays null. What JSON has no number for is a text: "NaN"."""
    if value is None:
        return None
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except ValueError:
        return json.dumps(_with_numbers_of_json(value), ensure_ascii=False, sort_keys=True)


def number(value: Any) -> float | None:
    """A number; null for whatever is none, true and false among it, and for one too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None


def finite(value: Any) -> float | None:
    """A number that has an end; null for whatever is none."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def count(value: Any) -> int | None:
    """A whole number, such as a count of tokens; null for whatever is none.

    Raises Unreadable for one that no column holds: it would be lost.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if not fits(value):
        raise Unreadable("no_count", f"a number of {value.bit_length()} bits, expected at most 64")
    return value


def tokens(value: Any) -> int | None:
    """A count of tokens; some exports write it as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return count(value)


def fits(value: int) -> bool:
    """Whether a column of whole numbers holds it."""
    return -(2**63) <= value < 2**63


def number_in(value: Any) -> float | None:
    """A number, or the finite one that a text such as a CSV field holds; null for whatever is none."""
    if not isinstance(value, str):
        return number(value)
    try:
        return finite(float(value))
    except ValueError:
        return None


def verdict_in(value: Any) -> str | None:
    """pass or fail, where a flag, a number or a word says so; null for whatever says neither."""
    if isinstance(value, bool | int | float):
        return "pass" if value == 1 else "fail" if value == 0 else None  # two thirds of a point are neither
    word = value.strip().lower() if isinstance(value, str) else ""
    return "pass" if word in _PASS else "fail" if word in _FAIL else None


def moment(value: Any) -> dt.datetime | None:
    """Unix time in seconds, milli-, micro- or nanoseconds, or ISO 8601; null for whatever is no time.

    Raises Unreadable for a time that no calendar has: it would be lost.
    """
    if isinstance(value, str):
        try:
            read = dt.datetime.fromisoformat(value)
            return read.replace(tzinfo=dt.UTC) if read.tzinfo is None else read.astimezone(dt.UTC)
        except ValueError:
            return None
        except OverflowError as error:
            raise Unreadable("no_time", f"{value!r}, expected a time between the years 1 and 9999") from error
    seconds = number(value)
    if seconds is None:
        return None
    scale = next((s for s in (1, 1e3, 1e6) if abs(seconds) < 1e11 * s), 1e9)  # 1e11 seconds: the year 5138
    try:
        return dt.datetime.fromtimestamp(seconds / scale, dt.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Unreadable("no_time", f"{value!r}, expected a time between the years 1 and 9999") from error


def unread(**said: tuple[Any, Any]) -> dict[str, Any]:
    """Of fields (as said, as read) those that say something, but nothing that could be read: as said."""
    return {name: raw for name, (raw, read) in said.items() if read is None and raw not in (None, "")}


def _reference(value: str) -> Any:
    """The digest and size of a base64 text; any other text as it is."""
    head, comma, data = value.partition(",") if value.startswith("data:") else ("", "", value)
    if comma and not head.endswith(";base64"):
        return value
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return value
    found: dict[str, Any] = {"sha256": hashlib.sha256(decoded).hexdigest(), "bytes": len(decoded)}
    if head:
        found["media_type"] = head.removeprefix("data:").partition(";")[0]
    return found


def _with_numbers_of_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_numbers_of_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers_of_json(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _with_text_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), Mapping):
        return call
    return {**call, "function": {**function, "arguments": json_text(function["arguments"])}}


def _text_of(part: Any) -> str | None:
    if isinstance(part, Mapping) and part.get("type") in ("text", "output_text"):
        return text(part.get("text"))
    return part if isinstance(part, str) else None
