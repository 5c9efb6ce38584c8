from __future__ import annotations

import re
from pathlib import Path

import pytest

from expectations.gate import admit
from expectations.reports import as_text, data_docs
from infra.settings import Settings, SettingsError
from lineage import verdicts
from lineage.schemas import EXAMPLE, TRACE


def test_a_refusal_says_what_broke_which_rows_and_what_to_type_next(lake, toy, change):
    scores = [1.0, 1.0, 42.0, 1.0, 1.0, 1.0]
    traces = change(toy.traces(), "score", scores)
    version = lake.store(traces, TRACE, key="a")
    text = as_text(admit(lake.runtime, version), lake.settings)
    assert text.startswith(f"{version}: REFUSED, withdrawn")
    said = " ".join(text.split())
    assert (
        "FAILED score_in_range: a score that is held against a threshold lies in [0, 1]; 1 of 6 rows" in said
    )
    assert traces["row_id"][2].as_py().hex()[:12] in text
    assert "next: stemma ingest SOURCE" in text
    assert max(map(len, text.splitlines())) <= 100


def test_an_admission_lists_every_rule_with_what_was_observed_and_the_next_command(lake, toy):
    verdict = admit(lake.runtime, lake.store(toy.examples(), EXAMPLE, key="a"))
    text = as_text(verdict, lake.settings)
    assert text.startswith("examples@1: ADMITTED")
    assert "6 rows" in text
    assert all(re.search(rf"^{rule.name} +ok ", text, re.MULTILINE) for rule in verdict.rules)
    assert "next: stemma finetune FILE.toml" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_refusal_whose_withdrawal_is_missing_says_how_to_get_it(lake, twin, toy):
    for place in (lake, twin):
        version = place.store(toy.traces(scorer="unstated"), TRACE, key="a")
    verdict = admit(twin.runtime, version)
    verdicts.record(lake.runtime, verdict, batch_run="ingest-log-a-1", run_id="killed-1")
    assert f"next: stemma gate {version}" in as_text(verdict, lake.settings)


def test_data_docs_show_every_gate_with_its_version_its_run_and_its_rules(lake, toy):
    sound = lake.store(toy.traces(), TRACE, key="a")
    broken = lake.store(toy.examples(source="log-b", answer="card"), EXAMPLE, key="b")
    admit(lake.runtime, sound)
    admit(lake.runtime, broken)
    index = Path(data_docs(lake.runtime))
    assert index == Path(lake.settings.lake) / "docs" / "data_docs" / "index.html"
    shown = index.read_text(encoding="utf-8")
    assert all(f"{version} run " in shown for version in (sound, broken))
    plain = re.findall(
        r">(\w+@\d+)</a></td><td><span class=\"\w+\">(\w+)</span></td><td>\d+</td><td>([\w, ]*)<", shown
    )
    assert plain == [(str(broken), "REFUSED", "labels_differ"), (str(sound), "admitted", "")]
    pages = {
        page.stem: page.read_text(encoding="utf-8") for page in index.parent.glob("validations/**/*.html")
    }
    assert set(pages) == {str(sound), str(broken)}
    assert "classification examples have at least 2 different labels" in pages[str(broken)]
    assert len(list(index.parent.glob("expectations/*.html"))) == 4


def test_data_docs_of_a_lake_without_gates_show_the_suites(lake, capfd):
    index = Path(data_docs(lake.runtime))
    assert "curricula" in index.read_text(encoding="utf-8")
    assert capfd.readouterr() == ("", "")


def test_data_docs_of_an_object_store_need_a_place(lake):
    lake.runtime.settings = Settings(lake="s3://bucket/lake", tracking_uri="")
    with pytest.raises(SettingsError, match="say where"):
        data_docs(lake.runtime)
