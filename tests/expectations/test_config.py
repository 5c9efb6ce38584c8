from __future__ import annotations

import datetime as dt
import json
import pickle
from pathlib import Path

import pytest

from expectations.config import GateConfig
from expectations.gate import admit, admit_by
from expectations.reports import as_text
from expectations.suites import SUITES, Suite, digest
from expectations.thresholds import DEFAULTS
from infra import cli
from infra.config import ConfigError, read_config
from infra.runtime import Runtime
from lineage import tables, verdicts
from lineage.schemas import TRACE


def stemma(lake, *words):
    return cli.run(words[0], [*words[1:], "--lake", lake.settings.lake])


def test_one_word_is_for_all_tables_and_a_curriculum_is_always_refused_as_a_whole():
    config = read_config(GateConfig, None, ["on_fail=reject_rows"])
    chosen = {name: config.on_fail_of(name) for name in ("traces", "documents", "examples", "curricula")}
    assert chosen == dict.fromkeys(("traces", "documents", "examples"), "reject_rows") | {
        "curricula": "refuse"
    }
    one = read_config(GateConfig, None, ["on_fail.examples=reject_rows"])
    assert (one.on_fail_of("examples"), one.on_fail_of("traces")) == ("reject_rows", "refuse")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "on_fail.curricula=reject_rows",
            "unknown key 'on_fail.curricula'; known: documents, examples",
        ),
        ("on_fail=drop", "'on_fail.traces' is 'drop'"),
        ("thresholds.max_text=1", "unknown key 'thresholds.max_text'; known: .*max_text_characters"),
        ("thresholds.min_rows=0", "'thresholds.min_rows' is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_config(GateConfig, None, [override])


def test_the_command_goes_by_a_file_and_by_what_is_set(lake, toy, change, tmp_path, capsys):
    rows = change(toy.traces(), "scorer", ["unstated", *["judge"] * 5])
    version = lake.store(rows, TRACE, key="a")
    config = tmp_path / "gate.toml"
    config.write_text('on_fail = "reject_rows"\n[thresholds]\nmin_rows = 9\n')
    words = ["gate", str(version), str(config), "--set", "thresholds.min_rows=5", "--json"]
    assert stemma(lake, *words) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["routed"], said["thresholds"]["min_rows"], said["on_fail"]) == (1, 5, "reject_rows")
    assert stemma(lake, "reports", str(version)) == 0
    assert "1 row that broke a rule lie in 'rejected'" in (said := capsys.readouterr().out)
    assert "MOVED judgement_whole" in said
    assert tables.read(lake.settings, TRACE).num_rows == 5
    assert verdicts.latest(lake.settings, version).thresholds["min_rows"] == 5


def test_a_suite_of_ones_own_takes_the_place_of_the_shipped_one(lake, toy, tmp_path, capsys):
    suite = tmp_path / "mine.toml"
    suite.write_text(BRIEF.replace("warning", "critical"))
    config = tmp_path / "gate.toml"
    config.write_text(f'suites = ["{suite}"]\n')
    version = str(lake.store(toy.traces(), TRACE, key="a"))
    assert stemma(lake, "gate", version, str(config)) == 1
    assert "FAILED brief: nothing is said" in capsys.readouterr().out
    assert stemma(lake, "gate", version, "--set", 'suites=["none.toml"]') == 2
    assert "none.toml" in capsys.readouterr().err


BRIEF = """
table = "traces"
[[rules]]
rule = "brief"
type = "expect_column_values_to_be_between"
kwargs = { column = "response_words", max_value = 0 }
sentence = "nothing is said"
why = "test"
severity = "warning"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a suite of traces, mine.toml."""
    made = tmp_path / "gates"
    made.mkdir()
    (made / "mine.toml").write_text(BRIEF)
    return made


def test_two_suites_of_one_table_are_refused_and_both_files_named(folder):
    (folder / "other.toml").write_text(BRIEF)
    with pytest.raises(ConfigError, match=r"mine\.toml' and '.*other\.toml' are both of table 'traces'"):
        _ = GateConfig(suites=(f"{folder}/mine.toml", f"{folder}/other.toml")).suites_in_force


