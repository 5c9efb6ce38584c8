"""What a batch of traces must be to be learned from: wholly judged, and traceable to its prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from expectations.suites import provenance
from expectations.suites.suite import Admitted, told
from lineage.schemas import NOT_APPLICABLE, REDACTED, TRACE, UNSTATED

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

VERDICTS = ("pass", "fail", UNSTATED)
CHAT_LOG = "chat_completions"  # the one format in which whoever judges has a place for all of it
VERSIONED = (CHAT_LOG, "langfuse", "mlflow")  # formats that name no prompt without its version
NO_ANSWER = "error"  # as finish_reason: the call failed, and nothing was lost


def frame(batch: pa.Table, admitted: Admitted) -> pd.DataFrame:
    """One flat row per trace."""
    flat = provenance.frame(batch, admitted, spec=TRACE)
    flat["verdict"] = batch["verdict"].to_pandas()
    judged = flat["verdict"] != UNSTATED
    reader = flat["step"].str.removesuffix(REDACTED)
    names_scorer = ~flat["scorer"].isin([UNSTATED, NOT_APPLICABLE])
    flat["judgement_is_whole"] = _of(names_scorer & flat["score"].notna(), judged & (reader == CHAT_LOG))
    flat["scorer_gave_score"] = _of(flat["score"].notna() | judged, names_scorer)
    # Plain SFT lines and logs with a field map of their own have no place for a prompt's version: not asked.
    named = ~flat["prompt_name"].isin([UNSTATED, NOT_APPLICABLE])
    can_state = (named & reader.isin(VERSIONED)) | ((reader == CHAT_LOG) & judged)
    flat["prompt_is_stated"] = _of(~flat["prompt_version"].isin([UNSTATED, NOT_APPLICABLE, ""]), can_state)
    failed = (batch["finish_reason"].to_pandas() == NO_ANSWER).astype(bool)
    flat["is_answered"] = _of(_said(batch["response"]) | _said(batch["response_tool_calls"]), ~failed)
    asked = pc.list_value_length(batch["messages"]).to_pandas() > 0
    flat["is_asked"] = _of(asked, asked | (batch["model_requested"].to_pandas() != UNSTATED))
    return flat


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for traces."""
    import great_expectations.expectations as gxe

    from expectations.custom import ExpectColumnValuesToHold

    return [
        *provenance.rules(thresholds),
        gxe.ExpectColumnValuesToBeInSet(
            column="verdict",
            value_set=list(VERDICTS),
            **told(
                "verdict_known",
                f"verdict is one of {', '.join(VERDICTS)}",
                why="diagnosis splits traces into failed and passed",
                cites="E1",
            ),
        ),
        ExpectColumnValuesToHold(
            column="judgement_is_whole",
            **told(
                "judgement_whole",
                "a chat log's exchange with a verdict names its scorer and has a score",
                why="a scorer that turns out wrong is recalled by name; a verdict needs its measure",
                cites="C2, C7",
            ),
        ),
        ExpectColumnValuesToHold(
            column="prompt_is_stated",
            mostly=thresholds.min_prompt_stated,
            **told(
                "prompt_version_stated",
                f"of the rows whose format states versions at least {thresholds.min_prompt_stated:.0%} do",
                why="an exporter that lost the versions would make every bad prompt impossible to recall",
                cites="C2",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_answered",
            mostly=1 - thresholds.max_empty_responses,
            **told(
                "responses_not_empty",
                f"at most {thresholds.max_empty_responses:.0%} of the calls that did not fail have no answer",
                why="more than that and the exporter lost the answers, not the model",
                cites="D9",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_asked",
            mostly=1 - thresholds.max_empty_requests,
            **told(
                "messages_not_empty",
                f"at most {thresholds.max_empty_requests:.0%} of the logged requests have no message",
                why="an answer to nothing teaches nothing",
            ),
        ),
    ]


def _said(texts: pa.ChunkedArray) -> pd.Series:
    return pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(texts, "")), "").to_pandas()


def _of(holds: Any, concerned: Any) -> pd.Series:
    """The condition where the rule is about the row, else nothing."""
    return holds.astype(object).where(concerned, None)
