"""MLflow's traces as `Trace.to_json()` writes them: one row per call of a model, with what people said of it.

{"info": {"trace_id", "request_time", "trace_metadata": {"mlflow.traceInputs", ...},
          "tags": {"mlflow.linkedPrompts": '[{"name", "version"}]'},
          "assessments": [{"assessment_name", "source": {"source_type", "source_id"}, "span_id",
                           "feedback" | "expectation": {"value"}, "rationale"}]},
 "data": {"spans": [{"span_id", "parent_span_id", "start_time_unix_nano",
                     "attributes": {"mlflow.spanType": '"CHAT_MODEL"', "mlflow.spanInputs": "<JSON>", ...}}]}}

Before MLflow 3: `request_id`, `timestamp_ms`, `request_metadata`, and spans with `context`, `parent_id` and
`start_time`. Rows are spans of type LLM and CHAT_MODEL; a trace without one is a row by itself.

An assessment goes to the span that it names. One of the trace, or of its root, goes to the call that began
last: it gave the answer.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, _judgements, _payloads, values
from pipelines.readers._judgements import Correction, Judgement

_CALLS = ("LLM", "CHAT_MODEL")
_EXPECTED = ("expected_response", "expected_output", "expected_answer", "ground_truth", "reference_answer")
_EXPECTED += ("correct_answer", "reference_output")
_SCORER_VERSION, _SCORER_DIGEST = "mlflow.assessment.scorerVersion", "mlflow.assessment.scorerDigest"
_OF_TRACE = ("mlflow.trace.session", "mlflow.trace.user", "mlflow.sourceRun", "mlflow.modelId")
_READ = {"mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.traceRequestId"}
_SPAN = {"attributes", "span_id", "parent_span_id", "parent_id", "context", "trace_id"}
_SPAN |= {"start_time_unix_nano", "start_time"}


@dataclass(frozen=True)
class MlflowTraces:
    """Reads traces of MLflow 3, and those of 2."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("mlflow", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """`info` of a trace beside `data` with spans."""
        info, data = record.get("info"), record.get("data")
        if not isinstance(info, Mapping) or not isinstance(data, Mapping) or "spans" not in data:
            return None
        return "'info' and 'data.spans' of a trace" if _trace_id(info) else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row per call of a model, in the order in which they began."""
        if self.recognises(record) is None:
            expected = "'info' with 'trace_id', and 'data' with 'spans'"
            raise Unreadable("not_an_mlflow_trace", f"found keys {sorted(record)[:8]}, expected {expected}")
        with values.readable():
            return _Trace(record["info"], _spans(record["data"]["spans"])).rows()


@dataclass(frozen=True)
class _Span:
    id: str
    parent: str
    started: Any
    attributes: Mapping[str, Any]
    raw: Mapping[str, Any]

    @property
    def kind(self) -> Any:
        return self.attributes.get("mlflow.spanType")


