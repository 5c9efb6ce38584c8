"""What a suite is: the rules of one table, and the flat view of rows that the rules read.

    keys(block)            of each row what can only be judged beside other rows: ids, inputs, sources
    facts(keys, admitted)  of each row what follows from all keys of the batch, and from what is admitted
    view(block, facts)     nested rows -> one pandas row each, with a `row_id` in hex
    rules(thresholds)      Great Expectations' own objects over the columns of that view

Keys and views are made of a block alone, so workers make them; only keys and facts, a few bytes a row, are
ever together in one place. A null in a column means that the rule is not about this row. Thresholds reach
Great Expectations as arguments of rules, so a suite's digest covers them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.dataset as pads

from expectations.gx import quiet
from lineage.rows import canonical_json
from lineage.schemas import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds


class Admitted(Protocol):
    """The rows of other batches of the lake that were admitted."""

    def __call__(self, spec: TableSpec, columns: Sequence[str], where: pads.Expression, /) -> pa.Table:
        """These columns of the rows of a table that the expression holds for."""
        ...


@dataclass(frozen=True)
class Suite:
    """The rules of one table."""

    name: str
    rules: Callable[[Thresholds], list[Expectation]]
    keys: Callable[[pa.Table], pa.Table]
    facts: Callable[[pa.Table, Admitted], pa.Table]
    view: Callable[[pa.Table, pa.Table], pd.DataFrame]
    source: str = ""
    """The TOML file that it was read from; empty of a shipped one."""

    @property
    def title(self) -> str:
        """What people are shown: 'traces', or 'traces (mine.toml)'."""
        return f"{self.name} ({self.source})" if self.source else self.name

    @classmethod
    def from_toml(cls, path: str | Path) -> Suite:
        """A suite that a user wrote: see expectations.suites.toml. Raises ConfigError."""
        from expectations.suites import SUITES
        from expectations.suites.toml import load

        return load(path, SUITES)

    def rule_names(self, thresholds: Thresholds) -> list[str]:
        """What its rules are called, in order."""
        return [rule.meta["rule"] for rule in self.build(thresholds).expectations if rule.meta]

    def refusing(self, rules: frozenset[str]) -> Suite:
        """The same suite, in which these of its rules are critical; names of others are passed over."""
        return replace(self, rules=_Refusing(self.rules, rules))

    def frame(self, batch: pa.Table, admitted: Admitted) -> pd.DataFrame:
        """The view of a batch that is in memory as a whole."""
        return self.view(batch, self.facts(self.keys(batch), admitted))

    def build(self, thresholds: Thresholds) -> ExpectationSuite:
        """The suite as Great Expectations knows it. The first call of a process imports it: some seconds."""
        with quiet():
            from great_expectations import ExpectationSuite

            return ExpectationSuite(self.name, expectations=list(self.rules(thresholds)))


@dataclass(frozen=True)
class _Refusing:
    """Rules of which some refuse that only warn by themselves; it travels to workers."""

    rules: Callable[[Thresholds], list[Expectation]]
    critical: frozenset[str]

    def __call__(self, thresholds: Thresholds) -> list[Expectation]:
        from great_expectations.expectations.metadata_types import FailureSeverity

        made = self.rules(thresholds)
        for rule in made:
            if (rule.meta or {}).get("rule") in self.critical:
                rule.severity = FailureSeverity.CRITICAL
        return made


def told(
    rule: str,
    sentence: str,
    *,
    why: str,
    cites: str = "",
    severity: Literal["critical", "warning"] = "critical",
) -> dict[str, Any]:
    """What a rule carries beside its arguments: its name, what it expects, why, by what authority.

    What breaks a `critical` rule is refused; a `warning` is a rule of thumb: shown, it refuses nothing.
    """
    meta = {"rule": rule, "cites": cites} if cites else {"rule": rule}
    return {"description": sentence, "notes": why, "meta": meta, "severity": severity}


def as_json(suite: ExpectationSuite) -> dict[str, Any]:
    """The suite in Great Expectations' own JSON, without ids and release numbers."""
    rules = []
    for expectation in suite.expectations:
        rule: dict[str, Any] = dict(expectation.configuration.to_json_dict())
        kwargs = {name: rule["kwargs"][name] for name in sorted(rule["kwargs"])}
        said = {key: rule.get(key) for key in ("meta", "type", "kwargs", "description", "notes", "severity")}
        rules.append(said | {"kwargs": kwargs})
    return {"name": suite.name, "expectations": rules}


def digest(suite: ExpectationSuite) -> str:
    """SHA-256 over the suite's JSON: rules, thresholds, reasons."""
    return f"sha256:{hashlib.sha256(canonical_json(as_json(suite))).hexdigest()}"
