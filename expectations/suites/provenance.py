"""What every row says about itself, as the rules see it, and where it stands among the others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites.suite import Admitted
from lineage.columns import TIMESTAMP
from lineage.schemas import (
    DOCUMENT,
    EXAMPLE,
    MIXED,
    NOT_APPLICABLE,
    PROVENANCE,
    REDACTED,
    TRACE,
    UNSTATED,
    TableSpec,
)

if TYPE_CHECKING:
    import pandas as pd

STRINGS = tuple(column.name for column in PROVENANCE if pa.types.is_string(column.type))
REVIEWS = ("none", "approved", "rejected", "overridden", MIXED)
NOBODY = (UNSTATED, NOT_APPLICABLE, MIXED)  # no one in particular: as a scorer it implies no single score

_BYTES = r"^bytes:(?P<first>\d{1,18})-(?P<end>\d{1,18})$"
_ROW = r"^row:\d+$"
FOUNDED = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)  # no row of ours is older
_ROW_TABLES = (TRACE, DOCUMENT, EXAMPLE)  # rows are derived from these


def keys(batch: pa.Table) -> pa.Table:
    """Of each row its id, its number, its source, and its place if it was read from there."""
    is_source = pc.equal(batch["derivation"], "source")
    return pa.table(
        {
            "row_id": batch["row_id"],
            "row_no": batch["row_no"],
            "source_revision": pc.dictionary_encode(batch["source_revision"]),
            "source_span": pc.if_else(is_source, batch["source_span"], pa.scalar(None, pa.string())),
            "any_suffices": pc.equal(batch["derivation"], "alternative"),
            "parents": batch["parents"],
            "parent_nos": batch["parent_nos"],
        }
    )


def facts(keys: pa.Table, admitted: Admitted, *, spec: TableSpec) -> pa.Table:
    """How each row stands to the others of its batch, and to what is admitted."""
    return pa.table(
        {
            "row_id_is_unique": occurs_once(keys["row_id"]),
            "row_id_is_new": _is_new(keys, "row_id", admitted, spec),
            "row_no_is_unique": occurs_once(keys["row_no"]),
            "row_no_is_new": _is_new(keys, "row_no", admitted, spec),
            "span_is_new": _span_is_new(keys, admitted, spec),
            "parents_are_admitted": _parents_are_admitted(keys, admitted),
        }
    )


def view(batch: pa.Table, facts: pa.Table, *, spec: TableSpec) -> pd.DataFrame:
    """The provenance of each row, flat, beside what is known of it."""
    import pandas as pd

    columns: dict[str, Any] = {
        name: batch[name].to_pandas() for name in (*STRINGS, "row_no", "score", "threshold")
    }
    columns |= {name: facts[name].to_pandas() for name in facts.column_names}
    columns |= {
        "row_id": hexed(batch["row_id"]),
        "parents_fit_derivation": _parents_fit(batch),
        "span_is_well_formed": _is_span(batch["source_span"]).to_pandas(),
        "scorer_gave_score": where(columns["score"].notna(), ~columns["scorer"].isin(NOBODY)),
        "judged_score": columns["score"].where(columns["threshold"].notna()),
        "empty_column": empty_column(batch, spec),
        "origin_is_stated": _is_stated(columns, ("source_uri", "run_id", "step", "step_revision")),
        "step_is_named": _matches(batch["step"], r"[A-Za-z]{2}") & _matches(batch["step_revision"], r"^\d"),
        "reviewer_is_named": where(
            ~columns["reviewer"].isin((UNSTATED, NOT_APPLICABLE)), columns["review"].isin(REVIEWS[1:4])
        ),
        "score_has_scorer": where(~columns["scorer"].isin(NOBODY[:2]), columns["score"].notna()),
        "extracted_lately": pc.greater(batch["extracted_at"], pa.scalar(FOUNDED, TIMESTAMP)).to_pandas(),
        "numbers_are_finite": are_finite(batch, ("score", "threshold")),
    }
    return pd.DataFrame(columns)


def occurs_once(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of each value whether no other equals it; null for nulls."""
    counts = pc.value_counts(values.combine_chunks())
    often = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return _unless_in(values, often)


