"""The job behind `stemma review`: a person's word on rows, and what it changes at once.

A relabelled example is derived anew and gated before the word goes on record, so that it is never without a
successor. All else that follows from a review follows in the next run that reads the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.dataset as pads

from expectations.gate import admit
from expectations.gate import reason as why
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import review as reviews
from lineage import verdicts
from lineage.review import ReviewError, Word
from lineage.runs import Outcome, Run
from lineage.schemas import EXAMPLE
from pipelines.runner import derive
from pipelines.steps.reviewed import Review


def review(
    runtime: Runtime,
    references: Sequence[str],
    verdict: Word,
    *,
    reason: str,
    reviewer: str | None = None,
    label: str | None = None,
) -> Outcome:
    """As lineage.review.review; of relabelled examples the outputs name the batches with their successors."""
    return reviews.review(
        runtime,
        references,
        verdict,
        reason=reason,
        reviewer=reviewer,
        label=label,
        correct=partial(_correct, runtime),
    )


def _correct(runtime: Runtime, run: Run, examples: pa.Table, label: str, reviewer: str) -> Outcome:
    """The examples with a new answer, admitted. Raises ReviewError where they may not be stored or used."""
    _require_admitted(runtime.settings, examples)
    step = Review(label, reviewer)
    batches, counts = derive(runtime, examples, steps=(step,), run=run, key=f"run:{run.identity}")
    if counts["rejected"]:
        raise ReviewError(
            f"{counts['rejected']} of {examples.num_rows} rows may not be stored with the answer '{label}': "
            "such rows were called back; see: stemma status"
        )
    for batch in batches:
        verdict = admit(runtime, batch, parent=run)
        if not verdict.passed:
            raise ReviewError(
                f"the gate refused what was relabelled ({why(verdict)}); see: stemma reports {batch}"
            )
    return Outcome(tuple(str(batch) for batch in batches), counts)


def _require_admitted(settings: Settings, examples: pa.Table) -> None:
    """Raise ReviewError where one of them was not admitted: nothing may be derived from it."""
    mine = pads.field("row_no").isin(examples["row_no"].combine_chunks())
    known = verdicts.read_admitted(settings, EXAMPLE, columns=["row_id"], where=mine)["row_id"].to_pylist()
    for row_id in set(examples["row_id"].to_pylist()) - set(known):
        raise ReviewError(
            f"row {row_id.hex()} was not admitted, so nothing may be derived from it; see: stemma status"
        )
