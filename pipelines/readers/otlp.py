"""Traces of OpenTelemetry: GenAI conventions in their three generations, and OpenInference.

{"resourceSpans": [{"resource", "scopeSpans": [{"scope", "spans": [span, ...]}]}]}      also with resourceLogs
{"spans": [span, ...]}      or a span by itself, as exporters of SDKs write it

    span                          a call of a model (operation chat, kind LLM): one row
      attributes                  model, usage, messages
      events, log records         messages, evaluations: joined by the ids of trace and span
    span of a tool                no row; its result stands in `extra` of the call that asked for it
    span of an agent, a chain     no row; what was judged of it stands in `extra` of the calls below it
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, _otlp_judgements, values
from pipelines.readers._otlp_attributes import count, first, indexed, names_under, parsed
from pipelines.readers._otlp_calls import Around, is_call
from pipelines.readers._otlp_judgements import RESULT, Evaluation
from pipelines.readers._otlp_messages import Exchange, exchange_of
from pipelines.readers._otlp_parts import Message
from pipelines.readers._otlp_spans import DETAILS, Event, Span, spans_of

_WIRE = ("resourceSpans", "resourceLogs", "resourceMetrics")
_TEXTS = {
    "model_requested": ("gen_ai.request.model", "llm.request.model"),
    "model_answered": ("gen_ai.response.model", "llm.response.model", "llm.model_name"),
    "prompt_name": ("gen_ai.prompt.name", "traceloop.prompt.key", "prompt.id"),
    "prompt_version": ("llm.prompt_template.version", "traceloop.prompt.version"),
}
_COUNTS = {
    "input_tokens": (
        *("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        *("llm.usage.prompt_tokens", "llm.token_count.prompt"),
    ),
    "output_tokens": (
        *("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        *("llm.usage.completion_tokens", "llm.token_count.completion"),
    ),
}
_REASONS = "gen_ai.response.finish_reasons"


@dataclass(frozen=True)
class Otlp:
    """Reads both the wire format and what SDKs export; which one a record has is seen from its keys."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("otlp", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """The wire format's outermost list, spans in a list, or a span by itself."""
        for key in _WIRE:
            if isinstance(record.get(key), list):
                return f"'{key}' of OTLP"
        spans = record.get("spans")
        if isinstance(spans, list) and spans and isinstance(spans[0], Mapping) and _is_span(spans[0]):
            return "'spans' with the ids and attributes of OpenTelemetry"
        return "a span with the ids and attributes of OpenTelemetry" if _is_span(record) else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row per call of a model, in the order of the spans."""
        if self.recognises(record) is None and record.get("spans") != []:
            found = f"found keys {sorted(record)[:8]}"
            raise Unreadable("not_a_span", f"{found}, expected 'resourceSpans', 'spans' or the ids of a span")
        with values.readable():
            return _rows(
                spans_of(record), values.without(record, (*_WIRE, "spans")) if "spans" in record else {}
            )


def _is_span(value: Mapping[str, Any]) -> bool:
    """Ids of trace and span beside attributes, which are not those of an MLflow trace."""
    context = value.get("context")
    ids = context if isinstance(context, Mapping) else value
    has_ids = any(key in ids for key in ("span_id", "spanId")) and any(
        k in ids for k in ("trace_id", "traceId")
    )
    attributes = value.get("attributes")
    names = attributes if isinstance(attributes, Mapping) else ()
    return (
        has_ids and isinstance(attributes, Mapping | list) and not any(k.startswith("mlflow.") for k in names)
    )


def _rows(spans: Sequence[Span], record: Mapping[str, Any]) -> list[dict[str, Any]]:
    around = Around.of(spans)
    return [_row(span, around, record) for span in spans if is_call(span)]


def _row(span: Span, around: Around, record: Mapping[str, Any]) -> dict[str, Any]:
    exchange = exchange_of(span)
    answer, others = _answer(exchange.answers.messages)
    judgements, read = around.judgements(span)
    read |= exchange.sent.names | exchange.answers.names
    told, names = _columns(span.attributes)
    read |= names
    requested = told["model_requested"] or _requested(span)
    reason = _reason(span, answer, read)
    return {
        **told,
        "trace_key": "/".join(each for each in (span.trace_id, span.span_id) if each) or UNSTATED,
        "happened_at": _moment(span.start),
        "model_requested": requested or UNSTATED,
        "model_answered": told["model_answered"] or UNSTATED,
        "messages": [message.column() for message in exchange.sent.messages],
        "response": answer.content if answer else None,
        "response_tool_calls": values.json_text(answer.tool_calls or None) if answer else None,
        "finish_reason": reason,
        "extra": _extra(span, exchange, answer, others, judgements, read, around, record),
        "generator": told["model_answered"],
        **_otlp_judgements.columns(judgements, answer.content if answer else None),
    }


def _columns(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """What stands in one attribute, and the names of those that were read; a count that is none stays."""
    told: dict[str, Any] = {}
    read = set()
    for columns, as_column in ((_TEXTS, values.text), (_COUNTS, count)):
        for column, names in columns.items():
            name, value = first(attributes, names)
            told[column] = as_column(value)
            if name is not None and told[column] is not None:
                read.add(name)
    return told, read


def _requested(span: Span) -> str | None:
    """The model that the parameters of the call name, unless they are a copy of the answer."""
    parameters = parsed(span.attributes.get("llm.invocation_parameters"))
    is_request = isinstance(parameters, Mapping) and "id" not in parameters
    return values.text(parameters.get("model")) if is_request else None


def _answer(messages: Sequence[Message]) -> tuple[Message | None, list[Message]]:
    """The first message that answers, and the others: more choices, reasoning that stands by itself.

    One that only calls tools right after one of words alone is the same answer in two parts.
    """
    place = next((n for n, each in enumerate(messages) if each.content or each.tool_calls), 0)
    if not messages:
        return None, []
    answer, others = messages[place], [*messages[:place], *messages[place + 1 :]]
    following = messages[place + 1] if place + 1 < len(messages) else None
    if following and following.tool_calls and not following.content and not answer.tool_calls:
        others.remove(following)
        reason = following.finish_reason or answer.finish_reason
        extra = following.extra | answer.extra
        answer = Message(
            answer.role, answer.content, answer.name, following.tool_calls, answer.tool_call_id, reason, extra
        )
    return answer, others


def _reason(span: Span, answer: Message | None, read: set[str]) -> str | None:
    reasons = parsed(span.attributes.get(_REASONS))
    listed = reasons if isinstance(reasons, list) else [reasons]
    if len(listed) == 1:
        read.add(_REASONS)
    stated = next((values.text(each) for each in listed if each is not None), None)
    return stated or (answer.finish_reason if answer else None)


def _extra(
    span: Span,
    exchange: Exchange,
    answer: Message | None,
    others: Sequence[Message],
    judgements: Sequence[Evaluation],
    read: set[str],
    around: Around,
    record: Mapping[str, Any],
) -> str | None:
    """What has no column: kept, so that nothing of the source is lost."""
    tools, tool_names = _tools(span)
    started = span.start if _moment(span.start) is None else None
    own = {"parent_id": span.parent_id, "start": started, **span.fields}
    return values.extra_of(
        attributes=values.by_reference(values.without(span.attributes, read | tool_names)),
        span={key: item for key, item in own.items() if item not in (None, "", [], {})},
        source="log records" if span.is_of_logs else None,
        events=values.by_reference(_events_left(span, exchange)),
        resource=span.resource,
        scope=span.scope,
        record=record,
        tools=tools,
        answer=_beside(answer),
        other_answers=[each.column() for each in others],
        judgements=[each.whole for each in judgements],
        judgements_above=around.judgements_above(span),
        tool_results=values.by_reference(around.results(span, answer.tool_calls if answer else [])),
    )


def _tools(span: Span) -> tuple[list[Any], set[str]]:
    """The tools that were offered, and the names of the attributes that say so."""
    offered = parsed(span.attributes.get("gen_ai.tool.definitions"))
    found = offered if isinstance(offered, list) else []
    read = {"gen_ai.tool.definitions"} if isinstance(offered, list) else set()
    for prefix in ("llm.tools", "llm.request.functions"):
        for fields in indexed(span.attributes, prefix).values():
            schema = fields.get("tool.json_schema")
            found = [*found, parsed(schema) if len(fields) == 1 and schema is not None else fields]
        read |= set(names_under(span.attributes, prefix))
    return found, read


def _beside(answer: Message | None) -> dict[str, Any]:
    if answer is None:
        return {}
    plain = {"role": None if answer.role == "assistant" else answer.role, "name": answer.name}
    plain["tool_call_id"] = answer.tool_call_id
    return {key: item for key, item in plain.items() if item is not None} | answer.extra


def _events_left(span: Span, exchange: Exchange) -> list[dict[str, Any]]:
    """Events without what was read of them; those that were wholly read are left out."""
    found = []
    for place, event in enumerate(span.events):
        if event.name == RESULT:
            continue
        left = _left_of(event, place, exchange)
        rest = {"attributes": left.attributes, "body": left.body, **left.fields}
        rest = {key: item for key, item in rest.items() if item not in (None, "", [], {})}
        if rest or (left is event and event.name != DETAILS):
            found.append({"name": event.name, "time": event.time, **rest})
    return found


def _left_of(event: Event, place: int, exchange: Exchange) -> Event:
    return exchange.answers.events.get(place) or exchange.sent.events.get(place) or event


def _moment(value: Any) -> dt.datetime | None:
    """A time; nanoseconds in a number or in a text, to the microsecond, or whatever `values.moment` takes."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    try:
        if isinstance(value, int) and abs(value) > 10**17:
            return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=value // 1000)
        return values.moment(value) if value not in (0, "") else None
    except (OverflowError, ValueError, OSError):
        return None
