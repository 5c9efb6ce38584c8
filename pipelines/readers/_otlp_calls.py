"""Which spans are calls of a model, and what such a call needs of the spans around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.readers._otlp_attributes import first, indexed
from pipelines.readers._otlp_judgements import RESULT, Evaluation, of_attributes, of_event
from pipelines.readers._otlp_messages import is_result_of_langchain, is_told
from pipelines.readers._otlp_spans import Span

_OPERATIONS = ("chat", "text_completion", "generate_content")
_CALLED = ("gen_ai.tool.call.id", "tool_call.id", "tool.id")
_RETURNED = ("gen_ai.tool.call.result", "output.value")


def is_call(span: Span) -> bool:
    """Whether a span is a call of a model: its kind says, else its operation, else that it holds messages."""
    kind, operation = (
        span.attributes.get("openinference.span.kind"),
        span.attributes.get("gen_ai.operation.name"),
    )
    if kind is not None:
        return str(kind).upper() == "LLM"
    if operation is not None:
        return operation in _OPERATIONS
    if (legacy := span.attributes.get("llm.request.type")) is not None:
        return legacy in ("chat", "completion")
    if span.attributes.get("traceloop.span.kind") is not None:
        return False  # a workflow, a task, an agent or a tool
    if _is_of_openinference(span):
        return is_result_of_langchain(
            span
        )  # exported without its attributes: kind is seen from the result alone
    return is_told(span)


def _is_of_openinference(span: Span) -> bool:
    return str(span.scope.get("name", "")).startswith("openinference.")


@dataclass(frozen=True)
class Around:
    """What a call needs of the other spans of its record."""

    spans: Mapping[tuple[str, str], Span]
    judged: Mapping[str, list[Evaluation]]
    """By the id of an answer, where an evaluation stands elsewhere than on its span."""
    returned: Mapping[tuple[str, str], Any]
    """What tools returned, by trace and the id of their call."""

    @classmethod
    def of(cls, spans: Sequence[Span]) -> Around:
        judged: dict[str, list[Evaluation]] = {}
        returned: dict[tuple[str, str], Any] = {}
        for span in spans:
            for event in span.events:
                answer = event.attributes.get("gen_ai.response.id")
                if event.name == RESULT and isinstance(answer, str) and not is_call(span):
                    judged.setdefault(answer, []).append(of_event(event))
            called, result = first(span.attributes, _CALLED)[1], first(span.attributes, _RETURNED)[1]
            if isinstance(called, str) and result is not None:
                returned[span.ids[0], called] = result
        return cls({span.ids: span for span in spans if all(span.ids)}, judged, returned)

    def judgements(self, span: Span) -> tuple[list[Evaluation], set[str]]:
        """All of a call itself, and the names of the attributes that hold them."""
        found, read = _judged(span)
        answer = span.attributes.get("gen_ai.response.id")
        return found + (self.judged.get(answer, []) if isinstance(answer, str) else []), read

    def judgements_above(self, span: Span) -> dict[str, list[Mapping[str, Any]]]:
        """What was judged of the spans that a call lies in, by the ids of those that say it."""
        found, seen, below = {}, {span.ids}, span
        while (ids := (below.trace_id.lower(), below.parent_id.lower())) in self.spans and ids not in seen:
            below = self.spans[ids]
            seen.add(ids)
            told = [each.whole for each in _judged(below)[0]]
            for kind in ("annotations", "evaluations"):
                told += indexed(below.attributes, f"trace.{kind}").values()
            if told:
                found[below.span_id] = told
        return found

    def results(self, span: Span, tool_calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the tools that a call asked for returned, by the ids of their calls."""
        called = [(span.ids[0], each["id"]) for each in tool_calls if each.get("id")]
        return {key[1]: self.returned[key] for key in called if key in self.returned}


def _judged(span: Span) -> tuple[list[Evaluation], set[str]]:
    found, read = of_attributes(span.attributes)
    return found + [of_event(event) for event in span.events if event.name == RESULT], read
