"""Who is suspected on a lake, and by what: traces, examples and rejections are stored as jobs store them."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from expectations.gate import admit
from infra.cli import run
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.impact import impact
from lineage.rows import CONFLICTING
from lineage.schemas import EXAMPLE, REJECTED, TRACE, TableSpec
from lineage.selectors import Selector
from lineage.suspects import Findings, Suspect, SuspectsError, suspects
from lineage.verdicts import Verdict
from pipelines.curate import CurateConfig
from pipelines.curate import curate as curate_for_real
from pipelines.ingest import IngestConfig, ingest

Row = dict[str, Any]
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NEIGHBOURS = {"scorer": "neighbours", "scorer_revision": "1", "threshold": 0.05}


def store(
    settings: Settings, spec: TableSpec, rows: Iterable[Mapping[str, Any]], *, by: str, outcome: Any = "pass"
) -> None:
    """One batch with its verdict; columns that a row does not name are filled with what says nothing."""
    empty = {
        field.name: [] if pa.types.is_list(field.type) else "unstated" if field.type == pa.string() else None
        for field in spec.schema
    }
    filled = [empty | {"extracted_at": AT, "run_id": by} | dict(row) for row in rows]
    table = pa.Table.from_pylist(filled, schema=spec.schema)
    file = tables.write_file(settings, table, into=spec, name=by)
    batch = tables.commit(settings, [file], into=spec, run_id=by, keys=[by])
    verdict = Verdict(batch, outcome, "suite", "digest", table.num_rows, ())
    verdicts.record(Runtime(settings), verdict, batch_run=by, run_id=f"gate-{by}")


def traces(count: int, *, first: int = 0, **chosen: Any) -> list[Row]:
    """Traces that ask each their own question; `chosen` gives a column's value, or makes it of the number."""
    same = {
        "prompt_name": "router",
        "prompt_version": "1",
        "scorer": "exact",
        "scorer_revision": "1",
        "generator": "small",
        "generator_revision": "1",
        "reviewer": "not_applicable",
        "source_uri": "file:///logs/july.jsonl",
        "source_revision": "sha256:0123456789abcdef",
        "verdict": "pass",
    }
    made = []
    for n in range(first, first + count):
        asked = [{"role": "system", "content": "Route it."}, {"role": "user", "content": f"question {n}"}]
        row = same | {name: value(n) if callable(value) else value for name, value in chosen.items()}
        made.append({"messages": asked} | row | {"row_id": np.random.default_rng(n).bytes(16), "row_no": n})
    return made


def curate(
    settings: Settings, rows: Iterable[Row], *, scores: Mapping[int, float | str], by: str = "curate-1"
) -> None:
    """What became of traces: row number -> its neighbours' agreement, or why it was rejected."""
    examples, rejected = [], []
    for row in rows:
        said = scores.get(row["row_no"])
        if isinstance(said, str):
            rejected.append({"row_id": row["row_id"], "reason": said, "scorer": "not_applicable"})
        elif said is not None and said < NEIGHBOURS["threshold"]:
            low = {"row_id": row["row_id"], "reason": "neighbours_disagree", "score": said}
            rejected.append(low | NEIGHBOURS)
        elif said is not None:
            child = {"row_id": row["row_id"][::-1], "row_no": 1000 + row["row_no"], "score": said}
            examples.append(child | {"parents": [row["row_id"]], "parent_nos": [row["row_no"]]} | NEIGHBOURS)
    store(settings, EXAMPLE, examples, by=by)
    lost = [{"row_no": -1, "step": "s", "step_revision": "1", "scorer_revision": "1"} | r for r in rejected]
    lost = [dict.fromkeys(REJECTED.schema.names) | row | {"run_id": by} for row in lost]
    tables.replace(settings, pa.Table.from_pylist(lost, schema=REJECTED.schema), into=REJECTED, run_id=by)


def found(findings: Findings, column: str, value: str, signal: str = "failed") -> Suspect:
    (one,) = (s for s in findings.suspects if (s.column, s.value, s.signal) == (column, value, signal))
    return one


def corrections(count: int = 240) -> list[Row]:
    """Passed and corrected traces of three prompt versions and four reviewers, all mixed."""
    return [
        *traces(count, prompt_version=lambda n: str(n % 3 + 1)),
        *traces(
            count,
            first=count,
            verdict="fail",
            prompt_version=lambda n: str(n % 3 + 1),
            reviewer=lambda n: f"reviewer-{n // 3 % 4}",
        ),
    ]


