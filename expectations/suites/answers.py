"""Whether an answer is one of its task: the other answer of a preference, spans of a text, calls of tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lineage.spans import SpanError, parse_spans

if TYPE_CHECKING:
    import pandas as pd


def calls_tools(batch: pa.Table) -> pd.Series:
    """Of each row whether it answers with tool calls, beside which words may be missing."""
    calls = pc.and_(pc.equal(batch["task"], "generation"), pc.is_valid(batch["answer_tool_calls"]))
    return pc.fill_null(calls, False).to_pandas()


def tool_calls_are_listed(batch: pa.Table) -> pd.Series:
    """Of each row with tool calls whether they are a JSON list of at least one; null of the others."""
    import pandas as pd

    calls = batch["answer_tool_calls"].to_pylist()
    return pd.Series([None if said is None else _is_list(said) for said in calls], dtype=object)


def rejected_fits_task(batch: pa.Table) -> pd.Series:
    """Of each row whether it has a rejected answer other than its own just where it is a preference."""
    answer, rejected = (pc.utf8_trim_whitespace(batch[name]) for name in ("answer", "rejected"))
    differs = pc.and_(pc.not_equal(rejected, ""), pc.not_equal(rejected, answer))
    is_pair = pc.fill_null(pc.equal(batch["task"], "preference"), False)
    return pc.if_else(is_pair, pc.fill_null(differs, False), pc.is_null(rejected)).to_pandas()


def spans_fit_text(batch: pa.Table) -> pd.Series:
    """Of each row of tagging whether its answer is a list of spans of its text; null of the others."""
    import pandas as pd

    found = pd.Series(None, index=range(batch.num_rows), dtype=object)
    tagged = np.flatnonzero(pc.fill_null(pc.equal(batch["task"], "tagging"), False).to_numpy())
    some = batch.select(["answer", "text"]).take(pa.array(tagged))
    said = zip(*(column.to_pylist() for column in some.columns), strict=True)
    found[tagged] = [_are_spans(answer or "", text or "") for answer, text in said]
    return found


def _is_list(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and bool(found)


def _are_spans(answer: str, text: str) -> bool:
    try:
        parse_spans(answer, text)
    except SpanError:
        return False
    return True
