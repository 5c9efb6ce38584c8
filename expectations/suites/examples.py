"""What a batch of examples must be to be trained or scored on: in form, judged, on one side of the split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import provenance
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


def frame(batch: pa.Table, admitted: Admitted) -> pd.DataFrame:
    """One flat row per example."""
    flat = provenance.frame(batch, admitted, spec=EXAMPLE)
    for name in SETS:
        flat[name] = batch[name].to_pandas()
    for name in ("text", "answer"):
        flat[f"{name}_characters"] = pc.utf8_length(pc.utf8_trim_whitespace(batch[name])).to_pandas()
    answers, splits, tasks = (batch[name].to_pylist() for name in ("answer", "split", "task"))
    trained = flat["split"] == "train"
    passed = flat["score"].notna() & flat["threshold"].notna() & (flat["score"] >= flat["threshold"])
    flat["reaches_threshold"] = passed.astype(object).where(trained, None)
    flat["labels_of_split"] = _objects(_labels_of_split(answers, splits, tasks, admitted))
    flat["answer_repetition"] = _objects(
        bigram_repetition(answer) if task == "generation" and split == "train" else None
        for answer, task, split in zip(answers, tasks, splits, strict=True)
    )
    asked = inputs(batch)
    flat["source_on_one_split"] = _objects(_sources_on_one_split(batch, splits, admitted))
    flat["input_on_one_split"] = _objects(_inputs_on_one_split(asked, splits, tasks, admitted))
    twins = Counter(zip(asked, answers, splits, batch["condition"].to_pylist(), strict=True))
    flat["is_duplicate_free"] = _objects(
        twins[twin] == 1 for twin in zip(asked, answers, splits, batch["condition"].to_pylist(), strict=True)
    )
    return flat


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


def _objects(values: Iterable[object]) -> pd.Series:
    import pandas as pd

    return pd.Series(list(values), dtype="object")


def _labels_of_split(
    answers: Sequence[str], splits: Sequence[str], tasks: Sequence[str], admitted: Admitted
) -> list[int | None]:
    """How many labels the row's split has: a few rows more are held against what they are added to."""
    labels: dict[str, set[str]] = defaultdict(set)
    here = pads.field("split").isin(pa.array(sorted(set(splits)), pa.string()))
    where = here & (pads.field("task") == "classification")
    stored = admitted(EXAMPLE, ["split", "answer"], where)
    for split, answer in zip(stored["split"].to_pylist(), stored["answer"].to_pylist(), strict=True):
        labels[split].add(answer)
    for split, answer, task in zip(splits, answers, tasks, strict=True):
        if task == "classification":
            labels[split].add(answer)
    return [
        len(labels[split]) if task == "classification" else None
        for split, task in zip(splits, tasks, strict=True)
    ]


def _sources_on_one_split(batch: pa.Table, splits: Sequence[str], admitted: Admitted) -> list[bool | None]:
    sources = batch["source_revision"].to_pylist()
    stands: dict[str, set[str]] = defaultdict(set)
    where = pads.field("source_revision").isin(batch["source_revision"].unique())
    stored = admitted(EXAMPLE, ["source_revision", "split"], where)
    pairs = zip(stored["source_revision"].to_pylist(), stored["split"].to_pylist(), strict=True)
    for source, split in (*pairs, *zip(sources, splits, strict=True)):
        stands[source].add(split)
    nowhere = (MIXED, UNSTATED, NOT_APPLICABLE)
    return [None if source in nowhere else len(stands[source]) == 1 for source in sources]


def _inputs_on_one_split(
    asked: Sequence[str], splits: Sequence[str], tasks: Sequence[str], admitted: Admitted
) -> list[bool]:
    stands: dict[str, set[str]] = defaultdict(set)
    for task in sorted(set(tasks)):
        stored = admitted(EXAMPLE, [*INPUT_COLUMNS, "split"], _may_leak(task, set(splits)))
        for key, split in zip(inputs(stored), stored["split"].to_pylist(), strict=True):
            stands[key].add(split)
    for key, split in zip(asked, splits, strict=True):
        stands[key].add(split)
    return [len(stands[key]) == 1 for key in asked]


def _may_leak(task: str, splits: set[str]) -> pads.Expression:
    """Rows of one task that stand elsewhere than all of these splits."""
    where = pads.field("task") == task
    return where & (pads.field("split") != next(iter(splits))) if len(splits) == 1 else where
