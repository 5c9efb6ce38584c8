"""Suites that users write in TOML."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from expectations.evaluation import evaluate
from expectations.gate import admit
from expectations.suites import SUITES, Suite, digest
from expectations.thresholds import DEFAULTS
from infra.config import ConfigError
from lineage.schemas import EXAMPLE

SHORT = """
table = "examples"
[[rules]]
rule = "answers_short"
type = "expect_column_values_to_be_between"
kwargs = { column = "answer_characters", max_value = 7 }
sentence = "an answer has at most 7 characters"
why = "our screen is narrow"
"""


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_written_suite_extends_the_shipped_one_and_judges_batches(written, lake, toy):
    suite = Suite.from_toml(written(SHORT))
    shipped = SUITES["examples"].build(DEFAULTS).expectations
    assert len(suite.build(DEFAULTS).expectations) == len(shipped) + 1
    assert digest(suite.build(DEFAULTS)) != digest(SUITES["examples"].build(DEFAULTS))
    verdict = admit(lake.runtime, lake.store(toy.examples(), EXAMPLE, key="a"), suites={"examples": suite})
    rule = verdict.rules[-1]
    assert (verdict.outcome, rule.name, rule.outcome, rule.failing) == ("fail", "answers_short", "fail", 2)
    assert rule.sentence.startswith("an answer has at most 7 characters; 2 of 6")


def test_a_written_suite_may_stand_alone_and_warn_and_travels_to_workers(written, toy, admitted_of):
    alone = (
        SHORT.replace('table = "examples"', 'table = "examples"\nextends = false') + 'severity = "warning"\n'
    )
    suite = pickle.loads(pickle.dumps(Suite.from_toml(written(alone))))
    built = suite.build(DEFAULTS)
    assert [rule.severity.value for rule in built.expectations] == ["warning"]
    (rule,) = evaluate(suite.frame(toy.examples(), admitted_of()), built)
    assert rule.outcome == "fail"


def test_ours_can_be_named_and_a_sentence_may_be_left_to_great_expectations(written, toy, admitted_of):
    text = """
    table = "examples"
    extends = false
    [[rules]]
    rule = "few_of_one"
    type = "expect_value_counts_to_be_at_most"
    kwargs = { column = "answer", max_count = 1 }
    why = "variety"
    """
    suite = Suite.from_toml(written(text.replace('"answer"', '"trained_label"')))
    (rule,) = evaluate(suite.frame(toy.examples(), admitted_of()), suite.build(DEFAULTS))
    assert (rule.outcome, rule.observed) == ("fail", {"balance": 2, "card": 2, "transfer": 2})


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            '"examples"',
            '"exampels"',
            "table 'exampels' has no view; there are curricula, documents, examples",
        ),
        (
            "to_be_between",
            "to_be_betwixt",
            "'expect_column_values_to_be_betwixt', which nobody knows; near to it",
        ),
        (
            '"answer_characters"',
            '"answer_chars"',
            "reads column 'answer_chars', which the view of examples has not",
        ),
        ("max_value", "max_valeu", "rule 'answers_short' has a wrong argument: max_valeu"),
        ("why =", "reason =", "why"),
        ('"answers_short"', '"no_duplicates"', "there are two rules 'no_duplicates'"),
        ('"answers_short"', '"Answers Short"', "rule"),
        ("[[rules]]", "[[rulez]]", "rules"),
    ],
)
def test_a_mistake_is_one_sentence(old, new, told, written):
    with pytest.raises(ConfigError) as caught:
        Suite.from_toml(written(SHORT.replace(old, new)))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_toml_is_one_sentence(written, tmp_path):
    for path in (tmp_path / "none.toml", written("table = ")):
        with pytest.raises(ConfigError):
            Suite.from_toml(path)