def hexed(ids: pa.ChunkedArray) -> pd.Series:
    """Ids as people read them."""
    import pandas as pd

    return pd.Series([(row_id or b"").hex() for row_id in ids.to_pylist()], dtype=object)


def empty_column(batch: pa.Table, spec: TableSpec) -> pd.Series:
    """Of each row the first column that is null although it must not be; null where there is none."""
    import pandas as pd

    found = pd.Series(None, index=range(batch.num_rows), dtype=object)
    for column in reversed(spec.columns):
        if not column.nullable and batch[column.name].null_count:
            found[pc.is_null(batch[column.name]).to_numpy()] = column.name
    return found


def looks_like_json(texts: pa.ChunkedArray) -> pd.Series:
    """Of each text whether it begins and ends as an object or a list does; null of a null."""
    whole = pc.match_substring_regex(texts, r"^\s*(?:\{(?s:.*)\}|\[(?s:.*)\])\s*$")
    return whole.to_pandas()


def holds_nothing_personal(batch: pa.Table) -> pd.Series:
    """Of each row whether nothing personal was found in it, or pseudonyms stand in its place."""
    redacted = pc.fill_null(pc.ends_with(batch["step"], REDACTED), False)
    return pc.or_(pc.is_null(batch["pii"]), redacted).to_pandas()


def filled(batch: pa.Table) -> pa.Table:
    """The rows with empty texts and lists for nulls: what is computed of a row must not die of them."""
    for at, field in enumerate(batch.schema):
        if not batch[field.name].null_count:
            continue
        if pa.types.is_string(field.type):
            batch = batch.set_column(at, field, pc.fill_null(batch[field.name], ""))
        elif pa.types.is_list(field.type):
            values = [value or [] for value in batch[field.name].to_pylist()]
            batch = batch.set_column(at, field, pa.array(values, field.type))
    return batch


def measure(number: float | None, rows: int) -> pa.Array:
    """A number of the whole batch as a column: in its first row, null in the others."""
    told = [] if number is None or not rows else [number]
    return pa.concat_arrays([pa.array(told, pa.float64()), pa.nulls(rows - len(told), pa.float64())])


def parents_of(keys: pa.Table) -> tuple[pa.Array, pa.Array, np.ndarray]:
    """(ids, numbers, place of the row) of all parents; of rows that name as many ids as numbers."""
    lists, numbers = keys["parents"].combine_chunks(), keys["parent_nos"].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(False)
    fits = counts == pc.fill_null(pc.list_value_length(numbers), 0).to_numpy(False)
    chosen = pa.array(fits)
    rows = np.repeat(np.flatnonzero(fits), counts[fits])
    return pc.list_flatten(lists.filter(chosen)), pc.list_flatten(numbers.filter(chosen)), rows


def numbered(numbers: pa.Array) -> pads.Expression:
    """That a row has one of these numbers; files are skipped by range, not by set."""
    ends = pc.min_max(numbers)
    condition = (pads.field("row_no") >= ends["min"]) & (pads.field("row_no") <= ends["max"])
    if ends["max"].as_py() - ends["min"].as_py() < 2 * len(numbers):  # few others: nothing to be told apart
        return condition
    return condition & pads.field("row_no").isin(numbers)


def where(holds: Any, concerned: Any) -> pd.Series:
    """The condition where the rule is about the row, else nothing."""
    return holds.astype(object).where(concerned, None)


def _unless_in(values: pa.ChunkedArray, known: pa.Array) -> pa.ChunkedArray:
    """Whether a value is none of these; null for nulls."""
    absent = pc.invert(pc.is_in(values, value_set=known))
    return pc.if_else(pc.is_valid(values), absent, pa.scalar(None, pa.bool_()))


def _is_new(keys: pa.Table, name: str, admitted: Admitted, spec: TableSpec) -> pa.ChunkedArray:
    values = keys[name].combine_chunks()
    if not len(values):
        return pa.chunked_array([], pa.bool_())
    if name == "row_no":
        values = values.drop_null()
    condition = numbered(values) if name == "row_no" and len(values) else pads.field(name).isin(values)
    return _unless_in(keys[name], admitted(spec, [name], condition)[name].combine_chunks())