def agreement(rows: Iterable[Row], *, bad: str | None) -> dict[int, float]:
    """Passed rows agree with their neighbours; corrections less; half of those of a bad version hardly."""
    rng = np.random.default_rng(0)
    scores = {}
    for row in rows:
        agreed = rng.uniform(0.3, 1) if row["verdict"] == "pass" else rng.uniform(0.2, 0.9)
        is_wrong = row["verdict"] == "fail" and row["prompt_version"] == bad and rng.random() < 0.5
        scores[row["row_no"]] = rng.uniform(0, 0.2) if is_wrong else agreed
    return scores


# ---------------------------------------------------------------- the two signals


def test_a_judge_version_that_fails_too_often_is_first_under_failed(settings: Settings):
    fails = np.random.default_rng(1).random(300)
    rows = traces(
        300,
        scorer_revision=lambda n: str(n % 3),
        prompt_version=lambda n: str(n // 3 % 4),
        verdict=lambda n: "fail" if fails[n] < (0.5 if n % 3 == 2 else 0.15) else "pass",
    )
    store(settings, TRACE, rows, by="ingest-1")
    findings = suspects(settings)
    first = findings.suspects[0]
    assert (first.column, first.value, first.signal) == ("scorer", "exact@2", "failed")
    assert findings.standing_out == (first,)
    assert first.selector == "--scorer exact@2"
    assert first.low > 0
    assert (first.touched, findings.looked_at) == (100, {"failed": 300, "contradicted": 0})


def test_wrong_corrections_are_first_under_contradicted_and_show_nowhere_else(settings: Settings):
    rows = corrections()
    store(settings, TRACE, rows, by="ingest-1")
    curate(settings, rows, scores=agreement(rows, bad="2"))
    findings = suspects(settings)
    (only,) = findings.standing_out
    assert only is findings.suspects[0]
    assert (only.column, only.value, only.signal) == ("prompt", "router@2", "contradicted")
    assert only.selector == "--prompt router@2"
    assert 20 <= only.excess <= 40  # half of 80 corrections
    assert found(findings, "prompt", "router@2").p == 1


def test_where_nothing_is_wrong_nobody_stands_out(settings: Settings):
    rows = corrections()
    store(settings, TRACE, rows, by="ingest-1")
    curate(settings, rows, scores=agreement(rows, bad=None))
    findings = suspects(settings)
    assert findings.standing_out == ()
    assert len(findings.suspects) == 10  # three prompts under two signals, four reviewers


def test_a_reviewer_who_gets_the_failures_is_not_blamed_for_their_being_hard(settings: Settings):
    rows = traces(300, verdict=lambda n: "fail" if n < 150 else "pass")
    for row in rows:  # two in three hard rows are ann's, and one in three easy ones
        row["reviewer"] = "ann" if (row["row_no"] < 150) != (row["row_no"] % 3 == 0) else "ben"
    store(settings, TRACE, rows, by="ingest-1")
    hard = np.random.default_rng(2).random(300)
    curate(
        settings, rows, scores={n: 0.0 if hard[n] < (0.4 if n < 150 else 0.05) else 0.8 for n in range(300)}
    )
    findings = suspects(settings)
    assert {(s.value, s.signal) for s in findings.suspects} == {
        ("ann", "contradicted"),
        ("ben", "contradicted"),
    }
    assert findings.standing_out == ()
    ann = found(findings, "reviewer", "ann", "contradicted")
    ben = found(findings, "reviewer", "ben", "contradicted")
    assert (ann.touched, ben.touched) == (150, 150)
    assert ann.failures > 1.5 * ben.failures  # lumped together, she would look guilty
    assert ann.low < 0 < ann.high


def test_only_a_second_opinion_contradicts(settings: Settings):
    rows = traces(60, prompt_version=lambda n: str(n % 2))
    reasons: dict[int, float | str] = {row["row_no"]: 0.9 for row in rows}
    reasons |= {n: "prompt_injection" for n in range(0, 20, 2)} | {n: CONFLICTING for n in range(1, 21, 2)}
    store(settings, TRACE, rows, by="ingest-1")
    curate(settings, rows, scores=reasons)
    findings = suspects(settings)
    assert findings.looked_at["contradicted"] == 50  # the ten poisoned ones were judged by nobody
    conflicting = found(findings, "prompt", "router@1", "contradicted")
    assert (conflicting.touched, conflicting.failures) == (30, 10)


def test_the_traces_own_judge_is_no_second_opinion(settings: Settings):
    rows = traces(60, scorer="neighbours", prompt_version=lambda n: str(n % 2))
    store(settings, TRACE, rows, by="ingest-1")
    curate(settings, rows, scores={row["row_no"]: 0.0 if row["row_no"] % 4 == 0 else 0.9 for row in rows})
    assert suspects(settings).looked_at["contradicted"] == 0


def test_a_later_curation_that_tells_only_of_what_it_refused_blames_no_old_source(settings: Settings):
    july = traces(80)
    august = traces(80, first=80, source_uri="file:///logs/august.jsonl", source_revision="sha256:fedcba98")
    scores = {n: 0.0 if n % 8 == 0 else 0.8 for n in range(160)}
    store(settings, TRACE, july + august, by="ingest-1")
    curate(settings, july, scores=scores)
    refused_again = {n: score for n, score in scores.items() if n >= 80 or score == 0}
    curate(settings, july + august, scores=refused_again, by="again-1")
    findings = suspects(settings)
    assert findings.looked_at["contradicted"] == 160
    assert [s for s in findings.suspects if s.column == "source"] == []  # each source in a run of its own


def test_what_was_not_admitted_is_not_looked_at(settings: Settings):
    store(settings, TRACE, traces(40, verdict=lambda n: "fail" if n % 2 else "pass"), by="ingest-1")
    broken = traces(40, first=40, verdict="fail", prompt_version="9")
    store(settings, TRACE, broken, by="ingest-2", outcome="fail")
    findings = suspects(settings)
    assert (findings.suspects, findings.looked_at["failed"]) == ((), 40)


# ---------------------------------------------------------------- what is said of a suspect


def test_a_constant_column_is_not_tested_and_counted(settings: Settings):
    rows = traces(100, prompt_version=lambda n: str(n % 2), verdict=lambda n: "fail" if n % 5 else "pass")
    store(settings, TRACE, rows, by="ingest-1")
    findings = suspects(settings)
    assert {s.column for s in findings.suspects} == {"prompt"}
    assert findings.nothing_beside == 3  # one source, one scorer, one generator


def test_sources_of_three_rows_cannot_stand_out_and_are_counted(settings: Settings):
    rows = traces(
        300,
        source_uri=lambda n: f"file:///logs/{n // 3}.jsonl" if n < 150 else "file:///logs/big.jsonl",
        source_revision=lambda n: f"sha256:{n // 3:08x}" if n < 150 else "sha256:ff",
        verdict=lambda n: "fail" if n % 4 == 0 else "pass",
    )
    store(settings, TRACE, rows, by="ingest-1")
    findings = suspects(settings)
    assert [s.value for s in findings.suspects] == ["file:///logs/big.jsonl#sha256:ff"]
    assert findings.too_few == 50


def test_values_that_touch_the_same_rows_say_so(settings: Settings):
    rows = traces(
        200,
        prompt_version=lambda n: str(n % 2),
        source_uri=lambda n: f"file:///logs/{n % 2}.jsonl",
        source_revision=lambda n: f"sha256:{n % 2:016x}",
        generator_revision=lambda n: str(n % 3),
        verdict=lambda n: "fail" if n % 2 and n % 5 else "pass",
    )
    store(settings, TRACE, rows, by="ingest-1")
    findings = suspects(settings)
    source = f"file:///logs/1.jsonl#sha256:{1:016x}"
    assert found(findings, "prompt", "router@1").same_rows_as == (f"source {source}",)
    assert found(findings, "source", source).same_rows_as == ("prompt router@1",)
    assert found(findings, "source", source).selector == f"--source-revision sha256:{1:016x}"
    assert found(findings, "generator", "small@1").same_rows_as == ()


def test_prompts_are_compared_with_other_versions_of_their_own_name(settings: Settings):
    easy = traces(
        100, prompt_version=lambda n: str(n % 2), verdict=lambda n: "fail" if n % 10 < 2 else "pass"
    )
    hard = traces(
        100,
        first=100,
        prompt_name="summary",
        prompt_version=lambda n: str(n % 2),
        verdict=lambda n: "fail" if n % 10 < 8 else "pass",
    )
    store(settings, TRACE, easy + hard, by="ingest-1")
    findings = suspects(settings)
    assert {s.value for s in findings.suspects} == {"router@0", "router@1", "summary@0", "summary@1"}
    assert [s.excess for s in findings.suspects] == pytest.approx([0] * 4)


def test_a_request_that_came_a_hundred_times_is_counted_once(settings: Settings):
    rows = traces(
        200, prompt_version=lambda n: str(n % 2), verdict=lambda n: "fail" if n % 3 == 0 else "pass"
    )
    again = traces(100, first=200, prompt_version="1", verdict="fail")
    for n, row in enumerate(again):
        system = {"role": "system", "content": f"It is {n} o'clock."}
        row["messages"] = [system, {"role": "user", "content": "Again " + "and " * 3 + " again" * (n >= 0)}]
    again[0]["messages"][1]["content"] = "AGAIN and and and\n again"
    store(settings, TRACE, rows + again, by="ingest-1")
    one = found(suspects(settings), "prompt", "router@1")
    assert (one.touched, one.p) == (101, 1.0)


def test_a_reviewers_name_is_quoted_for_the_shell(settings: Settings):
    rows = traces(80, verdict="fail", reviewer=lambda n: "o'hara" if n % 2 else "ann")
    store(settings, TRACE, rows, by="ingest-1")
    curate(settings, rows, scores={n: 0.0 if n % 8 < 2 else 0.9 for n in range(80)})
    selectors = {s.selector for s in suspects(settings, by=["reviewer"]).suspects}
    assert {tuple(shlex.split(each)) for each in selectors} == {
        ("--reviewer", "o'hara"),
        ("--reviewer", "ann"),
    }


def test_only_the_named_sources_and_columns_are_looked_at(settings: Settings):
    rows = traces(
        100, source_uri=lambda n: f"file:///logs/{n % 2}.jsonl", prompt_version=lambda n: str(n % 3)
    )
    for row in rows:
        row["verdict"] = "fail" if row["row_no"] % 4 < 2 else "pass"
    store(settings, TRACE, rows, by="ingest-1")
    findings = suspects(settings, by=["prompt"], sources=["*/1.jsonl"])
    assert ({s.column for s in findings.suspects}, findings.looked_at["failed"]) == ({"prompt"}, 50)


# ---------------------------------------------------------------- windows of time


def test_the_day_since_which_all_goes_wrong_stands_out_and_its_selector_means_it(settings: Settings):
    """Wrong since the fifth day; a third of the traces do not say when, and came in a batch of their own."""
    dated = traces(
        300,
        happened_at=lambda n: AT + dt.timedelta(days=n % 6, minutes=n),
        verdict=lambda n: "fail" if n % 6 >= 4 or n % 7 == 0 else "pass",
    )
    store(settings, TRACE, dated, by="ingest-1")
    store(
        settings, TRACE, traces(150, first=300, verdict=lambda n: "fail" if n % 7 == 0 else "pass"), by="i-2"
    )
    findings = suspects(settings, by=["prompt", "window"])
    assert [(s.column, s.value) for s in findings.standing_out] == [
        ("window", "2026-01-05"),
        ("window", "2026-01-06"),
    ]
    option, where = shlex.split(findings.suspects[0].selector)
    assert option == "--where"
    reached = impact(settings, Selector(where=where)).rows
    assert reached["row_no"].to_pylist() == [n for n in range(300) if n % 6 == 4]
    _, where = shlex.split(found(findings, "window", "batch i-2").selector)
    assert len(impact(settings, Selector(where=where)).rows) == 150


def test_months_of_traces_are_looked_at_by_the_week_from_monday_on(settings: Settings):
    rows = traces(
        400,
        happened_at=lambda n: AT + dt.timedelta(days=n % 40),
        verdict=lambda n: "fail" if 11 <= n % 40 < 18 else "pass",  # the 1st was a Thursday
    )
    store(settings, TRACE, rows, by="ingest-1")
    findings = suspects(settings, by=["window"])
    (only,) = findings.standing_out
    assert only.value == "week of 2026-01-12"
    _, where = shlex.split(only.selector)
    assert len(impact(settings, Selector(where=where)).rows) == only.touched == 70


def test_windows_are_not_looked_at_unasked(settings: Settings):
    rows = traces(100, happened_at=lambda n: AT + dt.timedelta(days=n % 2))
    for row in rows:
        row["verdict"] = "fail" if row["row_no"] % 2 else "pass"
    store(settings, TRACE, rows, by="ingest-1")
    assert {s.column for s in suspects(settings).suspects} == set()
    assert {s.column for s in suspects(settings, by=["window"]).suspects} == {"window"}


# ---------------------------------------------------------------- on the real path


def test_a_planted_bad_judge_is_first_after_ingest_gate_and_curate(
    runtime: Runtime, toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """judge@2 fails a third of what judge@1 would pass; reviewers correct that to what it was."""
    rng = np.random.default_rng(3)
    topics = {"room": "book a room for", "password": "reset the password of", "outage": "no network for"}
    lines = []
    for n in range(480):
        topic = list(topics)[n % 3]
        judge = "2" if rng.random() < 0.4 else "1"  # whatever is asked
        is_wrong = rng.random() < 0.1
        fails = is_wrong or (judge == "2" and rng.random() < 1 / 3)
        answer = "password" if is_wrong and topic != "password" else "room" if is_wrong else topic
        line = toys.exchange(
            f"please {topics[topic]} team {n}",
            answer,
            verdict="fail" if fails else "pass",
            correction=topic if fails else None,
        )
        line["verdict"] |= {"judge": "judge", "judge_version": judge}
        line["request"]["metadata"]["prompt_version"] = str(rng.integers(1, 4))
        line["response"]["created"] += int(rng.integers(6)) * 86_400
        if fails:
            line["review"]["reviewer"] = str(rng.choice(["ann", "ben", "cy"]))
        lines.append(line)
    stored = ingest(runtime, IngestConfig(sources=(str(toys.write_lines(tmp_path / "log.jsonl", lines)),)))
    assert admit(runtime, stored.outputs[0]).passed
    made = curate_for_real(runtime, CurateConfig(sources=("*/log.jsonl",), scorer_base_model=None))
    assert admit(runtime, made.outputs[0]).passed
    findings = suspects(
        runtime.settings, by=["prompt", "source", "scorer", "generator", "reviewer", "window"]
    )
    first = findings.suspects[0]
    assert (first.column, first.value, first.signal) == ("scorer", "judge@2", "failed")
    assert findings.standing_out == (first,)
    planted = sum(
        line["verdict"]["judge_version"] == "2"
        and line["verdict"]["value"] == "fail"
        and line["response"]["choices"][0]["message"]["content"] == line["review"]["correction"]
        for line in lines
    )
    assert first.low <= planted <= first.high
    assert first.p < 1e-6
    assert run("suspects", ["--lake", runtime.settings.lake]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: stemma impact --scorer judge@2"
    reached = impact(runtime.settings, Selector(scorer="judge@2"))
    assert reached.by_table["traces"] == sum(line["verdict"]["judge_version"] == "2" for line in lines)


# ---------------------------------------------------------------- the verb


def test_the_verb_ranks_and_names_the_next_command(settings: Settings, capsys: pytest.CaptureFixture[str]):
    rows = corrections()
    store(settings, TRACE, rows, by="ingest-1")
    curate(settings, rows, scores=agreement(rows, bad="2"))
    assert run("suspects", ["--lake", settings.lake]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["rank", "value", "signal", "touched"]
    assert lines[2].split()[:4] == ["1", "prompt", "router@2", "contradicted"]
    assert lines[-1] == "next: stemma impact --prompt router@2"
    assert run("suspects", ["--lake", settings.lake, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {
        *("suspects", "alpha", "looked_at", "nothing_beside", "too_few", "standing_out"),
    }
    assert said["standing_out"] == 1
    assert said["suspects"][0]["value"] == "router@2"
    assert said["suspects"][0].keys() == {"rank", *Suspect.__dataclass_fields__}


def test_the_verb_says_plainly_when_nobody_stands_out(settings: Settings, capsys: pytest.CaptureFixture[str]):
    rows = traces(100, prompt_version=lambda n: str(n % 2), verdict=lambda n: "fail" if n % 5 else "pass")
    store(settings, TRACE, rows, by="ingest-1")
    assert run("suspects", ["--lake", settings.lake]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "no value stands out beyond chance (adjusted p < 0.05)"
    assert "next:" not in said


def test_an_empty_lake_and_one_without_verdicts_are_one_sentence(
    settings: Settings, capsys: pytest.CaptureFixture[str]
):
    assert run("suspects", ["--lake", settings.lake]) == 2
    with pytest.raises(SuspectsError, match="no admitted traces match"):
        suspects(settings)
    store(settings, TRACE, traces(5, verdict="unstated"), by="ingest-1")
    capsys.readouterr()
    assert run("suspects", ["--lake", settings.lake]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "none of 5 admitted traces has a verdict" in said.err


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--by", "weather"], "cannot look at ['weather']; known: prompt, source"),
        (["--by", ","], "cannot look at nothing"),
        (["--alpha", "5"], "alpha is 5.0, expected a chance between 0 and 1"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_sentence(
    asked: list[str], sentence: str, settings: Settings, capsys: pytest.CaptureFixture[str]
):
    store(settings, TRACE, traces(5), by="ingest-1")
    assert run("suspects", ["--lake", settings.lake, *asked]) == 2
    assert sentence in capsys.readouterr().err
