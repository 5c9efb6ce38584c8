"""Every reader on input that is broken anywhere: it never fails, and no record and no byte is lost."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lineage.schemas import TRACE
from pipelines import framing
from pipelines.readers import Unreadable
from pipelines.runner.reading import Keeping, Read, read_block
from tests.conformance import Golden, assert_nothing_is_lost, claimants, every_golden
from tests.pipelines.readers.broken_json import broken_bytes, broken_values

TIMES = 100
GOLDEN = every_golden()
IN_LINES = [golden for golden in GOLDEN if golden.file.suffix == ".jsonl"]
IN_ARRAYS = [golden for golden in GOLDEN if golden.file.suffix == ".json"]


def name_of(golden: Golden) -> str:
    return golden.name


def assert_is_read(golden: Golden, content: bytes) -> Read:
    read = golden.read(content)
    assert_nothing_is_lost(golden, content, read)
    for row in read.rows.to_pylist():
        assert row.get("extra") is None or json.loads(row["extra"])
        if golden.reader.writes is TRACE:
            assert row["verdict"] in ("pass", "fail", "unstated")
    return read


def test_how_many_formats_are_broken():
    assert (len(GOLDEN), len(IN_LINES), len(IN_ARRAYS)) == (22, 13, 5)


@pytest.mark.parametrize("golden", GOLDEN, ids=name_of)
def test_bytes_broken_anywhere_cost_no_other_record(golden: Golden):
    read = [assert_is_read(golden, content) for content in broken_bytes(golden.content, seed=7, times=TIMES)]
    assert any(each.rows.num_rows for each in read)
    assert any(each.lost for each in read)


@pytest.mark.parametrize("golden", IN_LINES + IN_ARRAYS, ids=name_of)
def test_values_broken_anywhere_give_rows_or_a_reason(golden: Golden):
    read = [assert_is_read(golden, content) for content in written_anew(golden, seed=7)]
    assert sum(1 for each in read if each.rows.num_rows) > TIMES / 4
    assert any(each.lost for each in read)


def written_anew(golden: Golden, *, seed: int) -> Iterator[bytes]:
    if golden in IN_LINES:
        framed = framing.frame_lines(golden.content)
        values: list[Any] = [each.value for each in framed if each.unreadable is None]
    else:
        values = json.loads(golden.content)
    for changed in broken_values(values, seed=seed, times=TIMES):
        if golden in IN_LINES:
            yield b"\n".join(json.dumps(value).encode() for value in changed)
        else:
            yield json.dumps(changed, indent=2 if len(changed) % 2 else None).encode()


SCRAPS = (
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "1",
    "a",
    " ",
    "\n",
    "\r\n",
    "\x00",
    "é",
    "---",
    "# ",
    "{}",
    "[]",
)
SCRAPS += ('{"messages": [', '{"role": "user", "content": "a"}', '{"uuid": "u"}', "\ufeff", "\u2028", "\t")
GARBAGE = st.binary(max_size=80) | st.lists(st.sampled_from(SCRAPS), max_size=25).map(
    lambda scraps: "".join(scraps).encode()
)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("golden", GOLDEN, ids=name_of)
@QUICK
@given(content=GARBAGE)
def test_garbage_is_no_rows_and_nothing_of_it_is_lost(golden: Golden, content: bytes):
    assert_is_read(golden, content)
    claimants(golden.file.name, content)


@pytest.mark.parametrize("cut", ["lines", "values", "csv"])
@QUICK
@given(content=GARBAGE, number=st.integers(0, len(GOLDEN) - 1))
def test_garbage_in_any_framing_is_counted_by_every_reader(cut: framing.Framing, content: bytes, number: int):
    golden = GOLDEN[number]
    if hasattr(golden.reader, "read"):
        work = replace(golden.work, framing=cut)
        (read,) = read_block(content, 0, work, golden.reader.writes, Keeping())
        assert_nothing_is_lost(golden, content, read, cut)


@QUICK
@given(content=GARBAGE, is_marked=st.booleans())
def test_garbage_is_no_parquet(content: bytes, is_marked: bool):
    marked = b"PAR1" + content + b"PAR1" if is_marked else content
    with contextlib.suppress(Unreadable):
        list(framing.frame_parquet(io.BytesIO(marked)))
