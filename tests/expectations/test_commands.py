from __future__ import annotations

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


def test_reports_shows_a_verdict_and_where_the_data_docs_lie(lake, toy, capsys):
    lake.store(toy.traces(), TRACE, key="a")
    assert stemma(lake, "reports", "traces@1") == 2
    assert "run: stemma gate traces@1" in capsys.readouterr().err
    stemma(lake, "gate", "traces@1")
    assert stemma(lake, "reports", "traces@1", "--docs") == 0
    shown = capsys.readouterr().out
    assert "traces@1: ADMITTED" in shown
    assert f"Data Docs: {lake.settings.lake}/docs/data_docs/index.html" in shown
