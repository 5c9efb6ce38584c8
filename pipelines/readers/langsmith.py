"""LangSmith's runs, one row per run of a language model, with the feedback that the record holds.

{"id", "trace_id", "run_type": "llm", "start_time", "inputs": {"messages": [[{"lc", "id", "kwargs"}]]},
 "outputs": {"generations": [[{"text", "message", "generation_info"}]], "llm_output"},
 "extra": {"metadata": {"ls_model_name", "ls_provider", "revision_id", "lc_hub_repo", "lc_hub_commit_hash"}},
 "prompt_tokens", "completion_tokens", "child_runs": [...],
 "feedback": [{"key", "score", "value", "comment", "correction", "feedback_source": {"type", "user_id"}}]}

Runs of other types are walked for those below them. Feedback on the run at the top, where that is no call of
a model, goes to the call that began last: it gave the answer. Feedback from the app and the API is people's,
that of type `model` or `auto_eval` is a program's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, _judgements, _payloads, values
from pipelines.readers._judgements import Correction, Judgement

_TYPES = ("llm", "chain", "tool", "retriever", "embedding", "prompt", "parser")
_READ = {"id", "trace_id", "run_type", "start_time", "inputs", "outputs", "extra", "prompt_tokens"}
_READ |= {"completion_tokens", "child_runs", "feedback", "feedbacks"}
_PEOPLE = ("app", "api")
_OUTLINE = ("id", "parent_run_id", "run_type", "name")


@dataclass(frozen=True)
class Langsmith:
    """Reads runs, alone or with the runs below them."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("langsmith", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A run: its type beside its place in a trace."""
        kind = record.get("run_type")
        is_placed = any(key in record for key in ("dotted_order", "trace_id", "start_time"))
        return f"a run of type {kind}" if kind in _TYPES and "id" in record and is_placed else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row per call of a model, in the order in which they began."""
        if self.recognises(record) is None:
            expected = "'run_type', 'id' and 'trace_id'"
            raise Unreadable("not_a_run", f"found keys {sorted(record)[:8]}, expected {expected}")
        with values.readable():
            return _rows(record)


def _rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    runs = _below(record)
    calls = sorted((run for run in runs if run.get("run_type") == "llm"), key=_began)
    if not calls:
        return []
    ids = [call.get("id") for call in calls]
    given: dict[int, list[Mapping[str, Any]]] = {}
    elsewhere = []
    for about, feedback in _feedback(runs):
        if about in ids:
            given.setdefault(ids.index(about), []).append(feedback)
        elif about in (None, record.get("id"), record.get("trace_id")):
            given.setdefault(len(calls) - 1, []).append(feedback)
        else:
            elsewhere.append(feedback)
    rows = [_row(call, given.get(index, [])) for index, call in enumerate(calls[:-1])]
    others = [{key: run.get(key) for key in _OUTLINE} for run in runs if run.get("run_type") != "llm"]
    rest = {"other_feedback": elsewhere, "other_runs": others, "shortened": ["other_runs"] if others else []}
    return [*rows, _row(calls[-1], given.get(len(calls) - 1, []), **rest)]


def _below(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The run and all runs inside it."""
    found, open_runs = [], [record]
    while open_runs:
        run = open_runs.pop()
        found.append(run)
        children = run.get("child_runs")
        for child in children if isinstance(children, list) else []:
            if not isinstance(child, Mapping):
                raise Unreadable("bad_run", f"a run is {type(child).__name__}, expected an object")
            open_runs.append(child)
    return sorted(found, key=_began)


def _began(run: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(run.get("dotted_order") or ""), str(run.get("start_time")), str(run.get("id"))


def _feedback(runs: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Mapping[str, Any]]]:
    """(run that it is about, feedback), in the order in which it was given."""
    found = []
    for run in runs:
        for key in ("feedback", "feedbacks"):
            listed = run.get(key)
            given = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
            found += [(each.get("run_id") or run.get("id"), each) for each in given]
    return sorted(found, key=lambda each: _at(each[1]))


