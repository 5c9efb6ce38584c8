"""What a statement may ask of a lake, and everything that it may not do: write, look elsewhere, never end."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra.cli import run
from infra.settings import Settings
from lineage import tables
from lineage.impact import impact
from lineage.schemas import EXAMPLE, TRACE
from lineage.selectors import Selector
from lineage.tables.sql import NEVER_THE_SAME

ROOT = Path(__file__).parents[2]
FOR_EVER = "select count(*) from generate_series(1, 1000000000000) a where a.value % 7 = 9"
TOO_BIG = "select a.value from generate_series(1, 100000000000) a, generate_series(1, 10) b"


@pytest.fixture
def lake(small) -> Settings:
    """Three traces, and two examples of the first two."""
    small.traces([1, 2, 3])
    small.examples({11: (1,), 12: (1, 2)})
    return small.settings


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(lake: Settings, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs `stemma query`: exit code, what it printed, what it complained of."""

    def call(statement: str, *words: str) -> tuple[int, str, str]:
        code = run("query", [*words, "--lake", lake.lake, "--", statement])
        return code, *capsys.readouterr()

    return call


def files(folder: Path) -> dict[str, bytes]:
    """Everything under a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_ancestry_of_a_row_is_one_statement(ask: Ask):
    statement = """-- from an example to its traces
        with recursive above as (
            select row_id, row_no, parents from examples where row_no = 12
            union select t.row_id, t.row_no, t.parents from above
                  join traces t on array_has(above.parents, t.row_id))
        select row_no from above order by row_no;"""
    code, said, _ = ask(statement, "--json")
    assert code == 0
    assert json.loads(said) == [{"row_no": 1}, {"row_no": 2}, {"row_no": 12}]


def test_tables_and_their_columns_can_be_asked_for(ask: Ask):
    listed = json.loads(ask("show tables", "--json")[1])
    assert {row["table_name"] for row in listed} >= {"traces", "examples"}
    columns = json.loads(ask("describe traces", "--json")[1])
    assert [row["column_name"] for row in columns] == TRACE.schema.names
    known = "select column_name from information_schema.columns where table_name = 'examples'"
    assert len(json.loads(ask(known, "--json")[1])) == len(EXAMPLE.schema)


@pytest.mark.parametrize(
    "statement",
    [
        "copy traces to '{out}'",
        "copy (select 1) to '{out}' stored as csv",
        "explain analyze copy (select 1) to '{out}'",
        "/* select */ copy (select 1) to '{out}'",
        "-- select\ncopy (select 1) to '{out}'",
        "(copy (select 1) to '{out}')",
        "with x as (select 1) copy x to '{out}'",
        "select 1) as x; copy (select 1) to '{out}'; --",
        "select 1; copy (select 1) to '{out}'",
        "with x as (copy (select 1) to '{out}') select * from x",
        "insert into traces select * from traces",
        "with x as (select * from traces) insert into traces select * from x",
        "select * from (insert into traces select * from traces returning *)",
        "create external table p (line text) stored as csv location '/etc/passwd'",
        "create table t as select 1",
        "create view v as select 1",
        "drop table traces",
        "delete from traces",
        "update traces set verdict = 'pass'",
        "truncate table traces",
        "set datafusion.runtime.memory_limit = '100G'",
        "show all; set datafusion.runtime.memory_limit = '100G'",
        "describe traces; drop table traces",
        "prepare p as select 1",
        "execute p",
        "",
        ";",
        "-- select 1",
    ],
)
def test_no_statement_writes_or_sets_anything(statement: str, ask: Ask, lake: Settings, tmp_path: Path):
    before = files(tmp_path)
    code, said, complaint = ask(statement.format(out=tmp_path / "stolen.csv"))
    assert (code, said) == (2, "")
    assert complaint.count("\n") == 1, complaint
    assert files(tmp_path) == before


def test_two_columns_of_one_name_are_told_apart_or_refused(ask: Ask):
    join = "from traces t join examples e on e.row_no = t.row_no + 10"
    assert "several columns are called row_no" in ask(f"select t.row_no, e.row_no {join}")[2]
    said = ask(f"select t.row_no, e.row_no as example {join} order by 1", "--json")[1]
    assert json.loads(said) == [{"row_no": 1, "example": 11}, {"row_no": 2, "example": 12}]


@pytest.mark.parametrize(
    "source",
    [
        "'/etc/passwd'",
        '"/etc/passwd"',
        "'file:///etc/passwd'",
        "read_parquet('/etc/passwd')",
        "read_csv('/etc/passwd')",
        "parquet_metadata('{file}')",
        "'{file}'",
    ],
)
def test_no_statement_reads_a_file_that_is_no_table(source: str, ask: Ask, lake: Settings):
    file = next(Path(lake.lake, "tables", "traces").glob("*.parquet"))
    code, said, complaint = ask(f"select * from {source.format(file=file)}")
    assert (code, said) == (2, "")
    assert complaint.startswith("stemma: the statement failed: ")


@pytest.mark.timeout(120)
def test_a_statement_that_never_ends_is_ended_at_the_deadline(ask: Ask):
    code, said, complaint = ask(FOR_EVER, "--timeout", "1.5")
    assert (code, said) == (2, "")
    assert "took longer than 1.5 s" in complaint


@pytest.mark.parametrize("timeout", ["0", "-1", "1e12", "inf", "nan"])
def test_a_deadline_that_is_none_is_refused_with_what_may_be_given(timeout: str, ask: Ask):
    code, said, complaint = ask("select 1", "--timeout", timeout)
    assert (code, said) == (2, "")
    assert "expected more than 0 and at most 86,400 seconds" in complaint


def test_an_engine_that_fails_by_itself_is_not_said_to_have_outgrown_its_memory(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONMALLOC", "nonsense")  # no interpreter begins with it
    code, said, complaint = ask("select 1")
    assert (code, said) == (2, "")
    assert "the SQL engine failed with exit code 1: " in complaint
    assert not re.search("signal|memory,|GiB", complaint)


def test_a_statement_that_would_fill_the_memory_is_refused_it(ask: Ask):
    code, said, complaint = ask(TOO_BIG)
    assert (code, said) == (2, "")
    assert "GiB of memory" in complaint


def test_rows_too_wide_for_a_table_are_shown_column_by_column(ask: Ask):
    code, said, _ = ask("select * from examples order by row_no")
    assert code == 0
    lines = said.splitlines()
    assert len(lines) == 2 * (1 + len(EXAMPLE.columns))
    assert max(map(len, lines)) <= 120
    assert (lines[0], lines[1 + len(EXAMPLE.columns)]) == ("-- row 1", "-- row 2")
    first = dict(line.split(":", 1) for line in lines[1 : 1 + len(EXAMPLE.columns)])
    assert {name: first[name].strip() for name in ("row_no", "text", "answer")} == {
        "row_no": "11",
        "text": "text 11",
        "answer": "room",
    }


def test_a_value_longer_than_its_line_is_cut_and_its_length_is_told(ask: Ask):
    columns = ", ".join(f"'{'abcdefghij' * 30}' as column_{n}" for n in range(8))
    _, said, _ = ask(f"select {columns}")
    assert {len(line) for line in said.splitlines()[1:]} == {120}
    assert all(line.endswith("… (300 characters)") for line in said.splitlines()[1:])


def test_a_few_long_columns_are_folded_and_nothing_of_them_is_lost(ask: Ask):
    _, said, _ = ask(f"select '{'a' * 300}' as text, 7 as score")
    assert said.splitlines()[0].split() == ["text", "score"]
    assert said.count("a") == 300


@pytest.mark.timeout(120)
def test_of_endless_rows_the_screen_takes_fifty(ask: Ask):
    code, said, _ = ask("select value from generate_series(1, 1000000000000)")
    assert code == 0
    assert said.splitlines()[-1] == "the first 50 rows; take them all with --out FILE"
    assert len(said.splitlines()) == 52


def test_ctrl_c_ends_a_statement_at_once_and_leaves_no_process(lake: Settings):
    with subprocess.Popen(
        [sys.executable, "-c", TELLS_WHEN_IT_WAITS, "query", FOR_EVER, "--lake", lake.lake],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        (engine,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "")
    assert not Path(f"/proc/{engine}").exists()


TELLS_WHEN_IT_WAITS = """
import sys
import pyarrow as pa
from infra.cli import main

