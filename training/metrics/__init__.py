"""What a set of predictions is worth, and how far chance alone could move it.

    labels       accuracy, macro F1
    entities     entity F1, and the counts per text that it is made of
    answers      the final number, the option letter, the text or one of its aliases
    rouge        ROUGE-1, ROUGE-2, ROUGE-L
    tools        the right tool, with the right arguments
    calibration  the calibration error, confidences mended by label, the threshold from which on one counts
    resampling   intervals and paired differences

Pure Python and numpy, nothing is read or stored here. Every interval takes its seed, so that a Report can be
recomputed. `training.scoring` makes a score per row of them.

Errors: TrainingError on empty, unequal or non-finite input.
"""

from training.metrics.answers import (
    final_number,
    matches_alias,
    normalised_answer,
    option_letter,
    same_number,
    same_option,
    same_text,
)
from training.metrics.calibration import (
    Calibration,
    SweepPoint,
    Threshold,
    calibrated,
    ece,
    fit_calibration,
    fit_threshold,
    sweep,
)
from training.metrics.entities import EntityScore, entity_counts, entity_f1
from training.metrics.labels import Confusion, accuracy, confusion, macro_f1
from training.metrics.resampling import (
    Difference,
    Interval,
    bootstrap,
    bootstrap_interval,
    ece_interval,
    entity_f1_interval,
    macro_f1_interval,
    paired_difference,
)
from training.metrics.rouge import rouge_l, rouge_n
from training.metrics.tools import ToolCall, parse_calls, same_calls, same_tools

__all__ = [
    "Calibration",
    "Confusion",
    "Difference",
    "EntityScore",
    "Interval",
    "SweepPoint",
    "Threshold",
    "ToolCall",
    "accuracy",
    "bootstrap",
    "bootstrap_interval",
    "calibrated",
    "confusion",
    "ece",
    "ece_interval",
    "entity_counts",
    "entity_f1",
    "entity_f1_interval",
    "final_number",
    "fit_calibration",
    "fit_threshold",
    "macro_f1",
    "macro_f1_interval",
    "matches_alias",
    "normalised_answer",
    "option_letter",
    "paired_difference",
    "parse_calls",
    "rouge_l",
    "rouge_n",
    "same_calls",
    "same_number",
    "same_option",
    "same_text",
    "same_tools",
    "sweep",
]
