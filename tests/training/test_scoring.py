"""A scorer has a name and a revision, fits its tasks, and scores what it cannot read with nothing."""

import json
from typing import get_args

import pytest

from lineage.spans import Span, write_spans
from lineage.tasks import Task
from training.recipe import TrainingError
from training.sandbox import Program, isolation
from training.scoring import SCORERS, check_answers, program_of, score_all, scorer_for

ANN, YORK = Span(0, 3, "person"), Span(13, 21, "place")
DOUBLE = json.dumps(
    {"prompt": "import math\ndef double(x):\n", "entry_point": "double", "test": "check = ..."}
)


@pytest.mark.parametrize(
    ("name", "answer", "right", "wrong"),
    [
        ("label", "card_lost", "card_lost", "Card_lost"),
        ("exact", "a  b", "a b\n", "b a"),
        ("number", "2 + 2 = 4\n#### 4", "so #### 4.0", "#### 5"),
        ("option_letter", "B", "The answer is (B).", "(A)"),
        ("alias", '["Onion", "Allium cepa"]', "the onion.", "leek"),
        ("alias", "Onion", "an ONION", "onions"),
        ("alias", "[sic] Onion", "sic onion", "onion"),
        ("rouge1", "a b", "b a", "c"),
        ("rouge2", "a b c", "a b c", "c b a"),
        ("rougeL", "a b", "a b", "c"),
        ("tool_name", '{"name": "f", "arguments": {"x": 1}}', '{"name": "f"}', '{"name": "g"}'),
        (
            "tool_call",
            '{"name": "f", "arguments": {"x": 1}}',
            '{"name":"f","arguments":{"x":1.0}}',
            '{"name":"f"}',
        ),
        ("entities", write_spans([ANN]), write_spans([ANN]), write_spans([YORK])),
    ],
)
def test_right_is_one_and_wrong_is_nothing(name, answer, right, wrong):
    scorer = SCORERS[name]
    assert (scorer.score(answer, right), scorer.score(answer, wrong)) == (1.0, 0.0)
    assert scorer.score(answer, "") == 0.0
    assert score_all(scorer, [answer] * 2, [wrong, right]) == [0.0, 1.0]


def test_a_scorer_is_stored_by_name_and_revision():
    assert str(SCORERS["number"]) == "number@1"
    assert [name for name, scorer in SCORERS.items() if scorer.name != name or scorer.revision < 1] == []
    assert len(SCORERS) == 13


def test_entities_of_a_text_score_their_f1():
    score = SCORERS["entities"].score
    assert score(write_spans([ANN, YORK]), write_spans([ANN])) == pytest.approx(2 / 3)
    assert score("[]", "[]") == 1.0
    assert score("[]", write_spans([ANN])) == 0.0
    assert score(write_spans([ANN]), "Ann lives in New York") == 0.0


def test_every_task_that_has_an_answer_has_its_usual_scorer():
    usual = {
        "classification": "label",
        "tagging": "entities",
        "generation": "exact",
        "preference": "preferred",
    }
    assert {task: scorer_for(task).name for task in get_args(Task)} == usual
    assert scorer_for("generation", "rougeL") is SCORERS["rougeL"]


def test_a_scorer_that_does_not_fit_is_refused_with_those_that_do():
    with pytest.raises(TrainingError, match=r"'rouge1' does not fit task 'tagging'; choose from: entities$"):
        scorer_for("tagging", "rouge1")
    with pytest.raises(TrainingError, match=r"'bleu' is unknown.*choose from: exact, number"):
        scorer_for("generation", "bleu")
    with pytest.raises(TrainingError, match="'number' does not fit task 'preference'"):
        scorer_for("preference", "number")


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("number", "eighteen", "names no number"),
        ("option_letter", "the second", "names no option"),
        ("alias", "[1, 2]", "lists no names"),
        ("alias", "[]", "lists no names"),
        ("tool_call", "I would book", "is no tool call"),
        ("entities", "Ann", "is not JSON"),
        ("pass_at_1", "def f(): ...", "holds no test"),
        ("pass_at_1", '{"test": " "}', "holds no test"),
    ],
)
def test_an_answer_that_its_scorer_does_not_read_is_refused(name, answer, said):
    with pytest.raises(TrainingError, match=said):
        SCORERS[name].score(answer, "18")


def test_answers_are_checked_before_a_model_is_asked():
    check_answers(SCORERS["number"], ["#### 4", "5"])
    check_answers(SCORERS["exact"], [])
    with pytest.raises(
        TrainingError, match="2 of 3 answers are not for number@1: the answer 'four' names no"
    ):
        check_answers(SCORERS["number"], ["#### 4", "four", "five"])


@pytest.mark.skipif(bool(isolation()), reason="generated programs cannot be confined here")
def test_tests_of_programs_are_checked_without_running_one():
    check_answers(SCORERS["pass_at_1"], ['{"test": "while True: pass"}'])
    with pytest.raises(TrainingError, match=r"1 of 2 answers are not for pass_at_1@1: .* holds no test"):
        check_answers(SCORERS["pass_at_1"], ['{"test": "assert f()"}', "{}"])


def test_answers_and_predictions_are_pairs():
    with pytest.raises(TrainingError, match="2 answers against 1 predictions"):
        score_all(SCORERS["label"], ["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("    return 2 * x", "import math\ndef double(x):\n    return 2 * x"),  # a completion
        ("def double(x): return 2 * x", "import math\ndef double(x): return 2 * x"),  # a whole function
        ("Here:\n```python\ndef double(x): return x\n```\nDone.", "import math\ndef double(x): return x\n"),
        # a helper of the same name within a completion does not make it a whole function
        (
            "    def double(y): return y\n    return 1",
            "import math\ndef double(x):\n    def double(y): return y\n",
        ),
    ],
)
def test_a_prediction_is_a_program_in_each_way_that_models_write_one(said, source):
    program = program_of(DOUBLE, said)
    assert program.source.startswith(source)
    assert (program.test, program.entry_point) == ("check = ...", "double")
    assert program_of('{"test": "assert f(1)"}', "f = bool") == Program("f = bool", "assert f(1)", "")


@pytest.mark.skipif(bool(isolation()), reason="generated programs cannot be confined here")
def test_programs_that_pass_their_test_score_one():
    answer = json.dumps({"test": "def check(f):\n    assert f(2) == 4\n", "entry_point": "double"})
    said = [f"def double(x): return x * {n}" for n in (1, 2, 3)] + ["what?"]
    assert score_all(SCORERS["pass_at_1"], [answer] * 4, said) == [0.0, 1.0, 0.0, 0.0]
    assert SCORERS["pass_at_1"].score(answer, said[1]) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        {"test": "def check(candidate):\n    assert candidate(1) == 2"},
        {"test": "# nothing"},
        {"test": '"""Words."""\nimport math\nlimit = 3', "entry_point": "f"},
    ],
)
def test_a_test_that_asks_nothing_is_refused_before_a_model_is_asked(answer):
    with pytest.raises(TrainingError, match="asks nothing of a program: every one would pass"):
        check_answers(SCORERS["pass_at_1"], [json.dumps(answer)])


def test_a_test_that_is_called_by_its_entry_point_asks_something():
    answer = {"test": "def check(candidate):\n    assert candidate(1) == 2", "entry_point": "f"}
    check_answers(SCORERS["pass_at_1"], [json.dumps(answer), json.dumps({"test": "assert f(1) == 2"})])
