"""The readers of exchanges, answers and conversations on their golden files, whole and then broken."""

from __future__ import annotations

import copy
import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lineage.schemas import STATED, TRACE
from pipelines.readers import RecordReader, Unreadable
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.readers.conversations import Alpaca, ShareGPT
from pipelines.readers.http_exchanges import HttpExchanges
from pipelines.readers.openai_batches import OpenAIBatches
from pipelines.readers.openai_preferences import OpenAIPreferences

FORMATS = Path(__file__).parents[2] / "golden" / "formats"
READERS: dict[str, RecordReader] = {
    "chat_completions": ChatCompletions(),
    "openai_batch": OpenAIBatches(),
    "openai_preference": OpenAIPreferences(),
    "http_exchange": HttpExchanges(),
    "sharegpt": ShareGPT(),
    "alpaca": Alpaca(),
}
COLUMNS = {column.name for column in TRACE.own} | set(STATED)
REQUIRED = {column.name for column in TRACE.own if not column.nullable}
Place = tuple[str | int, ...]


@pytest.mark.parametrize("name", READERS)
def test_the_golden_file_is_read_as_it_was(name: str):
    rows = [row for record in records(name) for row in READERS[name].read(record)]
    assert plain(rows) == json.loads((FORMATS / name / "rows.json").read_text())


@pytest.mark.parametrize("name", READERS)
def test_a_reader_recognises_its_own_records_and_no_sibling_does(name: str):
    for record in records(name):
        assert [other for other, reader in READERS.items() if reader.recognises(record)] == [name]


@pytest.mark.parametrize("name", READERS)
def test_whatever_stands_anywhere_gives_rows_or_a_reason(name: str):
    rng, reader = random.Random(7), READERS[name]
    broken = 0
    for record in records(name):
        found = list(places(record))
        for _ in range(150):
            changed = with_value(record, rng.choice(found), rng.choice(ANYTHING))
            reader.recognises(changed)
            try:
                rows = reader.read(changed)
            except Unreadable:
                broken += 1
                continue
            for row in rows:
                assert row.keys() <= COLUMNS
                assert all(row.get(column) is not None for column in REQUIRED)
    assert broken


def records(name: str) -> list[dict[str, Any]]:
    lines = (FORMATS / name / "input.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


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


def with_value(record: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    changed: Any = copy.deepcopy(record)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ANYTHING: list[Any] = [None, True, 0, -1, 10**400, 1e308, float("nan"), "", "words", '{"a": 1}', "\ud800"]
ANYTHING += ['data: {"a"', "9999-13-41", "0001-01-01T00:00:00+14:00", [], {}, [None], [1], [[]], [{}]]
ANYTHING += [{"type": "text"}, {"text": 5}, [{"text": {}}], {"role": 1}, {"type": []}, nested(900), nested(1)]
