from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from infra.settings import Settings
from lineage import tables
from lineage.schemas import CURRICULUM, EXAMPLE
from lineage.tables import AlreadyStored, TableError, TableVersion, UnknownTable


def members(count: int, *, first: int = 0, run: str = "aa-1") -> pa.Table:
    row = {"curriculum": "c", "slice": "gold", "weight": 1.0, "answer": "a", "text": "t", "run_id": run}
    rows = [row | {"row_id": bytes([i]), "row_no": first + i} for i in range(count)]
    return pa.Table.from_pylist(rows, schema=CURRICULUM.schema)


def store(settings: Settings, count: int, *, key: str, run: str = "aa-1", first: int = 0) -> TableVersion:
    file = tables.write_file(settings, members(count, first=first, run=run), into=CURRICULUM, name=run)
    return tables.commit(settings, [file], into=CURRICULUM, run_id=run, keys=[key])


def test_a_key_is_stored_once(settings: Settings):
    store(settings, 3, key="source:x")
    with pytest.raises(AlreadyStored, match="source:x"):
        store(settings, 3, key="source:x", run="bb-1")
    assert tables.read(settings, CURRICULUM).num_rows == 3


def test_of_racing_writers_of_one_key_one_wins_and_nothing_is_stored_twice(settings: Settings):
    def race(number: int) -> str:
        try:
            return str(store(settings, 2, key="same", run=f"{number:02x}-1", first=10 * number))
        except AlreadyStored:
            return "lost"

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(race, range(6)))
    assert results.count("lost") == 5
    assert tables.read(settings, CURRICULUM).num_rows == 2


def test_racing_writers_of_different_keys_all_land(settings: Settings):
    with ThreadPoolExecutor(6) as pool:
        versions = set(
            pool.map(lambda n: store(settings, 1, key=f"k{n}", run=f"{n:02x}-1", first=n), range(8))
        )
    assert len(versions) == 8
    assert sorted(tables.read(settings, CURRICULUM)["row_no"].to_pylist()) == list(range(8))


def test_each_commit_reads_back_exactly_its_own_rows(settings: Settings):
    store(settings, 3, key="a")
    second = store(settings, 2, key="b", run="bb-1", first=100)
    assert tables.read_batch(settings, second)["row_no"].to_pylist() == [100, 101]


def test_a_withdrawn_batch_is_invisible_readable_by_time_travel_and_may_come_again(settings: Settings):
    batch = store(settings, 3, key="a")
    tables.withdraw(settings, batch, run_id="gate-1", reason="smells")
    assert tables.read(settings, CURRICULUM).num_rows == 0
    assert tables.read_batch(settings, batch).num_rows == 3
    assert tables.withdrawn(settings, CURRICULUM) == {str(batch): "smells"}
    again = store(settings, 3, key="a", run="bb-1")
    assert tables.read(settings, CURRICULUM).num_rows == 3
    assert tables.batch_with(settings, "a", into=CURRICULUM) == again


def test_withdrawing_twice_changes_nothing(settings: Settings):
    batch = store(settings, 3, key="a")
    once = tables.withdraw(settings, batch, run_id="gate-1", reason="smells")
    assert tables.withdraw(settings, batch, run_id="gate-1", reason="smells") == once


def test_row_numbers_are_never_given_twice(settings: Settings):
    with ThreadPoolExecutor(6) as pool:
        firsts = sorted(pool.map(lambda n: tables.reserve(settings, 7, run_id=f"r{n}"), range(12)))
    assert firsts == [7 * n for n in range(12)]


def test_rows_of_a_run_replace_those_of_its_earlier_attempts_and_no_others(settings: Settings):
    tables.replace(settings, members(4, run="aa-1"), into=CURRICULUM, run_id="aa-1")
    tables.replace(settings, members(2, run="ab-1"), into=CURRICULUM, run_id="ab-1")
    tables.replace(settings, members(3, run="aa-2"), into=CURRICULUM, run_id="aa-2")
    assert sorted(tables.read(settings, CURRICULUM)["run_id"].to_pylist()) == ["aa-2"] * 3 + ["ab-1"] * 2


def test_rows_that_do_not_fit_the_schema_are_refused(settings: Settings):
    with pytest.raises(TableError, match="weight"):
        tables.write_file(settings, members(1).drop_columns(["weight"]), into=CURRICULUM, name="x")


def test_an_empty_value_where_none_may_be_is_refused(settings: Settings):
    rows = members(2)
    rows = rows.set_column(
        rows.column_names.index("answer"), CURRICULUM.schema.field("answer"), pa.array(["a", None])
    )
    with pytest.raises(TableError, match="'answer' of 'curricula' is empty in 1 of 2 rows"):
        tables.write_file(settings, rows, into=CURRICULUM, name="x")


@pytest.mark.parametrize("reference", ["nonsense", "nonsense@1", "traces@x", "traces"])
def test_an_unknown_table_or_version_is_named(settings: Settings, reference: str):
    with pytest.raises(UnknownTable, match=reference.partition("@")[0]):
        tables.resolve(settings, reference)


def test_a_version_beyond_the_newest_says_which_is_the_newest(settings: Settings):
    store(settings, 1, key="a")
    with pytest.raises(UnknownTable, match="newest version is curricula@1"):
        tables.resolve(settings, "curricula@99")


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ({12: (12,)}, "row 12 for 'examples' names 12 as its parent"),
        ({12: (1, 13), 13: (12,)}, "row 12 for 'examples' names 13 as its parent"),
        ({12: (1,), 13: (2, 14, 1)}, "row 13 for 'examples' names 14 as its parent; expected a row that was"),
    ],
)
def test_what_would_come_from_itself_or_from_a_later_row_is_not_stored(parents: dict, said: str, small):
    small.traces([1, 2])
    with pytest.raises(TableError, match=said):
        small.examples(parents)
    assert tables.current(small.settings, EXAMPLE) is None


def test_a_row_that_names_itself_under_another_number_is_not_stored(small):
    own = b"\x00\x0c" + bytes(14)
    with pytest.raises(TableError, match=f"row {own.hex()} for 'examples' names {own.hex()}"):
        small.store(EXAMPLE, [{"row_no": 12, "row_id": own, "parents": [own], "parent_nos": [1]}])
    assert tables.current(small.settings, EXAMPLE) is None