def test_a_relative_path_is_looked_for_beside_the_config_or_in_the_current_folder(folder, monkeypatch):
    beside, apart = folder / "gate.toml", folder.parent / "gate.toml"
    for config in (beside, apart):
        config.write_text('suites = ["mine.toml"]\n')
    absolute = [f'suites=["{folder}/mine.toml"]']
    assert GateConfig.read(beside).suites_in_force["traces"].source == "mine.toml"
    assert GateConfig.read(apart, absolute).suites_in_force["traces"].source == "mine.toml"
    with pytest.raises(ConfigError, match=r"mine\.toml' does not exist"):
        _ = GateConfig.read(apart).suites_in_force
    monkeypatch.chdir(folder)
    assert GateConfig.read(None, ['suites=["mine.toml"]']).suites_in_force["traces"].source == "mine.toml"


def test_the_command_finds_a_suite_beside_its_config(lake, toy, folder, capsys):
    config = folder / "gate.toml"
    config.write_text('suites = ["mine.toml"]\ncritical = ["brief"]\n')
    version = str(lake.store(toy.traces(), TRACE, key="a"))
    assert stemma(lake, "gate", version, str(config)) == 1
    assert "FAILED brief: nothing is said" in capsys.readouterr().out


def severities(suite: Suite) -> dict[str, str]:
    return {rule.meta["rule"]: rule.severity.value for rule in suite.build(DEFAULTS).expectations}


def test_a_rule_that_only_warns_refuses_where_the_config_calls_it_critical(lake, toy, folder):
    mine = (f"{folder}/mine.toml",)
    warned = GateConfig(suites=mine)
    assert admit_by(lake.runtime, lake.store(toy.traces(), TRACE, key="a"), warned).passed
    config = GateConfig(suites=mine, critical=("brief", "reviewer_named"))
    suites = pickle.loads(pickle.dumps(config.suites_in_force))
    before = severities(warned.suites_in_force["traces"])
    assert (before["brief"], before["reviewer_named"]) == ("warning", "warning")
    assert severities(suites["traces"]) == before | {"brief": "critical", "reviewer_named": "critical"}
    assert severities(suites["examples"])["reviewer_named"] == "critical"
    assert suites["predictions"] == SUITES["predictions"]
    assert digest(suites["examples"].build(DEFAULTS)) != digest(SUITES["examples"].build(DEFAULTS))
    again = lake.store(toy.traces(source="log-b"), TRACE, key="b")
    verdict = admit(lake.runtime, again, suites=suites)
    assert [rule.name for rule in verdict.rules if rule.refuses] == ["brief"]


def test_a_critical_rule_that_no_suite_has_is_told(folder):
    config = GateConfig(critical=("reviewer_name",))
    with pytest.raises(ConfigError, match="rule 'reviewer_name', which no suite has; near to it: reviewer_n"):
        _ = config.suites_in_force


def test_a_rule_of_ones_own_can_be_waived(lake, toy, tmp_path, capsys):
    suite = tmp_path / "mine.toml"
    suite.write_text(BRIEF.replace("warning", "critical"))
    own = ["--set", f'suites=["{suite}"]']
    version = str(lake.store(toy.traces(), TRACE, key="a"))
    day = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=3)
    words = ["--table", "traces", "--until", str(day), "--reason", "a week", "--by", "ann"]
    assert stemma(lake, "gate", "--waive", "brief", *words) == 2
    assert "suite 'traces' has no rule 'brief'" in capsys.readouterr().err
    assert stemma(lake, "gate", "--waivers", *own) == 2
    assert stemma(lake, "gate", "--waive", "brief", *words, *own) == 0
    runtime = Runtime(lake.settings)
    verdict = admit_by(runtime, version, read_config(GateConfig, None, [own[1]]))
    assert verdict.passed
    assert "WAIVED brief" in as_text(verdict, lake.settings)
