"""What every row must say about itself: the rules that traces, documents and examples share."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
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
_SPAN = re.compile(r"bytes:(\d+)-(\d+)|row:\d+")


def frame(batch: pa.Table, admitted: Admitted, *, spec: TableSpec) -> pd.DataFrame:
    """The provenance of each row, flat, and how it stands to the batch and to what is admitted."""
    columns: dict[str, Any] = {
        name: batch[name].to_pandas() for name in (*STRINGS, "row_no", "score", "threshold")
    }
    ids = batch["row_id"].to_pylist()
    parents, parent_nos = batch["parents"].to_pylist(), batch["parent_nos"].to_pylist()
    return _frame(
        columns
        | {
            "row_id": [row_id.hex() for row_id in ids],
            "row_id_is_new": _new(batch, "row_id", admitted, spec),
            "row_no_is_new": _new(batch, "row_no", admitted, spec),
            "parents_fit_derivation": [
                _parents_fit(*row) for row in zip(columns["derivation"], parents, parent_nos, strict=True)
            ],
            "span_is_well_formed": [_is_span(span) for span in columns["source_span"]],
            "span_is_new": _spans_new(batch, admitted, spec),
            "scorer_gave_score": [
                None if scorer in NOBODY else score is not None
                for scorer, score in zip(columns["scorer"], batch["score"].to_pylist(), strict=True)
            ],
            "measure": columns["score"].where(columns["threshold"].notna()),
        }
    )


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
        gxe.ExpectColumnValuesToBeUnique(
            column="row_id",
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
        gxe.ExpectColumnValuesToBeUnique(
            column="row_no",
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


def _frame(columns: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pd.Series(values, dtype=_dtype(values)) for name, values in columns.items()})


def _dtype(values: Any) -> Any:
    # Lists hold True, False, None and words: as objects None stays None, and an empty list has a type.
    return "object" if isinstance(values, list) else values.dtype


def _new(batch: pa.Table, name: str, admitted: Admitted, spec: TableSpec) -> list[bool]:
    values = batch[name].to_pylist()
    if not values:
        return []
    where = pads.field(name).isin(batch[name].combine_chunks())
    if name == "row_no":  # files are skipped by range, not by set
        where = (pads.field(name) >= min(values)) & (pads.field(name) <= max(values)) & where
    known = set(admitted(spec, [name], where)[name].to_pylist())
    return [value not in known for value in values]


def _spans_new(batch: pa.Table, admitted: Admitted, spec: TableSpec) -> list[bool | None]:
    revisions, spans = batch["source_revision"].to_pylist(), batch["source_span"].to_pylist()
    sources = [derivation == "source" for derivation in batch["derivation"].to_pylist()]
    named = Counter(revision for revision, source in zip(revisions, sources, strict=True) if source)
    known: set[tuple[str, str]] = set()
    if named:
        where = pads.field("source_revision").isin(sorted(named)) & (pads.field("derivation") == "source")
        stored = admitted(spec, ["source_revision", "source_span"], where)
        known = set(
            zip(stored["source_revision"].to_pylist(), stored["source_span"].to_pylist(), strict=True)
        )
    return [
        (revision, span) not in known if source else None
        for revision, span, source in zip(revisions, spans, sources, strict=True)
    ]


def _parents_fit(derivation: str, parents: list[bytes], parent_nos: list[int]) -> bool:
    if derivation == "source":
        return not parents and not parent_nos
    return bool(parents) and len(parents) == len(parent_nos) and len(set(parents)) == len(parents)


def _is_span(span: str) -> bool:
    match = _SPAN.fullmatch(span)
    return span == MIXED or (match is not None and (match[1] is None or int(match[1]) < int(match[2])))
