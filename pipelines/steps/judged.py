"""From a judged trace to an example: what was right is kept, what was wrong is learnt from its correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from lineage.rows import Derivation, Rejection
from lineage.schemas import EXAMPLE, TRACE, UNSTATED
from pipelines.step import Step

_ANSWERED = ("messages", "response", "verdict", "correction", "generator", "generator_revision", "reviewer")


@dataclass(frozen=True)
class ExampleFromTrace(Step):
    """One example per trace that says what the right answer is.

    A pass gives its own answer; a failure gives its correction, whose author is the reviewer, not the model;
    a trace that nobody judged gives the answer that its source states. A failure without a correction is
    rejected.
    """

    task: Literal["classification", "generation"]
    split: Literal["train", "gate", "report"]
    condition: str = "not_applicable"

    reads: ClassVar = TRACE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1

    def derive(self, rows: pa.Table) -> Derivation:
        """One row in, at most one row out."""
        examples: list[dict[str, Any]] = []
        parents: list[tuple[int, ...]] = []
        rejected: dict[int, Rejection] = {}
        for index, trace in enumerate(
            rows.select([*_ANSWERED, "scorer", "scorer_revision", "score", "threshold"]).to_pylist()
        ):
            example = self._example(trace)
            if isinstance(example, Rejection):
                rejected[index] = example
            else:
                examples.append(example)
                parents.append((index,))
        return Derivation(pa.Table.from_pylist(examples, schema=self.writes.derivable), parents, rejected)

    def _example(self, trace: dict[str, Any]) -> dict[str, Any] | Rejection:
        judged = {"pass": "passed", "fail": "corrected"}.get(trace["verdict"], "stated")
        answer = trace["correction"] if judged == "corrected" else trace["response"]
        question = next((m["content"] for m in reversed(trace["messages"]) if m["role"] == "user"), None)
        if question is None:
            return Rejection("no_user_message")
        if judged == "corrected" and answer is None:
            return Rejection(
                "no_correction", trace["score"], trace["threshold"], trace["scorer"], trace["scorer_revision"]
            )
        if not answer:
            return Rejection("no_answer")
        example = {
            "task": self.task,
            "split": self.split,
            "kind": judged,
            "messages": trace["messages"],
            "text": question,
            "answer": answer,
            "condition": self.condition,
        }
        if (
            judged == "corrected"
        ):  # the judge spoke of the model's answer; of the correction its author vouches
            example |= {"generator": trace["reviewer"], "generator_revision": UNSTATED}
            example |= {"scorer": "correction", "scorer_revision": "1", "score": 1.0, "threshold": 0.5}
        return example
