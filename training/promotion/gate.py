"""Gate: the thresholds of a promotion, as a document. Where the numbers come from: docs/promotion.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from training.asking import Asking

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "measured": {},
    "paper": {"regressions": "count", "epsilon": 2, "require_score_target": True},
    "categories": {"overall_floor": 0.70, "category_floor": 0.30},
}
"""`paper`: accept at a score of 0.96 or more and at most 2 regressions, on this set and the champion's.
`categories`: 0.70 over all, no category below 0.30."""


class Gate(BaseModel):
    """What a candidate must show. A key that the chosen mode would ignore is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    preset: Literal["measured", "paper", "categories"] = "measured"
    """Whose thresholds count where a key is not given: the measured ones, the paper's count, or floors."""

    least_items: int = Field(default=10, ge=1)
    """Fewer items decide nothing: of two equally good models one in fifty was promoted on 5."""

    level: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Of the paired bootstrap interval of candidate minus champion, whose lower end must be above 0."""
    nulls: int = Field(default=1, ge=1, le=50)
    """How many null retrains are made. One shows how items flip; how trainings differ takes more."""
    null_level: float = Field(default=0.99, gt=0.5, lt=1.0)
    """Of the interval of candidate minus the champion's recipe (champion and nulls), likewise."""
    spread: float = Field(default=0.015, ge=0.0, lt=1.0)
    """How much the accuracy differs between trainings of one recipe, as a standard deviation: assumed until
    nulls show it, and worth two of them. 0.014 is what 21 trainings of the demo's first recipe show."""

    regressions: Literal["rate", "count"] = "rate"
    """`rate`: the candidate may not lose significantly more than the nulls do; `count`: at most `epsilon`."""
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5)
    """Below this p value the candidate loses more than the nulls do, in all, on an earlier champion's set, or
    in a category; over champions and over categories by Holm's correction."""
    epsilon: int = Field(default=2, ge=0)
    """`count`: how many of an accepted champion's passes may be lost; one more is refused."""

    score_target: float = Field(default=0.96, gt=0.0, le=1.0)
    """The score at which a loop may stop; told with each decision."""
    require_score_target: bool = False
    """Refuse a candidate below the target. Off: from a champion of 0.80 nothing would ever move."""

    category: str | None = None
    """The column of `examples` that parts the items: answer, source_revision, prompt_name, ... None: the
    label, where all items have one; else nothing."""
    overall_floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """The lowest share of all items that the candidate must be right on."""
    category_floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """And of each category."""
    floors: Mapping[str, float] = Field(default_factory=dict)
    """Category -> its own floor, in place of `category_floor`."""

    asking: Asking = Asking()
    """How decoders are asked and scored, all alike."""

    merged: Literal["base", "nf4"] | None = None
    """Also judge the candidate's merged model (`stemma merge --onto`): it must answer as the adapter does."""
    merged_tolerance: float = Field(default=0.01, ge=0.0, le=1.0)
    """How much of the accuracy the merged model may lose."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return dict(PRESETS.get(str(values.get("preset", "measured")), {})) | values

    @model_validator(mode="after")
    def _refuse_what_would_be_ignored(self) -> Self:
        ignored = self._ignored & self.model_fields_set
        if "epsilon" in ignored:
            raise ValueError('regressions = "rate" would ignore epsilon; set regressions = "count" with it')
        if ignored:
            raise ValueError('merged_tolerance is of merged models; set merged = "base" or "nf4" with it')
        for category, floor in self.floors.items():
            if not 0 <= floor <= 1:
                raise ValueError(f"the floor of '{category}' is {floor}; expected a share from 0 to 1")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_ignored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key not in self._ignored}

    @property
    def _ignored(self) -> set[str]:
        of_count = set() if self.regressions == "count" else {"epsilon"}
        return of_count | (set() if self.merged else {"merged_tolerance"})
