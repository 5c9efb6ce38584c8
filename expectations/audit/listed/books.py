"""Damage to curricula and to predictions: members that must not train, scores of nothing."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pyarrow as pa

from expectations.audit.listed.examples import almost, inside
from expectations.audit.listed.traces import again
from expectations.audit.planting import (
    ALL,
    ONE,
    Corruption,
    NotPlanted,
    Plant,
    cell,
    evaluated,
    fixed,
    kept,
    put,
    rows_anew,
    shifted,
    shuffled,
    swapped,
    without_hits,
)
from expectations.audit.sample import Sample

_OUTSIDE = "a selection may be of any size that its recipe names"


def curricula() -> tuple[Corruption, ...]:
    """Everything that is planted in curricula."""

    def of(
        kind: str,
        family: str,
        does: str,
        plant: Plant,
        rate: float = 0.05,
        among: tuple[tuple[str, str], ...] = (),
        why_not: str = "",
    ) -> Corruption:
        return Corruption(f"curricula.{kind}", family, does, plant, rate, among, why_not)

    names = ("curriculum", "row_id", "row_no", "slice", "weight", "answer", "text", "run_id")
    return (
        *(of(f"{name}_null", "missing provenance", f"have no {name}", fixed(name, None)) for name in names),
        of("batch_empty", "size", "are none", kept(0), ALL),
        of("ten_left", "size", "are but ten", kept(0.08), ALL),
        of("half_lost", "size", "are only half of them", kept(0.5), ALL, why_not=_OUTSIDE),
        of("member_unknown", "members", "name a row that is not stored", fixed("row_id", b"\xfe" * 16), ONE),
        of("member_scored", "leakage", "name a row that models are scored on", scored_member, ONE),
        of("row_no_of_next", "shifted", "have the number of the next member", shifted("row_no"), 0.3),
        of("answer_of_next", "shifted", "quote the answer of the next member", shifted("answer"), 0.3),
        of("labels_shuffled", "shifted", "have their labels dealt anew", shuffled("answer"), ALL),
        of("text_misquoted", "members", "quote another text",
           cell("text", lambda said, _: f"{said} Thanks.")),
        of("text_and_answer_swapped", "swapped columns", "have text and answer exchanged",
           swapped("text", "answer"), 0.3),
        of("member_twice", "duplicates", "are members twice", again),
        of("input_twice", "duplicates", "ask what another member asks", input_twice, 0.05),
        of("input_nearly_twice", "duplicates", "ask what another asks, with a word more",
           alike(almost), 0.1),
        of("leaked_exactly", "leakage", "ask what models are scored on", leaked(lambda said, _: said), ONE),
        of("leaked_nearly", "leakage", "ask what models are scored on, with a word more", leaked(almost),
           0.03),
        of("leaked_inside", "leakage", "ask what models are scored on, inside a longer text", leaked(inside),
           0.03),
        of("slice_unknown", "slices", "are of a slice that is none", fixed("slice", "silver")),
        of("slice_and_answer_swapped", "swapped columns", "have slice and answer exchanged",
           swapped("slice", "answer"), 0.3),
        of("too_much_gold", "slices", "say gold, four in five", fixed("slice", "gold"), 0.7),
        of("too_much_replay", "slices", "say replay, half of them", fixed("slice", "replay"), 0.5),
        of("replay_lost", "slices", "of the replay are missing", without_hits, ALL, (("slice", "replay"),),
           "a cold start has nothing to replay (D3)"),
        of("hard_lost", "slices", "that are hard are missing", without_hits, ALL, (("slice", "hard"),)),
        of("gold_lost", "slices", "that are gold are missing", without_hits, ALL, (("slice", "gold"),)),
        of("label_floods", "flooding", "of other labels are few", unbalanced, ALL),
        of("label_alone", "labels", "all have one label", one_label, ALL),
        of("label_misspelt", "labels", "have a label with a blank before it",
           cell("answer", lambda said, _: f" {said}")),
        of("weight_zero", "weights", "weigh nothing", fixed("weight", 0.0)),
        of("weight_negative", "weights", "weigh less than nothing", fixed("weight", -1.0)),
        of("weight_nan", "weights", "have no number for a weight", fixed("weight", float("nan"))),
        of("weight_infinite", "weights", "have an endless weight", fixed("weight", float("inf")), ONE),
        of("weight_floods", "weights", "weigh as much as a thousand others", fixed("weight", 1000.0), ONE),
        of("root_wrong", "members", "name the root of other members", fixed("curriculum", "f" * 64), ALL),
        of("root_mixed", "members", "name two curricula", fixed("curriculum", "f" * 64), 0.3),
    )  # fmt: skip


def predictions() -> tuple[Corruption, ...]:
    """Everything that is planted in predictions."""

    def of(
        kind: str, family: str, does: str, plant: Plant, rate: float = 0.05, why_not: str = ""
    ) -> Corruption:
        return Corruption(f"predictions.{kind}", family, does, plant, rate, (), why_not)

    names = ("run_id", "model_run", "row_no", "row_id", "split", "condition", "answer", "prediction",
             "confidence")  # fmt: skip
    return (
        *(of(f"{name}_null", "missing provenance", f"have no {name}", fixed(name, None)) for name in names),
        of("batch_empty", "size", "are none", kept(0), ALL),
        of("half_lost", "size", "are only half of what is to be scored", kept(0.5), ALL),
        of("rows_twice", "duplicates", "are there twice", again, 0.1),
        of("row_unknown", "members", "are of a row that is not stored", fixed("row_id", b"\xfe" * 16)),
        of("row_trains", "leakage", "are of a row that trains", trained_on, ONE),
        of("row_no_of_next", "shifted", "have the number of the next row", shifted("row_no"), 0.3),
        of("prediction_of_next", "shifted", "have the prediction of the next row", shifted("prediction"), ALL,
           "a bad model predicts so; only its files know better"),
        of("answer_of_next", "shifted", "hold another answer for right", shifted("answer"), 0.3),
        of("answer_and_prediction_swapped", "swapped columns", "have answer and prediction exchanged",
           swapped("answer", "prediction"), 1.0),
        of("prediction_blank", "values", "predict a blank", fixed("prediction", " ")),
        of("split_unknown", "values", "are on a split that is none", fixed("split", "test")),
        of("split_train", "values", "are said to be on the training split", fixed("split", "train"), 0.3),
        of("split_wrong", "values", "are said to be on the report's split", fixed("split", "report"), 0.5),
        of("condition_unknown", "values", "are under an unknown condition", fixed("condition", "loud")),
        of("confidence_above_1", "scores", "are sure by 87", fixed("confidence", 87.0)),
        of("confidence_negative", "scores", "are sure by less than nothing", fixed("confidence", -0.2)),
        of("confidence_nan", "scores", "have no number for how sure they are",
           fixed("confidence", float("nan"))),
        of("score_above_1", "scores", "score 87 of 1", fixed("score", 87.0)),
        of("confidence_constant", "scores", "are all equally sure", fixed("confidence", 1.0), ALL,
           "a model that is sure of all is bad, its predictions are not"),
        of("prediction_constant", "values", "all predict the same", fixed("prediction", "mail"), ALL,
           "a bad model predicts so, and that is what a score is for"),
        of("two_models", "members", "are of two models", fixed("model_run", "finetune-2"), 0.4),
    )  # fmt: skip


def scored_member(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """Members that are rows of an evaluation split, quoted as they are."""
    rows = sample.batch.to_pylist()
    for place in places:
        scored = rng.choice(evaluated(sample, task="classification"))
        rows[place] |= {name: scored[name] for name in ("row_id", "row_no", "answer", "text")}
    return pa.Table.from_pylist(rows, schema=sample.batch.schema)


def leaked(change: Any) -> Plant:
    """Members whose quoted text, and whose example's, is what models are scored on."""

    def leak(row: dict, rng: random.Random, sample: Sample) -> dict:
        scored = rng.choice(evaluated(sample, task="classification"))
        return row | {"text": change(scored["text"], rng)}

    return rows_anew(leak)


