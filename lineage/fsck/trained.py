"""Is every checkpoint made of what it says, and worth what is reported?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.models import ModelError, adapter_config_digest, adapter_digest
from infra.settings import Settings
from lineage import report, runs, tables, verdicts
from lineage.consumption import (
    Checkpoint,
    bitmaps,
    checkpoints,
    consumption_root,
    eaten_by,
    is_offer,
    plan_digest,
    steps_of,
)
from lineage.curricula import curriculum_root
from lineage.fsck.judged import wrong_verdicts
from lineage.fsck.stored import Findings
from lineage.schemas import CURRICULUM, EXAMPLE, PLAN, PREDICTION, REPORT
from lineage.tables import Damaged

_OTHER_ADAPTER = "the adapter at {} is not the one that was committed; restore it from a copy of the lake"
_OTHER_CONFIG = (
    "the config beside the adapter at {} (its JSON files) is not the one that was committed; restore it from "
    "a copy of the lake"
)
_SCORED = ("answer", "prediction", "scorer", "score")
_ROUNDING = 1e-9  # a mean may be summed in another order


def admitted(settings: Settings) -> Findings:
    """Curricula hold rows of admitted batches only, and are admitted wherever a checkpoint used them.

    And what is admitted was: no rule speaks against it but one that a person waived.
    """
    judged, wrong = wrong_verdicts(settings)
    examples = tables.read(settings, EXAMPLE, columns=["row_id", "run_id"])
    batch_of = dict(zip(examples["row_id"].to_pylist(), examples["run_id"].to_pylist(), strict=True))
    allowed = verdicts.admitted(settings, EXAMPLE)
    members = tables.read(settings, CURRICULUM, columns=["curriculum", "row_id"]).to_pylist()
    found = [
        f"curriculum {row['curriculum'][:12]} holds {row['row_id'].hex()} of a batch that was not admitted"
        for row in members
        if row["row_id"] in batch_of and batch_of[row["row_id"]] not in allowed
    ]
    roots = _roots_of(settings, verdicts.admitted(settings, CURRICULUM))
    made = checkpoints(settings)
    found += [
        f"checkpoint {checkpoint.name} was made from curriculum {checkpoint.curriculum[:12]}, not admitted"
        for checkpoint in made
        if checkpoint.curriculum not in roots
    ]
    return len(members) + len(made) + judged, found + wrong


def ledger(settings: Settings) -> Findings:
    """Each planned slot was eaten exactly once, by every checkpoint; its bitmap holds the rows it ate."""
    found: list[str] = []
    held = bitmaps(settings, own=True)
    looked_at = 0
    for checkpoint in checkpoints(settings):
        try:
            plan = tables.read(settings, PLAN, where=pads.field("run_id") == checkpoint.run_id)
            eaten = Counter(_slots(eaten_by(settings, checkpoint)))
        except Damaged as error:
            found.append(f"checkpoint {checkpoint.name}: could not be checked: {error}")
            continue
        planned = Counter(_slots(plan.filter(pc.less(plan["step"], checkpoint.step))))
        looked_at += sum(planned.values())
        if is_offer(plan):
            found += _not_offered(checkpoint, plan, eaten)
        elif planned != eaten:
            missing, extra = sum((planned - eaten).values()), sum((eaten - planned).values())
            found.append(
                f"checkpoint {checkpoint.name}: {missing} planned slots were not eaten, "
                f"{extra} were not planned"
            )
        found += _not_told(settings, checkpoint, planned)
        times = Counter((step, slot) for step, slot, _ in eaten.elements())
        found += [
            f"checkpoint {checkpoint.name}: step {step} slot {slot} was eaten {n} times"
            for (step, slot), n in times.items()
            if n > 1
        ][:5]
        ate = {row_no for _, _, row_no in eaten}
        strangers = ate ^ set(held[checkpoint.run_id, checkpoint.step])
        if strangers:
            found.append(
                f"checkpoint {checkpoint.name}: its bitmap and its consumption differ in {len(strangers)} "
                f"rows, as {min(strangers)}"
            )
    return looked_at, found


def roots(settings: Settings) -> Findings:
    """Every digest recomputes from what is stored, as far as it is on record."""
    found: list[str] = []
    members = tables.read(
        settings, CURRICULUM, columns=["curriculum", "row_id", "slice", "weight"]
    ).to_pylist()
    by_root: dict[str, list[tuple[bytes, str, float]]] = {}
    for row in members:
        by_root.setdefault(row["curriculum"], []).append((row["row_id"], row["slice"], row["weight"]))
    for root, rows in by_root.items():
        if curriculum_root(rows) != root:
            found.append(f"curriculum {root[:12]} no longer hashes to its root")
    made = checkpoints(settings)
    examples = tables.read_ever(settings, EXAMPLE, columns=["row_id", "row_no"])
    ids = dict(zip(examples["row_no"].to_pylist(), examples["row_id"].to_pylist(), strict=True))
    for checkpoint in made:
        wrong = [*_hashes(settings, checkpoint, ids), *_adapter(checkpoint)]
        found += [f"checkpoint {checkpoint.name}: {sentence}" for sentence in wrong]
    return len(by_root) + len(made), found


def reports(settings: Settings) -> Findings:
    """A mean score recomputes from the predictions; every number is what the evaluation found.

    And each prediction is the one that was stored. What an evaluation left that did not come to its end is
    passed over: the next attempt replaces it.
    """
    predictions = tables.read(settings, PREDICTION)
    found = [*_edited(predictions), *_twice(predictions)]
    said: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    named = pc.fill_null(predictions["scorer"], report.LABEL).to_pylist()
    columns = (predictions[name].to_pylist() for name in ("run_id", "split", "condition"))
    for run_id, split, condition, scorer, score in zip(
        *columns, named, report.scores(predictions).tolist(), strict=True
    ):
        by_scorer = said.setdefault((run_id, split, condition), {})
        by_scorer.setdefault(report.metric_of(scorer), []).append(score)
    measured = {outcome.run_id: outcome.facets for _, outcome in runs.completed(settings, "evaluate")}
    cut_off = {event["run_id"] for event in runs.unfinished(settings, "evaluate")}
    rows = [row for row in tables.read(settings, REPORT).to_pylist() if row["run_id"] not in cut_off]
    for row in rows:
        by_metric = said.get((row["run_id"], row["split"], row["condition"]), {})
        right = by_metric.get(row["metric"], [])
        sizes = {len(right)} if right else {len(scored) for scored in by_metric.values()}
        which = f"report of run {row['run_id']}: {row['metric']} on {row['split']}, {row['condition']}"
        if row["n"] not in sizes:
            stored = max(sizes, default=0)
            found.append(f"{which} is of {row['n']} rows, of which {stored} predictions are stored")
        elif right and abs(sum(right) / len(right) - row["value"]) > _ROUNDING:
            found.append(f"{which} is {row['value']}, but {sum(right) / len(right)} by its predictions")
        numbers = [row["value"], row["low"], row["high"], row["n"]]
        facets = measured.get(row["run_id"])
        if facets is not None and facets.get(f"{row['metric']}.{row['condition']}") != numbers:
            found.append(f"{which} is not what the run measured")
    return len(rows), found


def _edited(predictions: pa.Table) -> Iterator[str]:
    """Predictions that no longer say what was stored; older ones bear no digest."""
    bearing = predictions.filter(pc.is_valid(predictions["digest"]))
    rows = bearing.select(["run_id", "row_id", "digest", *_SCORED]).to_pylist()
    for row, digest in zip(rows, report.digests(bearing), strict=True):
        if row["digest"] != digest:
            yield f"prediction of run {row['run_id']} on {row['row_id'].hex()} is not what was stored"
        elif row["scorer"] == report.LABEL and row["score"] != (row["answer"] == row["prediction"]):
            which = f"prediction of run {row['run_id']} on {row['row_id'].hex()}"
            yield f"{which} has a score of {row['score']}, and is not worth that"


def _twice(predictions: pa.Table) -> Iterator[str]:
    """Rows that an evaluation says two things of: one of them stands where another row's is missing."""
    asked = zip(predictions["run_id"].to_pylist(), predictions["row_id"].to_pylist(), strict=True)
    for (run_id, row_id), n in Counter(asked).items():
        if n > 1:
            yield f"run {run_id} holds {n} predictions on {row_id.hex()}, expected one"


