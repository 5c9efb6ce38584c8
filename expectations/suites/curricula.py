"""What a curriculum must be: admitted rows only, in proportion, each input once, none that is scored on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads

from expectations.suites import provenance
from expectations.suites.suite import Admitted, told
from lineage.inputs import INPUT_COLUMNS, inputs, normalised
from lineage.schemas import EXAMPLE

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

SLICES = ("gold", "hard", "replay")


def keys(batch: pa.Table) -> pa.Table:
    """All that a member says of its example: curricula are small."""
    return batch.select(["row_id", "text", "answer"])


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """What a member says of itself is checked against the example it names."""
    stored = _examples(keys, admitted)
    rows = {row_id: index for index, row_id in enumerate(stored["row_id"].to_pylist())}
    tasks, splits, answers, texts = (stored[name].to_pylist() for name in ("task", "split", "answer", "text"))
    asked = inputs(stored)
    found: dict[str, list[Any]] = {name: [] for name in ("trains", "quotes", "label", "asked")}
    for row_id, text, answer in zip(*(column.to_pylist() for column in keys.columns), strict=True):
        row = rows.get(row_id)
        found["trains"].append(row is not None and splits[row] == "train")
        found["quotes"].append(None if row is None else answers[row] == answer and texts[row] == text)
        found["label"].append(answer if row is None or tasks[row] == "classification" else None)
        found["asked"].append(normalised(text) if row is None else asked[row])
    scored = _scored_inputs(set(tasks) or {"classification"}, admitted)
    often = Counter(found["asked"])
    return pa.table(
        {
            "is_unique": provenance.occurs_once(keys["row_id"]),
            "is_admitted_train_row": pa.array(found["trains"], pa.bool_()),
            "quotes_its_example": pa.array(found["quotes"], pa.bool_()),
            "label": pa.array(found["label"], pa.string()),
            "occurs_once": pa.array([often[key] == 1 for key in found["asked"]], pa.bool_()),
            "is_not_scored_on": pa.array([key not in scored for key in found["asked"]], pa.bool_()),
        }
    )


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per member."""
    import pandas as pd

    columns = {name: facts[name].to_pandas() for name in facts.column_names}
    columns |= {name: batch[name].to_pandas() for name in ("slice", "weight")}
    return pd.DataFrame({"row_id": provenance.hexed(batch["row_id"]), **columns})


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for curricula."""
    import great_expectations.expectations as gxe

    from expectations.custom import (
        ExpectColumnValuesToHold,
        ExpectLabelRatioToBeAtMost,
        ExpectSliceSharesToBeWithin,
    )

    ranges = {
        "gold": list(thresholds.gold_share),
        "hard": list(thresholds.hard_share),
        "replay": list(thresholds.replay_share),
    }
    return [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=thresholds.min_rows,
            **told(
                "batch_not_empty",
                f"the curriculum has at least {thresholds.min_rows} row{'s' * (thresholds.min_rows > 1)}",
                why="every row rule passes an empty batch",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_admitted_train_row",
            **told(
                "members_admitted",
                "every member is a row of split train in an admitted batch of examples",
                why="what no gate passed, or what is scored on, is not trained on",
                cites="K5",
            ),
        ),
        ExpectColumnValuesToHold(
            column="quotes_its_example",
            **told(
                "members_quoted",
                "a member's text and answer are those of its example",
                why="the rules on balance and leakage read the quotation, training reads the example",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_unique",
            **told(
                "members_unique",
                "no row is a member twice",
                why="how often a row is fed is said by its weight",
            ),
        ),
        ExpectColumnValuesToHold(
            column="occurs_once",
            **told(
                "input_once",
                "no input occurs twice",
                why="copies weigh more than anybody decided",
                cites="B16",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_not_scored_on",
            **told(
                "no_leakage",
                "no input of a gate or report example is a member's input",
                why="a score on what was trained on measures memory",
                cites="K5",
            ),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="slice",
            value_set=list(SLICES),
            **told(
                "slice_known",
                f"slice is one of {', '.join(SLICES)}",
                why="shares are counted by it",
                cites="D3",
            ),
        ),
        ExpectSliceSharesToBeWithin(
            column="slice",
            ranges=ranges,
            tolerance=thresholds.slice_tolerance,
            **told(
                "slices_in_proportion",
                "with all three slices present "
                + ", ".join(f"{name} is {low:.0%}-{high:.0%}" for name, (low, high) in ranges.items())
                + f" (tolerance {thresholds.slice_tolerance:.0%})",
                why="failures alone make a model forget; a cold start has nothing to replay",
                cites="D3",
            ),
        ),
        ExpectLabelRatioToBeAtMost(
            column="label",
            max_ratio=thresholds.max_label_ratio,
            **told(
                "labels_balanced",
                f"no label occurs more than {thresholds.max_label_ratio:g} times as often as another",
                why="a model learns the frequencies it is shown",
                cites="D4",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="weight",
            min_value=0,
            strict_min=True,
            **told("weights_positive", "a weight is more than 0", why="a row of no weight is no member"),
        ),
    ]


def _examples(batch: pa.Table, admitted: Admitted) -> pa.Table:
    where = pads.field("row_id").isin(batch["row_id"].combine_chunks())
    return admitted(EXAMPLE, ["row_id", "split", "answer", *INPUT_COLUMNS], where)


def _scored_inputs(tasks: set[str], admitted: Admitted) -> set[str]:
    where = pads.field("split").isin(["gate", "report"]) & pads.field("task").isin(sorted(tasks))
    return set(inputs(admitted(EXAMPLE, list(INPUT_COLUMNS), where)))
