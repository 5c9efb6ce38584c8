"""What `stemma gate` takes: thresholds, suites of one's own, and what becomes of rows that break a rule.

# stemma gate examples@7 gate.toml
on_fail = "reject_rows"
suites = ["mine.toml"]              # beside this file
critical = ["answers_sized"]        # only warns by itself
[thresholds]
max_text_characters = 10000
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from expectations.suites import SUITES, Suite
from expectations.thresholds import DEFAULTS, Thresholds
from infra.config import ConfigError, read_config
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
    """What `stemma gate` goes by. No batch may be empty, unless a suite of one's own says so:
    `thresholds.min_rows` is at least 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    thresholds: Thresholds = DEFAULTS
    """The numbers of all suites; they are recorded in the verdict."""

    on_fail: OnFailing = OnFailing()
    """Per table, or one word for all three."""

    suites: tuple[str, ...] = ()
    """TOML files of suites, each in place of the shipped one of its table (expectations.suites.toml); in a
    config file a relative path starts beside it."""

    critical: tuple[str, ...] = ()
    """Rules that only warn by themselves and refuse here, by name, in every suite that has them."""

    @classmethod
    def read(cls, path: str | Path | None, overrides: Sequence[str] = ()) -> GateConfig:
        """From a TOML file, beside which relative paths start, and overrides. Raises ConfigError."""
        config = read_config(cls, path, overrides)
        beside = Path() if path is None else Path(path).parent
        return config.model_copy(update={"suites": tuple(str(beside / name) for name in config.suites)})

    @field_validator("on_fail", mode="before")
    @classmethod
    def _one_word_for_all(cls, value: Any) -> Any:
        return dict.fromkeys(_TABLES, value) if isinstance(value, str) else value

    def on_fail_of(self, table: str) -> OnFail:
        """What becomes of a batch of this table in which a rule fails."""
        chosen: Mapping[str, OnFail] = self.on_fail.model_dump()
        return chosen.get(table, "refuse")

    @cached_property
    def suites_in_force(self) -> Mapping[str, Suite]:
        """Table -> its suite, read once.

        Raises ConfigError: a file is no suite, two are of one table, or no suite has a rule of `critical`.
        """
        written: dict[str, tuple[str, Suite]] = {}
        for path in self.suites:
            suite = Suite.from_toml(path)
            if suite.name in written:
                other, _ = written[suite.name]
                raise ConfigError(f"suites '{other}' and '{path}' are both of table '{suite.name}'; name one")
            written[suite.name] = (path, suite)
        suites = SUITES | {table: suite for table, (_, suite) in written.items()}
        return self._with_critical(suites) if self.critical else suites

    def _with_critical(self, suites: Mapping[str, Suite]) -> Mapping[str, Suite]:
        named = {
            table: set(suite.rule_names(DEFAULTS)) & set(self.critical) for table, suite in suites.items()
        }
        for rule in self.critical:
            if not any(rule in rules for rules in named.values()):
                known = {name for suite in suites.values() for name in suite.rule_names(DEFAULTS)}
                near = ", ".join(get_close_matches(rule, sorted(known)))
                hint = f"; near to it: {near}" if near else ""
                raise ConfigError(f"'critical' names rule '{rule}', which no suite has{hint}")
        return {
            table: suite.refusing(frozenset(named[table])) if named[table] else suite
            for table, suite in suites.items()
        }
