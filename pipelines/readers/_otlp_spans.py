"""OpenTelemetry spans as one shape, whichever way they were written down, with their events joined to them.

{"resourceSpans": [{"resource", "scopeSpans": [{"scope", "spans": [{"traceId", "spanId", "attributes"}]}]}]}
{"resourceLogs": [{"resource", "scopeLogs": [{"scope", "logRecords": [{"traceId", "spanId", "body"}]}]}]}
{"spans": [{"trace_id", "span_id", "attributes": {...}, "span_events": [...]}]}      or such a span by itself
{"context": {"trace_id", "span_id"}, "parent_id", "attributes": {...}, "events"}     as an SDK prints it

A log record belongs to the span whose ids it names. Log records whose span is not in the record stand for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.readers import Unreadable, values
from pipelines.readers._otlp_attributes import attributes_of, flat, parsed, plain

DETAILS = "gen_ai.client.inference.operation.details"
_NESTED = ("events", "span_events", "attributes", "resource", "scope", "instrumentation_scope", "context")
_IDS = ("traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id", "parent_id")
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time")
_TIMES = ("timeUnixNano", "time_unix_nano", "timestamp", "time", "observedTimeUnixNano")
_NAMES = ("eventName", "event_name", "name")


@dataclass(frozen=True)
class Event:
    """An event of a span, or a log record that names the span."""

    name: str
    time: Any
    attributes: dict[str, Any]
    body: Any = None
    fields: dict[str, Any] = field(default_factory=dict)
    """All else, by the names of the source."""


@dataclass(frozen=True)
class Span:
    """One span; its attributes by their dotted names, their values plain."""

    trace_id: str
    span_id: str
    parent_id: str
    start: Any
    attributes: dict[str, Any]
    events: tuple[Event, ...] = ()
    resource: dict[str, Any] = field(default_factory=dict)
    scope: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """All else, by the names of the source: name, end, status, links."""
    is_of_logs: bool = False
    """Its span is not in the record; it stands for it."""

    @property
    def ids(self) -> tuple[str, str]:
        """What joins spans and log records; hexadecimal digits are the same in capitals."""
        return self.trace_id.lower(), self.span_id.lower()


def spans_of(record: Mapping[str, Any]) -> list[Span]:
    """All spans of a record in its order, log records joined. Raises Unreadable."""
    if "resourceSpans" in record or "resourceLogs" in record:
        spans, logs = list(_spans_on_the_wire(record)), list(_logs_on_the_wire(record))
    elif "spans" in record:
        spans, logs = [_span(each, {}, {}) for each in values.objects_in(record, "spans")], []
    else:
        spans, logs = [_span(record, {}, {})], []
    return [_with_details(span) for span in _joined(spans, logs)]


def _spans_on_the_wire(record: Mapping[str, Any]) -> Iterator[Span]:
    for group in values.objects_in(record, "resourceSpans"):
        resource = _described(values.object_in(group, "resource"))
        scoped = "scopeSpans" if "scopeSpans" in group else "instrumentationLibrarySpans"  # before 2022
        for each in values.objects_in(group, scoped):
            scope = _described(
                values.object_in(each, "scope" if "scope" in each else "instrumentationLibrary")
            )
            for span in values.objects_in(each, "spans"):
                yield _span(span, resource, scope)


def _logs_on_the_wire(record: Mapping[str, Any]) -> Iterator[Span]:
    """Each log record as a span of one event."""
    for group in values.objects_in(record, "resourceLogs"):
        resource = _described(values.object_in(group, "resource"))
        for each in values.objects_in(group, "scopeLogs"):
            scope = _described(values.object_in(each, "scope"))
            for log in values.objects_in(each, "logRecords"):
                event = _event(log)
                ids = (_id(log, "traceId", "trace_id"), _id(log, "spanId", "span_id"))
                yield Span(*ids, "", event.time, {}, (event,), resource, scope, is_of_logs=True)


def _joined(spans: Sequence[Span], logs: Sequence[Span]) -> list[Span]:
    """Spans with the events of their log records, then what log records tell of spans that are not here."""
    by_ids: dict[tuple[str, str], list[Span]] = {}
    for log in logs:
        by_ids.setdefault(log.ids, []).append(log)
    unnamed = by_ids.pop(("", ""), [])
    found = []
    for span in spans:
        told = by_ids.pop(span.ids, []) if all(span.ids) else []
        found.append(dataclasses.replace(span, events=span.events + _events(told)))
    alone = [dataclasses.replace(told[0], events=_events(told)) for told in by_ids.values()]
    return found + alone + unnamed


def _events(logs: Sequence[Span]) -> tuple[Event, ...]:
    return tuple(event for log in logs for event in log.events)


def _with_details(span: Span) -> Span:
    """The attributes of a span with those of the event that carries its details; what differs stays there."""
    attributes, events = dict(span.attributes), []
    for event in span.events:
        if event.name == DETAILS:
            told = event.attributes | (dict(event.body) if isinstance(event.body, Mapping) else {})
            differing = {key: value for key, value in told.items() if attributes.get(key, value) != value}
            attributes = told | attributes
            body = None if isinstance(event.body, Mapping) else event.body
            event = dataclasses.replace(event, attributes=differing, body=body)
        events.append(event)
    if isinstance(listed := parsed(attributes.get("events")), list) and all(map(_is_event, listed)):
        del attributes["events"]  # an older way of PydanticAI to carry events
        events += [
            Event(each["event.name"], None, {}, values.without(each, {"event.name"})) for each in listed
        ]
    return dataclasses.replace(span, attributes=attributes, events=tuple(events))


def _is_event(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("event.name"), str)


def _span(value: Mapping[str, Any], resource: dict[str, Any], scope: dict[str, Any]) -> Span:
    context = values.object_in(value, "context")
    start = next((key for key in _STARTS if value.get(key) is not None), "")
    events = "events" if value.get("events") is not None else "span_events"
    own_scope = "scope" if "scope" in value else "instrumentation_scope"
    fields = values.without(value, {*_NESTED, *_IDS, start})
    if rest := values.without(context, _IDS):
        fields["context"] = rest
    return Span(
        _id(value, "traceId", "trace_id") or _id(context, "trace_id"),
        _id(value, "spanId", "span_id") or _id(context, "span_id"),
        _id(value, "parentSpanId", "parent_span_id", "parent_id"),
        value.get(start),
        flat(attributes_of(value.get("attributes"))),
        tuple(_event(each) for each in values.objects_in(value, events)),
        resource or _described(values.object_in(value, "resource")),
        scope or _described(values.object_in(value, own_scope)),
        fields,
    )


def _event(value: Mapping[str, Any]) -> Event:
    attributes = attributes_of(value.get("attributes"))
    name = next((value[key] for key in _NAMES if value.get(key)), attributes.pop("event.name", None))
    time = next((key for key in _TIMES if value.get(key) not in (None, "0", 0)), "")
    read = {*_NAMES, time, "attributes", "body", "traceId", "spanId", "trace_id", "span_id"}
    body = plain(value.get("body"))
    return Event(values.text(name) or "", value.get(time), attributes, body, values.without(value, read))


def _described(value: Mapping[str, Any]) -> dict[str, Any]:
    """A resource or scope, its attributes as an object."""
    found = {key: item for key, item in value.items() if key != "attributes" and item not in (None, "")}
    attributes = attributes_of(value.get("attributes"))
    return found | ({"attributes": attributes} if attributes else {})


def _id(value: Mapping[str, Any], *keys: str) -> str:
    found = next((value[key] for key in keys if value.get(key)), None)
    if found is not None and not isinstance(found, str):
        raise Unreadable("bad_id", f"'{keys[-1]}' is {type(found).__name__}, expected a string")
    return (found or "").removeprefix("0x")
