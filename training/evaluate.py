"""The job behind `stemma evaluate`: a model's predictions on a split, and the numbers made of them.

    admitted rows of the split --answer()--> predictions --a scorer--> scores --gate--> measures -> reports

What a model is scored on it was never trained on: a shared text or source is refused before a prediction. The
split `report` is opened once, for a model that was promoted (training.sets).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.gate import admit, reason
from infra.runtime import Runtime, give_back_memory
from infra.settings import Settings
from lineage import curricula, mirror, models, report, runs, tables, verdicts
from lineage.consumption import Checkpoint, line_of
from lineage.heed import NEEDED, heed
from lineage.inputs import normalised
from lineage.rows import rows_digest
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import EXAMPLE, MIXED, PREDICTION
from lineage.tasks import Task
from training import sets
from training.answering import ANSWERS, Answers, answer, objective_of
from training.asking import Asking
from training.measures import measures
from training.recipe import TrainingError
from training.scoring import Scorer, check_answers, score_all, scorer_for

Split = Literal["gate", "report"]

_COLUMNS = (
    "row_no",
    "row_id",
    "task",
    "messages",
    "text",
    "answer",
    "answer_tool_calls",
    "rejected",
    "condition",
    "source_revision",
)


def evaluate(
    runtime: Runtime,
    reference: str,
    *,
    split: Split,
    seed: int = 0,
    asking: Asking | None = None,
    parent: Run | None = None,
) -> Outcome:
    """Score a model on the admitted rows of a split that are of its task, each condition apart.

    The facets hold the numbers: `metric.condition` -> value, lower and upper end of its interval, n. Rows
    that a reviewer rejected or relabelled are left out, and counted. Raises TrainingError when the split is
    empty or overlaps with what the model was trained on; on `report`, for one that was never champion.
    """
    settings, asking = runtime.settings, asking or Asking()
    checkpoint, _ = models.resolve(settings, reference)
    if split == "report":
        sets.require_promoted(settings, checkpoint, reference)
        if known := sets.reported(settings, checkpoint):
            sets.opened(runtime, checkpoint, known.run_id, parent=parent)
            return known
    tasks = ANSWERS[objective_of(checkpoint)]
    mine = (pads.field("split") == split) & pads.field("task").isin(tasks)
    wanted = list(dict.fromkeys((*_COLUMNS, *NEEDED)))
    stored = verdicts.read_admitted(settings, EXAMPLE, columns=wanted, where=mine)
    if split == "report":
        stored = sets.as_frozen(settings, checkpoint, stored, split=split)
    heeded = heed(settings, stored)
    rows = heeded.left(stored).select(list(_COLUMNS)).sort_by("row_id")
    _require_fit(runtime, checkpoint, rows, reference=reference, split=split, tasks=tasks)
    scorers = {task: _scorer(asking, task, rows) for task in sorted(set(rows["task"].to_pylist()))}
    for task, scorer in scorers.items():
        check_answers(scorer, _right(rows.filter(pc.equal(rows["task"], task))).to_pylist())
    if not asking.other_system_prompts:
        _require_system_prompts(settings, checkpoint, rows)
    config = {"split": split, "seed": seed, "adapter": checkpoint.adapter_digest}
    if set(scorers) & {"generation", "preference"}:
        config |= {"scorers": {task: str(scorer) for task, scorer in scorers.items()}}
        config |= asking.model_dump(exclude={"scorer"})
    inputs = [f"checkpoint:{checkpoint.name}", f"examples:{rows_digest(rows['row_id'].to_pylist())}"]
    inputs += heeded.inputs

    def work(run: Run) -> Outcome:
        scored = _score(runtime, checkpoint, rows, scorers, asking, split=split, seed=seed, run=run)
        left_out = {"left_out_by_reviewers": len(heeded.left_out)} if heeded.left_out else {}
        return replace(scored, counts={**scored.counts, **left_out})

    outcome = carry_out(runtime, "evaluate", config=config, inputs=inputs, work=work, parent=parent)
    if outcome.again:
        _require_same(settings, checkpoint, outcome, split=split, seed=seed)
    if split == "report":
        sets.opened(runtime, checkpoint, outcome.run_id, parent=parent)
    mirror.show_outcome(settings, outcome)
    return outcome


def overlap(runtime: Runtime, checkpoint: Checkpoint, rows: pa.Table) -> int:
    """How many of the rows share their text or their source with what the checkpoint is made of."""
    settings = runtime.settings
    line = line_of(settings, checkpoint)
    members = pa.concat_tables([curricula.load(settings, each.curriculum).members for each in line])
    mine = pads.field("row_no").isin(members["row_no"].combine_chunks())
    trained = tables.read_ever(settings, EXAMPLE, columns=["source_revision"], where=mine)
    learnt = {normalised(text) for text in members["text"].to_pylist()}
    sources = set(trained["source_revision"].to_pylist()) - {MIXED}
    scored = zip(rows["text"].to_pylist(), rows["source_revision"].to_pylist(), strict=True)
    return sum(normalised(text) in learnt or source in sources for text, source in scored)


def _require_fit(
    runtime: Runtime,
    checkpoint: Checkpoint,
    rows: pa.Table,
    *,
    reference: str,
    split: str,
    tasks: Sequence[Task],
) -> None:
    if not rows.num_rows:
        raise TrainingError(
            f"no admitted examples stand in split '{split}' of the tasks that {reference} answers "
            f"({', '.join(tasks)}); run: stemma curate --set split={split}"
        )
    shared = overlap(runtime, checkpoint, rows)
    if shared:
        raise TrainingError(
            f"{shared} of {rows.num_rows} rows of split '{split}' share a text or a source with what "
            f"{reference} was trained on; what is trained on is never what is scored"
        )


def _scorer(asking: Asking, task: Task, rows: pa.Table) -> Scorer:
    if task != "generation":
        return scorer_for(task)
    mine = rows.filter(pc.equal(rows["task"], task))
    name = asking.scorer
    if name is None and mine["answer_tool_calls"].null_count == 0:
        name = "tool_call"
    elif name is None and all("####" in answer for answer in mine["answer"].to_pylist()):
        name = "number"
    return scorer_for(task, name or "")


def _require_system_prompts(settings: Settings, checkpoint: Checkpoint, rows: pa.Table) -> None:
    """Raise TrainingError where conversations open otherwise than any that the model was trained on.

    An evaluation without the system prompt of training once scored 11 % (REQUIREMENTS H15).
    """
    talks = rows.filter(pc.is_in(rows["task"], pa.array(["generation", "preference"])))
    if not talks.num_rows:
        return
    members = pa.concat_tables(
        [curricula.load(settings, each.curriculum).members for each in line_of(settings, checkpoint)]
    )
    trained = tables.read_ever(
        settings,
        EXAMPLE,
        columns=["messages"],
        where=pads.field("row_no").isin(members["row_no"].combine_chunks()),
    )
    known = {_system(messages) for messages in trained["messages"].to_pylist()}
    strange = [said for said in map(_system, talks["messages"].to_pylist()) if said not in known]
    if strange:
        which = f"the system prompt {strange[0][:60]!r}" if strange[0] else "no system prompt"
        raise TrainingError(
            f"{len(strange)} of {talks.num_rows} rows ask with {which}, which the model was never trained "
            "with; curate such rows into training, or say --set other_system_prompts=true"
        )


def _system(messages: Sequence[dict]) -> str:
    return "\n".join(each["content"] or "" for each in messages if each["role"] == "system")


def _score(
    runtime: Runtime,
    checkpoint: Checkpoint,
    rows: pa.Table,
    scorers: dict[Task, Scorer],
    asking: Asking,
    *,
    split: str,
    seed: int,
    run: Run,
) -> Outcome:
    parts = []
    for task, scorer in scorers.items():
        mine = rows.filter(pc.equal(rows["task"], task))
        said = answer(
            runtime,
            checkpoint,
            mine,
            task=task,
            max_new_tokens=asking.max_new_tokens,
            chain_of_thought=_thinks(runtime.settings, checkpoint),
        )
        parts.append(_predictions(mine, said, scorer, checkpoint, split=split, run=run))
    give_back_memory()
    predictions = report.sealed(pa.concat_tables(parts))
    batch = report.store_predictions(runtime.settings, predictions, run=run)
    verdict = admit(runtime, batch, parent=run)
    if not verdict.passed:
        raise TrainingError(f"the gate refused {batch} ({reason(verdict)}); see: stemma reports {batch}")
    reports = measures(predictions, seed=seed)
    numbers = report.record(runtime.settings, reports, run=run, at=runtime.now())
    facets = {f"{r.metric}.{r.condition}": [r.value, r.low, r.high, r.n] for r in reports}
    return Outcome((str(batch), str(numbers)), {"rows": rows.num_rows}, facets)


def _require_same(
    settings: Settings, checkpoint: Checkpoint, outcome: Outcome, *, split: str, seed: int
) -> None:
    """Make an earlier evaluation's numbers again from its predictions. Raises TrainingError where others."""
    stored = report.predictions_of(settings, checkpoint.run_id, split=split, evaluation=outcome.run_id)
    for made in measures(stored, seed=seed) if stored.num_rows else ():
        recorded = outcome.facets.get(f"{made.metric}.{made.condition}")
        if recorded != [made.value, made.low, made.high, made.n]:
            raise TrainingError(
                f"{made.metric} of run {outcome.run_id} was {recorded}, and its stored predictions give "
                f"{made.value}; run: stemma fsck"
            )


