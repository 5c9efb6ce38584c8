from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from infra.settings import Settings
from lineage import tables
from lineage.schemas import DOCUMENT, PROVENANCE


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
