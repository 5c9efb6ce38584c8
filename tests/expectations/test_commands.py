from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from infra import cli
from lineage.schemas import TRACE


def stemma(lake, *words: str) -> int:
    return cli.run(words[0], [*words[1:], "--lake", lake.settings.lake])


def test_gate_ends_with_0_for_admitted_1_for_refused_2_for_what_cannot_be_gated(lake, toy, capsys):
    lake.store(toy.traces(), TRACE, key="a")
    lake.store(toy.traces(source="log-b", scorer="unstated"), TRACE, key="b")
    assert stemma(lake, "gate", "traces@1") == 0
    assert stemma(lake, "gate", "traces@2") == 1
    assert "traces@2: REFUSED, withdrawn" in capsys.readouterr().out
    assert stemma(lake, "gate", "traces@9") == 2
    assert "'traces@9' does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["gate", "reports"])
def test_help_ends_with_an_example(verb, lake, capsys):
    assert cli.run(verb, ["--help"]) == 0
    assert f"Example: stemma {verb} traces@1" in capsys.readouterr().out


def test_reports_shows_a_verdict(lake, toy, capsys):
    lake.store(toy.traces(), TRACE, key="a")
    assert stemma(lake, "reports", "traces@1") == 2
    assert "run: stemma gate traces@1" in capsys.readouterr().err
    stemma(lake, "gate", "traces@1")
    capsys.readouterr()
    assert stemma(lake, "reports", "traces@1") == 0
    assert capsys.readouterr().out.startswith("traces@1: ADMITTED")


def test_html_and_docs_say_where_the_pages_lie(lake, toy, capsys):
    lake.store(toy.traces(), TRACE, key="a")
    stemma(lake, "gate", "traces@1")
    folder = f"{lake.settings.lake}/docs/reports"
    assert stemma(lake, "reports", "traces@1", "--html") == 0
    assert f"page: {folder}/verdicts/traces@1.html" in capsys.readouterr().out
    assert stemma(lake, "reports", "--docs") == 0
    assert f"reports: {folder}/index.html" in capsys.readouterr().out
    assert next(Path(folder).glob("validations/**/traces@1.html"))


def test_json_stays_json_whatever_else_is_built(lake, toy, capsys):
    lake.store(toy.traces(), TRACE, key="a")
    stemma(lake, "gate", "traces@1")
    capsys.readouterr()
    assert stemma(lake, "reports", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [{"batch": "traces@1", "outcome": "pass", "rows": 6}]
    assert stemma(lake, "reports", "traces@1", "--json", "--html") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["batch"] == "traces@1"
    assert "traces@1.html" in said.err


def test_reports_that_cannot_be_written_end_with_2_and_a_sentence(lake, toy, capsys, tmp_path):
    lake.store(toy.traces(), TRACE, key="a")
    stemma(lake, "gate", "traces@1")
    (tmp_path / "file").write_text("")
    for words in (("--docs",), ("traces@1", "--html")):
        capsys.readouterr()
        assert stemma(lake, "reports", *words, "--into", str(tmp_path / "file" / "x")) == 2
        assert re.fullmatch(
            r"stemma: reports cannot be written to '.*' \(.*\); choose .*\n", capsys.readouterr().err
        )
