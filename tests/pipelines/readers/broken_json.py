"""Records broken at one place, and what a reader may do with them: rows of columns, or Unreadable."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import json
import random
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipelines.readers import RecordReader, Unreadable

_DEEP: Any = "end"
for _ in range(600):
    _DEEP = [{"content": _DEEP, "role": "user"}]

OTHERS: tuple[Any, ...] = (
    *(None, True, 0, -1.5, 10**400, float("nan"), float("inf"), 1e300, 2**63),
    *("", "text", "{", "[1, 2]", '{"role": "user"}', "\x00", "2026-99-99", "AAAAAAAAAAA="),
    *([], [None], [[]], [1, "a", {}], {}, {"role": []}, {"type": {}}, {"": None}),
    [{"role": "user", "content": [{"type": ["text"]}, {"type": "tool_use", "id": {}, "input": 1}]}],
    _DEEP,
)


def broken(record: dict[str, Any], *, seed: int, times: int) -> Iterator[dict[str, Any]]:
    """Copies of a record with one or two of its values replaced; JSON text in it is broken inside, too."""
    generator = random.Random(seed)
    for _ in range(times):
        changed = copy.deepcopy(record)
        for _ in range(generator.choice((1, 1, 2))):
            _break(changed, generator)
        yield changed


def reads_or_refuses(reader: RecordReader, record: dict[str, Any]) -> bool:
    """Whether it gave rows, each of which can be stored."""
    try:
        reader.recognises(record)
        rows = reader.read(record)
    except Unreadable:
        return False
    schema = reader.writes.derivable
    for row in rows:
        assert row.keys() <= set(schema.names), row.keys() - set(schema.names)
        pa.Table.from_pylist([row], schema=schema)
        assert {"trace_key", "model_requested", "model_answered", "messages", "verdict"} <= row.keys()
        assert row["verdict"] in ("pass", "fail", "unstated")
        assert row.get("extra") is None or json.loads(row["extra"])
    return True


def _break(record: Any, generator: random.Random) -> None:
    places = list(_places(record))
    parent, key = generator.choice(places)
    value = parent[key]
    if isinstance(value, str) and value[:1] in ("{", "[") and generator.random() < 0.7:
        inner = json.loads(value) if _is_json(value) else []
        if isinstance(inner, dict | list) and inner:
            _break(inner, generator)
            with contextlib.suppress(RecursionError):
                parent[key] = json.dumps(inner)
            return
    if isinstance(parent, dict) and generator.random() < 0.2:
        del parent[key]
        return
    other = generator.choice(OTHERS)
    parent[key] = other if other is _DEEP else copy.deepcopy(other)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list) and value[key] is not _DEEP:
            yield from _places(value[key])


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def as_golden(value: Any) -> Any:
    """Rows as golden files hold them: without what is None, times as ISO text."""
    if isinstance(value, dict):
        return {key: as_golden(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [as_golden(item) for item in value]
    return value.isoformat() if isinstance(value, dt.datetime) else value
