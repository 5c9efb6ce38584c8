"""What the suites hold a batch against: every number a rule uses, with where it comes from.

Citations such as D3 are entries of the catalogue of requirements.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Thresholds(BaseModel):
    """The numbers of all suites. A number that only one table uses changes only that table's suite digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_rows: int = Field(default=1, ge=1)
    """Rows a batch must hold. Every row rule passes an empty batch, so 0 cannot be chosen."""

    min_prompt_stated: Share = 0.95
    """Share of the trace rows whose source can state a prompt version that do state it (C2 lists the version
    first among what is found missing). Below it an exporter has lost the versions, and no bad prompt could be
    recalled."""

    max_empty_responses: Share = 0.05
    """Share of traces that may have no answer, neither text nor a tool call. D9 counts 0.7 % empty *inputs*
    in production traffic; seven times that means that the exporter, not the model, lost the answers."""

    max_empty_requests: Share = 0.05
    """Share of traces that may have no message where their source logs requests: as for answers."""

    max_text_characters: int = Field(default=20_000, ge=1)
    """Longest text of an example: about 5,000 tokens, more than the models here are fed at once."""

    max_bigram_repetition: Share = 0.4
    """A generated answer repeats itself when this share of its word pairs occurred before (D1: < 0.4)."""

    min_unrepetitive_answers: Share = 0.9
    """Share of the generated training answers of at least 10 words (D1's lower bound) that do not repeat
    themselves. Below 1 because code and tables repeat with good reason."""

    min_labels: int = Field(default=2, ge=1)
    """Labels that the classification examples of a split must have, those of a batch and those admitted
    before taken together: one label teaches nothing but itself."""

    max_label_ratio: float = Field(default=3.0, ge=1)
    """Rows of a curriculum's most frequent label per row of its rarest (D4: at most 3 times another)."""

    gold_share: tuple[Share, Share] = (0.40, 0.60)
    """Share of gold rows in a curriculum that has all three slices (D3)."""

    hard_share: tuple[Share, Share] = (0.25, 0.35)
    """Share of hard rows in a curriculum that has all three slices (D3)."""

    replay_share: tuple[Share, Share] = (0.10, 0.20)
    """Share of replay rows in a curriculum that has all three slices (D3)."""

    slice_tolerance: Share = 0.02
    """How far a slice may lie outside D3's range: 100 rows (D5's smallest curriculum) cannot be cut finer
    than 1 %, and label balance and slice shares pull at the same rows."""

    @field_validator("gold_share", "hard_share", "replay_share")
    @classmethod
    def _is_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"{value[0]} > {value[1]}; give the lower end of the range first")
        return value


DEFAULTS = Thresholds()
