"""From a judged trace to an example: what was right is kept, what was wrong is learnt from its correction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from lineage.review import REJECTED_BY_REVIEWER, SCORER, Review, Reviews
from lineage.rows import Derivation, Rejection
from lineage.schemas import EXAMPLE, TRACE, UNSTATED
from lineage.spans import SpanError, parse_spans, write_spans
from lineage.tasks import Task
from pipelines.step import Step

_JUDGED = ("scorer", "scorer_revision", "score", "threshold")
_SAID = ("messages", "response", "response_tool_calls", "correction")
_ANSWERED = ("row_id", *_SAID, "verdict", "reviewer", *_JUDGED)


def corrected_by(author: str) -> dict[str, Any]:
    """Provenance of a person's answer: the judge spoke of the model's, of this its author vouches."""
    wrote = {"generator": author, "generator_revision": UNSTATED}
    return wrote | {"scorer": "correction", "scorer_revision": "1", "score": 1.0, "threshold": 0.5}


@dataclass(frozen=True)
class ExampleFromTrace(Step):
    """One example per trace that says what the right answer is.

    A pass gives its own answer; a failure gives its correction, whose author is the reviewer, not the model;
    a trace that nobody judged gives the answer that its source states. A failure without a correction is
    rejected.

    A review of the trace beats all that. Rejected, it gives nothing; relabelled, it gives the label as the
    reviewer's correction; approved, it gives its correction, or else its own answer in spite of the verdict.

    A task of generation learns the tool calls of a trace's own answer, too. One of preference needs a failure
    that was corrected: its response is the answer to turn away from. One of tagging reads an answer as spans.
    """

    task: Task
    split: Literal["train", "gate", "report"]
    condition: str = "not_applicable"
    reviews: Reviews = field(default_factory=Reviews)
    """What people said of the traces. No part of the identity: what they change, the row's payload says."""

    reads: ClassVar = TRACE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1

    @property
    def parameters(self) -> dict[str, Any]:
        """What the config says."""
        return {"task": self.task, "split": self.split, "condition": self.condition}

    def derive(self, rows: pa.Table) -> Derivation:
        """One row in, at most one row out."""
        examples: list[dict[str, Any]] = []
        parents: list[tuple[int, ...]] = []
        rejected: dict[int, Rejection] = {}
        for index, trace in enumerate(rows.select(_ANSWERED).to_pylist()):
            example = self._example(trace, self.reviews.last.get(trace["row_id"]))
            if isinstance(example, Rejection):
                rejected[index] = example
            else:
                examples.append(example)
                parents.append((index,))
        return Derivation(pa.Table.from_pylist(examples, schema=self.writes.derivable), parents, rejected)

    def _example(self, trace: dict[str, Any], review: Review | None) -> dict[str, Any] | Rejection:
        said = review.verdict if review is not None else None
        if said == "rejected":
            return Rejection(REJECTED_BY_REVIEWER, score=0.0, **SCORER)
        judged = {"pass": "passed", "fail": "corrected"}.get(trace["verdict"], "stated")
        answer = trace["correction"] if judged == "corrected" else trace["response"]
        author = trace["reviewer"]
        if review is not None and said == "relabelled":
            judged, answer, author = "corrected", review.label, review.reviewer
        elif said == "approved" and judged == "corrected" and answer is None:
            judged, answer = "passed", trace["response"]
        question = next((m["content"] for m in reversed(trace["messages"]) if m["role"] == "user"), None)
        if question is None:
            return Rejection("no_user_message")
        rejected = trace["response"] if self.task == "preference" else None
        if self.task == "preference" and (judged != "corrected" or not _differ(answer, rejected)):
            return Rejection("no_rejected_answer")
        if judged == "corrected" and answer is None:
            return Rejection("no_correction", **{name: trace[name] for name in _JUDGED})
        owns_calls = self.task == "generation" and judged != "corrected"
        calls = trace["response_tool_calls"] if owns_calls else None
        if not answer and not calls:
            return Rejection("no_answer")
        answer = answer or ""
        if self.task == "tagging":
            try:
                answer = write_spans(parse_spans(answer, question))
            except SpanError:
                return Rejection("no_entity_spans")
        example = {
            "task": self.task,
            "split": self.split,
            "kind": judged,
            "messages": trace["messages"],
            "text": question,
            "answer": answer,
            "condition": self.condition,
            "answer_tool_calls": calls,
            "rejected": rejected,
        }
        if judged == "corrected":
            example |= corrected_by(author)
        if review is not None:
            example |= {"reviewer": review.reviewer}
            example |= {"review": "overridden"} if said == "relabelled" else _APPROVED
        return example


def _differ(answer: str | None, other: str | None) -> bool:
    """Are these two answers, and not one and the same but for blanks around it?"""
    one, two = (answer or "").strip(), (other or "").strip()
    return bool(one and two) and one != two


_APPROVED = {"review": "approved", "score": 1.0, **SCORER}
