"""What every row must say about itself: the rules that traces, documents and examples share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites.suite import Admitted, told
from lineage.rows import ID_BYTES
from lineage.schemas import MIXED, NOT_APPLICABLE, PROVENANCE, UNSTATED, TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

STRINGS = tuple(column.name for column in PROVENANCE if pa.types.is_string(column.type))
DERIVATIONS = ("source", "joint", "alternative")
REVIEWS = ("none", "approved", "rejected", "overridden", MIXED)
NOBODY = (UNSTATED, NOT_APPLICABLE, MIXED)  # no one in particular: as a scorer it implies no single score

# A digest with or without the name of its algorithm, a git commit, or a table version.
REVISION = rf"^(?:{MIXED}|(?:[a-z0-9]+:)?[0-9a-f]{{16,128}}|[a-z_]+@\d+)$"
CODE_REVISION = r"^sha256:[0-9a-f]{32,64}$"
_BYTES = r"^bytes:(?P<first>\d{1,18})-(?P<end>\d{1,18})$"
_ROW = r"^row:\d+$"


def keys(batch: pa.Table) -> pa.Table:
    """Of each row its id, its number, its source, and its place if it was read from there."""
    is_source = pc.equal(batch["derivation"], "source")
    return pa.table(
        {
            "row_id": batch["row_id"],
            "row_no": batch["row_no"],
            "source_revision": pc.dictionary_encode(batch["source_revision"]),
            "source_span": pc.if_else(is_source, batch["source_span"], pa.scalar(None, pa.string())),
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
        }
    )


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
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
        "measure": columns["score"].where(columns["threshold"].notna()),
    }
    return pd.DataFrame(columns)


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The shared rules, in the order in which a report shows them."""
    import great_expectations.expectations as gxe

    from expectations.custom import ExpectColumnValuesToHold, ExpectProvenanceToBeComplete

    return [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=thresholds.min_rows,
            **told(
                "batch_not_empty",
                f"the batch holds at least {thresholds.min_rows} row{'s' * (thresholds.min_rows > 1)}",
                why="every row rule passes an empty batch",
            ),
        ),
        ExpectProvenanceToBeComplete(
            column_list=list(STRINGS),
            **told(
                "provenance_complete",
                "every provenance column says something, if only 'unstated'",
                why="a row that cannot say where it came from cannot be recalled",
                cites="C2",
            ),
        ),
        gxe.ExpectColumnValueLengthsToEqual(
            column="row_id",
            value=2 * ID_BYTES,
            **told(
                "row_id_has_16_bytes",
                f"row_id has {ID_BYTES} bytes",
                why="identity has one form in all tables",
            ),
        ),
        ExpectColumnValuesToHold(
            column="row_id_is_unique",
            **told(
                "row_id_unique",
                "no row_id occurs twice in the batch",
                why="a retry must not store a row twice",
            ),
        ),
        ExpectColumnValuesToHold(
            column="row_id_is_new",
            **told("row_id_new", "no row_id is admitted already", why="the same row would count twice"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="row_no",
            min_value=0,
            **told("row_no_leased", "row_no is 0 or more", why="-1 means that the number was never leased"),
        ),
        ExpectColumnValuesToHold(
            column="row_no_is_unique",
            **told(
                "row_no_unique",
                "no row_no occurs twice in the batch",
                why="edges and ledgers name rows by number",
            ),
        ),
        ExpectColumnValuesToHold(
            column="row_no_is_new",
            **told(
                "row_no_new", "no row_no is admitted already", why="edges and ledgers name rows by number"
            ),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="derivation",
            value_set=list(DERIVATIONS),
            **told(
                "derivation_known",
                f"derivation is one of {', '.join(DERIVATIONS)}",
                why="recall asks whether all parents were needed or any one sufficed",
            ),
        ),
        ExpectColumnValuesToHold(
            column="parents_fit_derivation",
            **told(
                "parents_fit_derivation",
                "a source row has no parents; a derived row has some, each once, with their numbers",
                why="the graph of rows is walked along these edges",
                cites="C2, C3",
            ),
        ),
        ExpectColumnValuesToHold(
            column="span_is_well_formed",
            **told(
                "source_span_well_formed",
                f"source_span is bytes:A-B with A < B, of a Parquet file row:N, or '{MIXED}'",
                why="a span that cannot be cut out of its source shows nobody the evidence",
                cites="C2",
            ),
        ),
        ExpectColumnValuesToHold(
            column="span_is_new",
            **told(
                "source_span_new",
                "no source row was read from a span that an admitted row was read from",
                why="no source span is stored twice in the lake: its rows would count twice",
            ),
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="source_revision",
            regex=REVISION,
            **told(
                "source_revision_is_digest",
                f"source_revision is a digest, a commit, a table version, or '{MIXED}'",
                why="a path or a date names no content, and so nothing that could be recalled",
                cites="C2",
            ),
        ),
        gxe.ExpectColumnValuesToMatchRegex(
            column="code_revision",
            regex=CODE_REVISION,
            **told(
                "code_revision_is_digest",
                "code_revision is sha256: and a digest",
                why="a row made by broken code is found by it",
                cites="C2",
            ),
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="review",
            value_set=list(REVIEWS),
            **told(
                "review_known",
                f"review is one of {', '.join(REVIEWS)}",
                why="a person's word binds",
                cites="C2",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="measure",
            min_value=0,
            max_value=1,
            **told(
                "score_in_range",
                "a score that is held against a threshold lies in [0, 1]",
                why="scores of all scorers are compared",
                cites="C7",
            ),
        ),
        ExpectColumnValuesToHold(
            column="scorer_gave_score",
            **told(
                "scorer_gave_score",
                "a row that names its scorer has a score, or of a trace a verdict",
                why="a judge without a judgement is a lost judgement",
                cites="C2",
            ),
        ),
    ]


def occurs_once(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of each value whether no other equals it; null for nulls."""
    counts = pc.value_counts(values.combine_chunks())
    often = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return _unless_in(values, often)


def hexed(ids: pa.ChunkedArray) -> pd.Series:
    """Ids as people read them."""
    import pandas as pd

    return pd.Series([row_id.hex() for row_id in ids.to_pylist()], dtype=object)


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
    condition = pads.field(name).isin(values)
    if name == "row_no":  # files are skipped by range, not by set
        ends = pc.min_max(values)
        condition = (pads.field(name) >= ends["min"]) & (pads.field(name) <= ends["max"]) & condition
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
