"""The readers of sessions and trajectories on their golden files, whole and then broken."""

from __future__ import annotations

import copy
import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lineage.schemas import STATED, TRACE
from pipelines.readers import DocumentReader, RecordReader, Unreadable
from pipelines.readers.claude_code import ClaudeCode
from pipelines.readers.openhands import OpenHands, OpenHandsEvents
from pipelines.readers.pi_session import PiSession
from pipelines.readers.swe_agent import SweAgent
from pipelines.readers.tau_bench import TauBench

FORMATS = Path(__file__).parents[2] / "golden" / "formats"
OF_RECORDS: dict[str, RecordReader] = {
    "swe_agent": SweAgent(),
    "openhands": OpenHands(),
    "tau_bench": TauBench(),
}
OF_DOCUMENTS: dict[str, DocumentReader] = {
    "claude_code": ClaudeCode(),
    "pi_session": PiSession(),
    "openhands_events": OpenHandsEvents(),
}
ALL = sorted(OF_RECORDS | OF_DOCUMENTS)
OWN = {column.name: column for column in TRACE.own}
DEEP: Any = []
for _ in range(700):
    DEEP = [DEEP]
ANYTHING = (
    None,
    True,
    0,
    -1.5,
    1e308,
    "",
    "user",
    "2025-13-40",
    [],
    [None],
    {},
    {"type": "text"},
    [["x"]],
    DEEP,
)
Place = tuple[str | int, ...]


@pytest.mark.parametrize("name", ALL)
def test_the_golden_file_is_read_as_it_was(name: str):
    assert plain(read(name, golden(name))[0]) == json.loads((FORMATS / name / "rows.json").read_text())


@pytest.mark.parametrize("name", ALL)
def test_a_reader_recognises_its_own_source_and_no_sibling_does(name: str):
    content = golden(name)
    found = {other for other, reader in OF_DOCUMENTS.items() if reader.recognises_document("x", content)}
    values = values_of(name, content)
    found |= {
        other
        for other, reader in OF_RECORDS.items()
        if any(isinstance(value, dict) and reader.recognises(value) for value in values)
    }
    assert found == {name}


@pytest.mark.parametrize("name", ALL)
def test_whatever_stands_anywhere_gives_rows_or_a_reason(name: str):
    rng = random.Random(7)
    content = golden(name)
    original = values_of(name, content)
    found = list(places(original))
    unreadable = 0
    for _ in range(600):
        changed = copy.deepcopy(original)
        for _ in range(rng.choice((1, 1, 3))):
            put(changed, rng.choice(found), rng.choice(ANYTHING))
        document = written(name, changed)
        for reader in OF_DOCUMENTS.values():
            reader.recognises_document("x", document)
        for reader in OF_RECORDS.values():
            for value in changed:
                if isinstance(value, dict):
                    reader.recognises(value)
        rows, reasons = read(name, document)
        unreadable += len(reasons)
        for row in rows:
            assert row.keys() <= OWN.keys() | set(STATED)
            assert all(row.get(key) is not None for key, column in OWN.items() if not column.nullable)
        pa.Table.from_pylist([{key: row.get(key) for key in OWN} for row in rows], TRACE.payload)
    assert unreadable


@pytest.mark.parametrize("name", ["claude_code", "pi_session"])
def test_parts_stand_in_the_order_of_their_ends_wherever_a_session_is_cut(name: str):
    content = golden(name)
    for end in range(500, len(content), 97):
        parts = OF_DOCUMENTS[name].read_document("x", content[:end])
        assert [part.end for part in parts] == sorted(part.end for part in parts)
        assert all(0 <= part.first < part.end <= end for part in parts)


def golden(name: str) -> bytes:
    (path,) = (FORMATS / name).glob("input.*")
    return path.read_bytes()


def values_of(name: str, content: bytes) -> list[Any]:
    if name == "openhands_events":
        return json.loads(content)
    lines = [line for line in content.decode().splitlines() if line.endswith("}")]
    return [json.loads(line) for line in lines]


def written(name: str, values: list[Any]) -> bytes:
    if name == "openhands_events":
        return json.dumps(values).encode()
    return "\n".join(json.dumps(value) for value in values).encode()


def read(name: str, content: bytes) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """All rows of a source, and why others are none."""
    rows: list[dict[str, Any]] = []
    reasons: list[Unreadable] = []
    if name in OF_DOCUMENTS:
        try:
            parts = OF_DOCUMENTS[name].read_document("x", content)
        except Unreadable as error:
            return [], [error]
        return [row for part in parts for row in part.rows], [
            part.unreadable for part in parts if part.unreadable is not None
        ]
    for value in values_of(name, content):
        try:
            rows += OF_RECORDS[name].read(value) if isinstance(value, dict) else []
        except Unreadable as error:
            reasons.append(error)
    return rows, reasons


def plain(value: Any) -> Any:
    """As JSON has it: no nulls, times as ISO 8601."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, dt.datetime) else value


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def put(value: Any, place: Place, item: Any) -> None:
    """Put an item in place of another; nothing where an earlier one took the place away."""
    for key in place[:-1]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return
    last = place[-1]
    if isinstance(value, dict) and isinstance(last, str):
        value[last] = item
        return
    if isinstance(value, list) and isinstance(last, int) and last < len(value):
        value[last] = item
