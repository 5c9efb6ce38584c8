"""Logged chat exchanges a block at a time: the rows of reading them one by one, in a fraction of the time.

Plain exchanges (text messages, one choice, no tool calls) become columns; other lines are left to `read`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lineage.columns import MESSAGE, TIMESTAMP
from lineage.schemas import NOT_APPLICABLE, TRACE, UNSTATED
from pipelines.readers import Unreadable, values
from pipelines.readers._exchange_fields import PLACES, kept, rest_in
from pipelines.readers._json_columns import (
    Odd,
    Texts,
    by_value,
    column,
    count,
    decoded,
    fields_but,
    number,
    objects,
    or_else,
    parsed,
    text,
)

_SECONDS, _MILLIS, _MICROS = 10**11, 10**14, 10**17  # as values.moment tells them apart
_YEAR_9999_US = 253_402_300_799 * 10**6


def exchanges(
    lines: Sequence[bytes], *, verdict: Callable[[Any], str], keep_rest: bool
) -> tuple[pa.Table, np.ndarray]:
    """Rows of TRACE with the provenance that they state, and for each the number of its line.

    `verdict` reads a verdict's value, or raises Unreadable; `keep_rest`: what has no column goes to `extra`.
    """
    tables, numbers = [TRACE.derivable.empty_table()], [np.array([], np.int64)]
    texts = Texts(kept)
    for first, records in parsed(lines):
        try:
            rows, is_plain = _columns(records, verdict)
        except Odd:
            continue
        at = np.flatnonzero(is_plain)
        rows = rows.filter(pa.array(is_plain)) if len(at) < len(records) else rows
        places = _places_with_more(records.type) if keep_rest else {}
        if places:
            rest = partial(rest_in, parts=places)
            mine = (lines[first + position] for position in at.tolist())
            try:
                extra = [texts.of(rest(decoded(line)), line, rest) for line in mine]
            except RecursionError:  # a line nested too deeply: `read` says which
                continue
            rows = rows.set_column(rows.column_names.index("extra"), "extra", pa.array(extra, pa.string()))
        tables.append(rows)
        numbers.append(at + first)
    return pa.concat_tables(tables), np.concatenate(numbers)


def _columns(records: pa.StructArray, verdict: Callable[[Any], str]) -> tuple[pa.Table, np.ndarray]:
    """All records as rows, and which of them are plain; the others' rows mean nothing."""
    n = len(records)
    is_plain = np.ones(n, bool)

    def only(condition: pa.BooleanArray) -> None:
        nonlocal is_plain
        is_plain &= pc.fill_null(condition, False).to_numpy(zero_copy_only=False)

    only(pc.is_null(column(records, "messages")))
    messages, is_said = _messages(column(records, "request", "messages"))
    only(is_said)
    answer, finish_reason, is_one = _answer(column(records, "response", "choices"))
    only(is_one)
    review, judged = objects(records, "review"), objects(records, "verdict")
    correction, reviewer = text(column(review, "correction")), text(column(review, "reviewer"))
    # An empty review is none, and one that only names nobody is one: a column cannot tell them apart.
    only(pc.or_kleene(pc.is_null(review), pc.not_equal(reviewer, "")))
    only(pc.is_null(column(review, "verdict")))
    is_corrected = pc.is_valid(correction)

    def known(value: Any) -> str | None:
        try:
            return verdict(value)
        except Unreadable:
            return None

    found = by_value(column(judged, "value"), known, pa.string())
    only(pc.is_valid(found))
    at, is_time = _moments(column(records, "response", "created"))
    only(is_time)
    model = or_else(text(column(records, "response", "model")), UNSTATED)
    prompt, usage = objects(records, "request", "metadata"), objects(records, "response", "usage")
    key = or_else(text(column(records, "id")), text(column(records, "response", "id")), UNSTATED)
    given: dict[str, pa.Array] = {
        "trace_key": key,
        "happened_at": at,
        "model_requested": or_else(text(column(records, "request", "model")), UNSTATED),
        "model_answered": model,
        "messages": messages,
        "response": answer,
        "finish_reason": finish_reason,
        "verdict": pc.if_else(is_corrected, "fail", found),
        "correction": correction,
        "input_tokens": count(column(usage, "prompt_tokens")),
        "output_tokens": count(column(usage, "completion_tokens")),
        "prompt_name": text(column(prompt, "prompt_name")),
        "prompt_version": text(column(prompt, "prompt_version")),
        "generator": by_value(model, lambda name: name.partition("@")[0], pa.string()),
        "generator_revision": by_value(model, lambda name: name.partition("@")[2] or UNSTATED, pa.string()),
        "scorer": text(column(judged, "judge")),
        "scorer_revision": text(column(judged, "judge_version")),
        "score": number(column(judged, "score")),
        "threshold": number(column(judged, "threshold")),
        "review": pc.if_else(is_corrected, "overridden", "none"),
        "reviewer": pc.fill_null(reviewer, NOT_APPLICABLE),
    }
    columns = [given.get(field.name, pa.nulls(n, field.type)) for field in TRACE.derivable]
    return pa.table(columns, schema=TRACE.derivable), is_plain


