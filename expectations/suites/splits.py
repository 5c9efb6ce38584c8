"""How examples stand to those of other splits: the same, nearly, one inside the other, in their lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import likeness, noise, spread, talk
from expectations.suites.suite import Admitted
from lineage.inputs import INPUT_COLUMNS, inputs
from lineage.schemas import EXAMPLE, MIXED, NOT_APPLICABLE, UNSTATED
from lineage.tasks import asking_alike


@dataclass(frozen=True)
class Others:
    """The admitted rows of tasks that ask as the batch's do, and that stand on another split than it."""

    tasks: np.ndarray
    splits: pa.ChunkedArray
    digests: pa.ChunkedArray
    """Of what they ask."""

    signatures: np.ndarray
    texts: pa.ChunkedArray
    said: pa.Array
    """All that their messages say."""

    @classmethod
    def of(cls, keys: pa.Table, admitted: Admitted) -> Others:
        """Read once, for all that is asked of them."""
        here, empty = set(keys["split"].unique().to_pylist()), EXAMPLE.schema.empty_table()
        columns = [*INPUT_COLUMNS, "split"]
        stored = pa.concat_tables(
            [
                empty.select(columns),
                *(admitted(EXAMPLE, columns, _may_leak(task, here)) for task in asking_alike(tasks_of(keys))),
            ]
        )
        asked = inputs(stored)
        return cls(
            np.array(stored["task"].to_pylist(), object),
            stored["split"],
            pa.chunked_array([digests(asked)]),
            likeness.signatures(likeness.words(pa.array(asked, pa.string()))),
            stored["text"],
            all_said(stored),
        )


def on_one_split(
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


def source_on_one_split(keys: pa.Table, admitted: Admitted) -> pa.ChunkedArray:
    """Of each row whether its source stands on its split alone; null where no one source is named."""
    sources = keys["source_revision"].cast(pa.string())
    condition = pads.field("source_revision").isin(sources.unique())
    stored = admitted(EXAMPLE, ["source_revision", "split"], condition)
    is_one = on_one_split(sources, keys["split"], stored["source_revision"], stored["split"])
    is_nowhere = pc.is_in(sources, value_set=pa.array([MIXED, UNSTATED, NOT_APPLICABLE]))
    return pc.if_else(is_nowhere, pa.scalar(None, pa.bool_()), is_one)


def labels_of_split(keys: pa.Table, admitted: Admitted) -> pa.ChunkedArray:
    """How many labels the row's split has: a few rows more are held against what they are added to."""
    here = keys.select(["split", "label"]).filter(pc.is_valid(keys["label"]))
    condition = pads.field("split").isin(here["split"].unique()) & (pads.field("task") == "classification")
    stored = admitted(EXAMPLE, ["split", "answer"], condition).rename_columns(["split", "label"])
    counts = pa.concat_tables([here, stored]).group_by("split").aggregate([("label", "count_distinct")])
    number = dict(zip(counts["split"].to_pylist(), counts["label_count_distinct"].to_pylist(), strict=True))
    names = pa.array(number, pa.string())
    found = pa.array(number.values(), pa.int64()).take(
        pc.index_in(keys["split"], value_set=names).combine_chunks()
    )
    return pa.chunked_array([pc.if_else(pc.is_valid(keys["label"]).combine_chunks(), found, None)])


def likeness_elsewhere(keys: pa.Table, others: Others) -> np.ndarray:
    """Of each row how like it the likest row of another split is, here and among what is admitted; 0 to 1."""
    splits = pa.chunked_array([*keys["split"].chunks, *others.splits.chunks], pa.string())
    groups = pc.dictionary_encode(splits).combine_chunks().indices.to_numpy(False).astype(np.int64)
    tasks = np.concatenate([np.array(keys["task"].to_pylist(), object), others.tasks])
    signed = np.concatenate([likeness.from_column(keys["signature"]), others.signatures])
    found = np.zeros(len(signed))
    for task in tasks_of(keys):
        mine = np.flatnonzero(tasks == task)
        found[mine] = likeness.nearest(signed[mine], groups[mine], within=False)
    return found[: keys.num_rows]


def likeness_in_training(keys: pa.Table, trains: np.ndarray) -> pa.Array:
    """Of each training row how like it the likest one before it in the batch is; null of the others."""
    tasks = pc.dictionary_encode(keys["task"]).combine_chunks().indices.to_numpy(False).astype(np.int64)
    found = np.zeros(keys.num_rows)
    mine = np.flatnonzero(trains)
    found[mine] = likeness.nearest(likeness.from_column(keys["signature"])[mine], tasks[mine], within=True)
    return pa.array(found, mask=~trains)


def scored_runs(texts: pa.ChunkedArray, is_scored: np.ndarray) -> pa.Array:
    """Of each row that models are scored on the runs of words of its text; null of the others."""
    runs, rows = likeness.runs_of(likeness.words(texts.filter(pa.array(is_scored))))
    counts = np.zeros(len(is_scored), np.int64)
    counts[is_scored] = np.bincount(rows, minlength=int(is_scored.sum()))
    offsets = np.r_[0, np.cumsum(counts)].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(runs), mask=pa.array(~is_scored))


