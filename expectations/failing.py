"""Which rows break one rule: all of them, where an evaluation of a whole suite names only twenty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expectations.gx import open_context, quiet

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

_RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": ["row_id"],
    "return_unexpected_index_query": False,
}


def failing(frame: pd.DataFrame, expectation: Expectation) -> list[str]:
    """The ids (hex) of the rows of a frame that break a rule, in its order; as often as rows have that id.

    None for a rule about the whole batch. The rule alone is evaluated, so ask only for those that failed.
    """
    with quiet():
        source = open_context().data_sources.add_pandas("lake").add_dataframe_asset("rows")
        batch = source.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
        result: dict[str, Any] = batch.validate(expectation, result_format=_RESULT_FORMAT).to_json_dict()
    return [str(row["row_id"]) for row in result["result"].get("unexpected_index_list") or ()]
