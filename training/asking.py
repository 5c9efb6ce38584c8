"""How a decoder is asked, and what holds its answers against the right ones."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Asking(BaseModel):
    """What an evaluation of a decoder may choose. Of labels and spans there is nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    scorer: str | None = None
    """What holds a generated answer against the right one (training.scoring); by default `number` where each
    right answer ends with `####` and a number, `tool_call` where each is a tool call, else `exact`."""

    max_new_tokens: int = Field(default=256, ge=1)
    """Where an answer is cut off that does not end."""

    other_system_prompts: bool = False
    """Also score rows whose system prompt (or its absence) the model was never trained with."""
