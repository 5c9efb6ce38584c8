"""What a curriculum must be: admitted rows only, in proportion, each input once, none that is scored on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites.curricula import SLICES
from expectations.suites.rules import provenance, repeats
from expectations.suites.suite import told

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds


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
        "preference": thresholds.generation_size,
        "tagging": thresholds.classification_size,
    }
    ranges = {
        "gold": list(thresholds.gold_share),
        "hard": list(thresholds.hard_share),
        "replay": list(thresholds.replay_share),
    }
    return [
        provenance.batch_not_empty(thresholds, "the curriculum has"),
        ExpectProvenanceToBeComplete(
            column_list=["curriculum", "run_id"],
            **told(
                "provenance_complete",
                "every member names its curriculum and the run that selected it",
                why="what cannot say who selected it cannot be recalled",
                cites="C2",
            ),
        ),
        provenance.no_column_empty(),
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
        *repeats.near_leakage(
            thresholds,
            "repeats_scored",
            row="member",
            what="what is scored on",
            little="little_near_leakage",
            none="no_near_leakage",
        ),
        repeats.few_near_duplicates(thresholds, "members"),
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
