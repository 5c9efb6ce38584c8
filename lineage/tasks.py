"""What an example is for: the tasks, said once, and in which of them two answers may both be right.

classification   a text has one label
tagging          a text has one list of entity spans (lineage.spans)
generation       a conversation has an answer, words or tool calls: one of many right ones
preference       a conversation has an answer that is better than another
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Task = Literal["classification", "generation", "preference", "tagging"]

TASKS: tuple[str, ...] = get_args(Task)

TALKS: tuple[str, ...] = ("generation", "preference")
"""Those that ask with a whole conversation and may have many right answers; the others ask with a text."""

ANSWER_COLUMNS = ("answer", "answer_tool_calls", "rejected")
"""What an example answers: of two rows of one of TALKS that agree in these, each says what the other does."""


def asking_alike(tasks: Iterable[str]) -> list[str]:
    """These tasks, and those whose rows may ask what theirs ask in the same way; sorted.

    A generator learns from both of TALKS: what the one is scored on, the other must not train on.
    """
    found = set(tasks)
    return sorted(found if found.isdisjoint(TALKS) else found.union(TALKS))
