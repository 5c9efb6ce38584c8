"""What a batch of traces must be to be learned from: wholly judged, and traceable to its prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from expectations.suites import provenance, spread, talk, texts
from expectations.suites.provenance import where
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
        texts.view("question", talk.last_of_user(batch["messages"]))
        | texts.view("response", batch["response"])
    ).items():
        flat[name] = values
    flat["is_asked_last"] = talk.is_asked_last(batch["messages"])
    flat["correction_corrects"] = pc.not_equal(batch["correction"], batch["response"]).to_pandas()
    scored = flat["score"].notna() & flat["threshold"].notna() & judged
    agrees = (flat["verdict"] == "pass") == (flat["score"] >= flat["threshold"])
    flat["verdict_agrees"] = where(agrees, scored)
    for name in ("response_tool_calls", "extra"):
        flat[f"{name}_is_json"] = provenance.looks_like_json(batch[name])
    flat["roles_are_known"] = talk.roles_are_known(batch["messages"])
    flat["age_s"] = _age_s(batch)
    flat["is_asked"] = where(asked, asked | (batch["model_requested"].to_pandas() != UNSTATED))
    return flat


def rules(thresholds: Thresholds) -> list[Expectation]:
    """The rules for traces."""
    import great_expectations.expectations as gxe

    from expectations.custom import ExpectColumnValuesToHold, ExpectShareOfValueToBeBetween

    fewest, most = thresholds.pass_share
    return [
        *provenance.rules(thresholds),
        *texts.rules("question", thresholds, max_odd=thresholds.max_odd),
        *texts.rules("response", thresholds, max_odd=thresholds.max_odd, is_of_one_kind=False),
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
        ExpectColumnValuesToHold(
            column="roles_are_known",
            **told(
                "roles_known",
                f"every message is of a role that is one of {', '.join(talk.ROLES)}",
                why="chat templates know no others; a log may, and examples are refused for it",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_asked_last",
            mostly=1 - thresholds.max_repeating,
            **told(
                "asked_last",
                f"in at most {thresholds.max_repeating:.0%} of the rows the last message is the model's own",
                why="roles exchanged, or the answer among what was asked",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="verdict_agrees",
            mostly=thresholds.min_agreeing_verdicts,
            **told(
                "verdicts_agree_with_scores",
                f"{thresholds.min_agreeing_verdicts:.0%} of the verdicts with score and threshold are pass "
                "where the score reaches it, else fail",
                why="columns exchanged, or a judge that does not keep to its own measure",
                cites="C7",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="correction_corrects",
            **told(
                "corrections_correct",
                "a correction is not what was answered",
                why="a failure corrected to itself teaches the failure",
                cites="D10",
                severity="warning",
            ),
        ),
        *(
            ExpectColumnValuesToHold(
                column=f"{name}_is_json",
                **told(f"{name}_json", f"{name} is an object or a list of JSON", why="readers parse it"),
            )
            for name in ("response_tool_calls", "extra")
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=name,
                min_value=0,
                max_value=thresholds.max_tokens,
                **told(
                    f"{name}_counted",
                    f"{name} is 0 to {thresholds.max_tokens:,}",
                    why="nobody is charged less than nothing, and no model reads more",
                ),
            )
            for name in ("input_tokens", "output_tokens")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="age_s",
            min_value=-thresholds.clock_slack_s,
            **told(
                "happened_before_read",
                f"a trace happened before it was read, or at most {thresholds.clock_slack_s:,} s after",
                why="windows of time are cut by it; a clock of somebody else's is wrong",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="age_s",
            max_value=thresholds.max_age_days * 86_400,
            mostly=thresholds.min_fresh,
            **told(
                "traces_fresh",
                f"{thresholds.min_fresh:.0%} of the traces with a time happened at most "
                f"{thresholds.max_age_days} days before they were read",
                why="what users ask moves on, and a model is trained for what they ask now",
                severity="warning",
            ),
        ),
        ExpectShareOfValueToBeBetween(
            column="judged",
            value="pass",
            min_share=fewest,
            max_share=most,
            min_rows=thresholds.least_rows_of_share,
            **told(
                "verdicts_balanced",
                f"{fewest:.0%} to {most:.0%} of the judged traces passed, where "
                f"{thresholds.least_rows_of_share} were judged",
                why="a judge who says the same of everything tells nothing",
                cites="E1",
                severity="warning",
            ),
        ),
        ExpectShareOfValueToBeBetween(
            column="verdict",
            value=UNSTATED,
            max_share=thresholds.max_unjudged,
            min_rows=thresholds.least_rows_of_share,
            or_all=True,
            **told(
                "mostly_judged",
                f"where some of the traces are judged at most {thresholds.max_unjudged:.0%} are not",
                why="what nobody judged may be chosen: passes alone, or one hour of the day",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="is_first_of_its_kind",
            mostly=1 - thresholds.max_repeated,
            **told(
                "few_repeated",
                f"at most {thresholds.max_repeated:.0%} of the traces repeat one before them word for word",
                why="a retry is no second opinion",
                cites="D9",
                severity="warning",
            ),
        ),
        ExpectColumnValuesToHold(
            column="holds_nothing_personal",
            mostly=1 - thresholds.max_personal,
            **told(
                "little_personal",
                f"at most {thresholds.max_personal:.0%} of the traces hold personal data or secrets",
                why="what a model was trained on it can be made to say",
                cites="C11",
                severity="warning",
            ),
        ),
    ]


def _said(texts: pa.ChunkedArray) -> pd.Series:
    return pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(texts, "")), "").to_pandas()


def _age_s(batch: pa.Table) -> pd.Series:
    """Seconds from when it happened to when it was read; null where the source has no time."""
    return (batch["extracted_at"].to_pandas() - batch["happened_at"].to_pandas()).dt.total_seconds()
