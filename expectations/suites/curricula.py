"""What a curriculum must be: admitted rows only, in proportion, each input once, none that is scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import likeness, noise, provenance, spread
from expectations.suites.suite import Admitted, told
from lineage.curricula import curriculum_root
from lineage.inputs import INPUT_COLUMNS, inputs, normalised
from lineage.schemas import CURRICULUM, EXAMPLE

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

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
    scored = admitted(EXAMPLE, [*INPUT_COLUMNS, "split"], _scored(set(found["task"]) or {"classification"}))
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
                f"{task}_rows": provenance.measure(found["task"].count(task) or None, count)
                for task in ("classification", "generation")
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


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for curricula."""
    import great_expectations.expectations as gxe

    from expectations.custom import (
        ExpectColumnValuesToHold,
        ExpectLabelRatioToBeAtMost,
        ExpectMeasureToBeBetween,
        ExpectProvenanceToBeComplete,
        ExpectSliceSharesToBeWithin,
    )

    sizes = {
        "classification": thresholds.classification_size,
        "generation": thresholds.generation_size,
    }
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
        ExpectProvenanceToBeComplete(
            column_list=["curriculum", "run_id"],
            **told(
                "provenance_complete",
                "every member names its curriculum and the run that selected it",
                why="what cannot say who selected it cannot be recalled",
                cites="C2",
            ),
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="empty_column",
            **told(
                "no_column_empty",
                "no column that must say something is null; the first that does is named",
                why="the other rules pass what is null: they are not about it",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_of_its_root",
            **told(
                "root_is_of_members",
                "curriculum is the Merkle root of exactly these members, their slices and weights",
                why="a model names its curriculum by it: another selection under its name is a forgery",
                cites="C2",
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
                "a member's number, text and answer are those of its example",
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
        gxe.ExpectColumnValuesToBeBetween(
            column="repeats_scored",
            max_value=thresholds.near_duplicate,
            strict_max=True,
            mostly=1 - thresholds.max_near_leakage,
            **told(
                "little_near_leakage",
                f"at most {thresholds.max_near_leakage:.0%} of the members nearly repeat what is scored on "
                f"({thresholds.near_duplicate:g} of its words, or of its runs of {likeness.RUN} words)",
                why="a score on what was nearly trained on measures memory",
                cites="K5",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="repeats_scored",
            max_value=thresholds.near_duplicate,
            strict_max=True,
            **told(
                "no_near_leakage",
                f"no member nearly repeats what is scored on ({thresholds.near_duplicate:g} of its words, or "
                f"of its runs of {likeness.RUN} words)",
                why="each such row makes a score a little better than the model is",
                cites="K5",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="repeats_row_before",
            max_value=thresholds.near_duplicate,
            strict_max=True,
            mostly=1 - thresholds.max_near_duplicates,
            **told(
                "few_near_duplicates",
                f"at most {thresholds.max_near_duplicates:.0%} of the members nearly repeat one before them "
                f"({thresholds.near_duplicate:g} of its words)",
                why="copies count a case more often than it happened",
                cites="D9",
                severity="warning",
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
        ExpectMeasureToBeBetween(
            column="labels",
            min_value=thresholds.min_labels,
            **told(
                "labels_differ",
                f"a curriculum for classification has at least {thresholds.min_labels} different labels",
                why="one label teaches nothing but itself",
                cites="D4",
            ),
        ),
        ExpectColumnValuesToHold(
            column="slices_are_complete",
            **told(
                "slices_complete",
                "the slices are gold alone, gold and hard, or all three",
                why="hard rows draw the border that gold lies within; replay alone learns nothing new",
                cites="D3",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="label_has_both",
            mostly=thresholds.min_paired_gold,
            **told(
                "gold_is_paired",
                f"where there are hard rows {thresholds.min_paired_gold:.0%} of the gold rows have one of "
                "their label beside them",
                why="a label that is only ever right is learnt for everything that resembles it",
                cites="D4",
                severity="warning",
            ),
        ),
        ExpectMeasureToBeBetween(
            column="length_distance",
            max_value=thresholds.max_length_distance,
            **told(
                "lengths_match_target",
                f"the lengths of members are at most {thresholds.max_length_distance:g} (Kolmogorov-Smirnov) "
                "from those of the gate split, each with a hundred rows or more",
                why="what is learnt on short requests is not known on long ones",
                cites="D4",
                severity="warning",
            ),
        ),
        *(
            ExpectMeasureToBeBetween(
                column=f"{task}_rows",
                min_value=low,
                max_value=high,
                **told(
                    f"{task}_sized",
                    f"a curriculum for {task} has {low:,} to {high:,} rows",
                    why="fewer teach too little, and accuracy falls after growth",
                    cites="D5",
                    severity="warning",
                ),
            )
            for task, (low, high) in sizes.items()
        ),
        ExpectColumnValuesToHold(
            column="weight_is_finite",
            **told("weights_finite", "a weight is a finite number", why="nothing is taken endlessly often"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="weight",
            max_value=thresholds.max_weight,
            **told(
                "weights_moderate",
                f"no member is taken more than {thresholds.max_weight:g} times an epoch",
                why="what is taken often is a copy by another name",
                cites="B16, D4",
                severity="warning",
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
    return admitted(EXAMPLE, ["row_id", "row_no", "split", "answer", *INPUT_COLUMNS], where)


def _scored(tasks: set[str]) -> pads.Expression:
    return pads.field("split").isin(["gate", "report"]) & pads.field("task").isin(sorted(tasks))


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