@dataclass(frozen=True)
class _Trace:
    info: Mapping[str, Any]
    spans: Sequence[_Span]

    def rows(self) -> list[dict[str, Any]]:
        calls = [span for span in self.spans if span.kind in _CALLS] or [self._itself()]
        if not calls[0].raw and not self.spans and not calls[0].attributes:
            return []
        known = {span.id for span in self.spans}
        roots = {span.id for span in self.spans if span.parent not in known} | {""}
        last, elsewhere = calls[-1].id, []
        assessed: dict[str, list[Mapping[str, Any]]] = {}
        for each in self._assessments():
            span = _span_id(each.get("span_id"))
            if any(span == call.id for call in calls):
                assessed.setdefault(span, []).append(each)
            elif span in roots:
                assessed.setdefault(last, []).append(each)
            else:
                elsewhere.append(each)
        others = [span for span in self.spans if span.id not in {call.id for call in calls}]
        outline = [
            {"span_id": span.id, "parent_id": span.parent, "type": span.kind, "name": span.raw.get("name")}
            for span in others
        ]
        rows = [self._row(call, assessed.get(call.id, [])) for call in calls[:-1]]
        rest = {"trace": self._about(), "other_spans": outline, "other_assessments": elsewhere}
        rest["shortened"] = ["other_spans"] if outline else []
        return [*rows, self._row(calls[-1], assessed.get(last, []), **rest)]

    def _itself(self) -> _Span:
        """The root, with the trace's own inputs and outputs where it has none."""
        known = {span.id for span in self.spans}
        root = next((span for span in self.spans if span.parent not in known), None)
        found = dict(root.attributes) if root is not None else {}
        metadata = _pairs(self.info.get("trace_metadata", self.info.get("request_metadata")))
        for ours, name in (("mlflow.spanInputs", "Inputs"), ("mlflow.spanOutputs", "Outputs")):
            if found.get(ours) is None and f"mlflow.trace{name}" in metadata:
                found[ours] = _decoded(metadata[f"mlflow.trace{name}"])
        if "mlflow.trace.tokenUsage" in metadata:
            found.setdefault("mlflow.chat.tokenUsage", _decoded(metadata["mlflow.trace.tokenUsage"]))
        if root is None:
            return _Span("", "", None, found, {})
        return _Span(root.id, root.parent, root.started, found, root.raw)

    def _row(self, span: _Span, assessments: Sequence[Mapping[str, Any]], **rest: Any) -> dict[str, Any]:
        attributes = span.attributes
        inputs, outputs = attributes.get("mlflow.spanInputs"), attributes.get("mlflow.spanOutputs")
        ask, answer = _payloads.asked(inputs), _payloads.answered(outputs)
        told = attributes.get("mlflow.chat.messages")  # until 3.1: the answer is the last of them
        if isinstance(told, list) and (not ask.is_known or not ask.said):
            is_answer = bool(told) and _payloads.mapping(told[-1]).get("role") == "assistant"
            ask = replace(_payloads.asked(told[:-1] if is_answer else told), rest={"inputs": inputs})
        model = values.text(attributes.get("mlflow.llm.model"))
        usage = _payloads.mapping(attributes.get("mlflow.chat.tokenUsage")) or answer.usage
        prompts = self._prompts(span)
        prompt = prompts[0] if len(prompts) == 1 else {}
        row = {
            "trace_key": "/".join(part for part in (_trace_id(self.info), span.id) if part),
            "happened_at": values.moment(span.started) or values.moment(_requested_at(self.info)),
            **_payloads.columns(
                ask, answer, requested=values.text(ask.rest.get("model")) or model, answered_by=model
            ),
            "input_tokens": values.tokens(usage.get("input_tokens", usage.get("prompt_tokens"))),
            "output_tokens": values.tokens(usage.get("output_tokens", usage.get("completion_tokens"))),
            "prompt_name": values.text(prompt.get("name")),
            "prompt_version": values.text(prompt.get("version")),
            **_judgements.columns(
                [_judgement(each) for each in assessments if _is_feedback(each)],
                [_correction(each) for each in assessments if _is_expected_response(each)],
                answer.words,
            ),
        }
        metadata = _pairs(self.info.get("trace_metadata", self.info.get("request_metadata")))
        slim = {key: metadata[key] for key in _OF_TRACE if key in metadata}
        row["extra"] = values.extra_of(
            span={**values.without(span.raw, _SPAN), **({"parent_id": span.parent} if span.parent else {})},
            attributes=values.by_reference(values.without(attributes, _READ)),
            input=values.by_reference(ask.rest),
            output=values.by_reference(answer.rest),
            output_usage=answer.usage,
            prompts=prompts if len(prompts) > 1 else [],
            assessments=assessments,
            **{"trace": slim, **rest},
        )
        return row

    def _prompts(self, span: _Span) -> list[Mapping[str, Any]]:
        """The prompts linked to a span, or to the nearest span around it, or to the trace."""
        by_id = {each.id: each for each in self.spans}
        near: _Span | None = span
        seen: set[str] = set()
        places = []
        while near is not None and near.id not in seen:
            seen.add(near.id)
            places.append(near.attributes.get("mlflow.linkedPrompts"))
            near = by_id.get(near.parent)
        places.append(_pairs(self.info.get("tags")).get("mlflow.linkedPrompts"))
        for place in places:
            listed = _payloads.decoded(place)
            found = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
            if found:
                return [each for index, each in enumerate(found) if each not in found[:index]]
        return []

    def _assessments(self) -> list[Mapping[str, Any]]:
        listed = self.info.get("assessments")
        found = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
        return sorted(found, key=_at)

    def _about(self) -> dict[str, Any]:
        about = values.without(self.info, {"trace_id", "request_id", "assessments"})
        for key in ("tags", "trace_metadata", "request_metadata"):
            if key in about:
                about[key] = _pairs(about[key])
        return values.by_reference(about)


