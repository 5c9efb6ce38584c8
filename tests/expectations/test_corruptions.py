from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from expectations.audit.corruptions import CORRUPTIONS, declared
from expectations.audit.planting import NotPlanted
from expectations.audit.sample import Sample, toy
from expectations.evaluation import evaluate
from expectations.perturb import KINDS
from expectations.suites import SUITES
from expectations.thresholds import DEFAULTS
from lineage.schemas import TABLES

GOLDEN = Path(__file__).parents[1] / "golden" / "corruptions.json"
D9 = 33  # kinds in the catalogue's table


def test_the_list_is_frozen():
    """What is planted is written down before a suite is tuned to it.

    To change it, raise VERSION and write the golden file anew: python tests/expectations/test_corruptions.py
    """
    frozen, now = json.loads(GOLDEN.read_text()), declared()
    assert now["version"] >= frozen["version"]
    if now != frozen:
        assert now["version"] > frozen["version"], "the list changed, and its VERSION did not"
        pytest.fail("the list has a new VERSION; write the golden file anew, and say why in the commit")


def test_every_corruption_has_a_name_of_its_own_and_a_reason_where_no_gate_can_be_asked_to_notice():
    assert len(CORRUPTIONS) > 500
    assert len({each.name for each in CORRUPTIONS}) == len(CORRUPTIONS)
    assert {each.table for each in CORRUPTIONS} == {*SUITES, "predictions"}
    assert all(each.expected or len(each.why_not) > 20 for each in CORRUPTIONS)
    assert all(0 <= each.rate <= 1 for each in CORRUPTIONS)


@pytest.mark.parametrize("table", ["traces", "examples"])
def test_all_kinds_of_noise_of_the_catalogue_are_planted(table):
    kinds = [
        each.name.partition(".")[2] for each in CORRUPTIONS if each.table == table and each.family == "D9"
    ]
    assert len(kinds) == D9
    assert set(KINDS) <= set(kinds)


@pytest.mark.parametrize("table", list(SUITES))
def test_the_made_sample_is_sound(table):
    sample = toy(table)
    rules = evaluate(SUITES[table].frame(sample.batch, sample.lake), SUITES[table].build(DEFAULTS))
    assert [rule.sentence for rule in rules if rule.outcome != "pass"] == []


def test_the_same_damage_is_done_each_time_and_leaves_the_sample_alone():
    before = toy("examples").batch.to_pylist()
    for each in CORRUPTIONS[::23]:
        assert each.planted(toy(each.table)).equals(each.planted(toy(each.table))), each.name
    assert toy("examples").batch.to_pylist() == before


def test_damage_is_done_at_the_rate_that_is_told():
    found = {each.name: each for each in CORRUPTIONS}
    for name in ("traces.score_negative", "examples.score_negative", "documents.score_negative"):
        each, sample = found[name], toy(found[name].table)
        scores = each.planted(sample)["score"].to_pylist()
        assert scores.count(-0.5) == round(each.rate * sample.batch.num_rows)
    one = found["curricula.member_unknown"].planted(toy("curricula"))
    assert one["row_id"].to_pylist().count(b"\xfe" * 16) == 1


def test_a_damaged_batch_keeps_the_form_of_its_table():
    for each in CORRUPTIONS[::7]:
        assert each.planted(toy(each.table)).schema == TABLES[each.table].schema, each.name


def test_what_a_sample_cannot_hold_is_not_said_to_be_planted():
    found = {each.name: each for each in CORRUPTIONS}
    unscored = replace(toy("curricula"), admitted={})
    with pytest.raises(NotPlanted, match="scored on"):
        found["curricula.leaked_exactly"].planted(unscored)
    nothing = Sample("traces", TABLES["traces"].schema.empty_table(), {})
    with pytest.raises(NotPlanted, match="no row of the sample"):
        found["traces.typo"].planted(nothing)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(declared(), indent=2) + "\n")