def _predictions(
    rows: pa.Table, said: Answers, scorer: Scorer, checkpoint: Checkpoint, *, split: str, run: Run
) -> pa.Table:
    n = rows.num_rows
    right = _right(rows)
    scores = score_all(scorer, right.to_pylist(), said.predictions)
    none = pa.nulls(n, pa.float64())
    return pa.table(
        {
            "run_id": pa.array([run.id] * n, pa.string()),
            "model_run": pa.array([checkpoint.run_id] * n, pa.string()),
            "row_no": rows["row_no"],
            "row_id": rows["row_id"],
            "split": pa.array([split] * n, pa.string()),
            "condition": rows["condition"],
            "answer": right,
            "prediction": pa.array(said.predictions, pa.string()),
            "confidence": pa.array(said.confidences, pa.float64()),
            "scorer": pa.array([str(scorer)] * n, pa.string()),
            "score": pa.array(scores, pa.float64()),
            "log_likelihood": none
            if said.log_likelihoods is None
            else pa.array(said.log_likelihoods, pa.float64()),
            "tokens": none.cast(pa.int64()) if said.tokens is None else pa.array(said.tokens, pa.int64()),
            "digest": pa.nulls(n, pa.binary()),
        }
    ).select(PREDICTION.schema.names)


def _right(rows: pa.Table) -> pa.ChunkedArray:
    """What is right: an answer that calls tools is its calls."""
    return pc.coalesce(rows["answer_tool_calls"], rows["answer"])


def _thinks(settings: Settings, checkpoint: Checkpoint) -> bool:
    """Was the model trained to answer in steps, where its rows do?"""
    recorded = json.loads(runs.find(settings, checkpoint.run_id)["config"])
    return recorded.get("training", {}).get("chain_of_thought", True)
