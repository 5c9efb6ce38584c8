"""Langfuse: what its API, its exports and its blob storage integration give, one row per generation.

{"trace": {"id", "name", "scores": [...]}, "observations": [...]}      a trace, downloaded
{"id", "timestamp", "observations": [...], "scores": [...]}            a trace, from the API
{"id", "traceId", "type": "GENERATION", "startTime", "model", "input", "output", "promptName", ...}
{"id", "trace_id", "type": "GENERATION", "start_time", "provided_model_name", ...}     observations_v2/
{"id", "trace_id", "name", "value", "data_type", "source"}             scores/: no row by itself

A score goes to the generation that it names. One of the trace, or of its root, goes to the generation that
began last: it gave the answer. A score by a person (source ANNOTATION) goes before all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, _judgements, _payloads, values
from pipelines.readers._judgements import Correction, Judgement
from pipelines.readers._span_attributes import of_attributes

_TYPES = ("SPAN", "GENERATION", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING")
_TYPES += ("GUARDRAIL",)
_SOURCES = ("API", "EVAL", "ANNOTATION")
_READ = {"id", "traceId", "type", "startTime", "input", "output", "metadata", "promptName", "promptVersion"}
_READ |= {"model", "providedModelName", "usageDetails", "usage"}
_OF_TRACE = ("name", "sessionId", "userId", "tags", "release", "version", "environment", "projectId")
_OUTLINE = ("id", "parentObservationId", "type", "name")


@dataclass(frozen=True)
class Langfuse:
    """Reads all of the shapes; which one a record has is seen from its keys."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("langfuse", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A trace with observations, an observation, or a score."""
        found = record.get("observations")
        if isinstance(found, list) and (isinstance(record.get("trace"), Mapping) or "scores" in record):
            return "a trace with 'observations'"
        if _is_observation(found[0] if isinstance(found, list) and found else record):
            return f"an observation of type {record.get('type', 'GENERATION')}"
        return "a score" if _is_score(record) else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row per generation, in the order in which they began."""
        with values.readable():
            if isinstance(record.get("observations"), list):
                return _trace(record)
            if _is_observation(record):
                found = _camel(record)
                return [_row(found, {}, [])] if found["type"] == "GENERATION" else []
            if _is_score(record):
                return []
        expected = "'observations', or 'traceId' with a type or a data type"
        raise Unreadable("not_of_langfuse", f"found keys {sorted(record)[:8]}, expected {expected}")


def _is_observation(record: Any) -> bool:
    if not isinstance(record, Mapping) or record.get("type") not in _TYPES:
        return False
    return ("traceId" in record and "startTime" in record) or (
        "trace_id" in record and "start_time" in record
    )


def _is_score(record: Mapping[str, Any]) -> bool:
    is_typed = "dataType" in record or "data_type" in record
    return is_typed and record.get("source") in _SOURCES and "name" in record and "value" in record


def _trace(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    inner = record.get("trace")
    trace = _camel(inner if isinstance(inner, Mapping) else record)
    observations = []
    for each in record["observations"]:
        if isinstance(each, str):  # of a list of traces
            raise Unreadable("ids_only", "observations are named, not told; fetch or export the whole trace")
        if not isinstance(each, Mapping):
            raise Unreadable(
                "bad_observation", f"an observation is {type(each).__name__}, expected an object"
            )
        observations.append(_camel(each))
    generations = [each for each in observations if each.get("type") == "GENERATION"]
    generations.sort(key=lambda each: (str(each.get("startTime")), str(each.get("id"))))
    if not generations:
        return []
    roots = [each.get("id") for each in observations if not each.get("parentObservationId")]
    ids = [each.get("id") for each in generations]
    scores: dict[int, list[Mapping[str, Any]]] = {}
    elsewhere = []
    for score in _scores(record, trace):
        named = score.get("observationId")
        if named in ids:
            scores.setdefault(ids.index(named), []).append(score)
        elif not named or named in roots:
            scores.setdefault(len(generations) - 1, []).append(score)
        else:
            elsewhere.append(score)
    about = {key: trace.get(key) for key in _OF_TRACE if trace.get(key)}
    rows = [_row(each, about, scores.get(index, [])) for index, each in enumerate(generations[:-1])]
    others = [each for each in observations if each.get("type") != "GENERATION"]
    whole = _full(values.without(trace, {"observations", "scores", "corrections", "id"}))
    rest = {
        "other_scores": elsewhere,
        "other_observations": [{key: each.get(key) for key in _OUTLINE} for each in others],
        "shortened": ["other_observations"] if others else [],
    }
    last = _row(generations[-1], whole, scores.get(len(generations) - 1, []), **rest)
    return [*rows, last]


def _scores(record: Mapping[str, Any], trace: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All scores of a trace, once each, in the order in which they were given."""
    found: dict[str, dict[str, Any]] = {}
    for listed in (record.get("scores"), trace.get("scores"), trace.get("corrections")):
        for each in listed if isinstance(listed, list) else []:
            if isinstance(each, Mapping):
                found[str(each.get("id") or values.json_text(each))] = _camel(each)
    return sorted(found.values(), key=lambda each: (str(each.get("timestamp")), str(each.get("id"))))


