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
from lineage.schemas import EXAMPLE, TRACE
from lineage.waivers import NEVER

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
    assert built.expectations[-1].severity.value == "warning"
    rule = evaluate(suite.frame(toy.examples(), admitted_of()), built)[-1]
    assert (rule.name, rule.outcome, rule.refuses) == ("answers_short", "fail", False)


def names(suite: Suite) -> list[str]:
    return [rule.meta["rule"] for rule in suite.build(DEFAULTS).expectations]


@pytest.mark.parametrize("table", SUITES)
def test_what_lineage_and_recall_rest_on_stays_in_force_without_the_shipped_rules(table, written):
    alone = f'''
    table = "{table}"
    extends = false
    [[rules]]
    rule = "named"
    type = "expect_column_values_to_not_be_null"
    kwargs = {{ column = "run_id" }}
    why = "a test"
    '''
    shipped = names(SUITES[table])
    kept = [name for name in shipped if name in NEVER]
    assert len(kept) >= 3
    assert names(Suite.from_toml(written(alone))) == ["batch_not_empty", *kept, "named"]
    empty = alone.replace("[[rules]]", "may_be_empty = true\n[[rules]]")
    assert names(Suite.from_toml(written(empty))) == [*kept, "named"]
    extending = empty.replace("extends = false", "")
    assert names(Suite.from_toml(written(extending))) == [*shipped[1:], "named"]
    with pytest.raises(ConfigError, match=f"two rules '{kept[-1]}'"):
        Suite.from_toml(written(alone.replace('"named"', f'"{kept[-1]}"')))


def test_an_empty_batch_is_admitted_where_the_file_says_so(written, lake, toy):
    text = """
    table = "traces"
    may_be_empty = true
    [[rules]]
    rule = "asks"
    type = "expect_column_values_to_match_regex"
    kwargs = { column = "question", regex = "question" }
    why = "a test"
    """
    suite = Suite.from_toml(written(text))
    empty = lake.store(toy.traces().slice(0, 0), TRACE, key="a")
    assert admit(lake.runtime, empty, suites={"traces": suite}).outcome == "pass"


def test_a_suite_of_ones_own_cannot_admit_rows_that_no_recall_would_find(written, lake, toy, change):
    alone = SHORT.replace('"examples"', '"traces"\nextends = false')
    alone = alone.replace("answer_characters", "response_words")
    suite = Suite.from_toml(written(alone))
    rows = toy.traces()
    version = lake.store(change(rows, "row_no", [-1] * rows.num_rows), TRACE, key="a")
    verdict = admit(lake.runtime, version, suites={"traces": suite})
    refusing = [rule.name for rule in verdict.rules if rule.refuses]
    assert refusing == ["row_no_leased", "row_no_unique"]


@pytest.mark.parametrize(
    ("table", "texts"),
    [
        ("traces", {"question": "log-a: question 0", "response": "balance"}),
        ("documents", {"text": "section 0 of 3"}),
        ("examples", {"text": "TEXT", "answer": "balance"}),
        ("curricula", {"text": "TEXT", "answer": "balance"}),
    ],
)
def test_rules_of_ones_own_see_the_texts_which_shipped_suites_do_not_carry(
    table, texts, written, toy, admitted_of
):
    rules = [
        f"""
        [[rules]]
        rule = "{name}_plain"
        type = "expect_column_values_to_not_match_regex"
        kwargs = {{ column = "{name}", regex = "(?i)lorem" }}
        why = "filler teaches nothing"
        """
        for name in texts
    ]
    suite = pickle.loads(pickle.dumps(Suite.from_toml(written(f'table = "{table}"\n' + "".join(rules)))))
    examples = toy.examples()
    batch = toy.curriculum(examples) if table == "curricula" else getattr(toy, table)()
    shown = suite.frame(batch, admitted_of({"examples": examples}))
    shipped = SUITES[table].frame(batch, admitted_of({"examples": examples}))
    assert set(shown.columns) - set(shipped.columns) == set(texts)
    first = {name: shown[name][0] for name in texts}
    assert first == {
        name: batch["text"][0].as_py() if said == "TEXT" else said for name, said in texts.items()
    }
    found = evaluate(shown, suite.build(DEFAULTS))[-len(texts) :]
    assert [rule.outcome for rule in found] == ["pass"] * len(texts)
    column = list(texts)[-1]
    assert evaluate(shown.assign(**{column: "Lorem ipsum"}), suite.build(DEFAULTS))[-1].outcome == "fail"


def test_a_suite_says_which_file_it_came_from(written):
    assert (SUITES["examples"].source, SUITES["examples"].title) == ("", "examples")
    suite = Suite.from_toml(written(SHORT))
    assert (suite.name, suite.source, suite.title) == ("examples", "mine.toml", "examples (mine.toml)")


@pytest.mark.parametrize("kwargs", ['regex = "a(b"', 'regex_list = ["fine", "a(b"]'])
def test_a_regex_that_does_not_compile_is_told_when_the_file_is_read(kwargs, written):
    kind = "match_regex_list" if "list" in kwargs else "match_regex"
    text = SHORT.replace("to_be_between", f"to_{kind}").replace(
        'column = "answer_characters", max_value = 7', f'column = "answer", {kwargs}'
    )
    with pytest.raises(ConfigError) as caught:
        Suite.from_toml(written(text))
    assert "rule 'answers_short' has regex 'a(b', which is no regular expression" in str(caught.value)
    assert "unterminated subpattern" in str(caught.value)
    assert "\n" not in str(caught.value)


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
    rule = evaluate(suite.frame(toy.examples(), admitted_of()), suite.build(DEFAULTS))[-1]
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