def _hashes(settings: Settings, checkpoint: Checkpoint, ids: Mapping[int, bytes]) -> Iterator[str]:
    """What is wrong with the digests of what a checkpoint was to eat, and ate."""
    try:
        plan = tables.read(settings, PLAN, where=pads.field("run_id") == checkpoint.run_id)
        if plan_digest(plan) != checkpoint.plan_digest:
            yield f"its plan no longer hashes to {checkpoint.plan_digest[:12]}"
    except Damaged as error:
        yield f"its plan could not be checked: {error}"
    try:
        if consumption_root(eaten_by(settings, checkpoint), ids) != checkpoint.consumption_root:
            yield "its consumption no longer hashes to its root"
    except Damaged as error:
        yield f"its consumption could not be checked: {error}"


def _adapter(checkpoint: Checkpoint) -> list[str]:
    """What is wrong with the files of a checkpoint."""
    if "://" in checkpoint.uri:
        return ["its adapter lies in an object store, where it cannot be verified; mount the store"]
    try:
        found = [] if adapter_digest(checkpoint.uri) == checkpoint.adapter_digest else [_OTHER_ADAPTER]
        if checkpoint.adapter_config_digest not in (None, adapter_config_digest(checkpoint.uri)):
            found.append(_OTHER_CONFIG)
    except (ModelError, OSError) as error:
        return [f"its adapter cannot be read: {error}"]
    return [sentence.format(checkpoint.uri) for sentence in found]


