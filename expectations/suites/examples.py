"""What a batch of examples must be to be trained or scored on: in form, judged, on one side of the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import likeness, noise, provenance, splits, spread, talk, texts
from expectations.suites.provenance import filled, where
from expectations.suites.suite import Admitted, told
from lineage.inputs import inputs
from lineage.schemas import DOCUMENT, EXAMPLE, MIXED, NOT_APPLICABLE, REDACTED, TRACE, UNSTATED

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

SETS = {
    "task": ("classification", "generation"),
    "split": ("train", "gate", "report"),
    "kind": ("stated", "corrected", "passed"),
    "condition": ("clean", "noisy", NOT_APPLICABLE),
}
_WHY = {
    "task": "the objective is chosen by it",
    "split": "what is trained on is never what is scored",
    "kind": "slices of a curriculum are cut by it",
    "condition": "reports tell clean and noisy input apart",
}
GENERATED = "generation"
_MANY = 30  # rows, by which a whole export rather than a few additions is meant
_NO_GENERATOR = (UNSTATED, NOT_APPLICABLE, MIXED, "human")
_SECRETS = (
    r'"(?:private_key|jwt|aws_key|github_token|api_key|google_key|slack_token|secret)"'  # kinds in `pii`
)


def keys(batch: pa.Table) -> pa.Table:
    """Those of provenance, and of each row what it asks, what it is a copy of, its split, task and label."""
    batch = filled(batch)
    asked = inputs(batch)
    said = (batch[name].to_pylist() for name in ("answer", "split", "condition"))
    twins = ["\0".join(parts) for parts in zip(asked, *said, strict=True)]
    is_class = pc.equal(batch["task"], "classification")
    trains = pc.equal(batch["split"], "train")
    no_text = pa.scalar(None, pa.string())
    signed = likeness.signatures(likeness.words(pa.array(asked, pa.string())))
    added = {
        "asked": splits.digests(asked),
        "twin": splits.digests(twins),
        "split": pc.dictionary_encode(batch["split"]),
        "task": pc.dictionary_encode(batch["task"]),
        "label": pc.if_else(is_class, batch["answer"], no_text),
        "pattern": pc.if_else(pc.and_(is_class, trains), spread.pattern(batch["text"]), no_text),
        "answered": spread.hashed(batch["answer"]),
        "words": pa.array(noise.sizes(batch["text"]), pa.int32()),
        "signature": likeness.as_column(signed),
        "scored_runs": splits.scored_runs(batch["text"], ~trains.to_numpy()),
    }
    return _with(provenance.keys(batch), added)


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """Those of provenance, and how each row stands to the split of its batch and of what is admitted.

    The metadata of the table hold what models are scored on: each block's texts are held against it.
    """
    keys = _decoded(keys, ("split", "task"))
    others = splits.Others.of(keys, admitted)
    trains = pc.equal(keys["split"], "train").to_numpy()
    scored, held = splits.scored_of(keys, others, trains)
    on_one = splits.on_one_split(keys["asked"], keys["split"], others.digests, others.splits)
    repeats = np.maximum(splits.likeness_elsewhere(keys, others), held)
    added = {
        "labels_of_split": splits.labels_of_split(keys, admitted),
        "source_on_one_split": splits.source_on_one_split(keys, admitted),
        "input_on_one_split": on_one,
        "repeats_other_split": pa.array(repeats, mask=~on_one.to_numpy()),  # word for word: the rule above
        "is_duplicate_free": provenance.occurs_once(keys["twin"]),
        "repeats_row_before": splits.likeness_in_training(keys, trains),
        "fewest_patterns": provenance.measure(
            spread.fewest_patterns(keys["label"], keys["pattern"]), keys.num_rows
        ),
        "same_answer": provenance.measure(_same_answer(keys, trains), keys.num_rows),
        "trained_labels": provenance.measure(_labels_here(keys), keys.num_rows),
        "length_distance": provenance.measure(splits.length_distance(keys, others, trains), keys.num_rows),
        "parent_holds_no_secret": _parents_hold_no_secret(keys, admitted),
    }
    known = _with(provenance.facts(keys, admitted, spec=EXAMPLE), added)
    return known.replace_schema_metadata(scored.as_metadata())


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per example."""
    import pandas as pd

    flat = provenance.view(batch, facts, spec=EXAMPLE)
    for name in SETS:
        flat[name] = batch[name].to_pandas()
    for name in ("text", "answer"):
        flat[f"{name}_characters"] = pc.utf8_length(pc.utf8_trim_whitespace(batch[name])).to_pandas()
    trained = flat["split"] == "train"
    passed = flat["score"].notna() & flat["threshold"].notna() & (flat["score"] >= flat["threshold"])
    flat["reaches_threshold"] = where(passed, trained)
    flat["trained_label"] = where(batch["answer"].to_pandas(), trained & (flat["task"] == "classification"))
    generated = trained & (flat["task"] == GENERATED)
    flat["generated_by"] = where(flat["generator"], generated & ~flat["generator"].isin(_NO_GENERATOR))
    is_class = pc.equal(batch["task"], "classification")
    sentences = pc.if_else(is_class, pa.scalar(None, pa.string()), batch["answer"])  # a label is no text
    flat = flat.assign(**texts.view("text", batch["text"]), **texts.view("answer", sentences))
    flat["trained_threshold"] = flat["threshold"].where(trained)
    flat["is_asked_last"] = talk.is_asked_last(batch["messages"])
    flat["condition_fits_split"] = where(flat["condition"] == NOT_APPLICABLE, trained)
    flat["roles_are_known"] = talk.roles_are_known(batch["messages"])
    flat["text_is_asked"] = pc.fill_null(
        pc.equal(batch["text"], talk.last_of_user(batch["messages"])), False
    ).to_pandas()
    flat["is_decoded"] = pc.and_(
        noise.is_decoded(batch["text"]), noise.is_decoded(batch["answer"])
    ).to_pandas()
    scored = likeness.Scored.from_metadata(facts.schema.metadata)
    if len(scored.runs):
        said = splits.all_said(batch).filter(pa.array(trained))
        held, _ = scored.shares_in(likeness.words(said))
        flat.loc[trained, "repeats_other_split"] = np.maximum(flat["repeats_other_split"][trained], held)
    answers = batch["answer"].filter(pa.array(generated))
    echoes = pc.equal(answers, batch["text"].filter(pa.array(generated))).to_pandas()
    refuses = pc.match_substring_regex(answers, noise.REFUSAL).to_pandas()
    of_answers = {
        "answer_noise": noise.noise(answers).to_pylist(),
        "answer_answers": ~(echoes.to_numpy(bool, na_value=False) | refuses.to_numpy(bool, na_value=False)),
    }
    for name, values in of_answers.items():
        column = pd.Series(None, index=flat.index, dtype=object)
        column[generated] = values
        flat[name] = column
    flat["generated_words"] = where(flat["answer_words"], generated)
    flat["generated_repetition"] = where(flat["answer_repetition"], generated)
    return flat


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
        *texts.rules("text", thresholds, max_odd=thresholds.max_odd),
        *texts.rules("answer", thresholds, max_odd=thresholds.max_noisy_answers),
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
            **told("answer_not_empty", "an example has an answer", why="there is nothing else to learn"),
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
                f"of {_MANY} generated training answers and more, {thresholds.max_same_answer:.0%} at most "
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
                f"{_MANY} training rows of classification and more have at least "
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
        gxe.ExpectColumnValuesToBeBetween(
            column="repeats_other_split",
            max_value=thresholds.near_duplicate,
            strict_max=True,
            mostly=1 - thresholds.max_near_leakage,
            **told(
                "little_nearly_on_two_splits",
                f"at most {thresholds.max_near_leakage:.0%} of the texts nearly repeat one of another split "
                f"({thresholds.near_duplicate:g} of its words, or of its runs of {likeness.RUN} words)",
                why="a score on what was nearly trained on measures memory",
                cites="K5",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="repeats_other_split",
            max_value=thresholds.near_duplicate,
            strict_max=True,
            **told(
                "nothing_nearly_on_two_splits",
                f"no text nearly repeats one of another split ({thresholds.near_duplicate:g} of its words, "
                f"or of its runs of {likeness.RUN} words)",
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
                f"at most {thresholds.max_near_duplicates:.0%} of the training texts nearly repeat one "
                f"before them ({thresholds.near_duplicate:g} of its words)",
                why="copies count a case more often than it happened",
                cites="D9",
                severity="warning",
            ),
        ),
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


def _with(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values) if isinstance(values, np.ndarray) else values)
    return table