def input_twice(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """The text of the member before, in another spelling."""
    texts = sample.batch["text"].to_pylist()
    for place in places:
        texts[place] = f" {texts[place - 1].upper()}"
    return put(sample.batch, "text", texts)


def alike(change: Any) -> Plant:
    """The text of the member before, changed."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        texts = sample.batch["text"].to_pylist()
        for place in places:
            texts[place] = change(texts[place - 1], rng)
        return put(sample.batch, "text", texts)

    return plant


def unbalanced(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """Of all labels but the first only two rows are left."""
    answers = sample.batch["answer"].to_pylist()
    left, count = [], Counter[str]()
    for at, answer in enumerate(answers):
        count[answer] += 1
        if answer == answers[0] or count[answer] <= 2:
            left.append(at)
    return sample.batch.take(left)


def one_label(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """Only the rows of the first label are left."""
    answers = sample.batch["answer"].to_pylist()
    return sample.batch.take([at for at, answer in enumerate(answers) if answer == answers[0]])


def trained_on(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """A prediction for a training row."""
    stored = sample.admitted["examples"].to_pylist() if "examples" in sample.admitted else []
    train = [row for row in stored if row["split"] == "train"]
    if not train:
        raise NotPlanted("predictions.row_trains: no admitted example trains")
    rows = sample.batch.to_pylist()
    for place in places:
        chosen = rng.choice(train)
        rows[place] |= {"row_id": chosen["row_id"], "row_no": chosen["row_no"]}
    return pa.Table.from_pylist(rows, schema=sample.batch.schema)
