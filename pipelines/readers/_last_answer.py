"""Where the record of a whole conversation is cut: everything up to the last answer is what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def split_at_last_answer(
    messages: Sequence[dict[str, Any]],
) -> tuple[list[dict[str, Any]], dict[str, Any] | None, list[dict[str, Any]]]:
    """Messages before the assistant's last, that one, and those after it; None where there is none."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place]["role"] == "assistant":
            return list(messages[:place]), messages[place], list(messages[place + 1 :])
    return list(messages), None, []


def beside(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a message holds in its `extra`: an answer's goes into the row's own."""
    return json.loads(message["extra"]) if message["extra"] is not None else {}
