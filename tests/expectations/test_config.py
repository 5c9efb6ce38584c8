from __future__ import annotations

import json

import pytest

from expectations.config import GateConfig
from infra import cli
from infra.config import ConfigError, read_config
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
    suite.write_text(
        'table = "traces"\n[[rules]]\nrule = "brief"\ntype = "expect_column_values_to_be_between"\n'
        'kwargs = { column = "response_words", max_value = 0 }\nsentence = "nothing is said"\nwhy = "test"\n'
    )
    config = tmp_path / "gate.toml"
    config.write_text(f'suites = ["{suite}"]\n')
    version = str(lake.store(toy.traces(), TRACE, key="a"))
    assert stemma(lake, "gate", version, str(config)) == 1
    assert "FAILED brief: nothing is said" in capsys.readouterr().out
    assert stemma(lake, "gate", version, "--set", 'suites=["none.toml"]') == 2
    assert "none.toml" in capsys.readouterr().err
