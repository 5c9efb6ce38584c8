"""A table that is older than a column of its schema is read as it is, and gets the column when written."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable

from infra.settings import Settings
from lineage import tables
from lineage.bans import recalls
from lineage.fsck import commits, files
from lineage.heed import heed
from lineage.lift import lift
from lineage.recall import recall
from lineage.review import review
from lineage.schemas import EXAMPLE, LIFT, TRACE, TableSpec
from lineage.selectors import Selector


def without(spec: TableSpec, *names: str) -> TableSpec:
    """The table as it was before these columns were thought of."""
    kept = tuple(column for column in spec.own if column.name not in names)
    assert len(kept) == len(spec.own) - len(names)
    return replace(spec, own=kept)


OLDER = without(TRACE, "extra", "output_tokens")


@pytest.fixture
def older(small):
    """A lake of traces 1 and 2, made before `extra` and `output_tokens`."""
    small.store(OLDER, [{"row_no": n, "messages": [], "derivation": "source"} for n in (1, 2)])
    return small


def columns(settings: Settings) -> list[str]:
    return [field.name for field in DeltaTable(settings.path("tables/traces")).schema().fields]


def asked(settings: Settings, statement: str) -> list[dict]:
    with tables.sql(settings, statement) as answer:
        return pa.Table.from_batches(answer.batches, answer.schema).to_pylist()


def test_the_next_write_gives_the_table_its_new_columns_and_touches_no_older_row(older):
    assert not {"extra", "output_tokens"} & set(columns(older.settings))
    older.traces([3], extra="new", output_tokens=7)
    assert sorted(columns(older.settings)) == sorted(TRACE.schema.names)
    said = asked(older.settings, "select row_no, extra, output_tokens from traces order by row_no")
    assert [tuple(row.values()) for row in said] == [(1, None, None), (2, None, None), (3, "new", 7)]
    read = tables.read(older.settings, TRACE, columns=["row_no", "extra"]).sort_by("row_no")
    assert read["extra"].to_pylist() == [None, None, "new"]
    version = tables.current(older.settings, TRACE)
    older.traces([4])
    assert tables.current(older.settings, TRACE).version == version.version + 1  # the columns come once


def test_such_a_commit_was_made_by_nobody_by_hand_but_a_column_of_somebody_elses_was(older):
    older.traces([3])
    looked_at, found = commits(older.settings)
    assert (looked_at, found) == (4, [])  # made, stored, columns, stored
    assert files(older.settings)[1] == []
    alter = DeltaTable(older.settings.path("tables/traces")).alter
    alter.add_columns([DeltaTable(older.settings.path("tables/traces")).schema().fields[0]])
    (sentence,) = commits(older.settings)[1]
    assert sentence.startswith("traces@4 (ADD COLUMN) was made by no run")


def test_sql_and_conditions_know_the_column_before_anything_is_written(older):
    assert asked(older.settings, "select count(*) as n from traces where extra is null") == [{"n": 2}]
    found = tables.rows_where(older.settings, TRACE, "output_tokens is null and row_no > 1")
    assert found["row_no"].to_pylist() == [2]


def test_a_condition_on_the_column_reaches_rows_that_were_taken_out_before_it_came(older):
    recall(older.runtime, Selector(rows=("0001",)), reason="wrong", anyway=True)
    older.traces([3], extra="new")
    found = tables.rows_where(older.settings, TRACE, "extra is null")
    assert sorted(set(found["row_no"].to_pylist())) == [1, 2]


def test_a_recall_and_a_lift_write_the_table_with_its_new_columns(older):
    called = recall(older.runtime, Selector(rows=("0001",)), reason="wrong", anyway=True).facets["recall"]
    assert "extra" in columns(older.settings)
    lift(older.runtime, called, reason="right")
    assert older.numbers(TRACE) == [1, 2]
    assert recalls(older.settings) == []
    where = pads.field("extra").is_null()
    assert tables.read(older.settings, TRACE, where=where).num_rows == 2


def test_examples_that_knew_no_tool_calls_and_no_rejected_answer_are_reviewed_recalled_and_lifted(small):
    older = without(EXAMPLE, "answer_tool_calls", "rejected")
    small.traces([1, 2])
    same = {"task": "generation", "split": "train", "derivation": "joint"}
    small.store(older, [same | {"row_no": n, "parent_nos": [n - 10]} for n in (11, 12)])
    read = tables.read(small.settings, EXAMPLE)
    assert (
        read.select(["answer_tool_calls", "rejected"]).to_pylist()
        == [dict.fromkeys(("answer_tool_calls", "rejected"))] * 2
    )
    review(small.runtime, ["000b"], "rejected", reason="seen", reviewer="ann")
    assert len(heed(small.settings, read).left_out) == 1
    called = recall(small.runtime, Selector(rows=("000b",)), reason="wrong", anyway=True).facets["recall"]
    small.store(EXAMPLE, [same | {"row_no": 13, "parent_nos": [2]}], answer="", answer_tool_calls="[1]")
    lift(small.runtime, called, reason="right")
    stored = tables.read(small.settings, EXAMPLE).sort_by("row_no")
    assert stored["row_no"].to_pylist() == [11, 12, 13]
    assert stored["answer_tool_calls"].to_pylist() == [None, None, "[1]"]


def test_two_that_give_a_book_its_column_at_once_both_store_their_rows(small):
    lake = small.settings
    tables.record(lake, [], into=without(LIFT, "reason"))
    said = {"reason": "right", "actor": "ann", "run_id": "r-1", "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: tables.record(lake, [said | {"recall": f"{n}"}], into=LIFT), range(8)))
    stored = tables.read(lake, LIFT, columns=["recall", "reason"]).sort_by("recall")
    assert stored["recall"].to_pylist() == [f"{n}" for n in range(8)]
    assert set(stored["reason"].to_pylist()) == {"right"}
    given = [entry for entry in tables.commits(lake, LIFT) if tables.COLUMNS in entry]
    assert len(given) == 1
