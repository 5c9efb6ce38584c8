"""What a batch of documents must be for rows to be generated from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites.rules import provenance, repeats, texts
from expectations.suites.suite import told

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

KINDS = ("markdown", "text", "code")


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for documents."""
    import great_expectations.expectations as gxe

    from expectations.custom import ExpectColumnValuesToHold

    return [
        *provenance.rules(thresholds),
        *texts.rules("text", thresholds, max_odd=thresholds.max_odd),
        gxe.ExpectColumnValuesToBeInSet(
            column="kind",
            value_set=list(KINDS),
            **told(
                "kind_known",
                f"kind is one of {', '.join(KINDS)}",
                why="generators choose their questions by it",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="text_characters",
            min_value=1,
            **told(
                "text_not_empty",
                "a document has text",
                why="a teacher asked about nothing makes something up",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_decoded",
            mostly=1 - thresholds.max_badly_decoded,
            **told(
                "texts_decoded",
                f"at most {thresholds.max_badly_decoded:.1%} of the texts show signs of bytes read in the "
                "wrong encoding",
                why="a teacher quotes what it reads",
                cites="D9",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_first_of_its_kind",
            mostly=1 - thresholds.max_repeated,
            **told(
                "few_repeated",
                f"at most {thresholds.max_repeated:.0%} of the documents have the text of one before them",
                why="what stands in many copies is asked about as often",
                cites="D9",
                severity="warning",
            ),
        ),
        repeats.few_near_duplicates(
            thresholds, "documents", why="what stands in many copies is asked about as often"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="text_words",
            min_value=thresholds.min_document_words,
            mostly=1 - thresholds.max_headings,
            **told(
                "documents_say_something",
                f"at most {thresholds.max_headings:.0%} of the documents have fewer than "
                f"{thresholds.min_document_words} words",
                why="a teacher asked about a heading makes something up",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="metadata_is_json",
            **told("metadata_json", "metadata is an object or a list of JSON", why="readers parse it"),
        ),
        ExpectColumnValuesToHold(
            column="holds_nothing_personal",
            mostly=1 - thresholds.max_personal,
            **told(
                "little_personal",
                f"at most {thresholds.max_personal:.0%} of the documents hold personal data or secrets",
                why="what a model was trained on it can be made to say",
                cites="C11",
                severity="warning",
            ),
        ),
    ]