def _row(
    found: Mapping[str, Any], trace: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], **rest: Any
) -> dict[str, Any]:
    metadata = _payloads.mapping(found.get("metadata"))
    attributes = _payloads.mapping(metadata.get("attributes"))
    ask, answer = _payloads.asked(found.get("input")), _payloads.answered(found.get("output"))
    told_ask, told_answer = of_attributes(attributes)
    original: dict[str, Any] = {}
    if told_ask is not None and (not ask.said or not ask.is_known):
        ask, original["input"] = told_ask, found.get("input")
    if told_answer is not None and found.get("output") is None:
        answer = told_answer
    usage = _payloads.mapping(found.get("usageDetails")) or _payloads.mapping(found.get("usage"))
    model = values.text(found.get("providedModelName") or found.get("model") or None)
    answered_by = values.text(attributes.get("gen_ai.response.model")) or model
    requested = attributes.get("gen_ai.request.model") or metadata.get("ls_model_name")
    if requested is None and answer.model not in (None, model):
        requested = model  # the answer names what this name stood for
    judged = _judgements.columns(
        [_judgement(each) for each in scores if not _is_correction(each)],
        [_correction(each) for each in scores if _is_correction(each)],
        answer.words,
    )
    copies = (found.get("input"), found.get("output"))
    plain = {key: item for key, item in attributes.items() if item is None or item not in copies}
    row = {
        "trace_key": "/".join(str(found[key]) for key in ("traceId", "id") if found.get(key)) or UNSTATED,
        "happened_at": values.moment(found.get("startTime")),
        **_payloads.columns(ask, answer, requested=values.text(requested), answered_by=answered_by),
        "input_tokens": values.tokens(usage.get("input", usage.get("promptTokens"))),
        "output_tokens": values.tokens(usage.get("output", usage.get("completionTokens"))),
        "prompt_name": values.text(found.get("promptName") or None),
        "prompt_version": values.text(found.get("promptVersion")),
        **judged,
    }
    observation = {
        key: item for key, item in found.items() if key not in _READ and item not in (None, "", [], {})
    }
    row["extra"] = values.extra_of(
        observation=values.by_reference(observation),
        metadata=values.by_reference({**metadata, "attributes": plain} if attributes else metadata),
        usage=values.without(usage, {"input", "output"}),
        input=values.by_reference(ask.rest),
        output=values.by_reference(answer.rest),
        output_usage=answer.usage,
        original=values.by_reference(original),
        model=model if model not in (row["model_requested"], row["model_answered"]) else None,
        scores=[_full(each) for each in scores],
        trace=values.by_reference(trace),
        **rest,
    )
    return row


def _full(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in found.items() if item not in (None, "", [], {})}


def _is_correction(score: Mapping[str, Any]) -> bool:
    return score.get("dataType") == "CORRECTION" and isinstance(_long(score), str)


def _long(score: Mapping[str, Any]) -> Any:
    return score.get("longStringValue") or score.get("stringValue")


def _correction(score: Mapping[str, Any]) -> Correction:
    by = values.text(score.get("authorUserId"))
    return Correction(_long(score), by, score.get("source") == "ANNOTATION", at=_at(score))


def _judgement(score: Mapping[str, Any]) -> Judgement:
    name, value = values.text(score.get("name")) or UNSTATED, score.get("value")
    if score.get("dataType") == "BOOLEAN" and value in (0, 1):
        value = bool(value)
    elif score.get("dataType") == "CATEGORICAL" or value is None:
        value = score.get("stringValue")
    is_human = score.get("source") == "ANNOTATION"
    evaluator = score.get("evaluatorId") or _payloads.mapping(score.get("metadata")).get(
        "job_configuration_id"
    )
    scorer = f"{name}/{evaluator}" if evaluator else name
    if is_human:
        scorer = values.text(score.get("authorUserId"))
    return Judgement(name, value, scorer, is_human=is_human, at=_at(score))


def _at(score: Mapping[str, Any]) -> str:
    return f"{score.get('timestamp') or ''} {score.get('id') or ''}"


def _camel(record: Mapping[str, Any]) -> dict[str, Any]:
    """The API's names for those of the blob export, which are the same in snake case."""
    return {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): item for key, item in record.items()}
