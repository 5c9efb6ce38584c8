"""Curricula as their rules see them: each member beside the example that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import likeness, noise, provenance, spread
from expectations.suites.suite import Admitted
from lineage.curricula import curriculum_root
from lineage.inputs import INPUT_COLUMNS, inputs, normalised
from lineage.schemas import CURRICULUM, EXAMPLE
from lineage.tasks import TASKS, asking_alike

if TYPE_CHECKING:
    import pandas as pd

SLICES = ("gold", "hard", "replay")
_SELECTIONS = ({"gold"}, {"gold", "hard"}, set(SLICES))  # D3: a cold start replays nothing


def keys(batch: pa.Table) -> pa.Table:
    """All that a member says of its example and its place: curricula are small."""
    said = ["row_id", "row_no", "text", "answer", "slice", "weight", "curriculum"]
    return provenance.filled(batch).select(said)


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """What a member says of itself is checked against the example it names."""
    stored = _examples(keys, admitted)
    rows = {row_id: index for index, row_id in enumerate(stored["row_id"].to_pylist())}
    told = {name: stored[name].to_pylist() for name in ("row_no", "task", "split", "answer", "text")}
    asked = inputs(stored)
    found: dict[str, list[Any]] = {name: [] for name in ("trains", "quotes", "task", "label", "asked")}
    columns = (keys[name].to_pylist() for name in ("row_id", "row_no", "text", "answer"))
    for row_id, *quoted in zip(*columns, strict=True):
        row = rows.get(row_id)
        number, text, answer = quoted
        found["trains"].append(row is not None and told["split"][row] == "train")
        named = None if row is None else [told[name][row] for name in ("row_no", "text", "answer")]
        found["quotes"].append(None if named is None else named == [number, text, answer])
        found["task"].append("classification" if row is None else told["task"][row])
        found["label"].append(answer if found["task"][-1] == "classification" else None)
        found["asked"].append(normalised(text) if row is None else asked[row])
    tasks = asking_alike(set(found["task"]) or {"classification"})
    scored = admitted(EXAMPLE, [*INPUT_COLUMNS, "split"], _scored(tasks))
    often, exact = Counter(found["asked"]), set(inputs(scored))
    is_new = [key not in exact for key in found["asked"]]
    labels = {label for label in found["label"] if label is not None}
    root = _root(keys)
    count = keys.num_rows
    return pa.table(
        {
            "is_unique": provenance.occurs_once(keys["row_id"]),
            "is_admitted_train_row": pa.array(found["trains"], pa.bool_()),
            "quotes_its_example": pa.array(found["quotes"], pa.bool_()),
            "is_of_its_root": pc.equal(keys["curriculum"], root),
            "label": pa.array(found["label"], pa.string()),
            "labels": provenance.measure(float(len(labels)) if labels else None, count),
            "label_has_both": pa.array(_paired(found["label"], keys["slice"].to_pylist()), pa.bool_()),
            "slices_are_complete": _complete(keys["slice"]),
            "occurs_once": pa.array([often[key] == 1 for key in found["asked"]], pa.bool_()),
            "is_not_scored_on": pa.array(is_new, pa.bool_()),
            "repeats_scored": pa.array(_repeats(keys, found["asked"], scored), mask=~np.array(is_new, bool)),
            "repeats_row_before": _near_before(found["asked"]),
            "length_distance": provenance.measure(_length_distance(keys, scored), count),
            **{
                f"{task}_rows": provenance.measure(found["task"].count(task) or None, count) for task in TASKS
            },
        }
    )


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per member."""
    import pandas as pd

    columns = {name: facts[name].to_pandas() for name in facts.column_names}
    columns |= {name: batch[name].to_pandas() for name in ("slice", "weight", "curriculum", "run_id")}
    columns["empty_column"] = provenance.empty_column(batch, CURRICULUM)
    columns["weight_is_finite"] = provenance.are_finite(batch, ("weight",))
    return pd.DataFrame({"row_id": provenance.hexed(batch["row_id"]), **columns})


def _examples(batch: pa.Table, admitted: Admitted) -> pa.Table:
    where = pads.field("row_id").isin(batch["row_id"].combine_chunks())
    return admitted(EXAMPLE, ["row_id", "row_no", "split", "answer", *INPUT_COLUMNS], where)


def _scored(tasks: Sequence[str]) -> pads.Expression:
    return pads.field("split").isin(["gate", "report"]) & pads.field("task").isin(tasks)


def _root(keys: pa.Table) -> str:
    said = (keys[name].to_pylist() for name in ("row_id", "slice", "weight"))
    return curriculum_root(
        [(row_id or b"", name, weight) for row_id, name, weight in zip(*said, strict=True)]
    )


def _complete(slices: pa.ChunkedArray) -> pa.Array:
    there = set(slices.to_pylist())
    known = there <= set(SLICES)  # what is unknown is another rule's matter
    return pa.array([not known or there in _SELECTIONS] * len(slices), pa.bool_())


def _paired(labels: Sequence[str | None], slices: Sequence[str]) -> list[bool | None]:
    """Of each gold row whether a hard row has its label; nothing where no row is hard or has a label."""
    hard = {label for label, name in zip(labels, slices, strict=True) if name == "hard"} - {None}
    return [
        label in hard if hard and name == "gold" and label is not None else None
        for label, name in zip(labels, slices, strict=True)
    ]


def _repeats(keys: pa.Table, asked: Sequence[str], scored: pa.Table) -> np.ndarray:
    """Of each member how much of what is scored on it nearly is, or holds; 0 to 1."""
    signed = [_signed(asked), _signed(inputs(scored))]
    groups = np.repeat([0, 1], [len(each) for each in signed])
    near = likeness.nearest(np.concatenate(signed), groups, within=False)[: len(asked)]
    runs = likeness.Scored.of(*likeness.runs_of(likeness.words(scored["text"])))
    held, _ = runs.shares_in(likeness.words(keys["text"]))
    return np.maximum(near, held)


def _near_before(asked: Sequence[str]) -> np.ndarray:
    return likeness.nearest(_signed(asked), np.zeros(len(asked), np.int64), within=True)


def _signed(asked: Sequence[str]) -> np.ndarray:
    return likeness.signatures(likeness.words(pa.array(asked, pa.string())))


def _length_distance(keys: pa.Table, scored: pa.Table) -> float | None:
    gate = scored.filter(pc.equal(scored["split"], "gate"))
    return spread.distance(noise.sizes(keys["text"]), noise.sizes(gate["text"]))