def _not_told(
    settings: Settings, checkpoint: Checkpoint, planned: Counter[tuple[int, int, int]]
) -> list[str]:
    """Steps of which the workers tell something else than was planned; nothing where they did not tell."""
    told: Counter[int] = Counter()
    for row in steps_of(settings, checkpoint).select(["step", "rows"]).to_pylist():
        told[row["step"]] += row["rows"]
    meant = Counter(step for step, _, _ in planned.elements())
    if wrong := sorted(step for step in told.keys() | meant.keys() if told and told[step] != meant[step]):
        step = wrong[0]
        return [
            f"checkpoint {checkpoint.name}: {len(wrong)} steps are told otherwise than planned, as {step}: "
            f"{told[step]} rows of {meant[step]}"
        ]
    return []


def _not_offered(checkpoint: Checkpoint, plan: pa.Table, eaten: Iterable[tuple[int, int, int]]) -> list[str]:
    """What another trainer's record cannot be: rows that it was not offered, steps that ate nothing."""
    slots = set(eaten)
    strangers = {row_no for _, _, row_no in slots} - set(plan["row_no"].to_pylist())
    empty = set(range(checkpoint.step)) - {step for step, _, _ in slots}
    found: list[str] = []
    if strangers:
        found.append(
            f"checkpoint {checkpoint.name}: ate {len(strangers)} rows that its trainer was not offered, "
            f"as {min(strangers)}"
        )
    if empty:
        found.append(f"checkpoint {checkpoint.name}: {len(empty)} steps ate nothing, as step {min(empty)}")
    return found


def _roots_of(settings: Settings, batches: Iterable[str]) -> set[str]:
    rows = tables.read(settings, CURRICULUM, columns=["curriculum", "run_id"])
    return set(
        rows.filter(pc.is_in(rows["run_id"], pa.array(list(batches), pa.string())))["curriculum"].to_pylist()
    )


def _slots(rows: pa.Table) -> list[tuple[int, int, int]]:
    return list(zip(*(rows[name].to_pylist() for name in ("step", "slot", "row_no")), strict=True))
