"""Damage to what every row says of itself: identity, parents, source, who made and judged it, when."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pyarrow as pa

from expectations.audit.planting import ALL, Corruption, Plant, cell, fixed, put, shifted, swapped
from expectations.audit.sample import Sample
from lineage.schemas import PROVENANCE

STRINGS = tuple(column.name for column in PROVENANCE if pa.types.is_string(column.type))
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_OLD = dt.timedelta(days=900)
_AHEAD = dt.timedelta(days=400)


def provenance(table: str) -> tuple[Corruption, ...]:
    """What can be wrong with the provenance of a row table."""

    def of(
        kind: str, does: str, plant: Plant, rate: float = 0.05, *, family: str, why_not: str = ""
    ) -> Corruption:
        return Corruption(f"{table}.{kind}", family, does, plant, rate, (), why_not)

    lost = [
        entry
        for name in STRINGS
        for entry in (
            of(f"{name}_null", f"have no {name}", fixed(name, None), family="missing provenance"),
            of(f"{name}_blank", f"have a blank for {name}", fixed(name, "  "), family="missing provenance"),
        )
    ]
    unsaid = [
        of("source_uri_unstated", "do not say their source", fixed("source_uri", "unstated"), ALL,
           family="missing provenance"),
        of("source_revision_unstated", "do not say which content", fixed("source_revision", "unstated"),
           family="missing provenance"),
        of("run_unstated", "do not say which run wrote them", fixed("run_id", "unstated"),
           family="missing provenance"),
        of("extracted_at_null", "do not say when", fixed("extracted_at", None), family="missing provenance"),
        of("generator_unstated", "do not say who wrote them", fixed("generator", "unstated"), ALL,
           family="missing provenance", why_not="a source may not say; 'unstated' is an answer"),
    ]  # fmt: skip
    identity = [
        of("row_id_null", "have no id", fixed("row_id", None), family="identity"),
        of("row_id_short", "have half an id", cell("row_id", lambda value, _: value[:8]), family="identity"),
        of("row_id_twice", "have the id of another", shared("row_id"), family="identity"),
        of("row_id_admitted", "have the id of an admitted row", admitted("row_id"), family="identity"),
        of("row_no_null", "have no number", fixed("row_no", None), family="identity"),
        of("row_no_unleased", "have the number -1", fixed("row_no", -1), family="identity"),
        of("row_no_twice", "have the number of another", shared("row_no"), family="identity"),
        of("row_no_admitted", "have the number of an admitted row", admitted("row_no"), family="identity"),
    ]
    prompted = [
        of("prompt_and_version_swapped", "have prompt and version the wrong way round",
           swapped("prompt_name", "prompt_version"), 0.3, family="swapped columns"),
        of("prompt_version_of_next", "have the prompt version of the next row", shifted("prompt_version"),
           0.3, family="shifted", why_not="a valid version of a valid prompt; only the source knows better"),
    ] if table != "documents" else []  # fmt: skip
    source = [
        of("span_lost", "have 'unstated' for a span", fixed("source_span", "unstated"), family="spans"),
        of("span_malformed", "have a span of lines", fixed("source_span", "12-40"), family="spans"),
        of("span_reversed", "have a span that ends before it begins", fixed("source_span", "bytes:900-400"),
           family="spans"),
        of("span_empty", "have a span of no bytes", fixed("source_span", "bytes:400-400"), family="spans"),
        of("span_admitted", "were read from where an admitted row was", reread, family="spans"),
        of("span_all_one", "have all the same span", fixed("source_span", "bytes:0-400"), ALL, family="spans",
           why_not="one record may give several rows: a conversation of turns, a section cut in parts"),
        of("revision_is_path", "name a path in place of a content", fixed("source_revision", "/logs/x.jsonl"),
           family="source"),
        of("revision_is_date", "name a day in place of a content", fixed("source_revision", "2026-01-05"),
           family="source"),
        of("uri_and_revision_swapped", "have source and revision the wrong way round",
           swapped("source_uri", "source_revision"), family="swapped columns"),
        of("code_is_branch", "name a branch in place of a code", fixed("code_revision", "main"),
           family="source"),
        of("step_and_revision_swapped", "have step and revision the wrong way round",
           swapped("step", "step_revision"), family="swapped columns"),
        *prompted,
        of("generator_and_revision_swapped", "have generator and revision the wrong way round",
           swapped("generator", "generator_revision"), 0.3, family="swapped columns",
           why_not="both are names that only their owner knows"),
    ]  # fmt: skip
    judged = [
        of("score_above_1", "are scored from 0 to 100",
           cell("score", lambda v, _: 87.0), family="scores"),
        of("score_negative", "have a score below 0", fixed("score", -0.5), family="scores"),
        of("score_nan", "have no number for a score", fixed("score", float("nan")), family="scores"),
        of("score_infinite", "have an endless score", fixed("score", float("inf")), family="scores"),
        of("threshold_above_1", "are held against 50", fixed("threshold", 50.0), family="scores"),
        of("scorer_without_score", "name a judge without a judgement", judge_alone, family="scores"),
        of("score_without_scorer", "have a judgement without a judge", judgement_alone, family="scores"),
        of("review_unknown", "have a review that is no word of ours", fixed("review", "maybe"),
           family="values"),
        of("review_by_nobody", "were approved by nobody", fixed("review", "approved"), family="values"),
        of("derivation_unknown", "were derived in an unknown way", fixed("derivation", "copied"),
           family="values"),
    ]  # fmt: skip
    times = [
        of("stale", "were extracted two and a half years ago", cell("extracted_at", lambda v, _: v - _OLD),
           ALL, family="freshness"),
        of("from_the_future", "will be extracted next year", cell("extracted_at", lambda v, _: v + _AHEAD),
           ALL, family="freshness"),
        of("before_unix", "were extracted in 1970", fixed("extracted_at", _EPOCH), family="freshness"),
        of("two_runs", "name another run than the rest", fixed("run_id", "another-run-1"), 0.3,
           family="source", why_not="the gate reads the rows of one run: others are not in the batch"),
    ]  # fmt: skip
    return (*lost, *unsaid, *identity, *source, *judged, *times)


def parents(table: str) -> tuple[Corruption, ...]:
    """What can be wrong with what a row was derived from."""

    def of(kind: str, does: str, plant: Plant, rate: float = 0.05) -> Corruption:
        return Corruption(f"{table}.{kind}", "parents", does, plant, rate)

    return (
        of("parents_lost", "were derived from nothing", orphaned),
        of("parents_null", "have no list of parents", fixed("parents", None)),
        of("parents_unknown", "name a parent that is not stored", fixed("parents", [b"\xff" * 16])),
        of("parents_twice", "name a parent twice", twice),
        of("parent_nos_lost", "have parents without numbers", fixed("parent_nos", [])),
        of("parent_nos_of_next", "have the numbers of the next row's parents", shifted("parent_nos"), 0.3),
        of("own_parent", "are their own parents", own_parent),
        of("derived_says_source", "say that they were read, and have parents", fixed("derivation", "source")),
    )


def shared(name: str) -> Plant:
    """The rows that are hit all have the value of the first of them, or of its neighbour."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        values = sample.batch[name].to_pylist()
        first = values[places[0] - 1]
        for place in places:
            values[place] = first
        return put(sample.batch, name, values)

    return plant


