from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.dataset as pads
import pytest

from infra.runtime import Runtime
from infra.settings import settings_from_environment
from infra.storage import StorageError, first_record, read_span, survey
from lineage import tables
from lineage.ancestry import source_bytes
from lineage.rows import origin_of
from lineage.runs import Run
from lineage.schemas import QUARANTINE, RUN, TRACE
from lineage.stamp import Source
from pipelines.ingest import IngestConfig, IngestError, ingest
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.runner import Work, read_sources


def config(*sources: Path, **more: Any) -> IngestConfig:
    """Any share of unreadable records is allowed, unless it is given."""
    named = tuple(str(source) for source in sources)
    return IngestConfig.model_validate({"sources": named, "max_quarantined": 1, **more})


def ids(runtime: Runtime) -> list[str]:
    return [
        row_id.hex()
        for row_id in tables.read(runtime.settings, TRACE).sort_by("row_no")["row_id"].to_pylist()
    ]


def test_every_row_leads_back_to_its_bytes_and_every_unreadable_line_to_quarantine(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    good = [toys.exchange(f"question {n} ünïcode", "a") for n in range(30)]
    bad = [b'{"cut": ', b"\xff\xfe not utf-8", b"[1, 2]", b"{}"]
    source = toys.write_lines(tmp_path / "log.jsonl", [*good[:10], *bad, b"", *good[10:]])
    outcome = ingest(runtime, config(source))
    assert {k: outcome.counts[k] for k in ("in", "out", "quarantined")} == {
        "in": 34,
        "out": 30,
        "quarantined": 4,
    }
    lines = source.read_bytes().split(b"\n")
    rows = tables.read(runtime.settings, TRACE).to_pylist()
    assert all(source_bytes(row) in lines for row in rows)
    assert len({source_bytes(row) for row in rows}) == 30
    lost = tables.read(runtime.settings, QUARANTINE).sort_by("source_span").to_pylist()
    assert sorted(row["reason"] for row in lost) == [
        "not_a_chat_completion",
        "not_an_object",
        "not_json",
        "not_utf8",
    ]
    assert sorted(row["record"] for row in lost) == sorted(bad)
    for row in lost:
        first, end = row["source_span"].removeprefix("bytes:").split("-")
        assert read_span(row["source_uri"], int(first), int(end)) == row["record"]


def test_ingesting_again_changes_nothing(runtime: Runtime, tmp_path: Path, toys: SimpleNamespace):
    source = toys.write_lines(tmp_path / "log.jsonl", [toys.exchange("a", "b")])
    first = ingest(runtime, config(source))
    version = tables.current(runtime.settings, TRACE)
    again = ingest(runtime, config(source))
    assert again.again
    assert again.outputs == first.outputs
    assert tables.current(runtime.settings, TRACE) == version


def test_a_copy_under_another_name_or_compressed_is_not_stored_twice(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    source = toys.write_lines(tmp_path / "log.jsonl", [toys.exchange("a", "b")])
    first = ingest(runtime, config(source))
    (tmp_path / "copy.jsonl").write_bytes(source.read_bytes())
    (tmp_path / "copy.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    again = ingest(runtime, config(tmp_path / "copy.jsonl", tmp_path / "copy.jsonl.gz"))
    assert again.outputs == first.outputs
    assert len(ids(runtime)) == 1


def test_a_file_that_grew_keeps_its_old_ids_and_adds_only_what_is_new(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    lines = [toys.exchange(f"q{n}", "a") for n in range(5)]
    source = toys.write_lines(tmp_path / "log.jsonl", lines[:3])
    ingest(runtime, config(source))
    before = ids(runtime)
    toys.write_lines(source, lines)
    grown = ingest(runtime, config(source))
    assert (grown.counts["in"], grown.counts["known"], grown.counts["out"]) == (2, 0, 2)
    assert ids(runtime)[:3] == before
    assert len(set(ids(runtime))) == 5


def test_a_file_and_its_grown_copy_in_one_batch_give_each_row_once(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    lines = [toys.exchange(f"q{n}", "a") for n in range(5)]
    one = toys.write_lines(tmp_path / "a.jsonl", lines[:3])
    two = toys.write_lines(tmp_path / "b.jsonl", lines)
    outcome = ingest(runtime, config(one, two))
    assert (outcome.counts["in"], len(ids(runtime)), len(set(ids(runtime)))) == (5, 5, 5)
    shorter = toys.write_lines(tmp_path / "c.jsonl", lines[:2])
    assert ingest(runtime, config(shorter)).counts["known"] == 2
    assert len(ids(runtime)) == 5


def test_a_record_that_no_column_can_hold_costs_itself_alone(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    huge = toys.exchange("q", "a")
    huge["response"]["usage"] = {"prompt_tokens": 10**30}
    late = toys.exchange("q", "a")
    late["response"]["created"] = 1e300
    deep = b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    half = b'{"messages":[{"role":"user","content":"\\ud800"},{"role":"assistant","content":"b"}]}'
    good = [toys.exchange(f"q{n}", "a") for n in range(3)]
    source = toys.write_lines(tmp_path / "log.jsonl", [*good, huge, late, deep, half])
    outcome = ingest(runtime, config(source))
    assert (outcome.counts["out"], outcome.counts["quarantined"]) == (3, 4)


def test_equal_lines_of_one_file_are_different_rows(runtime: Runtime, tmp_path: Path, toys: SimpleNamespace):
    source = toys.write_lines(tmp_path / "log.jsonl", [toys.exchange("same", "a")] * 3)
    ingest(runtime, config(source))
    assert len(set(ids(runtime))) == 3


def test_however_many_workers_share_a_source_its_rows_have_the_same_ids(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    uri = toys.write_lines(tmp_path / "log.jsonl", [toys.lesson("x" * n, "y") for n in range(40)]).as_uri()
    reader, found = ChatCompletions(), {}
    for size in (100, 700, 100_000):
        source = survey(uri, block_bytes=size)
        there = Runtime(settings_from_environment(str(tmp_path / str(len(source.blocks)))))
        known_by = Source(uri, source.revision, origin_of(first_record(source.uri)))
        work = Work(source, known_by, reader, "lines", key="log")
        read_sources(there, [work], run=Run("ab", 1, "ingest"))
        found[len(source.blocks)] = ids(there)
    assert min(found) == 1
    assert max(found) > 20
    assert len(set(map(tuple, found.values()))) == 1


def test_a_last_line_without_its_end_is_read(runtime: Runtime, tmp_path: Path):
    source = tmp_path / "log.jsonl"
    source.write_bytes(b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}')
    assert ingest(runtime, config(source)).counts["out"] == 1


def test_an_empty_file_is_refused(runtime: Runtime, tmp_path: Path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(IngestError, match=r"empty\.jsonl' is empty; expected at least one record"):
        ingest(runtime, config(tmp_path / "empty.jsonl"))


def test_a_source_that_does_not_exist_is_named(runtime: Runtime, tmp_path: Path):
    with pytest.raises(StorageError, match="names no file"):
        ingest(runtime, config(tmp_path / "gone.jsonl"))


def test_a_truncated_archive_is_one_sentence(runtime: Runtime, tmp_path: Path):
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-20])
    with pytest.raises(IngestError, match="cannot be read to its end"):
        ingest(runtime, config(tmp_path / "log.jsonl.gz"))


def test_a_file_that_only_begins_as_parquet_does_costs_no_other(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    broken, source = (
        tmp_path / "cut.parquet",
        toys.write_lines(tmp_path / "log.jsonl", [toys.lesson("a", "b")]),
    )
    broken.write_bytes(b"PAR1 and no more")
    outcome = ingest(runtime, config(broken, source))
    assert outcome.counts["out"] == 1
    assert list(outcome.facets["problems"]) == [broken.as_uri()]


def test_a_source_of_no_known_format_says_what_to_do(runtime: Runtime, tmp_path: Path, toys: SimpleNamespace):
    source = toys.write_lines(tmp_path / "log.jsonl", [{"question": "a"}])
    with pytest.raises(IngestError, match="--field-map"):
        ingest(runtime, config(source))


def test_a_source_without_one_readable_record_stores_nothing_but_quarantine(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    source = toys.write_lines(tmp_path / "log.jsonl", [b"nonsense", b"more"])
    with pytest.raises(IngestError, match="no record of 1 sources could be read"):
        ingest(runtime, config(source, format="chat_completions"))
    assert tables.read(runtime.settings, TRACE).num_rows == 0
    assert tables.read(runtime.settings, QUARANTINE).num_rows == 2


@pytest.mark.data
def test_real_judged_solutions_come_in_through_a_field_map(runtime: Runtime, data: Path):
    outcome = ingest(
        runtime,
        config(data / "gsm8k_model_solutions", field_map="examples/gsm8k/field_map.toml"),
    )
    # 660 questions, four models; README of the data: 146/266/225/371 right
    rows = tables.read(runtime.settings, TRACE).to_pylist()
    assert outcome.counts["out"] == len(rows) == 2640
    right = {
        m: sum(r["verdict"] == "pass" for r in rows if r["model_answered"] == m)
        for m in {r["model_answered"] for r in rows}
    }
    assert sorted(right.values()) == [146, 225, 266, 371]


def test_counts_of_what_a_killed_ingest_stored_are_found_by_the_next(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    source = toys.write_lines(tmp_path / "log.jsonl", [toys.exchange("a", "b"), b"[1"])
    whole = ingest(runtime, config(source))
    finished = pads.field("status") == "COMPLETE"
    left = tables.read(runtime.settings, RUN, where=~finished)
    # As a process leaves it that dies between the commit of its rows and the end of its run.
    tables.replace(runtime.settings, left, into=RUN, run_id=whole.run_id)
    again = ingest(runtime, config(source))
    assert again.run_id == whole.run_id.removesuffix("1") + "2"
    assert again.outputs == whole.outputs
    assert {name: again.counts[name] for name in ("in", "out", "quarantined")} == {
        "in": 2,
        "out": 1,
        "quarantined": 1,
    }