def scored_of(keys: pa.Table, others: Others, trains: np.ndarray) -> tuple[likeness.Scored, np.ndarray]:
    """(what training texts are held against; of each row that is scored on, how much of its text a training
    text holds that is admitted already)."""
    lists = keys["scored_runs"].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(False)
    here, rows = pc.list_flatten(lists).to_numpy(False), np.repeat(np.arange(len(lists)), counts)
    stored_trains = pc.equal(others.splits, "train").to_numpy()
    held = np.zeros(keys.num_rows)
    if len(here) and stored_trains.any():
        talk_of_training = likeness.words(others.said.filter(pa.array(stored_trains)))
        _, found = likeness.Scored.of(here, rows).shares_in(talk_of_training)
        held[: len(found)] = found
    if not trains.any():
        return likeness.Scored.of(here[:0], rows[:0]), held
    there, texts = likeness.runs_of(likeness.words(others.texts.filter(pa.array(~stored_trains))))
    both = np.concatenate([here, there]), np.concatenate([rows, texts + len(lists)])
    return likeness.Scored.of(both[0], np.unique(both[1], return_inverse=True)[1]), held


def length_distance(keys: pa.Table, others: Others, trains: np.ndarray) -> float | None:
    """How far the lengths of training inputs lie from those of the gate split, the farthest of the tasks."""
    tasks, theirs = np.array(keys["task"].to_pylist(), object), others.tasks
    is_gate = pc.equal(others.splits, "gate").to_numpy()
    mine, target = keys["words"].to_numpy(), noise.sizes(others.texts)
    found = [
        spread.distance(mine[trains & (tasks == task)], target[is_gate & (theirs == task)])
        for task in tasks_of(keys)
    ]
    return max((each for each in found if each is not None), default=None)


def tasks_of(keys: pa.Table) -> list[str]:
    """The tasks of the rows, sorted."""
    return sorted(keys["task"].unique().drop_null().to_pylist())


def all_said(rows: pa.Table) -> pa.Array:
    """Text and messages of each row, one after the other: a scored text may hide in a system message."""
    text = pa.chunked_array(pc.fill_null(rows["text"], "").chunks, pa.string()).combine_chunks()
    return pc.binary_join_element_wise(text, talk.joined(rows["messages"]), " ")


def digests(texts: Sequence[str]) -> pa.Array:
    """16 bytes each: whether two texts are one can be seen without holding them."""
    found = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return pa.array(found, pa.binary(16))


def _may_leak(task: str, splits: set[str]) -> pads.Expression:
    """Rows of one task that stand elsewhere than all of these splits."""
    condition = pads.field("task") == task
    return condition & (pads.field("split") != next(iter(splits))) if len(splits) == 1 else condition
