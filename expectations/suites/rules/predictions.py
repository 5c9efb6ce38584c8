"""What a batch of predictions must be for a report to rest on it: of admitted rows, whole, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites.predictions import STATED
from expectations.suites.rules import provenance
from expectations.suites.suite import told
from lineage.schemas import NOT_APPLICABLE

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

SETS = {"split": ("gate", "report"), "condition": ("clean", "noisy", NOT_APPLICABLE)}


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for predictions."""
    import great_expectations.expectations as gxe

    from expectations.custom import (
        ExpectColumnValuesToHold,
        ExpectMeasureToBeBetween,
        ExpectProvenanceToBeComplete,
    )

    def holds(column: str, rule: str, sentence: str, *, why: str, cites: str = "") -> Expectation:
        return ExpectColumnValuesToHold(column=column, **told(rule, sentence, why=why, cites=cites))

    return [
        provenance.batch_not_empty(thresholds),
        ExpectProvenanceToBeComplete(
            column_list=list(STATED),
            **told(
                "provenance_complete",
                "a prediction names run, model, split, condition and the right answer",
                why="a number can be computed again only from what it was computed of",
                cites="C2",
            ),
        ),
        provenance.no_column_empty(),
        *(
            gxe.ExpectColumnValuesToBeInSet(
                column=name,
                value_set=list(values),
                **told(f"{name}_known", f"{name} is one of {', '.join(values)}", why="reports are cut by it"),
            )
            for name, values in SETS.items()
        ),
        holds(
            "is_admitted_row",
            "rows_admitted",
            "every prediction is of an admitted example, by id and number",
            why="a score on what no gate passed is a score on anything",
            cites="K5",
        ),
        holds(
            "is_scored_row",
            "rows_are_scored_on",
            "that example stands on the split and under the condition that the prediction names",
            why="a score on what was trained on measures memory",
            cites="K5",
        ),
        holds(
            "quotes_its_example",
            "answer_quoted",
            "the right answer is that of the example",
            why="a number is computed from the quotation",
        ),
        holds(
            "is_unique",
            "one_prediction_each",
            "a model is asked once about a row in a run",
            why="asked until it is right, every model is right",
        ),
        holds(
            "model_is_one",
            "one_model_a_run",
            "all predictions of a run are of one model",
            why="a number is about a model",
        ),
        holds(
            "prediction_is_label",
            "prediction_known",
            "what a classifier says is a label that an admitted example has",
            why="a label that nobody taught comes from another model, or from broken files",
        ),
        holds(
            "confidence_is_finite",
            "confidence_finite",
            "confidence is a finite number",
            why="calibration is measured by it",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="confidence",
            min_value=0,
            max_value=1,
            **told("confidence_in_range", "confidence lies in [0, 1]", why="calibration is measured by it"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="score",
            min_value=0,
            max_value=1,
            **told("score_in_range", "score lies in [0, 1]", why="a mean of scores is read as a share"),
        ),
        ExpectMeasureToBeBetween(
            column="share_predicted",
            min_value=thresholds.min_predicted,
            **told(
                "split_predicted",
                f"at least {thresholds.min_predicted:.0%} of the admitted rows of a split under a condition "
                "were predicted",
                why="who chooses the rows chooses the score; reviewers may leave out more, and say why",
                cites="K5",
                severity="warning",
            ),
        ),
    ]
