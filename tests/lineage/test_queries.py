from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.settings import Settings
from lineage import ancestry, models, queries, tables
from lineage.ancestry import LineageError, descendants, find_row, source_bytes
from lineage.consumption import CheckpointError, find_checkpoint
from lineage.schemas import CHECKPOINT, CONSUMPTION, EXAMPLE, PROVENANCE, REJECTED, TRACE


@pytest.fixture
def settings(trained_lake) -> Settings:
    return trained_lake.settings


@pytest.fixture
def found(settings: Settings) -> queries.Lineage:
    return queries.lineage(settings, models.resolve(settings, "champion")[0])


@pytest.fixture
def traces(settings: Settings) -> list[dict[str, Any]]:
    return tables.read(settings, TRACE).to_pylist()


def asked(record: bytes) -> str:
    return json.loads(record)["request"]["messages"][0]["content"]


def moved(row: dict[str, Any], to: Path) -> dict[str, Any]:
    return row | {"source_uri": to.as_uri()}


def test_the_lineage_of_a_model_is_exactly_what_it_ate_and_when(settings: Settings, found: queries.Lineage):
    first: dict[int, int] = {}
    times: dict[int, int] = {}
    for row in tables.read(settings, CONSUMPTION).to_pylist():
        assert row["run_id"] == found.checkpoint.run_id
        first[row["row_no"]] = min(row["step"], first.get(row["row_no"], row["step"]))
        times[row["row_no"]] = times.get(row["row_no"], 0) + 1
    rows = found.rows.to_pylist()
    assert {row["row_no"]: row["first_step"] for row in rows} == first
    assert {row["row_no"]: row["times"] for row in rows} == times
    assert len(rows) == len(first) == 25  # 24 passes, one of them asked twice, and one corrected failure
    assert [row["first_step"] for row in rows] == sorted(first.values())


def test_every_row_of_a_lineage_carries_its_whole_provenance(found: queries.Lineage):
    for column in PROVENANCE:
        assert found.rows[column.name].null_count == 0
    assert found.slices == {"gold": 25}


def test_the_bytes_of_every_row_are_the_lines_that_said_it(trained_lake, found: queries.Lineage):
    lines = trained_lake.log.read_bytes().split(b"\n")
    for row in found.rows.to_pylist():
        records = [source_bytes(source) for source in found.sources[row["row_id"]]]
        assert records
        assert all(record in lines and asked(record) == row["text"] for record in records)


def test_a_merged_row_leads_to_all_of_its_sources(found: queries.Lineage):
    sources = {row["text"]: found.sources[row["row_id"]] for row in found.rows.to_pylist()}
    twice = sources.pop("good morning, reset my password")
    assert len({source["source_span"] for source in twice}) == 2
    assert {len(several) for several in sources.values()} == {1}


def test_groups_account_for_every_row_once(found: queries.Lineage):
    for by in (queries.GROUPED_BY, ("kind",), ("generator", "slice"), ("source_uri",)):
        groups = found.grouped(by).to_pylist()
        assert sum(group["rows"] for group in groups) == found.rows.num_rows
        assert sum(group["loss_tokens"] for group in groups) == sum(found.rows["loss_tokens"].to_pylist())
    kinds = {group["kind"]: group["rows"] for group in found.grouped(("kind",)).to_pylist()}
    assert kinds == {"passed": 24, "corrected": 1}


def test_the_json_of_a_lineage_is_json_and_says_the_same(found: queries.Lineage):
    said = json.loads(json.dumps(queries.as_json(found)))
    assert [row["row_id"] for row in said["rows"]] == [i.hex() for i in found.rows["row_id"].to_pylist()]
    assert all(row["sources"] for row in said["rows"])
    assert said["checkpoint"]["run_id"] == found.checkpoint.run_id


