"""Decides whether a candidate replaces the champion: pure statistics on who got which item right.

    Evidence (champion, candidate, null retrains; the same items in one order) -> decide() -> Decision

    gate      Gate: which thresholds, readable from TOML
    facts     Evidence, Reign; Check, Decision
    gains     is it better than the champion, and than the champion's recipe trained again?
    losses    does it lose more of what the champion, and champions before it, got right than a retrain does?
    groups    does one category pay for the others?
    churn     what a retrain wins and loses by chance, with exact intervals

A *null retrain* is the champion's recipe unchanged with another seed. It shows what chance alone does: it too
loses items that the champion passes, because the champion's passes include its lucky ones. So a candidate is
refused when it loses significantly more than the null, not when it loses anything; and a gain that a retrain
could show as well is no gain, so a null itself is not promoted.

The items must be traffic that the champion did not select: on its own failures every other model looks
better.

Errors: TrainingError when the evidence is empty or its lists are about different items.
"""

from training.promotion.churn import Arm, Churn, arm_of, churn_of, exact_share
from training.promotion.decision import decide, decide_first
from training.promotion.facts import Check, Decision, Evidence, First, Merged, Reign
from training.promotion.gate import Gate
from training.promotion.groups import Group, groups_of

__all__ = [
    "Arm",
    "Check",
    "Churn",
    "Decision",
    "Evidence",
    "First",
    "Gate",
    "Group",
    "Merged",
    "Reign",
    "arm_of",
    "churn_of",
    "decide",
    "decide_first",
    "exact_share",
    "groups_of",
]