def _span_is_new(keys: pa.Table, admitted: Admitted, spec: TableSpec) -> pa.ChunkedArray:
    spans, revisions = keys["source_span"], keys["source_revision"].cast(pa.string())
    read = revisions.filter(pc.is_valid(spans)).unique()
    condition = pads.field("source_revision").isin(read) & (pads.field("derivation") == "source")
    stored = admitted(spec, ["source_revision", "source_span"], condition) if len(read) else None
    if stored is None or not stored.num_rows:
        return pc.if_else(pc.is_valid(spans), True, pa.scalar(None, pa.bool_()))
    known = pc.binary_join_element_wise(stored["source_revision"], stored["source_span"], " ")
    return _unless_in(pc.binary_join_element_wise(revisions, spans, " "), known.combine_chunks())


def _parents_are_admitted(keys: pa.Table, admitted: Admitted) -> pa.Array:
    """Null of rows without parents. Numbers are unique in the lake, so one table holds each of them."""
    ids, numbers, rows = parents_of(keys)
    named = pc.fill_null(pc.list_value_length(keys["parents"].combine_chunks()), 0).to_numpy(False) > 0
    missing = np.ones(len(ids), np.bool_)
    for spec in _ROW_TABLES:
        if not missing.any():
            break
        left = pa.array(missing)
        stored = admitted(spec, ["row_id", "row_no"], numbered(numbers.filter(left).unique()))
        at = pc.index_in(numbers, value_set=stored["row_no"].combine_chunks())
        same = pc.equal(stored["row_id"].combine_chunks().take(at), ids)
        missing &= ~pc.fill_null(same, False).to_numpy(False)
    found, wanted = np.bincount(rows[~missing], minlength=len(named)), np.bincount(rows, minlength=len(named))
    suffices = pc.fill_null(keys["any_suffices"], False).to_numpy()
    # A merged row outlives the recall of one of its parents; it cannot outlive all of them.
    holds = np.where(suffices, found > 0, (found == wanted) & (wanted > 0))
    return pc.if_else(pa.array(named), pa.array(holds), pa.scalar(None, pa.bool_()))


def are_finite(batch: pa.Table, names: Sequence[str]) -> pd.Series:
    """Of each row whether these columns hold neither NaN nor infinity; null where all of them are null."""
    finite = np.ones(batch.num_rows, np.bool_)
    for name in names:
        finite &= pc.fill_null(pc.is_finite(batch[name]), True).to_numpy()
    stated = np.any([pc.is_valid(batch[name]).to_numpy() for name in names], axis=0)
    return where(_series(finite), _series(stated))


def _series(values: np.ndarray) -> pd.Series:
    import pandas as pd

    return pd.Series(values)


def _is_stated(columns: dict[str, Any], names: Sequence[str]) -> pd.Series:
    return ~np.logical_or.reduce([columns[name].isin((UNSTATED, NOT_APPLICABLE)) for name in names])


def _matches(values: pa.ChunkedArray, pattern: str) -> pd.Series:
    return pc.fill_null(pc.match_substring_regex(values, pattern), False).to_pandas()


def _parents_fit(batch: pa.Table) -> np.ndarray:
    """A source row has no parents; a derived row has some, each once, with their numbers."""
    is_source = pc.equal(batch["derivation"], "source").to_numpy()
    parents, numbers = (pc.list_value_length(batch[name]).to_numpy() for name in ("parents", "parent_nos"))
    fits = np.where(is_source, (parents == 0) & (numbers == 0), (parents > 0) & (parents == numbers))
    several = np.flatnonzero(fits & (parents > 1))
    for at, mine in zip(several, batch["parents"].take(pa.array(several)).to_pylist(), strict=True):
        fits[at] = len(set(mine)) == len(mine)
    return fits


def _is_span(spans: pa.ChunkedArray) -> pa.ChunkedArray:
    cut = pc.extract_regex(spans, _BYTES)
    first, end = (pc.struct_field(cut, name).cast(pa.int64()) for name in ("first", "end"))
    is_row = pc.match_substring_regex(spans, _ROW)
    return pc.or_(pc.or_(pc.equal(spans, MIXED), is_row), pc.fill_null(pc.less(first, end), False))
