"""What `stemma gate` takes: thresholds, suites of one's own, and what becomes of rows that break a rule.

# stemma gate examples@7 gate.toml
on_fail = "reject_rows"
suites = ["mine.toml"]
[thresholds]
max_text_characters = 10000
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from expectations.suites import SUITES, Suite
from expectations.thresholds import DEFAULTS, Thresholds
from lineage.schemas import ROW_TABLES
from lineage.verdicts import OnFail

_TABLES = tuple(spec.name for spec in ROW_TABLES)


class OnFailing(BaseModel):
    """Per table, what becomes of a batch in which a rule fails. A curriculum stands or falls as a whole: its
    root is a digest over all its members."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    traces: OnFail = "refuse"
    """refuse: the whole batch is withdrawn; reject_rows: rows that broke a rule are moved to `rejected`, and
    the others are admitted where they hold every rule by themselves."""

    documents: OnFail = "refuse"
    """As for traces."""

    examples: OnFail = "refuse"
    """As for traces."""


class GateConfig(BaseModel):
    """What `stemma gate` goes by. No table may be empty: `thresholds.min_rows` is at least 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    thresholds: Thresholds = DEFAULTS
    """The numbers of all suites; they are recorded in the verdict."""

    on_fail: OnFailing = OnFailing()
    """Per table, or one word for all three."""

    suites: tuple[str, ...] = ()
    """TOML files of suites, each in place of the shipped one of its table (expectations.suites.toml)."""

    @field_validator("on_fail", mode="before")
    @classmethod
    def _one_word_for_all(cls, value: Any) -> Any:
        return dict.fromkeys(_TABLES, value) if isinstance(value, str) else value

    def on_fail_of(self, table: str) -> OnFail:
        """What becomes of a batch of this table in which a rule fails."""
        chosen: Mapping[str, OnFail] = self.on_fail.model_dump()
        return chosen.get(table, "refuse")

    def suites_in_force(self) -> Mapping[str, Suite]:
        """Table -> its suite. Raises ConfigError where a file is none."""
        return SUITES | {suite.name: suite for suite in map(Suite.from_toml, self.suites)}
