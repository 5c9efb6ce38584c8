"""Traces as their rules see them: who asked what, what was answered, and how that was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from expectations.suites import noise, provenance, spread, talk
from expectations.suites.provenance import where
from expectations.suites.suite import Admitted
from lineage.schemas import NOT_APPLICABLE, REDACTED, TRACE, UNSTATED

if TYPE_CHECKING:
    import pandas as pd

CHAT_LOG = "chat_completions"  # the one format in which whoever judges has a place for all of it
VERSIONED = (CHAT_LOG, "langfuse", "mlflow")  # formats that name no prompt without its version
NO_ANSWER = "error"  # as finish_reason: the call failed, and nothing was lost


def keys(batch: pa.Table) -> pa.Table:
    """Those of provenance, and a hash of all that was asked and answered."""
    batch = provenance.filled(batch)
    answers = [pc.fill_null(batch[name], "") for name in ("response", "response_tool_calls")]
    said = pc.binary_join_element_wise(
        pa.chunked_array([talk.joined(batch["messages"])], pa.string()), *answers, "\x1d"
    )
    return provenance.keys(batch).append_column("exchange", spread.hashed(said))


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """What its provenance says of each trace, and whether one before it says the same."""
    known = provenance.facts(keys, admitted, spec=TRACE)
    return known.append_column("is_first_of_its_kind", spread.is_first(keys["exchange"]))


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per trace."""
    flat = provenance.view(batch, facts, spec=TRACE)
    flat["verdict"] = batch["verdict"].to_pandas()
    judged = flat["verdict"] != UNSTATED
    flat["judged"] = where(flat["verdict"], judged)
    reader = flat["step"].str.removesuffix(REDACTED)
    names_scorer = ~flat["scorer"].isin([UNSTATED, NOT_APPLICABLE])
    is_whole = judged & (reader == CHAT_LOG)  # asked for scorer and score at once, and so not for each
    flat["judgement_is_whole"] = where(names_scorer & flat["score"].notna(), is_whole)
    flat["score_has_scorer"] = where(flat["score_has_scorer"], ~is_whole)
    flat["scorer_gave_score"] = where(flat["score"].notna() | judged, names_scorer)
    # Plain SFT lines and logs with a field map of their own have no place for a prompt's version: not asked.
    named = ~flat["prompt_name"].isin([UNSTATED, NOT_APPLICABLE])
    can_state = (named & reader.isin(VERSIONED)) | ((reader == CHAT_LOG) & judged)
    flat["prompt_is_stated"] = where(~flat["prompt_version"].isin([UNSTATED, NOT_APPLICABLE, ""]), can_state)
    failed = (batch["finish_reason"].to_pandas() == NO_ANSWER).astype(bool)
    flat["is_answered"] = where(_said(batch["response"]) | _said(batch["response_tool_calls"]), ~failed)
    asked = pc.list_value_length(batch["messages"]).to_pandas() > 0
    flat["holds_nothing_personal"] = provenance.holds_nothing_personal(batch)
    for name in ("input_tokens", "output_tokens"):
        flat[name] = batch[name].to_pandas()
    for name, values in (
        noise.view("question", talk.last_of_user(batch["messages"]))
        | noise.view("response", batch["response"])
    ).items():
        flat[name] = values
    flat["is_asked_last"] = talk.is_asked_last(batch["messages"])
    corrects = pc.not_equal(batch["correction"], batch["response"]).to_pandas()
    flat["correction_corrects"] = where(
        corrects, flat["verdict"] != "pass"
    )  # a right answer may be the model's
    scored = flat["score"].notna() & flat["threshold"].notna() & judged
    agrees = (flat["verdict"] == "pass") == (flat["score"] >= flat["threshold"])
    flat["verdict_agrees"] = where(agrees, scored)
    for name in ("response_tool_calls", "extra"):
        flat[f"{name}_is_json"] = provenance.looks_like_json(batch[name])
    flat["roles_are_known"] = talk.roles_are_known(batch["messages"])
    flat["age_s"] = _age_s(batch)
    flat["is_asked"] = where(asked, asked | (batch["model_requested"].to_pandas() != UNSTATED))
    return flat


def _said(texts: pa.ChunkedArray) -> pd.Series:
    return pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(texts, "")), "").to_pandas()


def _age_s(batch: pa.Table) -> pd.Series:
    """Seconds from when it happened to when it was read; null where the source has no time."""
    return (batch["extracted_at"].to_pandas() - batch["happened_at"].to_pandas()).dt.total_seconds()
