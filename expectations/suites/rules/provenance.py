"""What every row must say about itself: the rules that traces, documents and examples share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites.provenance import FOUNDED, REVIEWS, STRINGS
from expectations.suites.suite import told
from lineage.rows import ID_BYTES
from lineage.schemas import MIXED

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

DERIVATIONS = ("source", "joint", "alternative")
# A digest with or without the name of its algorithm, a git commit, or a table version.
REVISION = rf"^(?:{MIXED}|(?:[a-z0-9]+:)?[0-9a-f]{{16,128}}|[a-z_]+@\d+)$"
CODE_REVISION = r"^sha256:[0-9a-f]{32,64}$"


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The shared rules, in the order in which a report shows them."""
    import great_expectations.expectations as gxe

    from expectations.custom import ExpectColumnValuesToHold, ExpectProvenanceToBeComplete

    return [
        batch_not_empty(thresholds),
        ExpectProvenanceToBeComplete(
            column_list=list(STRINGS),
            **told(
                "provenance_complete",
                "every provenance column says something, if only 'unstated'",
                why="a row that cannot say where it came from cannot be recalled",
                cites="C2",
            ),
        ),
        no_column_empty(),
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
            column="parents_are_admitted",
            **told(
                "parents_admitted",
                "every parent, by id and number, is an admitted row; of a merged row at least one is",
                why="a row that stands on what no gate passed cannot be traced, nor recalled with it",
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
            column="judged_score",
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
            column="origin_is_stated",
            **told(
                "origin_stated",
                "a row says its source, its run and the step that made it; 'unstated' does not do",
                why="whoever stamps a row knows them",
                cites="C2",
            ),
        ),
        ExpectColumnValuesToHold(
            column="step_is_named",
            **told(
                "step_named",
                "step is a name and step_revision begins with a number",
                why="rows of a broken step are found by them",
                cites="C2",
            ),
        ),
        ExpectColumnValuesToHold(
            column="extracted_lately",
            **told(
                "extracted_lately",
                f"a row was extracted after {FOUNDED:%Y}",
                why="a clock that was never set orders nothing",
                cites="C2",
            ),
        ),
        ExpectColumnValuesToHold(
            column="reviewer_is_named",
            **told(
                "reviewer_named",
                "a row that was reviewed names who did",
                why="a person's word binds, so it is somebody's",
                cites="C2",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="threshold",
            min_value=0,
            max_value=1,
            **told(
                "threshold_in_range",
                "a threshold lies in [0, 1]",
                why="no score of ours reaches another, or each does",
                cites="C7",
            ),
        ),
        ExpectColumnValuesToHold(
            column="score_has_scorer",
            **told(
                "score_has_scorer",
                "a row that has a score names who gave it",
                why="a scorer that turns out wrong is recalled by name",
                cites="C2, C7",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="numbers_are_finite",
            **told(
                "scores_finite",
                "a score and a threshold are finite numbers",
                why="nothing reaches NaN, and infinity reaches everything",
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


def batch_not_empty(thresholds: Thresholds, holds: str = "the batch holds") -> Expectation:
    """Of every table."""
    import great_expectations.expectations as gxe

    return gxe.ExpectTableRowCountToBeBetween(
        min_value=thresholds.min_rows,
        **told(
            "batch_not_empty",
            f"{holds} at least {thresholds.min_rows} row{'s' * (thresholds.min_rows > 1)}",
            why="every row rule passes an empty batch",
        ),
    )


def no_column_empty() -> Expectation:
    """Of every table; reads `empty_column`."""
    import great_expectations.expectations as gxe

    return gxe.ExpectColumnValuesToBeNull(
        column="empty_column",
        **told(
            "no_column_empty",
            "no column that must say something is null; the first that does is named",
            why="the other rules pass what is null: they are not about it",
        ),
    )
