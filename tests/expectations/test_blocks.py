"""A batch that is judged block by block, here or on workers, is judged as one that is in one place."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from expectations import blocks
from expectations.blocks import Batch, Measuring
from expectations.measuring import Measured
from expectations.suites import SUITES
from expectations.thresholds import DEFAULTS
from infra.runtime import Runtime
from infra.settings import settings_from_environment
from lineage import tables
from lineage.schemas import EXAMPLE
from lineage.tables import TableVersion

ROWS = 90


def stored(runtime: Runtime, rows: pa.Table, *, groups: int) -> TableVersion:
    """As files of at most seventy rows, each of several row groups."""
    run = rows["run_id"][0].as_py()
    files = []
    for number, first in enumerate(range(0, rows.num_rows, 70)):
        part = rows.slice(first, 70)
        with tables.FileWriter(runtime.settings, EXAMPLE, f"{run}-{number}") as file:
            for at in range(0, part.num_rows, groups):
                file.write(part.slice(at, groups))
        files.append(file.written())
    return tables.commit(runtime.settings, files, into=EXAMPLE, run_id=run, keys=["k"])


@pytest.fixture
def rows(toy: Any, change: Any) -> pa.Table:
    """Some of them copies of others, in other blocks; some without an answer."""
    made = toy.examples(ROWS)
    texts = made["text"].to_pylist()
    texts[80], answers = texts[3], made["answer"].to_pylist()
    answers[80], answers[11], answers[77] = answers[3], " ", ""
    return change(change(made, "text", texts), "answer", answers)


def as_one(rows: pa.Table, admitted: Any) -> list[Measured | None]:
    suite = SUITES["examples"]
    return Batch(None, None, suite, DEFAULTS).plan().measure(suite.frame(rows, admitted))  # type: ignore[arg-type]


def told(found: list[Any]) -> str:
    return repr([(each.metrics, each.crash, each.rows, each.failing) for each in found])


@pytest.mark.parametrize("few", [1_000, 0], ids=["here", "on workers"])
def test_blocks_are_judged_as_the_batch(
    few: int,
    rows: pa.Table,
    admitted_of: Any,
    ray_session: None,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 20)
    monkeypatch.setattr(blocks, "FEW_ROWS", few)
    with Runtime(settings_from_environment(str(tmp_path / "lake"))) as runtime:
        version = stored(runtime, rows, groups=10)
        batch = Batch(runtime.settings, version, SUITES["examples"], DEFAULTS)
        measuring = Measuring(runtime, batch, admitted_of())
        assert len(tables.stretches(runtime.settings, version, least_rows=20)) == 5
        assert told(measuring.measured) == told(as_one(rows, admitted_of()))
        names = [rule.expectation.meta["rule"] for rule in batch.plan().rules if rule.expectation.meta]
        copies, ids = names.index("no_duplicates"), rows["row_id"].to_pylist()
        assert measuring.failing(copies).to_pylist() == [ids[3], ids[80]]
        assert measuring.failing(names.index("answer_not_empty")).to_pylist() == [ids[11], ids[77]]
        without = Batch(
            runtime.settings, version, batch.suite, DEFAULTS, frozenset([rows["row_id"][80].as_py()])
        )
        assert Measuring(runtime, without, admitted_of()).failing(copies).to_pylist() == []


def test_a_batch_without_a_row_is_measured(toy: Any, admitted_of: Any, tmp_path: Any):
    with Runtime(settings_from_environment(str(tmp_path / "lake"))) as runtime:
        rows = toy.examples(3)
        version = stored(runtime, rows, groups=10)
        gone = frozenset(rows["row_id"].to_pylist())
        batch = Batch(runtime.settings, version, SUITES["examples"], DEFAULTS, gone)
        found = Measuring(runtime, batch, admitted_of()).measured
        assert found[0].metrics == {"table.row_count": 0}
        assert not any(each.crash for each in found)
