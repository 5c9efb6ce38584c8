"""What a decision is made of and what comes of it: Evidence in, Decision out; nothing is read or stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.recipe import TrainingError

Flags = Sequence[bool]
"""One truth per item, in the items' order."""


@dataclass(frozen=True)
class Reign:
    """A champion as it was accepted: which of today's items it had been judged on, and which it passed."""

    version: str
    """As `name@version`."""
    known: Flags
    """Was this item in its evaluation set then?"""
    passed: Flags
    """Did it get it right then? False where it is not known."""
    retrains_lost: int = 0
    """Of what it passed, how many items its own null retrains lost, all of them together; 0 of 0: none."""
    retrains_passes: int = 0
    """And of how many: its passes, once for each retrain."""

    @property
    def kept(self) -> np.ndarray:
        """The items that are not to be lost: known and passed."""
        return np.asarray(self.known, dtype=bool) & np.asarray(self.passed, dtype=bool)


@dataclass(frozen=True)
class Merged:
    """The candidate's merged model, which is what may be served."""

    onto: str
    right: Flags
    """Whether it is right on each item."""
    agrees: Flags
    """Whether it says what the adapter says."""


@dataclass(frozen=True)
class Evidence:
    """Per-item correctness on the gate set; every list is about the same items in the same order."""

    champion: Flags
    candidate: Flags
    nulls: Sequence[Flags]
    """One list per null retrain; at least one."""
    overlap: int
    """How many gate items the candidate was trained on."""
    categories: Sequence[str] = ()
    """The category of each item; empty where items have none."""
    previous: Reign | None = None
    """The champion on the set that it was promoted on; None where that is not on record."""
    history: Sequence[Reign] = ()
    """The champions before it, the last one last."""
    merged: Merged | None = None


@dataclass(frozen=True)
class First:
    """What is known of a candidate where there is no champion."""

    candidate: Flags
    answers: Sequence[str]
    overlap: int
    categories: Sequence[str] = ()
    merged: Merged | None = None


@dataclass(frozen=True)
class Check:
    """One rule, whether the candidate passes it, and the numbers as a sentence."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Decision:
    """All checks, and the texts that decided: those of the failed checks, or of all when every one passed."""

    promoted: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    """What is worth telling and decides nothing."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The numbers behind: accuracies, the gain and its interval."""


def decided(
    checks: Sequence[Check], *, notes: Sequence[str] = (), figures: Mapping[str, float] | None = None
) -> Decision:
    """The decision that these checks make."""
    failed = tuple(check.text for check in checks if not check.passed)
    reasons = failed or tuple(check.text for check in checks)
    return Decision(not failed, reasons, tuple(checks), tuple(notes), dict(figures or {}))


def require_same_items(evidence: Evidence | First, *, need_categories: bool) -> None:
    """Raise TrainingError unless there are items, and every list is about them."""
    items = len(evidence.candidate)
    lengths: dict[str, int] = {}
    if isinstance(evidence, Evidence):
        items = len(evidence.champion)
        lengths = {"candidate": len(evidence.candidate)}
        lengths |= {f"null retrain {index}": len(null) for index, null in enumerate(evidence.nulls)}
        reigns = [*evidence.history, *([evidence.previous] if evidence.previous else [])]
        lengths |= {f"the reign of {each.version}": len(each.known) for each in reigns}
    else:
        lengths = {"answers": len(evidence.answers)}
    if not items:
        raise TrainingError("the gate set is empty; a promotion needs items to judge by")
    if isinstance(evidence, Evidence) and not evidence.nulls:
        raise TrainingError(
            "no null retrain was given; retrain the champion's recipe with another seed first"
        )
    if need_categories or evidence.categories:
        lengths["categories"] = len(evidence.categories)
    if evidence.merged:
        lengths["the merged model"] = len(evidence.merged.right)
    for name, length in lengths.items():
        if length != items:
            raise TrainingError(
                f"{name} has {length} items, the champion {items}; evaluate all on the same items"
            )


def share(part: int, whole: int) -> str:
    """Part of a whole in percent."""
    return f"{part / whole:.1%}" if whole else "none to lose"
