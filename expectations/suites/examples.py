"""What a batch of examples must be to be trained or scored on: in form, judged, on one side of the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import provenance
from expectations.suites.provenance import where
from expectations.suites.suite import Admitted, told
from lineage.inputs import INPUT_COLUMNS, inputs
from lineage.schemas import EXAMPLE, MIXED, NOT_APPLICABLE, UNSTATED

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
_FEW_WORDS = 10  # D1: a response has at least 10 tokens; below that, repetition means nothing


def keys(batch: pa.Table) -> pa.Table:
    """Those of provenance, and of each row what it asks, what it is a copy of, its split, task and label."""
    asked = inputs(batch)
    said = (batch[name].to_pylist() for name in ("answer", "split", "condition"))
    twins = ["\0".join(parts) for parts in zip(asked, *said, strict=True)]
    is_class = pc.equal(batch["task"], "classification")
    added = {
        "asked": _digests(asked),
        "twin": _digests(twins),
        "split": batch["split"],
        "task": batch["task"],
        "label": pc.if_else(is_class, batch["answer"], pa.scalar(None, pa.string())),
    }
    return _with(provenance.keys(batch), added)


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """Those of provenance, and how each row stands to the split of its batch and of what is admitted."""
    added = {
        "labels_of_split": _labels_of_split(keys, admitted),
        "source_on_one_split": _source_on_one_split(keys, admitted),
        "input_on_one_split": _input_on_one_split(keys, admitted),
        "is_duplicate_free": provenance.occurs_once(keys["twin"]),
    }
    return _with(provenance.facts(keys, admitted, spec=EXAMPLE), added)


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per example."""
    import pandas as pd

    flat = provenance.view(batch, facts)
    for name in SETS:
        flat[name] = batch[name].to_pandas()
    for name in ("text", "answer"):
        flat[f"{name}_characters"] = pc.utf8_length(pc.utf8_trim_whitespace(batch[name])).to_pandas()
    trained = flat["split"] == "train"
    passed = flat["score"].notna() & flat["threshold"].notna() & (flat["score"] >= flat["threshold"])
    flat["reaches_threshold"] = where(passed, trained)
    generated = trained & (flat["task"] == "generation")
    answers = batch["answer"].filter(pa.array(generated)).to_pylist()
    repetition = pd.Series(None, index=flat.index, dtype=object)
    repetition[generated] = [bigram_repetition(answer) for answer in answers]
    return flat.assign(answer_repetition=repetition)


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for examples."""
    import great_expectations.expectations as gxe

    from expectations.custom import ExpectColumnValuesToHold

    return [
        *provenance.rules(thresholds),
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
            column="answer_repetition",
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


def bigram_repetition(text: str) -> float | None:
    """Share of the word pairs that occurred before in the text; None below ten words."""
    words = text.split()
    if len(words) < _FEW_WORDS:
        return None
    pairs = list(pairwise(words))
    return 1 - len(set(pairs)) / len(pairs)


def _digests(texts: Sequence[str]) -> pa.Array:
    """16 bytes each: whether two texts are one can be seen without holding them."""
    found = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return pa.array(found, pa.binary(16))


def _with(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def _labels_of_split(keys: pa.Table, admitted: Admitted) -> pa.ChunkedArray:
    """How many labels the row's split has: a few rows more are held against what they are added to."""
    here = keys.select(["split", "label"]).filter(pc.is_valid(keys["label"]))
    condition = pads.field("split").isin(here["split"].unique()) & (pads.field("task") == "classification")
    stored = admitted(EXAMPLE, ["split", "answer"], condition).rename_columns(["split", "label"])
    counts = pa.concat_tables([here, stored]).group_by("split").aggregate([("label", "count_distinct")])
    number = dict(zip(counts["split"].to_pylist(), counts["label_count_distinct"].to_pylist(), strict=True))
    splits = pa.array(number, pa.string())
    found = pa.array(number.values(), pa.int64()).take(
        pc.index_in(keys["split"], value_set=splits).combine_chunks()
    )
    return pa.chunked_array([pc.if_else(pc.is_valid(keys["label"]).combine_chunks(), found, None)])


def _source_on_one_split(keys: pa.Table, admitted: Admitted) -> pa.ChunkedArray:
    sources = keys["source_revision"].cast(pa.string())
    condition = pads.field("source_revision").isin(sources.unique())
    stored = admitted(EXAMPLE, ["source_revision", "split"], condition)
    is_one = _on_one_split(sources, keys["split"], stored["source_revision"], stored["split"])
    is_nowhere = pc.is_in(sources, value_set=pa.array([MIXED, UNSTATED, NOT_APPLICABLE]))
    return pc.if_else(is_nowhere, pa.scalar(None, pa.bool_()), is_one)


def _input_on_one_split(keys: pa.Table, admitted: Admitted) -> pa.ChunkedArray:
    here = set(keys["split"].unique().to_pylist())
    stored = [
        admitted(EXAMPLE, [*INPUT_COLUMNS, "split"], _may_leak(task, here))
        for task in sorted(keys["task"].unique().to_pylist())
    ]
    asked = [_digests(inputs(each)) for each in stored]
    splits = [chunk for each in stored for chunk in each["split"].chunks]
    return _on_one_split(
        keys["asked"],
        keys["split"],
        pa.chunked_array(asked, pa.binary(16)),
        pa.chunked_array(splits, pa.string()),
    )


def _on_one_split(
    what: pa.ChunkedArray, split: pa.ChunkedArray, others: pa.ChunkedArray, their_split: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Of each thing whether it and its likes stand on one split."""
    both = {
        "what": pa.chunked_array([*what.chunks, *others.chunks], what.type),
        "split": pa.chunked_array([*split.chunks, *their_split.chunks], split.type),
    }
    counts = pa.table(both).group_by("what").aggregate([("split", "count_distinct")])
    on_several = counts["what"].filter(pc.greater(counts["split_count_distinct"], 1))
    return pc.invert(pc.is_in(what, value_set=on_several.combine_chunks()))


def _may_leak(task: str, splits: set[str]) -> pads.Expression:
    """Rows of one task that stand elsewhere than all of these splits."""
    condition = pads.field("task") == task
    return condition & (pads.field("split") != next(iter(splits))) if len(splits) == 1 else condition
