"""A verdict as text, and the Data Docs of the gates."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from expectations import reports
from expectations.gate import admit
from expectations.reports import as_text
from expectations.reports.docs import build_docs
from expectations.suites import SUITES
from infra.settings import Settings, SettingsError
from lineage import verdicts
from lineage.schemas import CURRICULUM, EXAMPLE, TRACE
from lineage.verdicts import Rule


def test_a_refusal_says_what_broke_which_rows_from_where_and_what_to_type_next(lake, toy, change):
    scores = [1.0, 1.0, 42.0, 1.0, 1.0, 1.0]
    traces = change(toy.traces(), "score", scores)
    version = lake.store(traces, TRACE, key="a")
    text = as_text(admit(lake.runtime, version), lake.settings)
    assert text.startswith(f"{version}: REFUSED, withdrawn")
    said = " ".join(text.split())
    assert (
        "FAILED score_in_range: a score that is held against a threshold lies in [0, 1]; 1 of 6 rows" in said
    )
    row = traces["row_id"][2].as_py().hex()[:12]
    assert re.search(
        rf"row {row}  /logs/log-a.jsonl bytes:200-300\n +prompt intent@v3, generator bot@1, scorer judge@2\n",
        text,
    )
    assert "next: stemma ingest SOURCE" in text
    assert max(map(len, text.splitlines())) <= 100


def test_of_many_failing_rows_five_are_named_and_the_rest_counted(lake, toy):
    version = lake.store(toy.traces(9, scorer="unstated"), TRACE, key="a")
    text = as_text(admit(lake.runtime, version), lake.settings)
    assert len(re.findall(r"^    row [0-9a-f]{12}  ", text, re.MULTILINE)) == 5
    assert "and 4 more" in text
    assert "scorer unstated" in text


def test_rows_of_a_curriculum_are_told_with_the_provenance_of_their_examples(lake, toy):
    gate = toy.examples(3, source="log-b", split="gate")
    admit(lake.runtime, lake.store(gate, EXAMPLE, key="gate"))
    text = as_text(admit(lake.runtime, lake.store(toy.curriculum(gate), CURRICULUM, key="c")), lake.settings)
    assert f"row {gate['row_id'][0].as_py().hex()[:12]}  /logs/log-b.jsonl" in text


def test_rows_whose_file_is_gone_are_named_all_the_same(lake, toy):
    version = lake.store(toy.traces(scorer="unstated"), TRACE, key="a")
    verdict = admit(lake.runtime, version)
    for file in Path(lake.settings.path("tables", "traces")).glob("*.parquet"):
        file.unlink()
    text = as_text(verdict, lake.settings)
    (broken,) = (rule for rule in verdict.rules if rule.outcome == "fail")
    assert f"row {broken.examples[0][:12]}  no longer stored" in text


def test_a_long_address_keeps_its_end_and_control_codes_reach_no_screen(lake, toy, change):
    traces = toy.traces(1, scorer="unstated", generator="\x1b[2Jbot")
    traces = change(traces, "source_uri", "s3://bucket/" + "deep/" * 40 + "log.jsonl")
    text = as_text(admit(lake.runtime, lake.store(traces, TRACE, key="a")), lake.settings)
    assert "deep/log.jsonl bytes:0-100" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_an_admission_lists_every_rule_with_what_was_observed_and_the_next_command(lake, toy):
    verdict = admit(lake.runtime, lake.store(toy.examples(), EXAMPLE, key="a"))
    text = as_text(verdict, lake.settings)
    assert text.startswith("examples@1: ADMITTED")
    assert "6 rows" in text
    assert all(re.search(rf"^{rule.name} +ok ", text, re.MULTILINE) for rule in verdict.rules)
    assert "next: stemma finetune FILE.toml" in text
    assert max(map(len, text.splitlines())) <= 100


def test_whatever_a_rule_observed_is_told_on_its_line(lake, toy):
    verdict = admit(lake.runtime, lake.store(toy.traces(), TRACE, key="a"))
    odd = (
        Rule("shares", "fail", "slices", {"gold": 0.5, "hard": 0.25}, {"ranges": {"gold": [0.4, 0.6]}}),
        Rule("named", "fail", "kind", "a word", {"min_value": None, "max_value": 3}),
        Rule("distance", "pass", "drift", 0.123456, {"max_value": 0.2}),
    )
    text = as_text(replace(verdict, rules=odd), lake.settings)
    assert re.search(r"^shares +FAILED +gold 50%, hard 25% ", text, re.MULTILINE)
    assert re.search(r"^named +FAILED +a word +max 3", text, re.MULTILINE)
    assert re.search(r"^distance +ok +0\.1235 +max 0\.2", text, re.MULTILINE)


def test_a_refusal_whose_withdrawal_is_missing_says_how_to_get_it(lake, twin, toy):
    for place in (lake, twin):
        version = place.store(toy.traces(scorer="unstated"), TRACE, key="a")
    verdict = admit(twin.runtime, version)
    verdicts.record(lake.runtime, verdict, batch_run="ingest-log-a-1", run_id="killed-1")
    assert f"next: stemma gate {version}" in as_text(verdict, lake.settings)


def test_data_docs_are_linked_from_the_index_and_lead_back_to_it(lake, toy):
    sound = lake.store(toy.traces(), TRACE, key="a")
    broken = lake.store(toy.examples(answer="card"), EXAMPLE, key="b")
    admit(lake.runtime, sound)
    admit(lake.runtime, broken)
    index = reports.build(lake.runtime, docs=True)
    assert index == Path(lake.settings.lake) / "docs" / "reports" / "index.html"
    linked = re.findall(r'href="(validations/[^"]*)"', index.read_text(encoding="utf-8"))
    pages = [index.parent / each.replace("%40", "@") for each in linked]
    assert [page.stem for page in pages] == [str(broken), str(sound)]
    shown = pages[0].read_text(encoding="utf-8")
    assert "classification examples have at least 2 different labels" in shown
    (home,) = set(re.findall(r'<a href="([^"]*index.html)"', shown))
    assert (pages[0].parent / home).resolve() == index
    assert len(list(index.parent.glob("expectations/*.html"))) == len(SUITES)


def test_data_docs_load_nothing_and_run_nothing(lake, toy):
    admit(lake.runtime, lake.store(toy.traces(), TRACE, key="a"))
    site = reports.build(lake.runtime, docs=True).parent
    pages = [*site.glob("validations/**/*.html"), *site.glob("expectations/*.html")]
    assert len(pages) == len(SUITES) + 1
    for page in pages:
        content = page.read_text(encoding="utf-8")
        assert "default-src 'none'" in content
        assert not re.search(r"<script|(?:src|href)\s*=\s*[\"']?https?:", content)


def test_only_the_newest_data_docs_are_kept_and_those_that_stand_are_not_drawn_again(lake, toy, tmp_path):
    admit(lake.runtime, lake.store(toy.traces(), TRACE, key="a"))
    (first,) = build_docs(lake.settings, tmp_path, newest=2)
    page = next(tmp_path.glob("validations/**/*.html"))
    page.write_text("drawn before")
    admit(lake.runtime, lake.store(toy.traces(source="log-b"), TRACE, key="b"))
    assert first in build_docs(lake.settings, tmp_path, newest=2)
    assert page.read_text() == "drawn before"
    assert first not in build_docs(lake.settings, tmp_path, newest=1)
    assert [each.stem for each in tmp_path.glob("validations/**/*.html")] == ["traces@2"]


def test_reports_of_a_lake_without_gates_show_the_suites(lake, capfd):
    index = reports.build(lake.runtime, docs=True)
    assert "Nothing was gated yet" in index.read_text(encoding="utf-8")
    assert (index.parent / "expectations" / "curricula.html").is_file()
    assert capfd.readouterr() == ("", "")


def test_reports_of_an_object_store_need_a_place(lake):
    lake.runtime.settings = Settings(lake="s3://bucket/lake", tracking_uri="")
    with pytest.raises(SettingsError, match="say where"):
        reports.build(lake.runtime)