def _row(run: Mapping[str, Any], feedback: Sequence[Mapping[str, Any]], **rest: Any) -> dict[str, Any]:
    extra = _payloads.mapping(run.get("extra"))
    metadata, parameters = (
        _payloads.mapping(extra.get("metadata")),
        _payloads.mapping(extra.get("invocation_params")),
    )
    ask, answer = _payloads.asked(run.get("inputs")), _payloads.answered(run.get("outputs"))
    said = parameters.get("model") or parameters.get("model_name") or ask.rest.get("model")
    used = metadata.get("ls_model_name")
    prompt = _prompt(run, metadata)
    usage = answer.usage
    row = {
        "trace_key": "/".join(str(run[key]) for key in ("trace_id", "id") if run.get(key)) or UNSTATED,
        "happened_at": values.moment(run.get("start_time")),
        **_payloads.columns(ask, answer, requested=values.text(said or used), answered_by=values.text(used)),
        "input_tokens": _first_count(
            run.get("prompt_tokens"), usage.get("input_tokens"), usage.get("prompt_tokens")
        ),
        "output_tokens": _first_count(
            run.get("completion_tokens"), usage.get("output_tokens"), usage.get("completion_tokens")
        ),
        **prompt,
        **_judgements.columns(
            [_judgement(each) for each in feedback if _value(each) is not None],
            [_correction(each) for each in feedback if each.get("correction") is not None],
            answer.words,
        ),
    }
    about = {key: item for key, item in run.items() if key not in _READ and item not in (None, [], {})}
    row["extra"] = values.extra_of(
        run=values.by_reference(about),
        extra=values.by_reference(extra),
        input=values.by_reference(ask.rest),
        output=values.by_reference(answer.rest),
        output_usage=usage,
        feedback=feedback,
        **rest,
    )
    return row


def _first_count(*found: Any) -> int | None:
    return next((count for each in found if (count := values.tokens(each)) is not None), None)


def _prompt(run: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt from the hub that made the input: `owner/repo` and its commit."""
    serialized = _payloads.mapping(_payloads.mapping(run.get("serialized")).get("kwargs"))
    for place in (metadata, _payloads.mapping(serialized.get("metadata"))):
        repo, commit = place.get("lc_hub_repo"), place.get("lc_hub_commit_hash")
        if isinstance(repo, str) and repo:
            owner = place.get("lc_hub_owner")
            name = f"{owner}/{repo}" if isinstance(owner, str) and owner not in ("", "-") else repo
            return {"prompt_name": name, "prompt_version": values.text(commit)}
    return {}


def _value(feedback: Mapping[str, Any]) -> Any:
    score = feedback.get("score")
    return score if score is not None else feedback.get("value")


def _source(feedback: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The source, and whether it is a person: an evaluator that ran as a run of its own is none."""
    source = _payloads.mapping(feedback.get("feedback_source"))
    is_run = "__run" in _payloads.mapping(source.get("metadata"))
    return source, source.get("type") in _PEOPLE and not is_run


def _judgement(feedback: Mapping[str, Any]) -> Judgement:
    source, is_human = _source(feedback)
    key = values.text(feedback.get("key")) or UNSTATED
    scorer = _person(source) if is_human else key
    return Judgement(key, _value(feedback), scorer, is_human=is_human, at=_at(feedback))


def _correction(feedback: Mapping[str, Any]) -> Correction:
    """LangSmith takes text or an object: the text in it where it has one field, or is a message."""
    source, is_human = _source(feedback)
    words = _payloads.answered(feedback["correction"]).words
    return Correction(words or "", _person(source), is_human, at=_at(feedback))


def _person(source: Mapping[str, Any]) -> str | None:
    return values.text(source.get("user_name") or source.get("user_id"))


def _at(feedback: Mapping[str, Any]) -> str:
    return f"{feedback.get('created_at') or ''} {feedback.get('id') or ''}"
