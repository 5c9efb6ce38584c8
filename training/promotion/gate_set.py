"""The items that candidate, champion and null retrains are judged by, and who passed which."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import report, tables
from lineage.schemas import EXAMPLE
from training.recipe import TrainingError

CONDITION = "noisy"  # the gate set's noisy rows are fresh traffic, which the champion did not select


def items_of(settings: Settings, model_run: str, *, evaluation: str | None = None) -> pa.Table:
    """What a model said on the gate's noisy rows, or where there are none on all of them, by row_id.

    In this evaluation, by default the newest.
    """
    found = report.predictions_of(settings, model_run, split="gate", evaluation=evaluation)
    noisy = found.filter(pc.equal(found["condition"], CONDITION))
    return noisy if noisy.num_rows else found


def passes(predictions: pa.Table) -> list[bool]:
    """Whether each prediction is good enough to count as right, in their order."""
    return report.passed(predictions)


def said_on(
    settings: Settings, model_run: str, items: pa.Table, *, evaluation: str | None = None
) -> pa.Table:
    """What a model said on exactly these items, in their order.

    Raises TrainingError where it saw others, or was scored by another rule.
    """
    found = report.predictions_of(settings, model_run, split="gate", evaluation=evaluation)
    mine = found.filter(pc.is_in(found["row_id"], items["row_id"].combine_chunks())).sort_by("row_id")
    if mine["row_id"].to_pylist() != items["row_id"].to_pylist():
        raise TrainingError(
            f"run {model_run} was evaluated on other items than the candidate; evaluate both again"
        )
    rules, others = (sorted(set(scorers_of(each))) for each in (items, mine))
    if scorers_of(items) != scorers_of(mine):
        raise TrainingError(
            f"run {model_run} was scored by {', '.join(others)}, the candidate by {', '.join(rules)}; "
            "evaluate both by one rule: [asking] of the gate"
        )
    return mine


def scorers_of(predictions: pa.Table) -> list[str]:
    """Which rule scored each prediction."""
    return pc.fill_null(predictions["scorer"], report.LABEL).to_pylist()


def examples_of(settings: Settings, row_numbers: Sequence[int], columns: Sequence[str]) -> list[dict]:
    """Columns of the examples with these numbers, in their order."""
    where = pads.field("row_no").isin(list(row_numbers))
    names = list(dict.fromkeys(["row_no", *columns]))
    found = {
        row["row_no"]: row
        for row in tables.read_ever(settings, EXAMPLE, columns=names, where=where).to_pylist()
    }
    return [found[number] for number in row_numbers]


def categories_of(settings: Settings, items: pa.Table, column: str | None) -> list[str]:
    """The category of each item: its value in a column of `examples`, else the label of labelled items.

    Empty where the items have none. Raises TrainingError for a column that `examples` does not have.
    """
    if column is None:
        told = examples_of(settings, items["row_no"].to_pylist(), ["task", "answer"])
        labelled = all(row["task"] == "classification" for row in told)
        return [row["answer"] for row in told] if labelled else []
    known = {each.name: each for each in EXAMPLE.columns}
    if column not in known or not pa.types.is_string(_plain(known[column].type)):
        have = ", ".join(name for name, each in known.items() if pa.types.is_string(_plain(each.type)))
        raise TrainingError(f"category = '{column}' is no text column of examples; there are: {have}")
    told = examples_of(settings, items["row_no"].to_pylist(), [column])
    return [str(row[column]) for row in told]


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
