"""What a batch of traces must be to be learned from: wholly judged, and traceable to its prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites import talk
from expectations.suites.rules import provenance, texts
from expectations.suites.suite import told
from lineage.schemas import UNSTATED

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

VERDICTS = ("pass", "fail", UNSTATED)


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
                "the correction of an answer that did not pass is another answer",
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
