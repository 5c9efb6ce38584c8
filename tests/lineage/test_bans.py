"""What was called back stays away, by whatever way it comes: a grown file, another prompt or reader."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from expectations.gate import admit
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, fsck, tables
from lineage.recall import recall
from lineage.runs import Outcome
from lineage.schemas import EXAMPLE, REJECTED, TRACE
from lineage.selectors import Selector
from pipelines.ingest import IngestConfig, IngestError, ingest


@pytest.fixture
def lake(runtime: Runtime, tmp_path: Path, toys: SimpleNamespace) -> SimpleNamespace:
    """A log of three exchanges, stored and admitted; the second is asked with another prompt version."""
    lines = [toys.exchange(f"question {n}", "room") for n in range(3)]
    lines[1]["request"]["metadata"]["prompt_version"] = "2"
    log = toys.write_lines(tmp_path / "log.jsonl", lines)

    def store(source: Path, **more: Any) -> Outcome:
        return ingest(runtime, IngestConfig(**{"sources": (str(source),), "max_quarantined": 1} | more))

    assert admit(runtime, store(log).outputs[0]).passed
    return SimpleNamespace(
        runtime=runtime, settings=runtime.settings, lines=lines, log=log, store=store, write=toys.write_lines
    )


def call_back(lake: SimpleNamespace, **what: str) -> str:
    """Recalls without a champion; the recall's id."""
    return recall(lake.runtime, Selector(**what), reason="wrong", anyway=True).facets["recall"]


def asked(settings: Settings) -> list[str]:
    return sorted(messages[0]["content"] for messages in tables.read(settings, TRACE)["messages"].to_pylist())


def reasons(settings: Settings) -> list[str]:
    return tables.read(settings, REJECTED)["reason"].to_pylist()


def test_of_a_changed_file_the_banned_rows_are_rejected_and_the_rest_is_stored(lake, tmp_path: Path):
    called = call_back(lake, prompt="router@2")
    assert asked(lake.settings) == ["question 0", "question 2"]
    new = lake.lines[1] | {"id": "new"}
    fresh = {**lake.lines[0], "request": lake.lines[0]["request"] | {"model": "another"}}
    outcome = lake.store(lake.write(tmp_path / "more.jsonl", [new, fresh]))
    assert (outcome.counts["out"], outcome.counts["rejected"]) == (1, 1)
    assert reasons(lake.settings) == [f"recalled:{called}"]
    assert fsck.recalls(lake.settings)[1] == []
    assert fsck.balance(lake.settings)[1] == []


def test_a_file_of_banned_rows_alone_says_how_many_and_by_which_recall(lake, tmp_path: Path):
    called = call_back(lake, prompt="router@2")
    source = lake.write(tmp_path / "bad.jsonl", [lake.lines[1] | {"id": n} for n in "ab"] + [b"nonsense"])
    with pytest.raises(IngestError) as refused:
        lake.store(source, format="chat_completions", max_quarantined=1)
    assert str(refused.value) == (
        f"nothing was stored: all 2 rows of 1 sources are banned by recall {called}, and 1 records could not "
        "be read (see table 'quarantine'); see: stemma status"
    )
    assert asked(lake.settings) == ["question 0", "question 2"]


def test_a_stored_file_whose_rows_were_all_taken_out_says_so(lake):
    called = call_back(lake, where="true")
    with pytest.raises(IngestError, match=f"all 3 rows of these sources were stored before and .* {called}"):
        lake.store(lake.log)
    assert asked(lake.settings) == []


def test_a_grown_file_brings_its_new_rows_and_no_banned_one(lake):
    call_back(lake, where="messages[1]['content'] = 'question 0'")
    outcome = lake.store(lake.write(lake.log, [*lake.lines, lake.lines[2] | {"id": "new"}]))
    assert (outcome.counts["out"], outcome.counts["known"], outcome.counts["rejected"]) == (1, 0, 0)
    assert asked(lake.settings) == ["question 1", "question 2", "question 2"]


