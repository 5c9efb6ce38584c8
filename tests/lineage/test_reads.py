from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from infra.settings import Settings
from lineage import ancestry, tables
from lineage.consumption import ledger
from lineage.graph import graph
from lineage.lift import lift
from lineage.membership import members
from lineage.recall import recall
from lineage.schemas import CONSUMPTION, DOCUMENT, EXAMPLE, PROVENANCE
from lineage.selectors import Selector


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(lake=str(tmp_path), tracking_uri="")


def document(i: int) -> dict:
    provenance = {c.name: "unstated" if pa.types.is_string(c.type) else None for c in PROVENANCE}
    own = {"kind": "text", "title": f"title {i}", "text": "some text", "language": "en"}
    numbers = {"row_id": bytes([i]) * 16, "row_no": i, "parents": [], "parent_nos": [], "extracted_at": 0}
    return {**own, **provenance, **numbers, "run_id": f"run-{i}"}


def store(settings: Settings, i: int) -> None:
    rows = pa.Table.from_pylist([document(i)], schema=DOCUMENT.schema)
    file = tables.write_file(settings, rows, into=DOCUMENT, name=f"run-{i}")
    tables.commit(settings, [file], into=DOCUMENT, run_id=f"run-{i}", keys=[f"key-{i}"])


def test_a_filter_finds_its_rows_on_every_kind_of_column(settings):
    for i in range(3):
        store(settings, i)
    filters = {
        "without statistics": pads.field("title") == "title 1",
        "without statistics, several": pads.field("title").isin(["title 1", "title 9"]),
        "bytes": pads.field("row_id") == b"\x01" * 16,
        "with statistics": pads.field("row_no") == 1,
        "both": (pads.field("run_id") == "run-1") & (pads.field("kind") == "text"),
    }
    for name, where in filters.items():
        found = tables.read(settings, DOCUMENT, columns=["row_no"], where=where)
        assert found["row_no"].to_pylist() == [1], name
    assert tables.read(settings, DOCUMENT, where=pads.field("score").is_null()).num_rows == 3
    assert tables.read(settings, DOCUMENT, where=pads.field("row_no") > 7).num_rows == 0


def test_a_lake_in_the_place_of_one_that_was_deleted_is_read_anew(small):
    small.traces([1])
    small.examples({11: (1,), 12: (1,)})
    first = small.train(11, 12, 11)
    assert ledger(small.settings, first).row_nos.tolist() == [11, 12, 11]
    assert len(graph(small.settings).numbers) == 3
    shutil.rmtree(small.settings.lake)
    small.runs.clear()
    small.traces([1])
    small.examples({11: (1,), 13: (1,)})
    assert small.train(13, 11, 11) == first
    assert ledger(small.settings, first).row_nos.tolist() == [13, 11, 11]
    assert graph(small.settings).numbers.tolist() == [1, 11, 13]
    assert list(members(small.settings, CONSUMPTION, ("run_id",))[(first,)]) == [11, 13]


def test_what_was_put_back_and_then_withdrawn_is_gone_for_good(small):
    small.traces([1, 2])
    small.examples({11: (1,), 12: (2,)})
    batch = tables.current(small.settings, EXAMPLE)
    small.promote(small.train(11))
    called = recall(small.runtime, Selector(rows=("000b",)), reason="wrong").facets["recall"]
    lift(small.runtime, called, reason="right")
    assert small.numbers(EXAMPLE) == [11, 12]
    tables.withdraw(small.settings, batch, run_id="x-1", reason="test")
    for ever in (tables.read_ever(small.settings, EXAMPLE)["row_no"].to_pylist(), ever_in(small.settings)):
        assert [number for number in ever if number > 10] == []


def test_of_rows_that_share_an_id_the_one_that_stands_is_found(small):
    small.traces([1])
    small.examples({11: (1,)}, scorer="judge")
    small.promote(small.train(11))
    recall(small.runtime, Selector(scorer="judge"), reason="wrong", anyway=True)
    twin = {"row_no": 12, "row_id": identity(11), "parent_nos": [1], "derivation": "joint"}
    small.store(EXAMPLE, [twin], scorer="another")
    _, row = ancestry.find_row(small.settings, "000b")
    assert (row["row_no"], row["scorer"]) == (12, "another")
    assert ancestry.ancestors(small.settings, [identity(11)])[identity(11)]["row_no"] == 12
    assert ancestry.ancestors_of(small.settings, [11])[identity(11)]["scorer"] == "judge"


def ever_in(settings: Settings) -> list[int]:
    return graph(settings).numbers.tolist()


def identity(number: int) -> bytes:
    return number.to_bytes(2, "big") + bytes(14)
