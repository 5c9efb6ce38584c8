"""Sources larger than one worker should hold: what is cut, and what is read portion by portion."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.runtime import Runtime
from infra.storage import StorageError, survey
from lineage import sources as book
from lineage import tables
from lineage.ancestry import source_bytes
from lineage.schemas import QUARANTINE, TRACE
from pipelines.ingest import IngestConfig, ingest
from pipelines.runner import reading, sources

ROWS = 3000
RECORDS = [{"id": f"k{n}", "question": f"how? {n} é", "answer": f"so {n}\nand so"} for n in range(ROWS)]
MAP = 'empty = "absent"\n[map]\ntrace_key = "id"\ninput = "question"\nresponse = "answer"\n'


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and portions of a few kilobytes, a file of a table for some of them."""
    monkeypatch.setattr(reading, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(reading, "PORTION_BYTES", 5_000)
    monkeypatch.setattr(sources, "LEAST", 40_000)


def as_csv() -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "question", "answer"])
    writer.writeheader()
    writer.writerows(RECORDS)
    return text.getvalue().encode()


def as_parquet(records: list[dict[str, Any]] = RECORDS, group: int = 100) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink, row_group_size=group, compression="zstd")
    return sink.getvalue()


def as_values() -> bytes:
    return json.dumps(RECORDS).encode()


def zipped(name: str, content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return sink.getvalue()


def config(path: Path, **more: Any) -> IngestConfig:
    by = path.parent / "map.toml"
    by.write_text(MAP)
    return IngestConfig(sources=(str(path),), field_map=str(by), **more)


def rows(runtime: Runtime) -> list[dict[str, Any]]:
    return tables.read(runtime.settings, TRACE).sort_by("row_no").to_pylist()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", as_csv()),
        ("log.json", as_values()),
        ("log.parquet", as_parquet()),
        ("csv.zip", zipped("in/log.csv", as_csv())),
        ("parquet.zip", zipped("in/log.parquet", as_parquet())),
    ],
)
def test_however_it_is_cut_each_record_is_one_row_that_leads_back(
    runtime: Runtime, tmp_path: Path, name: str, content: bytes
):
    (tmp_path / name).write_bytes(content)
    outcome = ingest(runtime, config(tmp_path / name))
    assert (outcome.counts["in"], outcome.counts["records_stored"]) == (ROWS, ROWS)
    found = rows(runtime)
    assert [row["trace_key"] for row in found] == [record["id"] for record in RECORDS]
    assert len({row["row_id"] for row in found}) == len({row["row_no"] for row in found}) == ROWS
    origins = book.origins(runtime.settings)
    for row in (found[0], found[1717], found[-1]):
        assert row["trace_key"].encode() in source_bytes(row, origins=origins)
    again = ingest(runtime, config(tmp_path / name))
    assert again.again


@pytest.mark.usefixtures("small")
def test_parquet_is_cut_by_row_group_for_many_workers(tmp_path: Path):
    path = tmp_path / "log.parquet"
    path.write_bytes(as_parquet())
    blocks = reading.Work(survey(path.as_uri()), None, None, "parquet", "").blocks  # type: ignore[arg-type]
    assert len(blocks) > 5
    assert [block.lines_before for block in blocks[1:]] == [b.lines_before + b.lines for b in blocks[:-1]]
    assert sum(block.lines for block in blocks) == ROWS


def test_rows_that_take_no_room_in_parquet_are_all_numbered(runtime: Runtime, tmp_path: Path):
    path = tmp_path / "same.parquet"
    path.write_bytes(as_parquet([RECORDS[0]] * 200_000, group=100_000))
    assert path.stat().st_size < 100_000
    outcome = ingest(runtime, config(path))
    assert outcome.counts["records_stored"] == 200_000


@pytest.mark.usefixtures("small")
def test_a_damaged_row_group_costs_itself_alone_wherever_it_is_read(runtime: Runtime, tmp_path: Path):
    content = bytearray(as_parquet())
    content[2000:2400] = b"\xff" * 400
    (tmp_path / "log.parquet").write_bytes(bytes(content))
    outcome = ingest(runtime, config(tmp_path / "log.parquet", max_quarantined=1))
    lost = tables.read(runtime.settings, QUARANTINE).to_pylist()
    assert {row["reason"] for row in lost} == {"damaged_row_group"}
    assert ROWS - 100 * len(lost) <= outcome.counts["records_stored"] < ROWS


@pytest.mark.usefixtures("small")
def test_a_table_that_is_cut_off_after_it_was_looked_at_is_not_stored_by_half(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "log.csv"
    path.write_bytes(as_csv())
    read = sources._tasks

    def cut_off(*of: Any) -> Any:
        path.write_bytes(as_csv()[:-1000])
        return read(*of)

    monkeypatch.setattr(sources, "_tasks", cut_off)
    with pytest.raises(Exception, match="changed since it was surveyed") as raised:
        ingest(runtime, config(path))
    assert isinstance(raised.value, StorageError) or "StorageError" in str(raised.value)
    assert tables.current(runtime.settings, TRACE) is None
