"""`stemma ingest` as one uses it: what it says, how it ends, and what it makes of personal data."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations.gate import admit, reason
from lineage import tables
from lineage.schemas import QUARANTINE, TRACE
from pipelines import progress
from pipelines.progress import ReadingProgress
from pipelines.readers.field_map import DocumentMap, FieldMap
from pipelines.runner import Told
from tests.conformance import Golden, every_golden
from tests.pipelines.log_lake import Lake, stemma

KEY = "sk-proj-4fQ8zT1mW9xR2bV7nL5cJ3kD6h"
MAIL = "Ann.Smith@example.com"


def test_it_says_what_it_read_and_the_balance(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    log = lake.log("log.jsonl", "a", f"my mail is {MAIL}")
    log.write_bytes(log.read_bytes() + b"{1\n")
    words = ["ingest", str(log), "--no-gate", "--max-quarantined", "0.5"]
    code, said, _ = stemma(lake, capsys, *words)
    assert code == 0
    assert "read as chat_completions@" in said
    assert (
        "3 records read = 2 stored + 1 quarantined; 2 rows stored, 1 of them with personal data or secrets"
        in said
    )
    assert "in quarantine: 1 not_json; see: stemma query" in said
    assert "nothing new: this was ingested before" in stemma(lake, capsys, *words)[1]
    words[-1] = "0.6"
    assert "nothing new: all 1 sources were stored before" in stemma(lake, capsys, *words)[1]
    lake.log("log.jsonl", "a", "X")
    said = stemma(lake, capsys, *words)[1]
    assert "2 records read = 1 stored + 1 duplicates; 1 rows stored" in said
    assert f"rewritten: {log.as_uri()}; the rows of what it held before stay" in said


def test_what_was_read_is_gated_by_the_config_that_is_given(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    config = lake.folder / "gate.toml"
    config.write_text("[thresholds]\nmin_rows = 2\n")
    log = str(lake.log("log.jsonl", "a"))
    code, said, _ = stemma(lake, capsys, "ingest", log, "--gate-config", str(config))
    assert code == 1
    assert "FAILED batch_not_empty: the batch holds at least 2 rows" in said
    code, _, complaint = stemma(lake, capsys, "ingest", log, "--gate-config", "none.toml")
    assert code == 2
    assert "none.toml" in complaint


def test_a_suite_that_the_config_names_is_looked_for_beside_it(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    (lake.folder / "mine.toml").write_text(
        'table = "traces"\n[[rules]]\nrule = "brief"\ntype = "expect_column_values_to_be_between"\n'
        'kwargs = { column = "response_words", max_value = 0 }\nsentence = "nothing is said"\nwhy = "test"\n'
    )
    config = lake.folder / "gate.toml"
    config.write_text('suites = ["mine.toml"]\n')
    log = str(lake.log("log.jsonl", "a"))
    code, said, _ = stemma(lake, capsys, "ingest", log, "--gate-config", str(config))
    assert code == 1
    assert "FAILED brief: nothing is said" in said


def test_a_verdict_of_before_is_told_in_a_line(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    log = str(lake.log("log.jsonl", "a"))
    assert "row_id_unique" in stemma(lake, capsys, "ingest", log)[1]
    more = str(lake.log("more.jsonl", "b"))
    said = stemma(lake, capsys, "ingest", log, more)[1]
    assert re.search(r"traces@1: ADMITTED; 1 rows, \d+ of \d+ rules passed", said)
    assert said.count("row_id_unique") == 1


def test_what_a_map_read_is_not_tried_again_without_it(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    by = lake.folder.parent / "map.toml"
    by.write_text('[map]\ninput = "q"\nresponse = "a"\n')
    table = lake.folder / "log.csv"
    table.write_text("q,a\nhow,so\nwhat\n")
    words = ("--no-gate", "--field-map", str(by), "--max-quarantined", "1")
    assert stemma(lake, capsys, "ingest", str(table), *words)[0] == 0
    said = stemma(lake, capsys, "ingest", "--retry-quarantine", "--no-gate")[1]
    assert "0 cannot, 1 were read by a map" in said


def test_what_cannot_be_read_is_told_on_stderr_and_the_exit_code_is_1(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    lake.log("log.jsonl", "a")
    lake.write("empty.jsonl", end="")
    code, said, problems = stemma(lake, capsys, "ingest", str(lake.folder), "--no-gate")
    assert (code, "1 records read = 1 stored" in said) == (1, True)
    assert "NOT READ" in problems
    assert "empty.jsonl' is empty" in problems
    assert stemma(lake, capsys, "ingest", str(lake.folder), "--no-gate")[0] == 1


def test_too_much_that_cannot_be_read_is_one_sentence_that_says_where_it_lies(
    lake: Lake, toys: SimpleNamespace, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    log = lake.write("log.jsonl", toys.exchange("a", "b"), "{1", "{2")
    code, _, problem = stemma(lake, capsys, "ingest", str(log), "--no-gate")
    assert (code, problem.count("2 of 3 records could not be read, more than the 5%")) == (2, 1)
    assert "from quarantine where run_id" in problem
    code, said, _ = stemma(lake, capsys, "ingest", "--retry-quarantine", "--no-gate")
    assert (code, "0 records can be read now: 0 rows stored" in said) == (0, True)
    assert "2 are of sources that are not stored (ingest those again)" in said


def test_a_format_may_be_named_and_an_unknown_one_is_refused(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    log = str(lake.log("log.jsonl", "a"))
    code, said, _ = stemma(lake, capsys, "ingest", log, "--no-gate", "--format", "chat_completions")
    assert (code, "(named)" in said or ": named" in said) == (0, True)
    code, _, problem = stemma(lake, capsys, "ingest", log, "--format", "chats")
    assert (code, "unknown format 'chats'; known: auto, " in problem) == (2, True)
    code, _, problem = stemma(lake, capsys, "ingest", log, "--retry-quarantine")
    assert (code, "give sources, or --retry-quarantine alone" in problem) == (2, True)


def test_elsewhere_than_on_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    clock = iter([100.0, 105.0, 111.0, 112.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "stemma.ingest"), ReadingProgress() as shown:
        for read in (0, 1_000_000, 500_000_000, 600_000_000):
            shown.show(Told(read, 1_000_000_000, read // 1000))
    (line,) = caplog.messages
    assert line == "50 % of 1.0 GB, 45 MB/s, 45,455 rows/s"


# ---------------------------------------------------------------- personal data


def test_personal_data_is_flagged_counted_and_left_as_it_is(lake: Lake):
    outcome = lake.ingest(lake.log("log.jsonl", "a", f"mail {MAIL} and {MAIL}"))
    assert outcome.counts["personal"] == 1
    flagged = {row["pii"] for row in lake.rows()}
    assert None in flagged
    assert any('"email": ' in told for told in flagged if told)
    assert lake.ingest(lake.log("other.jsonl", f"mail {MAIL}"), pii="off").counts["personal"] == 0


def test_redacted_rows_hold_no_address_and_no_secret_in_any_column_and_no_log_tells_one(
    lake: Lake, toys: SimpleNamespace, caplog: pytest.LogCaptureFixture
):
    said = toys.exchange(f"write to {MAIL} with {KEY}", f"I wrote to {MAIL}", correction=f"ask {MAIL}")
    said["review"]["reviewer"] = MAIL
    said["user_name"] = MAIL
    said["request"]["messages"][0]["name"] = MAIL
    said["request"]["tools"] = [
        {"type": "function", "function": {"name": "send", "description": f"key {KEY}"}}
    ]
    call = {"id": "1", "type": "function", "function": {"name": "send", "arguments": f'{{"to": "{MAIL}"}}'}}
    said["response"]["choices"][0]["message"]["tool_calls"] = [call]
    log = lake.write("log.jsonl", said, f'{{"cut": "{MAIL}')
    with caplog.at_level(logging.DEBUG):
        lake.ingest(log, pii="redact")
    (row,) = lake.rows()
    for secret in (MAIL, MAIL.lower(), KEY):
        assert secret not in str(row)
        assert secret not in caplog.text
    assert row["step"] == "chat_completions+redacted"
    assert row["extra"] is not None
    (lost,) = tables.read(lake.settings, QUARANTINE).to_pylist()
    assert MAIL.encode() in lost["record"]  # byte for byte: else it could not be read again
    assert MAIL not in lost["detail"]


def test_pseudonyms_are_the_same_in_two_ingests_and_what_is_not_redacted_is_another_row(lake: Lake):
    lake.ingest(lake.log("1.jsonl", f"I am {MAIL}"), pii="redact")
    lake.ingest(lake.log("2.jsonl", f"It is {MAIL.upper()}"), pii="redact")
    first, second = (row["messages"][-1]["content"] for row in lake.rows())
    assert first.removeprefix("I am ") == second.removeprefix("It is ")
    assert first.startswith("I am <email:")
    assert lake.added(lake.folder / "1.jsonl", pii="redact", max_quarantined=0.5) == 0
    assert lake.added(lake.folder / "1.jsonl") == 1
    assert len(set(lake.ids())) == 3
    assert tables.read(lake.settings, TRACE, columns=["pii"])["pii"].null_count == 0


def test_rows_of_parquet_are_admitted_and_what_is_recalled_of_them_does_not_come_back(
    lake: Lake, ray_session: None, capsys: pytest.CaptureFixture[str]
):
    table = lake.folder / "log.parquet"
    pq.write_table(pa.table({"q": ["how?", "what?"], "a": ["so", "that"]}), table)
    by = lake.folder.parent / "map.toml"
    by.write_text('[map]\ninput = "q"\nresponse = "a"\n')
    code, said, _ = stemma(lake, capsys, "ingest", str(table), "--field-map", str(by))
    assert (code, "traces@1: ADMITTED" in said) == (0, True)
    rows = tables.read(lake.settings, TRACE).sort_by("row_no")
    assert rows["source_span"].to_pylist() == ["row:0", "row:1"]
    first = rows["row_id"][0].as_py().hex()
    assert stemma(lake, capsys, "recall", "--row", first, "--reason", "wrong", "--yes")[0] == 0
    by.write_text('[map]\ninput = "q"\nresponse = "q"\n')
    said = stemma(lake, capsys, "ingest", str(table), "--field-map", str(by), "--no-gate")[1]
    assert "1 recalled" in said
    assert first not in {row_id.hex() for row_id in tables.read(lake.settings, TRACE)["row_id"].to_pylist()}


FEW = {"chat_completions": "responses_not_empty", "otlp": "responses_not_empty, messages_not_empty"}
"""Of their few golden rows one each without an answer: more than the share that is allowed."""


@pytest.mark.parametrize("golden", every_golden(), ids=lambda golden: golden.name)
def test_a_gate_asks_no_format_for_what_it_cannot_say(golden: Golden, lake: Lake):
    by_map = isinstance(golden.reader, FieldMap | DocumentMap)
    how = {"field_map": str(golden.file.parent / "map.toml")} if by_map else {}
    outcome = lake.ingest(golden.file, **how)
    refused = [reason(admit(lake.runtime, output)) for output in outcome.outputs]
    assert refused == [FEW.get(golden.name, "")]