def _messages(found: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    """Messages as the column holds them, and where each of them is a role with a text and nothing else."""
    if not pa.types.is_list(found.type) or not pa.types.is_struct(found.type.value_type):
        raise Odd(f"messages are {found.type}")
    said = found.flatten()
    odd = pc.or_(pc.is_null(said), pc.is_null(text_or_odd(column(said, "role"))))
    for name in fields_but(said, frozenset({"role", "content"})):
        odd = pc.or_(odd, pc.is_valid(column(said, name)))
    is_plain = np.ones(len(found), bool)
    is_plain[pc.list_parent_indices(found).filter(odd).to_numpy()] = False
    known = {"role": column(said, "role"), "content": text(column(said, "content"))}
    parts = [known.get(field.name, pa.nulls(len(said), field.type)) for field in MESSAGE]
    inner = pa.StructArray.from_arrays(parts, fields=list(MESSAGE))
    lengths = pc.fill_null(pc.list_value_length(found), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    rebuilt = pa.ListArray.from_arrays(offsets, inner)
    return rebuilt.cast(pa.list_(MESSAGE)), pc.and_(pa.array(is_plain), pc.is_valid(found))


def text_or_odd(found: pa.Array) -> pa.StringArray:
    """Texts that are strings in the source. Raises Odd where they are anything else."""
    if not pa.types.is_string(found.type):
        raise Odd(f"text is {found.type}")
    return found


def _answer(found: pa.Array) -> tuple[pa.Array, pa.Array, pa.BooleanArray]:
    """The answers' text, why they stopped, and where there is just one that is text alone."""
    if not pa.types.is_list(found.type) or not pa.types.is_struct(found.type.value_type):
        raise Odd(f"choices are {found.type}")
    is_one = pc.fill_null(pc.equal(pc.list_value_length(found), 1), False)
    choices = pc.list_element(pc.if_else(is_one, found, pa.scalar([None], found.type)), 0)
    message = objects(choices, "message")
    is_text = pc.and_(pc.is_valid(message), pc.is_null(column(message, "tool_calls")))
    return text(column(message, "content")), text(column(choices, "finish_reason")), pc.and_(is_one, is_text)


def _moments(found: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
    """Times, and where they are such."""
    if not pa.types.is_int64(found.type):
        return by_value(found, _moment, TIMESTAMP), by_value(found, _is_moment, pa.bool_())
    size = pc.abs(found)
    scale = pc.if_else(
        pc.less(size, _SECONDS),
        1_000_000,
        pc.if_else(pc.less(size, _MILLIS), 1_000, pa.scalar(1, pa.int64())),
    )
    is_fit = pc.less(size, _MICROS)
    micros = pc.multiply(pc.if_else(is_fit, found, 0), scale)
    is_fit = pc.and_(is_fit, pc.less_equal(pc.abs(micros), _YEAR_9999_US))
    is_fit = pc.and_(is_fit, pc.greater(micros, -62_135_596_800 * 10**6))
    return micros.cast(TIMESTAMP), pc.or_(pc.is_null(found), pc.fill_null(is_fit, False))


def _moment(value: Any) -> dt.datetime | None:
    return values.moment(value) if _is_moment(value) else None


def _is_moment(value: Any) -> bool:
    try:
        return value is None or values.moment(value) is not None
    except Unreadable:
        return False


def _places_with_more(found: pa.DataType) -> dict[str, Any]:
    """Of the places in an exchange those where fields without a column were seen."""
    more = {}
    for part, (path, known) in PLACES.items():
        here: pa.DataType | None = found
        for step in path:
            if here is None or isinstance(step, int):
                here = here.value_type if here is not None and pa.types.is_list(here) else None
            else:
                at = here.get_field_index(step) if pa.types.is_struct(here) else -1
                here = here.field(at).type if at >= 0 else None
        if here is not None and pa.types.is_struct(here) and any(each.name not in known for each in here):
            more[part] = (path, known)
    return more
