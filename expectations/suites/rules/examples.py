"""What a batch of examples must be to be trained or scored on: in form, judged, on one side of the split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites import noise, spread, talk
from expectations.suites.examples import MANY, SETS
from expectations.suites.rules import provenance, repeats, texts
from expectations.suites.suite import told
from lineage.schemas import NOT_APPLICABLE

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

_WHY = {
    "task": "the objective is chosen by it",
    "split": "what is trained on is never what is scored",
    "kind": "slices of a curriculum are cut by it",
    "condition": "reports tell clean and noisy input apart",
}


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for examples."""
    import great_expectations.expectations as gxe

    from expectations.custom import (
        ExpectColumnValuesToHold,
        ExpectLabelRatioToBeAtMost,
        ExpectMeasureToBeBetween,
        ExpectValueCountsToBeAtMost,
    )

    fewest, most = thresholds.answer_words
    return [
        *provenance.rules(thresholds),
        *texts.rules("text", thresholds, max_odd=thresholds.max_odd, is_trained_on=True),
        *texts.rules("answer", thresholds, max_odd=thresholds.max_noisy_answers, is_trained_on=True),
        *(
            gxe.ExpectColumnValuesToBeInSet(
                column=name,
                value_set=list(values),
                **told(f"{name}_known", f"{name} is one of {', '.join(values)}", why=_WHY[name]),
            )
            for name, values in SETS.items()
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="answer_characters",
            min_value=1,
            **told(
                "answer_not_empty",
                "an example has an answer; one of generation may have tool calls in its place",
                why="there is nothing else to learn",
            ),
        ),
        ExpectColumnValuesToHold(
            column="tool_calls_are_listed",
            **told(
                "tool_calls_listed",
                "the tool calls of an answer are a JSON list of at least one",
                why="a chat template renders them call by call",
            ),
        ),
        ExpectColumnValuesToHold(
            column="rejected_fits_task",
            **told(
                "rejected_fits_task",
                "an example of preference has a rejected answer other than its answer; no other has one",
                why="of one answer alone nobody can learn which of two is better",
            ),
        ),
        ExpectColumnValuesToHold(
            column="spans_fit_text",
            **told(
                "spans_fit_text",
                "the answer of an example of tagging is a JSON list of spans of its text that lie apart",
                why="a span that is not in the text labels nothing, or something else",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="text_characters",
            min_value=1,
            max_value=thresholds.max_text_characters,
            **told(
                "text_length",
                f"a text has 1 to {thresholds.max_text_characters:,} characters",
                why="an empty text asks nothing, and the end of a longer one would be cut off unseen",
                cites="D1",
            ),
        ),
        ExpectColumnValuesToHold(
            column="roles_are_known",
            **told(
                "roles_known",
                f"every message is of a role that is one of {', '.join(talk.ROLES)}",
                why="chat templates know no others",
            ),
        ),
        ExpectColumnValuesToHold(
            column="text_is_asked",
            **told(
                "text_is_last_user_message",
                "text is what the last user message says",
                why="an encoder reads the one, a generator the other: both must ask the same",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_decoded",
            mostly=1 - thresholds.max_badly_decoded,
            **told(
                "texts_decoded",
                f"at most {thresholds.max_badly_decoded:.1%} of texts and answers show signs of bytes "
                "read in the wrong encoding",
                why="a model learns to write what it reads",
                cites="D9",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="generated_words",
            min_value=fewest,
            max_value=most,
            mostly=thresholds.min_sized_answers,
            **told(
                "answers_sized",
                f"{thresholds.min_sized_answers:.0%} of the generated training answers have {fewest} to "
                f"{most} words",
                why="one word explains nothing, and of a thousand most are padding",
                cites="D1",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="answer_noise",
            value_set=[noise.NONE],
            mostly=1 - thresholds.max_noisy_answers,
            **told(
                "answers_without_noise",
                f"at most {thresholds.max_noisy_answers:.0%} of the generated training answers hold "
                f"{', '.join(noise.NOISE)} noise of tools",
                why="a model that is taught to write what tools print prints it at users",
                cites="D1",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="answer_answers",
            mostly=1 - thresholds.max_refusals,
            **told(
                "answers_answer",
                f"at most {thresholds.max_refusals:.0%} of the generated training answers refuse, or give "
                "the question back",
                why="what is refused in training is refused in use",
                cites="D1",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_asked_last",
            **told(
                "asked_last",
                "the last message is not the model's own",
                why="the answer must not stand among what is asked",
            ),
        ),
        ExpectMeasureToBeBetween(
            column="same_answer",
            max_value=thresholds.max_same_answer,
            **told(
                "answers_differ",
                f"of {MANY} generated training answers and more, {thresholds.max_same_answer:.0%} at most "
                "are one and the same",
                why="a model that always hears one answer gives it to everything",
                cites="D1",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="trained_threshold",
            min_value=0,
            strict_min=True,
            **told(
                "threshold_above_zero",
                "a training row is held against a threshold above 0",
                why="every score reaches 0: nothing was judged",
                cites="C7",
                severity="warning",
            ),
        ),
        ExpectMeasureToBeBetween(
            column="trained_labels",
            min_value=thresholds.min_labels,
            **told(
                "training_labels_differ",
                f"{MANY} training rows of classification and more have at least "
                f"{thresholds.min_labels} different labels among themselves",
                why="what an exporter lost was all but one label",
                cites="D4",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="condition_fits_split",
            **told(
                "condition_fits_split",
                f"a training row is under no condition: {NOT_APPLICABLE}",
                why="conditions tell evaluation rows apart",
            ),
        ),
        ExpectValueCountsToBeAtMost(
            column="generated_by",
            max_count=thresholds.max_rows_per_generator,
            **told(
                "generators_capped",
                f"no generator wrote more than {thresholds.max_rows_per_generator} of the generated training "
                "rows",
                why="the style of one takes over",
                cites="D1, D2",
                severity="warning",
            ),
        ),
        ExpectLabelRatioToBeAtMost(
            column="trained_label",
            max_ratio=thresholds.max_label_ratio,
            **told(
                "training_labels_balanced",
                f"no label of the training rows occurs more than {thresholds.max_label_ratio:g} times as "
                "often as another",
                why="a model learns the frequencies it is shown; a curriculum still balances what it takes",
                cites="D4",
                severity="warning",
            ),
        ),
        ExpectMeasureToBeBetween(
            column="fewest_patterns",
            min_value=thresholds.min_patterns,
            **told(
                "patterns_per_label",
                f"a label with ten training rows has at least {thresholds.min_patterns} surface patterns "
                f"(first {spread.PATTERN_WORDS} words)",
                why="a label that is always asked in one way is known by the way, not by what is asked",
                cites="D4",
                severity="warning",
            ),
        ),
        ExpectMeasureToBeBetween(
            column="length_distance",
            max_value=thresholds.max_length_distance,
            **told(
                "lengths_match_target",
                f"the lengths of training inputs are at most {thresholds.max_length_distance:g} (Kolmogorov-"
                "Smirnov) from those of the gate split, each with a hundred rows or more",
                why="what is learnt on short requests is not known on long ones",
                cites="D4",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="labels_of_split",
            min_value=thresholds.min_labels,
            **told(
                "labels_differ",
                f"classification examples have at least {thresholds.min_labels} different labels, here and "
                "among what is admitted on their split",
                why="one label teaches nothing but itself",
                cites="D4",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="generated_repetition",
            max_value=thresholds.max_bigram_repetition,
            strict_max=True,
            mostly=thresholds.min_unrepetitive_answers,
            **told(
                "answers_do_not_repeat",
                f"in {thresholds.min_unrepetitive_answers:.0%} of the generated training answers less than "
                f"{thresholds.max_bigram_repetition:.0%} of the word pairs are repeated",
                why="a model that is taught to stutter stutters",
                cites="D1",
            ),
        ),
        ExpectColumnValuesToHold(
            column="reaches_threshold",
            **told(
                "train_score_reaches_threshold",
                "a training row has a score and a threshold, and the score reaches it",
                why="nobody judged it fit otherwise, and nobody could say later by what measure",
                cites="C2, C7",
            ),
        ),
        ExpectColumnValuesToHold(
            column="source_on_one_split",
            **told(
                "source_on_one_split",
                "a source stands on one split only, here and among what is admitted",
                why="lines of one source resemble each other: splitting inside it leaks",
                cites="A9",
            ),
        ),
        ExpectColumnValuesToHold(
            column="input_on_one_split",
            **told(
                "input_on_one_split",
                "no input stands on two splits, here and among what is admitted",
                why="a score on what was trained on measures memory",
                cites="K5",
            ),
        ),
        *repeats.near_leakage(
            thresholds,
            "repeats_other_split",
            row="text",
            what="one of another split",
            little="little_nearly_on_two_splits",
            none="nothing_nearly_on_two_splits",
        ),
        repeats.few_near_duplicates(thresholds, "training texts"),
        ExpectColumnValuesToHold(
            column="parent_holds_no_secret",
            **told(
                "parents_without_secrets",
                "no row derives from one in which a key, token or password was found and left as it is",
                why="what a model was trained on it can be made to say",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_duplicate_free",
            **told(
                "no_duplicates",
                "no input has the same answer twice on one split under one condition",
                why="copies count a case more often than it happened",
                cites="B16",
            ),
        ),
    ]
