"""The job behind `stemma review`: a person's word on rows, and what it changes at once.

A relabelled example is derived anew and gated before the word goes on record, so that it is never without a
successor. All else that follows from a review follows in the next run that reads the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from expectations.gate import admit
from expectations.gate import reason as why
from infra.runtime import Runtime
from lineage import review as reviews
from lineage.review import ReviewError, Word
from lineage.runs import Outcome, Run
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