def test_a_checkpoint_whose_rows_are_gone_has_no_lineage(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    batch = tables.batches(settings, EXAMPLE)
    tables.withdraw(settings, next(iter(batch.values())), run_id="x-1", reason="test")
    with pytest.raises(LineageError, match="ate 25 rows, of which 0 are stored; run: stemma fsck"):
        queries.lineage(settings, models.resolve(settings, "champion")[0])


# ---------------------------------------------------------------- sources that changed


def test_a_copy_and_a_file_that_grew_still_show_a_rows_bytes(
    trained_lake, traces: list[dict[str, Any]], tmp_path: Path
):
    rows = [row for row in traces if row["source_uri"] == trained_lake.log.as_uri()]
    assert len(rows) == 27
    grown, packed = tmp_path / "grown.jsonl", tmp_path / "log.jsonl.gz"
    grown.write_bytes(trained_lake.log.read_bytes() + b'{"more": 1}\n')
    packed.write_bytes(gzip.compress(trained_lake.log.read_bytes()))
    for row in rows:
        assert source_bytes(moved(row, grown)) == source_bytes(moved(row, packed)) == source_bytes(row)


def test_a_source_that_was_rewritten_never_passes_other_bytes_for_a_rows(
    trained_lake, traces: list[dict[str, Any]], tmp_path: Path
):
    mine = [row for row in traces if row["source_uri"] == trained_lake.log.as_uri()]
    row = next(row for row in mine if row["response"] == "outage")
    log, content = tmp_path / "log.jsonl", trained_lake.log.read_bytes()
    record = source_bytes(row)
    start = content.index(record)
    for name, rewritten in {
        "a word": content[:start] + record.replace(b"outage", b"voyage") + content[start + len(record) :],
        "its first line": content.replace(b"good morning", b"good evening", 1),
        "one byte further": b"\n" + content,
    }.items():
        assert rewritten != content, name
        log.write_bytes(rewritten)
        with pytest.raises(LineageError, match=f"was rewritten.*does not give row {row['row_id'].hex()}"):
            source_bytes(moved(row, log))


def test_a_source_that_is_shorter_gone_or_damaged_is_one_sentence(
    trained_lake, traces: list[dict[str, Any]], tmp_path: Path
):
    row = max(traces, key=lambda row: int(row["source_span"].partition("-")[2]))
    log = tmp_path / "log.jsonl"
    with pytest.raises(LineageError, match=r"cannot be read.*is what row"):
        source_bytes(moved(row, log))
    log.write_bytes(trained_lake.log.read_bytes()[:100])
    with pytest.raises(LineageError, match="is shorter than when row"):
        source_bytes(moved(row, log))
    packed = tmp_path / "log.jsonl.gz"
    packed.write_bytes(gzip.compress(trained_lake.log.read_bytes())[:-30])
    with pytest.raises(LineageError, match="cannot be read"):
        source_bytes(moved(row, packed))


def test_a_merged_row_has_no_bytes_of_its_own(settings: Settings):
    merged = next(row for row in tables.read(settings, EXAMPLE).to_pylist() if len(row["parents"]) == 2)
    with pytest.raises(LineageError, match="several sources; ask for its ancestors"):
        source_bytes(merged)


# ---------------------------------------------------------------- rows by their ids


def test_a_trace_leads_on_to_its_examples_and_an_example_back_to_its_traces(settings: Settings):
    for example in tables.read(settings, EXAMPLE).to_pylist():
        for parent in example["parents"]:
            assert [d["row_id"] for d in descendants(settings, parent)] == [example["row_id"]]
        graph = ancestry.ancestors(settings, [example["row_id"]])
        assert graph.keys() == {example["row_id"], *example["parents"]}


def test_a_row_that_did_not_go_on_says_why(settings: Settings):
    (refused,) = tables.read(settings, REJECTED).to_pylist()
    assert descendants(settings, refused["row_id"]) == []
    (why,) = ancestry.rejections(settings, refused["row_id"])
    assert (why["step"], why["reason"]) == ("exclude_poison", "prompt_injection")


def test_a_row_is_found_by_the_start_of_its_id(settings: Settings, traces: list[dict[str, Any]]):
    spec, row = find_row(settings, traces[3]["row_id"].hex()[:16])
    assert (spec.name, row) == ("traces", traces[3])


@pytest.mark.parametrize("prefix", ["abc", "xyz1", "", "ABCD"])
def test_what_is_no_id_is_told_so(prefix: str, settings: Settings):
    with pytest.raises(LineageError, match="is no row id; expected at least 4 hex digits"):
        find_row(settings, prefix)


def test_an_unknown_row_is_named(settings: Settings):
    with pytest.raises(LineageError, match="no row's id starts with '0000000000'"):
        find_row(settings, "0000000000")


def test_an_ambiguous_prefix_lists_the_rows_it_could_mean(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    row = tables.read(settings, TRACE).to_pylist()[0]
    twins = [row | {"row_id": b"\xab\xcd" + bytes([n]) * 14, "row_no": 10_000 + n} for n in (1, 2)]
    file = tables.write_file(
        settings, pa.Table.from_pylist(twins, schema=TRACE.schema), into=TRACE, name="twins"
    )
    tables.commit(settings, [file], into=TRACE, run_id="twins-1", keys=["twins"])
    with pytest.raises(LineageError) as error:
        find_row(settings, "abcd")
    assert all(f"{twin['row_id'].hex()} (traces)" in str(error.value) for twin in twins)


def test_an_ambiguous_run_lists_the_runs_it_could_mean(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    row = tables.read(settings, CHECKPOINT).to_pylist()[0]
    tables.record(settings, [row | {"run_id": f"abcd{n}-1"} for n in (1, 2)], into=CHECKPOINT)
    with pytest.raises(CheckpointError, match="'abcd' could be any of: abcd1-1, abcd2-1"):
        find_checkpoint(settings, "abcd")
    with pytest.raises(CheckpointError, match="'abc' is too short to name a run"):
        find_checkpoint(settings, "abc")
    with pytest.raises(CheckpointError, match="names no model, alias or training run"):
        find_checkpoint(settings, "0000")