def _trace_id(info: Mapping[str, Any]) -> str | None:
    found = info.get("trace_id") or info.get("request_id")
    return found if isinstance(found, str) else None


def _requested_at(info: Mapping[str, Any]) -> Any:
    return info.get("request_time", info.get("timestamp_ms"))


def _spans(listed: Any) -> list[_Span]:
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise Unreadable("bad_spans", "'data.spans' is no list of objects, expected the spans of the trace")
    spans = []
    for each in listed:
        context = values.inner(each, "context")
        attributes = {key: _decoded(item) for key, item in _pairs(each.get("attributes")).items()}
        span_id = _span_id(each.get("span_id", context.get("span_id")))
        parent = _span_id(each.get("parent_span_id", each.get("parent_id")))
        started = each.get("start_time_unix_nano", each.get("start_time"))
        spans.append(_Span(span_id, parent, started, attributes, each))
    return sorted(spans, key=lambda span: (values.number(span.started) or 0.0, span.id))


def _span_id(value: Any) -> str:
    """A span's id as 16 hex digits: the JSON has base64 of its 8 bytes, assessments have the hex digits."""
    found = values.text(value) or ""
    if len(found) == 12 and found.endswith("="):
        try:
            return base64.b64decode(found, validate=True).hex()
        except (binascii.Error, ValueError):
            return found
    return found.removeprefix("0x")


def _decoded(value: Any) -> Any:
    """The value of an attribute, which is JSON text of any kind; other text stays what it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _pairs(value: Any) -> Mapping[str, Any]:
    """Tags and metadata: an object, or before MLflow 3 a list of {key, value}."""
    if isinstance(value, list):
        pairs = [each for each in value if isinstance(each, Mapping) and isinstance(each.get("key"), str)]
        return {each["key"]: each.get("value") for each in pairs}
    return value if isinstance(value, Mapping) else {}


def _at(assessment: Mapping[str, Any]) -> str:
    return f"{assessment.get('create_time') or ''} {assessment.get('assessment_id') or ''}"


def _is_feedback(assessment: Mapping[str, Any]) -> bool:
    """A judgement that came about and was not replaced by a later one."""
    feedback = assessment.get("feedback")
    if not isinstance(feedback, Mapping) or assessment.get("valid") is False:
        return False
    return feedback.get("value") is not None


def _judgement(assessment: Mapping[str, Any]) -> Judgement:
    source = _payloads.mapping(assessment.get("source"))
    metadata = _payloads.mapping(assessment.get("metadata"))
    revision = metadata.get(_SCORER_VERSION) or metadata.get(_SCORER_DIGEST)
    return Judgement(
        _name(assessment),
        assessment["feedback"]["value"],
        values.text(source.get("source_id")),
        values.text(revision),
        is_human=source.get("source_type") == "HUMAN",
        at=_at(assessment),
    )


def _is_expected_response(assessment: Mapping[str, Any]) -> bool:
    expectation = assessment.get("expectation")
    if not isinstance(expectation, Mapping) or assessment.get("valid") is False:
        return False
    return _name(assessment) in _EXPECTED and isinstance(expectation.get("value"), str)


def _correction(assessment: Mapping[str, Any]) -> Correction:
    source = _payloads.mapping(assessment.get("source"))
    by, is_human = values.text(source.get("source_id")), source.get("source_type") == "HUMAN"
    return Correction(assessment["expectation"]["value"], by, is_human, is_verdict=False, at=_at(assessment))


def _name(assessment: Mapping[str, Any]) -> str:
    return values.text(assessment.get("assessment_name") or assessment.get("name")) or UNSTATED