open_stream = pa.ipc.open_stream

def told(source):
    print("waits", flush=True)
    return open_stream(source)

pa.ipc.open_stream = told
main(sys.argv[1:])
"""


def test_a_large_answer_goes_to_a_file_of_each_kind_whole(ask: Ask, tmp_path: Path):
    count = 1_000_000
    statement = f"select value as n, arrow_cast('row', 'Binary') as id from generate_series(1, {count})"
    for kind in (".parquet", ".csv"):
        code, said, _ = ask(statement, "--out", str(tmp_path / f"all{kind}"))
        assert (code, said) == (0, f"{count} rows in {tmp_path / f'all{kind}'}\n")
    assert pq.read_table(tmp_path / "all.parquet")["n"].to_pylist()[-1] == count
    with (tmp_path / "all.csv").open() as file:
        lines = list(csv.reader(file))
    assert (lines[0], lines[-1], len(lines)) == (["n", "id"], [str(count), b"row".hex()], count + 1)
    some = tmp_path / "some.jsonl"
    assert ask("select row_no, parents from examples order by 1", "--out", str(some))[0] == 0
    rows = [json.loads(line) for line in some.read_text().splitlines()]
    assert [(row["row_no"], len(row["parents"])) for row in rows] == [(11, 1), (12, 2)]


def test_a_file_is_whole_or_not_there(ask: Ask, tmp_path: Path):
    """The engine stops within the rows: at the deadline, and at a row that cannot be computed."""
    for statement in (
        "select value from generate_series(1, 1000000000000)",
        "select 1 / (900000 - value) from generate_series(1, 1000000)",
    ):
        code, said, complaint = ask(statement, "--out", str(tmp_path / "cut.jsonl"), "--timeout", "3")
        assert (code, said) == (2, ""), complaint
        assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_what_is_there_already_and_the_lake_are_never_written_to(ask: Ask, lake: Settings, tmp_path: Path):
    mine = tmp_path / "mine.csv"
    mine.write_text("mine")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "elsewhere.csv")
    (tmp_path / "link").symlink_to(lake.lake)
    before = files(tmp_path)
    for out, sentence in {
        mine: "exists",
        tmp_path / "dangling.csv": "exists",
        Path(lake.lake, "tables", "traces", "part-0.parquet"): "lies in the lake",
        tmp_path / "link" / "rows.parquet": "lies in the lake",
        tmp_path / "rows.xlsx": "expected one of: .parquet, .csv, .jsonl",
        tmp_path / "none" / "rows.csv": "there is no folder",
    }.items():
        code, said, complaint = ask("select row_no from traces", "--out", str(out))
        assert (code, said) == (2, "")
        assert sentence in complaint
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "condition",
    [
        "random() < 0.5",
        'RANDOM () < 0.5 and "random"() < 1',
        '"random"() < 0.5',
        "rand/* not so */() < 0.5",
        "uuid() > 'a'",
        "extracted_at < now()",
        "extracted_at < now -- then\n ()",
        "extracted_at < current_date",
        "happened_at < CURRENT_TIMESTAMP",
        "E'\\'' = '' or random() < 0.5",
    ],
)
def test_a_condition_that_means_other_rows_tomorrow_is_refused(condition: str, lake: Settings):
    with pytest.raises(tables.TableError, match="a condition must mean the same rows tomorrow"):
        impact(lake, Selector(where=condition))


def test_every_function_of_the_engine_that_is_not_steady_is_known(lake: Settings):
    statement = "select distinct routine_name from information_schema.routines where not is_deterministic"
    with tables.sql(lake, statement) as answer:
        named = {name for batch in answer.batches for name in batch["routine_name"].to_pylist()}
    assert named - {"generate_series", "range"} == set(NEVER_THE_SAME)  # those two are called so, wrongly


@pytest.mark.parametrize(
    "condition",
    [
        "row_no in (select max(row_no) from traces)",
        "row_no = (select max(row_no) from stored0)",
        "exists (select 1 from information_schema.tables)",
        "true) union all (select row_no from traces where true",
        "true); drop table traces; --",
        "true limit 1",
    ],
)
def test_a_condition_looks_at_its_own_row_alone(condition: str, lake: Settings):
    with pytest.raises(tables.TableError, match="fits no table"):
        impact(lake, Selector(where=condition))


def test_a_condition_may_speak_of_what_it_may_not_do(lake: Settings):
    """Words within a text are no functions; columns may be called by their table, too."""
    condition = "coalesce(response, '') <> 'now or never, at random; select 1' and traces.row_no = 3"
    assert impact(lake, Selector(where=condition)).rows["row_no"].to_pylist() == [3]