def admitted(name: str) -> Plant:
    """The rows that are hit have values of admitted rows of their table."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        known = sample.admitted[sample.table][name].to_pylist() if sample.table in sample.admitted else []
        values = sample.batch[name].to_pylist()
        for place, value in zip(places, known, strict=False):
            values[place] = value
        return put(sample.batch, name, values)

    return plant


def reread(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """Source, revision and span of admitted rows."""
    rows = sample.batch
    stored = sample.admitted.get(sample.table)
    for name in ("source_uri", "source_revision", "source_span", "derivation"):
        known = stored[name].to_pylist() if stored is not None else []
        values = rows[name].to_pylist()
        for place, value in zip(places, known, strict=False):
            values[place] = value
        rows = put(rows, name, values)
    return rows


def judge_alone(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """A scorer, and no score."""
    named = fixed("scorer", "judge")(sample, places, rng)
    return fixed("score", None)(Sample(sample.table, named, sample.admitted), places, rng)


def judgement_alone(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """A score, and no scorer."""
    scored = fixed("score", 0.9)(sample, places, rng)
    return fixed("scorer", "unstated")(Sample(sample.table, scored, sample.admitted), places, rng)


def orphaned(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """No parents, no numbers of any, and still derived."""
    alone = fixed("parents", [])(sample, places, rng)
    return fixed("parent_nos", [])(Sample(sample.table, alone, sample.admitted), places, rng)


def twice(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """Each parent two times, with its number."""
    rows = sample.batch
    for name in ("parents", "parent_nos"):
        double = cell(name, lambda value, _: [*value, *value])
        rows = double(Sample(sample.table, rows, sample.admitted), places, rng)
    return rows


def own_parent(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """The row's own id and number among its parents'."""
    rows = sample.batch
    for name, of in (("parents", "row_id"), ("parent_nos", "row_no")):
        values: list[Any] = rows[name].to_pylist()
        for place in places:
            values[place] = [rows[of][place].as_py()]
        rows = put(rows, name, values)
    return rows
