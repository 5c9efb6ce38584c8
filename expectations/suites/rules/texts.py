"""The rules that every column of text shares: nothing odd in it, no secrets, no going round in circles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites import noise
from expectations.suites.suite import told

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds


def rules(
    name: str,
    thresholds: Thresholds,
    *,
    max_odd: float,
    is_of_one_kind: bool = True,
    is_trained_on: bool = False,
) -> list[Expectation]:
    """The rules for one column of text.

    Where it holds texts of one kind, none is to be far longer; where models are trained on it, a secret in it
    refuses.
    """
    import great_expectations.expectations as gxe

    from expectations.custom import ExpectFewValuesFarAboveMedian

    kinds = [noise.NONE, *noise.ODDITIES]
    found: list[Expectation] = [
        gxe.ExpectColumnValuesToBeInSet(
            column=f"{name}_oddity",
            value_set=[noise.NONE],
            mostly=1 - max_odd,
            **told(
                f"{name}_ordinary",
                f"in at most {max_odd:.0%} of the rows {name} holds {', '.join(kinds[1:])}",
                why="more than people send is an exporter's doing, and a model learns to write it",
                cites="D9",
                severity="warning",
            ),
        ),
        gxe.ExpectColumnValuesToNotBeInSet(
            column=f"{name}_oddity",
            value_set=[noise.SECRET],
            **told(
                f"{name}_without_secrets",
                f"{name} holds no key, token or password",
                why="what a model was trained on it can be made to say",
                cites="C11",
                severity="critical" if is_trained_on else "warning",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column=f"{name}_repetition",
            max_value=thresholds.max_bigram_repetition,
            strict_max=True,
            mostly=1 - thresholds.max_repeating,
            **told(
                f"{name}_does_not_repeat",
                f"in at most {thresholds.max_repeating:.0%} of the rows are "
                f"{thresholds.max_bigram_repetition:.0%} of the word pairs of {name} repeated",
                why="copied twice by an exporter, or said in circles by a model",
                cites="D1, D9",
                severity="warning",
            ),
        ),
    ]
    longer = ExpectFewValuesFarAboveMedian(
        column=f"{name}_words",
        times=thresholds.max_times_median,
        max_share=thresholds.max_very_long,
        **told(
            f"{name}_not_far_longer",
            f"at most {thresholds.max_very_long:.0%} of the rows have a {name} of more than "
            f"{thresholds.max_times_median:g} times as many words as the median",
            why="another kind of text got in: a log, a page, a whole conversation",
            cites="D9",
            severity="warning",
        ),
    )
    return [*found, longer] if is_of_one_kind else found
