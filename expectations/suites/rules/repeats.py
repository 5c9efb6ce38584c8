"""The rules on what nearly repeats something: a row before it, or what models are scored on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expectations.suites import likeness
from expectations.suites.suite import told

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds


def few_near_duplicates(
    thresholds: Thresholds, rows: str, *, why: str = "copies count a case more often than it happened"
) -> Expectation:
    """Of `rows` few nearly repeat one before them; reads `repeats_row_before`."""
    import great_expectations.expectations as gxe

    return gxe.ExpectColumnValuesToBeBetween(
        column="repeats_row_before",
        max_value=thresholds.near_duplicate,
        strict_max=True,
        mostly=1 - thresholds.max_near_duplicates,
        **told(
            "few_near_duplicates",
            f"at most {thresholds.max_near_duplicates:.0%} of the {rows} nearly repeat one before them "
            f"({thresholds.near_duplicate:g} of its words)",
            why=why,
            cites="D9",
            severity="warning",
        ),
    )


def near_leakage(
    thresholds: Thresholds, column: str, *, row: str, what: str, little: str, none: str
) -> list[Expectation]:
    """Few rows nearly repeat `what`, which rule `little` refuses, and better none, of which `none` warns."""
    import great_expectations.expectations as gxe

    bound = {"column": column, "max_value": thresholds.near_duplicate, "strict_max": True}
    how = f"({thresholds.near_duplicate:g} of its words, or of its runs of {likeness.RUN} words)"
    return [
        gxe.ExpectColumnValuesToBeBetween(
            **bound,
            mostly=1 - thresholds.max_near_leakage,
            **told(
                little,
                f"at most {thresholds.max_near_leakage:.0%} of the {row}s nearly repeat {what} {how}",
                why="a score on what was nearly trained on measures memory",
                cites="K5",
            ),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            **bound,
            **told(
                none,
                f"no {row} nearly repeats {what} {how}",
                why="each such row makes a score a little better than the model is",
                cites="K5",
                severity="warning",
            ),
        ),
    ]
