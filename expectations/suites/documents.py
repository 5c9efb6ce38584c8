"""What a batch of documents must be for rows to be generated from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from expectations.suites import provenance
from expectations.suites.suite import Admitted, told
from lineage.schemas import DOCUMENT

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

KINDS = ("markdown", "text", "code")


keys = provenance.keys


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """What its provenance says of each document."""
    return provenance.facts(keys, admitted, spec=DOCUMENT)


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per document."""
    flat = provenance.view(batch, facts)
    flat["kind"] = batch["kind"].to_pandas()
    flat["text_characters"] = pc.utf8_length(pc.utf8_trim_whitespace(batch["text"])).to_pandas()
    return flat


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for documents."""
    import great_expectations.expectations as gxe

    return [
        *provenance.rules(thresholds),
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
    ]