def _same_answer(keys: pa.Table, trains: np.ndarray) -> float | None:
    """Share of the most frequent of the generated training answers; None of few."""
    mine = trains & pc.fill_null(pc.equal(keys["task"], GENERATED), False).to_numpy()
    answers = keys["answered"].to_numpy()[mine]
    if len(answers) < _MANY:
        return None
    return float(np.unique(answers, return_counts=True)[1].max() / len(answers))


def _labels_here(keys: pa.Table) -> int | None:
    """Different labels of the batch's training rows; None of few rows: more may be admitted with them."""
    trained = keys["label"].filter(pc.is_valid(keys["pattern"]))
    return pc.count_distinct(trained).as_py() if len(trained) >= _MANY else None


def _parents_hold_no_secret(keys: pa.Table, admitted: Admitted) -> pa.Array:
    """Of each derived row whether in none of its parents a secret was found and left as it is."""
    _, numbers, rows = provenance.parents_of(keys)
    holds = np.ones(keys.num_rows, np.bool_)
    if len(numbers):
        for spec in (TRACE, DOCUMENT):
            condition = provenance.numbered(numbers.unique()) & pads.field("pii").is_valid()
            found = admitted(spec, ["row_no", "pii", "step"], condition)
            holding = pc.and_not(
                pc.match_substring_regex(found["pii"], _SECRETS), pc.ends_with(found["step"], REDACTED)
            )
            known = found["row_no"].filter(holding).combine_chunks()
            holds[rows[pc.is_in(numbers, value_set=known).to_numpy(False)]] = False
    derived = np.bincount(rows, minlength=keys.num_rows) > 0
    return pa.array(holds, mask=~derived)


def _decoded(keys: pa.Table, names: Sequence[str]) -> pa.Table:
    for name in names:
        keys = keys.set_column(keys.column_names.index(name), name, keys[name].cast(pa.string()))
    return keys
