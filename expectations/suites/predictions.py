"""Predictions as their rules see them: each beside the example that it is of."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import provenance
from expectations.suites.suite import Admitted
from lineage.schemas import EXAMPLE, PREDICTION

if TYPE_CHECKING:
    import pandas as pd

STATED = ("run_id", "model_run", "split", "condition", "answer")
"""What is never blank. A prediction may be: a decoder that says nothing has said so."""
_SAID = ("prediction", "row_no", "confidence", "score")


def keys(batch: pa.Table) -> pa.Table:
    """What is said and of which row: evaluation sets are small."""
    return provenance.filled(batch).select([*STATED, "prediction", "row_no", "row_id"])


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """How each prediction stands to the example it is of, and the batch to its whole split."""
    stored = _examples(keys, admitted)
    rows = {row["row_no"]: row for row in stored.to_pylist()}
    found: dict[str, list[Any]] = {name: [] for name in ("is_admitted", "is_scored", "quotes", "is_class")}
    for said in keys.to_pylist():
        row = rows.get(said["row_no"])
        known = row is not None and row["row_id"] == said["row_id"]
        found["is_admitted"].append(known)
        found["is_class"].append(row is None or row["task"] == "classification")
        place = None if row is None or not known else (row["split"], row["condition"])
        found["is_scored"].append(place == (said["split"], said["condition"]) if known else None)
        right = (row["answer"], row["answer_tool_calls"]) if row is not None and known else None
        found["quotes"].append(said["answer"] in right if right is not None else None)
    asked = zip(keys["run_id"].to_pylist(), keys["row_id"].to_pylist(), strict=True)
    once = pa.chunked_array([[f"{run_id} {(row_id or b'').hex()}" for run_id, row_id in asked]], pa.string())
    return pa.table(
        {
            "is_admitted_row": pa.array(found["is_admitted"], pa.bool_()),
            "is_scored_row": pa.array(found["is_scored"], pa.bool_()),
            "quotes_its_example": pa.array(found["quotes"], pa.bool_()),
            "is_unique": provenance.occurs_once(once),
            "model_is_one": _one_model(keys),
            "prediction_is_label": pc.if_else(
                pa.array(found["is_class"], pa.bool_()), _are_labels(keys["prediction"], admitted), None
            ),
            "share_predicted": provenance.measure(
                _share_predicted(keys, admitted, stored["task"].unique()), keys.num_rows
            ),
        }
    )


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per prediction."""
    import pandas as pd

    columns = {name: facts[name].to_pandas() for name in facts.column_names}
    columns |= {name: batch[name].to_pandas() for name in (*STATED, *_SAID)}
    columns["empty_column"] = provenance.empty_column(batch, PREDICTION)
    columns["confidence_is_finite"] = provenance.are_finite(batch, ("confidence",))
    return pd.DataFrame({"row_id": provenance.hexed(batch["row_id"]), **columns})


def _examples(keys: pa.Table, admitted: Admitted) -> pa.Table:
    columns = ["row_no", "row_id", "task", "split", "condition", "answer", "answer_tool_calls"]
    numbers = keys["row_no"].combine_chunks().drop_null()
    if not len(numbers):
        return EXAMPLE.schema.empty_table().select(columns)
    return admitted(EXAMPLE, columns, provenance.numbered(numbers))


def _one_model(keys: pa.Table) -> pa.Array:
    both = zip(keys["run_id"].to_pylist(), keys["model_run"].to_pylist(), strict=True)
    models = Counter(run_id for run_id, _ in set(both))
    return pa.array([models[run_id] == 1 for run_id in keys["run_id"].to_pylist()], pa.bool_())


def _are_labels(predictions: pa.ChunkedArray, admitted: Admitted) -> pa.ChunkedArray:
    labels = admitted(EXAMPLE, ["answer"], pads.field("task") == "classification")["answer"].unique()
    return pc.is_in(predictions, value_set=labels)


def _share_predicted(keys: pa.Table, admitted: Admitted, tasks: pa.Array) -> float | None:
    """The least share of the rows of a split and condition that a run predicted; None where none stand.

    Only of rows of these tasks: no model answers the others.
    """
    mine = pads.field("split").isin(keys["split"].unique()) & pads.field("task").isin(tasks)
    wanted = Counter(_places(admitted(EXAMPLE, ["split", "condition"], mine)))
    runs = zip(keys["run_id"].to_pylist(), _places(keys), strict=True)
    shares = [count / wanted[place] for (_, place), count in Counter(runs).items() if wanted[place]]
    return min(shares, default=None)


def _places(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["split"].to_pylist(), rows["condition"].to_pylist(), strict=True))
