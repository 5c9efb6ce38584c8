"""Suites that users write in TOML: rules of Great Expectations or ours, over the columns of a shipped view.

    table = "examples"                 # whose rows are judged
    extends = true                     # the shipped rules stay in force; false: only these

    [[rules]]
    rule = "answers_short"             # its name: in verdicts, in waivers
    type = "expect_column_values_to_be_between"
    kwargs = { column = "answer_characters", max_value = 120 }
    sentence = "an answer has at most 120 characters"
    why = "our screen has two lines"
    severity = "warning"               # or critical, which is what is meant without it

Everything is checked when the file is read, so that a gate never finds out at its last row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field

from expectations.gx import quiet
from expectations.suites.suite import Suite, told
from infra.config import ConfigError, read_config
from lineage.schemas import TABLES, TableSpec

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds


class RuleEntry(BaseModel):
    """One rule as people write it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rule: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Its name: small letters, digits and underscores."""

    type: str
    """The expectation, by its name in Great Expectations: expect_column_values_to_be_between, ..."""

    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Its arguments."""

    why: str = Field(min_length=1)
    """The reason, for whoever reads a refusal."""

    sentence: str = ""
    """What it expects, in words; without it what Great Expectations says."""

    severity: Literal["critical", "warning"] = "critical"
    """Does what breaks it refuse the batch?"""

    cites: str = ""
    """By what authority."""


class SuiteFile(BaseModel):
    """A suite as people write it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    table: str
    """The table whose batches are judged."""

    extends: bool = True
    """Do the shipped rules of the table stay in force?"""

    rules: tuple[RuleEntry, ...] = Field(min_length=1)
    """In the order in which a report shows them, after the shipped ones."""


def load(path: str | Path, shipped: dict[str, Suite]) -> Suite:
    """The suite that a file describes.

    Raises ConfigError: no such table, type, argument or column, or two rules of one name.
    """
    given = read_config(SuiteFile, path)
    if given.table not in shipped:
        raise ConfigError(f"suite '{path}': table '{given.table}' has no view; there are {_list(shipped)}")
    base = shipped[given.table]
    entries = json.dumps([entry.model_dump() for entry in given.rules], sort_keys=True)
    suite = replace(base, rules=_Rules(base, given.extends, entries))
    columns = list(base.frame(TABLES[given.table].schema.empty_table(), _nothing).columns)
    with quiet():
        made = [_checked(entry, columns, str(path), given.table) for entry in given.rules]
    names = [entry.rule for entry in given.rules]
    if given.extends:
        from expectations.thresholds import DEFAULTS

        names += [rule.meta["rule"] for rule in base.build(DEFAULTS).expectations if rule.meta]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"suite '{path}': there are two rules '{twice}'; give each a name of its own")
    assert len(made) == len(given.rules)
    return suite


@dataclass(frozen=True)
class _Rules:
    """The rules of such a suite; it travels to workers, so it holds text and no live objects."""

    base: Suite
    extends: bool
    entries: str  # JSON

    def __call__(self, thresholds: Thresholds) -> list[Expectation]:
        own = [_rule(RuleEntry.model_validate(entry)) for entry in json.loads(self.entries)]
        return [*(self.base.rules(thresholds) if self.extends else ()), *own]


def _rule(entry: RuleEntry) -> Expectation:
    """Raises what Great Expectations raises of wrong types and arguments."""
    from great_expectations.expectations.registry import get_expectation_impl

    import expectations.custom  # noqa: F401  registers ours

    said: dict[str, Any] = told(
        entry.rule, entry.sentence, why=entry.why, cites=entry.cites, severity=entry.severity
    )
    if not entry.sentence:
        del said["description"]
    return get_expectation_impl(entry.type)(**entry.kwargs, **said)


def _checked(entry: RuleEntry, columns: Sequence[str], path: str, table: str) -> Expectation:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    where = f"suite '{path}': rule '{entry.rule}'"
    try:
        rule = _rule(entry)
    except ExpectationNotFoundError as error:
        near = get_close_matches(entry.type, list_registered_expectation_implementations(), 3, 0.5)
        hint = f"; near to it: {_list(near)}" if near else ""
        raise ConfigError(f"{where} is of type '{entry.type}', which nobody knows{hint}") from error
    except (TypeError, ValueError) as error:  # pydantic's own, of Great Expectations' version 1
        raise ConfigError(f"{where} has a wrong argument: {_first(error)}") from error
    kwargs = rule.configuration.kwargs
    named = [kwargs.get(name) for name in ("column", "column_A", "column_B")]
    for name in [*named, *(kwargs.get("column_list") or ())]:
        if name is not None and name not in columns:
            raise ConfigError(
                f"{where} reads column '{name}', which the view of {table} has not; it has {_list(columns)}"
            )
    return rule


def _first(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return " ".join(str(error).split())
    first: dict[str, Any] = errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _nothing(spec: TableSpec, columns: Sequence[str], where: pads.Expression, /) -> pa.Table:
    """A lake in which nothing is admitted."""
    return spec.schema.empty_table().select(list(columns))
