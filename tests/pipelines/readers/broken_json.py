"""Sources that are broken: bytes anywhere, or one or two values of the JSON that they hold. Seeded."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_DEEP: Any = "end"
for _ in range(400):  # 800 levels: JSON can still say them, code that calls itself per level cannot go there
    _DEEP = [{"content": _DEEP, "role": "user"}]

OTHERS: tuple[Any, ...] = (
    *(None, True, 0, -1, -1.5, 10**18, 10**400, float("nan"), float("inf"), 1e300, 2**63),
    *("", "text", "{", "[1, 2]", '{"role": 1}', "\x00", "\ud800", "AAAAAAAAAAA=", 'data: {"a"', "9" * 19),
    *("2026-99-99", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", '{"generations": {}}'),
    *([], [None], [[]], [1, "a", {}], {}, {"role": []}, {"type": {}}, {"": None}, {"text": 5}, {"type": []}),
    *([{"text": {}}], [{"type": {}, "id": {}}], {"generations": [1]}, {"stringValue": {}}, {"type": "text"}),
    [{"role": "user", "content": [{"type": ["text"]}, {"type": "tool_use", "id": {}, "input": 1}]}],
    _DEEP,
)
_SCRAPS = (
    *(b"\x00", b"\xff\xfe", b"\xc3", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\r", b"\n\n", b'"', b"\\", b","),
    *(b"{", b"}", b"[", b"]", b"{" * 1500, b"[" * 3000, b"NaN", b"9" * 5000, b"\\ud800", b"PAR1", b"---\n"),
)


def broken_values(values: list[Any], *, seed: int, times: int) -> Iterator[list[Any]]:
    """The values with one or two of what they hold replaced; JSON text in them is broken inside, too."""
    generator = random.Random(seed)
    for _ in range(times):
        changed = copy.deepcopy(values)
        for _ in range(generator.choice((1, 1, 2))):
            if changed:
                _break(changed, generator)
        yield changed


def broken_bytes(content: bytes, *, seed: int, times: int) -> Iterator[bytes]:
    """The content cut off, or with a stretch replaced, taken out or doubled, once to three times."""
    generator = random.Random(seed)
    for _ in range(times):
        changed = content
        for _ in range(generator.choice((1, 1, 3))):
            first = generator.randrange(len(changed) + 1)
            end = min(len(changed), first + generator.choice((0, 1, 1, 10, 300)))
            others = (
                bytes([generator.randrange(256)]),
                generator.choice(_SCRAPS),
                changed[first:end] * 2,
                b"",
            )
            changed = changed[:first] + generator.choice(others) + changed[end:]
            if generator.random() < 0.1:
                changed = changed[:first]
        yield changed


def _break(record: Any, generator: random.Random) -> None:
    parent, key = generator.choice(list(_places(record)))
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
