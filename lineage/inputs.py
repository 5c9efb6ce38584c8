"""When do two examples ask the same thing? Leakage, duplicates and a curriculum's uniqueness all mean this.

    classification, tagging   the text an encoder reads
    generation, preference    the conversation without system messages: an agent's turns share their last user
                              message
Both without regard to case, width of letters, and white space.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lineage.tasks import TALKS

INPUT_COLUMNS = ("task", "text", "messages")
"""What `inputs` needs of an example."""


def normalised(text: str) -> str:
    """The text in compatible letters and lower case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def inputs(examples: pa.Table) -> list[str]:
    """For each example what it asks, in a form that is equal for equal questions. Needs INPUT_COLUMNS."""
    if not examples.num_rows:
        return []
    keys = [normalised(text) for text in examples["text"].to_pylist()]
    tasks = examples["task"].to_pylist()
    talks = [index for index, task in enumerate(tasks) if task in TALKS]
    conversations = examples["messages"].combine_chunks().take(pa.array(talks, pa.int64())).to_pylist()
    for index, messages in zip(talks, conversations, strict=True):
        keys[index] = _conversation(messages) or keys[index]
    return keys


def _conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    said = [message for message in messages if message["role"] not in ("system", "developer")]
    return "\n".join(
        normalised(f"{message['content'] or ''} {message['tool_calls'] or ''}") for message in said
    )
