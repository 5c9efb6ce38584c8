"""Our expectations as their examples say, in Great Expectations' own way, in Data Docs, and in the docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from expectations.catalogue import catalogue
from expectations.evaluation import evaluate
from expectations.gx import open_context, quiet

with quiet():
    from great_expectations import ExpectationSuite
    from great_expectations.expectations.registry import get_expectation_impl
    from great_expectations.render.renderer.content_block import ValidationResultsTableContentBlockRenderer

    from expectations.custom import CLASSES

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(kind, example["data"], test, id=f"{kind.__name__}: {test['title']}")
    for kind in CLASSES
    for example in kind.examples
    for test in example["tests"]
]


def test_every_class_has_an_example_that_holds_and_one_that_does_not():
    told = {kind: {t["out"]["success"] for e in kind.examples for t in e["tests"]} for kind in CLASSES}
    assert len(told) == 8
    assert all(outcomes == {True, False} for outcomes in told.values())
    assert all(get_expectation_impl(kind.expectation_type) is kind for kind in CLASSES)


@pytest.mark.parametrize(("kind", "data", "test"), EXAMPLES)
def test_an_example_comes_out_as_it_says(kind: Any, data: dict[str, list[Any]], test: dict[str, Any]):
    rows = len(next(iter(data.values())))
    frame = pd.DataFrame({"row_id": [f"{i:032x}" for i in range(rows)], **data}).astype(object)
    rule = kind(**test["in"])
    (found,) = evaluate(frame, ExpectationSuite("s", expectations=[rule]))
    assert found.outcome == ("pass" if test["out"]["success"] else "fail")
    with quiet():  # and as a user of Great Expectations has it
        batch = open_context().data_sources.pandas_default.read_dataframe(frame.drop(columns="row_id"))
        assert batch.validate(kind(**test["in"])).success is test["out"]["success"]


@pytest.mark.parametrize(("kind", "data", "test"), EXAMPLES)
def test_a_rule_without_a_description_reads_as_a_sentence_in_data_docs(kind: Any, data: Any, test: Any):
    frame = pd.DataFrame(data).astype(object)
    with quiet():
        batch = open_context().data_sources.pandas_default.read_dataframe(frame)
        result = batch.validate(kind(**test["in"]))
        shown = str(ValidationResultsTableContentBlockRenderer.render([result]).to_json_dict())
    said = kind.sentence(test["in"])
    assert said in shown
    assert "$" not in said
    assert not set("{}") & set(said)


def test_the_docs_are_what_the_code_comes_to():
    written = (ROOT / "docs" / "expectations.md").read_text(encoding="utf-8")
    assert written == catalogue(), "run: make docs"
