"""The job behind `stemma benchmark`: a model of the lake asked a whole benchmark, beside another or alone.

The rows stand in the facets of the run, so that the numbers can be made again from them: `recorded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads

from infra.endpoints import Cost
from infra.inference import AdapterRecord
from infra.runtime import Runtime, give_back_memory
from infra.settings import Settings
from lineage import curricula, models, tables
from lineage.consumption import Checkpoint, line_of
from lineage.inputs import INPUT_COLUMNS, inputs, normalised
from lineage.runs import Outcome, Run, carry_out, completed
from lineage.schemas import EXAMPLE
from training.answering import load_generator, load_predictor
from training.benchmarks.compared import compare
from training.benchmarks.definition import JUDGE, Benchmark, read
from training.benchmarks.scored import Answerer, Conversation, Scored, as_facets, from_facets, run
from training.benchmarks.scorers import BENCHMARK_SCORERS
from training.judge import Judge, OverlapJudge
from training.recipe import TrainingError

JOB = "benchmark"


def benchmark(
    runtime: Runtime,
    reference: str,
    path_or_name: str | Path,
    *,
    judge: Judge | None = None,
    against: str | None = None,
    seed: int = 0,
    max_new_tokens: int = 256,
    parent: Run | None = None,
) -> Outcome:
    """Ask a model a benchmark. The facets hold the rows, the numbers, and the floors that are not reached.

    `against`: another model that is asked the same, without a judge; the facets then name what regressed, and
    its answers are the opponents of the judged prompts, by default before the judge that counts shared words.
    Raises TrainingError for a model that gives other answers than the benchmark scores, and for one that was
    trained on one of its prompts.
    """
    asked, settings = read(path_or_name), runtime.settings
    checkpoint, _ = models.resolve(settings, reference)
    task = _task(checkpoint)
    _require_fitting(asked, task, reference)
    shared = trained_on(settings, checkpoint, asked)
    if shared:
        raise TrainingError(
            f"{reference} was trained on {len(shared)} of the {asked.size} prompts of {asked}: "
            f"{', '.join(shared[:5])}; what is trained on is never what is scored"
        )
    other = None
    if against is not None:
        other, _ = models.resolve(settings, against)
        benchmark(runtime, against, path_or_name, seed=seed, max_new_tokens=max_new_tokens, parent=parent)
        judge = judge or OverlapJudge()
    config = {
        "benchmark": asked.digest,
        "adapter": checkpoint.adapter_digest,
        "against": "" if other is None else other.adapter_digest,
        "judge": "" if judge is None else str(judge.version),
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    named = [f"checkpoint:{checkpoint.name}", f"benchmark:{asked.name}@{asked.digest}"]
    named += [] if other is None else [f"checkpoint:{other.name}"]

    def work(_: Run) -> Outcome:
        champion = None if other is None else _alone(settings, other, asked, seed, max_new_tokens)
        opponents = {} if champion is None else {(r.category, r.id): r.prediction for r in champion.rows}
        answer = _answerer(runtime, checkpoint, task, max_new_tokens)
        scored, cost = run(answer, asked, judge=judge, opponents=opponents, seed=seed)
        give_back_memory()
        facets = as_facets(scored) | _judging(judge, cost)
        if champion is not None:
            found = compare(scored, champion, seed=seed)
            facets["gain"] = asdict(found.overall)
            facets["regressed"] = [asdict(each) | {"text": str(each)} for each in found.regressed]
        return Outcome((), {"prompts": asked.size, "counted": scored.n}, facets)

    return carry_out(runtime, JOB, config=config, inputs=named, work=work, parent=parent)


def recorded(settings: Settings, run_id: str, path_or_name: str | Path) -> Scored:
    """The numbers of a finished run, made again from its rows. Raises TrainingError where they differ."""
    for _, outcome in completed(settings, JOB):
        if outcome.run_id == run_id:
            return from_facets(read(path_or_name), outcome.facets)
    raise TrainingError(f"run {run_id} is no finished run of a benchmark; see: stemma status")


def trained_on(settings: Settings, checkpoint: Checkpoint, asked: Benchmark) -> list[str]:
    """The prompts, as CATEGORY/ID, that ask what a row asks that the checkpoint is made of."""
    line = line_of(settings, checkpoint)
    numbers = {
        number
        for each in line
        for number in curricula.load(settings, each.curriculum).members["row_no"].to_pylist()
    }
    mine = pads.field("row_no").isin(sorted(numbers))
    rows = tables.read_ever(settings, EXAMPLE, columns=["row_no", *INPUT_COLUMNS], where=mine)
    learnt = set(inputs(rows)) - {""}
    found = []
    for category in asked.category:
        for prompt in category.prompt:
            bare = category.model_copy(update={"instruction": ""}).conversation(prompt)
            forms = (prompt.prompt or "", _text(bare), _text(category.conversation(prompt)))
            if learnt.intersection(map(normalised, forms)):
                found.append(f"{category.name}/{prompt.id}")
    return found


def _text(conversation: Conversation) -> str:
    """What a conversation says without its system messages."""
    return "\n".join(normalised(turn["content"]) for turn in conversation if turn["role"] != "system")


def _task(checkpoint: Checkpoint) -> str:
    objective = AdapterRecord.read(checkpoint.uri).objective
    if objective == "token_classification":
        raise TrainingError(
            f"{checkpoint.name} finds spans in texts and answers no prompts; evaluate it on a split instead: "
            "stemma evaluate"
        )
    return "classification" if objective == "sequence_classification" else "generation"


def _require_fitting(asked: Benchmark, task: str, reference: str) -> None:
    """Raise TrainingError for categories that are scored by what this model cannot answer."""
    fitting = [name for name, scorer in BENCHMARK_SCORERS.items() if task in scorer.task]
    fitting += [JUDGE] if task == "generation" else []
    others = [f"{each.name} ({each.scorer})" for each in asked.category if each.scorer not in fitting]
    if others:
        raise TrainingError(
            f"{reference} is a model for {task}, and {asked} scores something else in: {', '.join(others)}; "
            f"scorers for {task} are: {', '.join(fitting)}"
        )


def _answerer(runtime: Runtime, checkpoint: Checkpoint, task: str, max_new_tokens: int) -> Answerer:
    """The checkpoint's model as something that answers conversations; a classifier reads the last turn."""

    def label(conversations: Sequence[Conversation]) -> list[str]:
        texts = [conversation[-1]["content"] for conversation in conversations]
        return [each.label for each in load_predictor(runtime, checkpoint).predict(texts)]

    def write(conversations: Sequence[Conversation]) -> list[str]:
        generator = load_generator(runtime, checkpoint)
        return [each.text for each in generator.generate(conversations, max_new_tokens=max_new_tokens)]

    return label if task == "classification" else write


def _alone(
    settings: Settings, checkpoint: Checkpoint, asked: Benchmark, seed: int, max_new_tokens: int
) -> Scored:
    """What the other model answered, from the run that asked it."""
    wanted = {"benchmark": asked.digest, "adapter": checkpoint.adapter_digest, "against": "", "judge": ""}
    wanted |= {"max_new_tokens": max_new_tokens, "seed": seed}
    known = [outcome for config, outcome in completed(settings, JOB) if config == wanted]
    return from_facets(asked, known[-1].facets)


def _judging(judge: Judge | None, cost: Cost) -> dict[str, Any]:
    if judge is None:
        return {}
    told = {"judge": str(judge.version), "judge_settings": dict(judge.version.settings)}
    return told | {"judge_cost": asdict(cost)}
