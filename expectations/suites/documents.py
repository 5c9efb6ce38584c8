"""Documents as their rules see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from expectations.suites import likeness, noise, provenance, spread
from expectations.suites.suite import Admitted
from lineage.schemas import DOCUMENT

if TYPE_CHECKING:
    import pandas as pd

_FAIR = ("markup", "html", "notification")  # Markdown and code hold them by right


def keys(batch: pa.Table) -> pa.Table:
    """Those of provenance, and a hash of the text."""
    batch = provenance.filled(batch)
    made = provenance.keys(batch).append_column("content", spread.hashed(batch["text"]))
    return made.append_column(
        "signature", likeness.as_column(likeness.signatures(likeness.words(batch["text"])))
    )


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """What its provenance says of each document, and whether one before it has the same text."""
    known = provenance.facts(keys, admitted, spec=DOCUMENT)
    signed = likeness.from_column(keys["signature"])
    near = likeness.nearest(signed, np.zeros(keys.num_rows, np.int64), within=True)
    known = known.append_column("repeats_row_before", pa.array(near))
    return known.append_column("is_first_of_its_kind", spread.is_first(keys["content"]))


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per document."""
    flat = provenance.view(batch, facts, spec=DOCUMENT)
    flat["holds_nothing_personal"] = provenance.holds_nothing_personal(batch)
    flat["is_decoded"] = noise.is_decoded(batch["text"]).to_pandas()
    flat = flat.assign(**noise.view("text", batch["text"], but=_FAIR))
    flat["metadata_is_json"] = provenance.looks_like_json(batch["metadata"])
    flat["kind"] = batch["kind"].to_pandas()
    flat["text_characters"] = pc.utf8_length(pc.utf8_trim_whitespace(batch["text"])).to_pandas()
    return flat