def test_the_same_exchange_under_another_prompt_version_stays_away(lake, tmp_path: Path):
    call_back(lake, prompt="router@2")
    again = {**lake.lines[1], "request": lake.lines[1]["request"] | {"metadata": {"prompt_name": "router"}}}
    again["request"]["metadata"]["prompt_version"] = "3"
    with pytest.raises(IngestError, match="all 1 rows of 1 sources are banned"):
        lake.store(lake.write(tmp_path / "again.jsonl", [again]))


def test_another_reader_does_not_bring_a_banned_place_of_a_source_back(lake, tmp_path: Path):
    call_back(lake, prompt="router@2")
    (tmp_path / "map.toml").write_text('[map]\ninput = "id"\nresponse = "id"\n')
    outcome = lake.store(lake.log, field_map=str(tmp_path / "map.toml"))
    assert (outcome.counts["out"], outcome.counts["rejected"]) == (2, 1)


def test_a_row_that_only_shares_the_words_of_a_derived_one_is_not_banned(small):
    small.traces([1, 2])
    small.examples({11: (1,), 12: (2,)}, scorer="judge", scorer_revision="1")
    recall(small.runtime, Selector(scorer="judge@1"), reason="wrong", anyway=True)
    taken = tables.read_ever(small.settings, EXAMPLE).sort_by("row_no")
    standing = bans.standing(small.settings)
    assert sorted(standing.refused(taken, EXAMPLE)) == [0, 1]
    anew = taken.set_column(
        taken.column_names.index("scorer_revision"), "scorer_revision", [["2", "2"]]
    ).set_column(taken.column_names.index("row_id"), taken.schema.field("row_id"), [[b"a" * 16, b"b" * 16]])
    assert standing.refused(anew, EXAMPLE) == {}


@pytest.mark.parametrize(
    ("task", "column"), [("preference", "rejected"), ("generation", "answer_tool_calls")]
)
def test_a_copy_of_a_banned_example_is_one_that_says_all_that_it_answers(task: str, column: str, small):
    small.traces([1])
    small.examples({11: (1,)}, task=task, **{column: "x"})
    recall(small.runtime, Selector(rows=("000b",)), reason="wrong", anyway=True)
    taken = tables.read_ever(small.settings, EXAMPLE).to_pylist()
    said = [row | {"row_id": b"a" * 16, column: value} for row in taken for value in ("x", "y", None)]
    rows = pa.Table.from_pylist(said, schema=EXAMPLE.schema)
    assert sorted(bans.standing(small.settings).refused(rows, EXAMPLE)) == [0]


def test_a_copy_that_was_exported_anew_teaches_the_same_and_is_refused(lake, tmp_path: Path):
    call_back(lake, prompt="router@2")
    copy = json.loads(json.dumps(lake.lines[1]))
    copy["id"] = "another"
    copy["response"]["created"] += 1
    copy["exported_by"] = "somebody"
    del copy["request"]["metadata"]
    with pytest.raises(IngestError, match="banned by recall"):
        lake.store(lake.write(tmp_path / "exported.jsonl", [copy]))


def test_what_a_banned_reviewer_says_next_is_refused(lake, toys: SimpleNamespace, tmp_path: Path):
    said = [toys.exchange(f"reviewed {n}", "room", verdict="fail", correction="outage") for n in range(2)]
    lake.store(lake.write(tmp_path / "reviewed.jsonl", said[:1]))
    call_back(lake, reviewer="ann")
    with pytest.raises(IngestError, match="banned by recall"):
        lake.store(lake.write(tmp_path / "next.jsonl", said[1:]))


def test_rows_like_those_that_sql_meant_may_come(lake, toys: SimpleNamespace, tmp_path: Path):
    call_back(lake, where="prompt_version = '2'")
    like = toys.exchange("another question", "room")
    like["request"]["metadata"]["prompt_version"] = "2"
    assert lake.store(lake.write(tmp_path / "like.jsonl", [like])).counts["out"] == 1
    assert fsck.recalls(lake.settings)[1] == []
