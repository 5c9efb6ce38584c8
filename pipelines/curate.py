"""The job behind `stemma curate`: admitted traces become one batch of examples.

What does not is in `rejected`. What people said of the traces in reviews goes before what the steps say.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from infra.models import resolve
from infra.runtime import Runtime
from lineage import tables, verdicts
from lineage.bans import lifts
from lineage.inputs import INPUT_COLUMNS
from lineage.inputs import inputs as asked
from lineage.review import Reviews, standing
from lineage.rows import rows_digest
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import EXAMPLE, TRACE
from lineage.tasks import Task
from pipelines.runner import derive
from pipelines.step import Step
from pipelines.steps.duplicates import MergeDuplicates
from pipelines.steps.judged import ExampleFromTrace
from pipelines.steps.neighbours import NeighbourAgreement
from pipelines.steps.poison import ExcludePoison
from pipelines.steps.splits import KeepSplitsApart


class CurateError(Exception):
    """There is nothing to curate; the message says why."""


class CurateConfig(BaseModel):
    """What `stemma curate` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = ("*",)
    """Which traces: patterns that one of must match the source's URI."""

    task: Task = "classification"
    """What a model is to learn from the rows."""

    split: Literal["train", "gate", "report"] = "train"
    """On which side these sources stand. A source stands on one side for ever."""

    condition: Literal["not_applicable", "clean", "noisy"] = "not_applicable"
    """For evaluation rows: under which condition they were taken."""

    exclude_poison: bool = True
    """Keep prompt injection, jailbreaks, gibberish and empty requests out (D7)."""

    merge_duplicates: bool = True
    """Merge equal examples and refuse questions with conflicting answers."""

    scorer_base_model: str | None = Field(
        default_factory=lambda said: "all-MiniLM-L6-v2" if said.get("task") == "classification" else None
    )
    """Base model whose embeddings the neighbour-agreement scorer compares; none switches the scorer off.
    Of other tasks than classification there is no such scorer, as neighbours agree on labels only."""

    @field_validator("scorer_base_model", mode="before")
    @classmethod
    def _none_is_a_word_in_toml(cls, value: object) -> object:
        return None if value == "none" else value

    @field_validator("scorer_base_model")
    @classmethod
    def _neighbours_agree_on_labels(cls, value: str | None, info: ValidationInfo) -> str | None:
        task = info.data.get("task", "classification")
        if value is not None and task != "classification":
            raise ValueError(f"neighbours agree on labels, which examples of {task} have not; leave it out")
        return value

    neighbours: int = Field(default=10, ge=1)
    """How many neighbours the scorer asks."""

    least_agreement: float = Field(default=0.05, ge=0, le=1)
    """Below this share of agreeing neighbours a row is rejected. Low on purpose: a lone right row is worth
    more than the few wrong ones it would cost to lose it; what is systematically wrong is found by its
    provenance."""


def curate(runtime: Runtime, config: CurateConfig, *, parent: Run | None = None) -> Outcome:
    """Derive examples from all admitted traces of the named sources. Raises CurateError if there are none."""
    version = tables.current(runtime.settings, TRACE)
    traces = select(runtime, config)
    if version is None or not traces.num_rows:
        raise CurateError(
            f"no admitted traces match sources {list(config.sources)}; "
            "ingest and gate them first: stemma status"
        )
    ids = traces["row_id"].to_pylist()
    reviews = standing(runtime.settings).among(ids)
    inputs = [f"traces:{rows_digest(ids)}", *reviews.inputs]
    elsewhere = _elsewhere(runtime, traces, config, reviews)
    steps = steps_of(config, elsewhere=elsewhere, reviews=reviews)
    # What collides bears identity, not all that the other splits hold: that may grow without changing this.
    recorded = config.model_dump() | {"elsewhere": KeepSplitsApart(elsewhere).parameters["elsewhere"]}
    recorded |= {"lifts": lifts(runtime.settings)}

    def work(run: Run) -> Outcome:
        key = f"run:{run.identity}"
        batches, counts = derive(runtime, traces, steps=steps, run=run, key=key, vouched=reviews.vouched)
        if not batches:
            raise CurateError(
                f"all {counts['in']} rows were rejected, so there are no examples; the reasons: stemma query "
                f"\"select step, reason, count(*) from rejected where run_id = '{run.id}' group by 1, 2\""
            )
        return Outcome(tuple(str(batch) for batch in batches), counts)

    return carry_out(runtime, "curate", config=recorded, inputs=inputs, work=work, parent=parent)


def _elsewhere(runtime: Runtime, traces: pa.Table, config: CurateConfig, reviews: Reviews) -> frozenset[str]:
    """What these traces ask that an admitted example of another split asks, too."""
    here = _first_step(config, reviews).derive(traces).rows
    others = verdicts.read_admitted(
        runtime.settings, EXAMPLE, columns=INPUT_COLUMNS, where=pads.field("split") != config.split
    )
    return frozenset(asked(here)) & frozenset(asked(others))


def select(runtime: Runtime, config: CurateConfig) -> pa.Table:
    """The admitted traces whose source matches, ordered by row id."""
    traces = verdicts.read_admitted(runtime.settings, TRACE)
    chosen = {
        uri: any(fnmatchcase(uri, pattern) for pattern in config.sources)
        for uri in set(traces["source_uri"].to_pylist())
    }
    matching = traces.filter(pa.array([chosen[uri] for uri in traces["source_uri"].to_pylist()], pa.bool_()))
    return matching.sort_by("row_id")


def steps_of(config: CurateConfig, *, elsewhere: frozenset[str], reviews: Reviews) -> tuple[Step, ...]:
    """The steps that a config asks for, in order; `elsewhere` is what the other splits ask."""
    steps: list[Step] = [_first_step(config, reviews), KeepSplitsApart(elsewhere)]
    if config.exclude_poison:
        steps.append(ExcludePoison())
    if config.merge_duplicates:
        steps.append(MergeDuplicates(reviews.vouched))
    if config.scorer_base_model is not None:
        base = resolve(config.scorer_base_model)
        steps.append(NeighbourAgreement(base.name, base.digest, config.neighbours, config.least_agreement))
    return tuple(steps)


def _first_step(config: CurateConfig, reviews: Reviews) -> ExampleFromTrace:
    return ExampleFromTrace(config.task, config.split, config.condition, reviews)
