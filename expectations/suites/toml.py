"""Suites that users write in TOML: rules of Great Expectations or ours, over the columns of a shipped view.

    table = "examples"                 # whose rows are judged
    extends = true                     # the shipped rules stay in force; false: those of lineage only
    may_be_empty = false               # may a batch hold no row?

    [[rules]]
    rule = "answers_short"             # its name: in verdicts, in waivers
    type = "expect_column_values_to_be_between"
    kwargs = { column = "answer_characters", max_value = 120 }
    sentence = "an answer has at most 120 characters"
    why = "our screen has two lines"
    severity = "warning"               # or critical, which is what is meant without it

The rules that lineage and recall rest on (lineage.waivers.NEVER) stay in force always. Beside the shipped
columns the view holds the texts themselves, for the rules of these suites only.

Types, arguments, the columns that they name and regular expressions are checked when the file is read, before
a row is; that a column holds what its rule can compare, only the rows show.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field

from expectations.gx import quiet
from expectations.suites import talk
from expectations.suites.suite import Suite, told
from infra.config import ConfigError, read_config
from lineage.schemas import TABLES, TableSpec
from lineage.waivers import NEVER

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from expectations.thresholds import Thresholds

TEXTS = {
    "traces": ("question", "response"),
    "documents": ("text",),
    "examples": ("text", "answer"),
    "curricula": ("text", "answer"),
}
"""Table -> the columns of text that rules of one's own see beside the shipped ones.

`question` is what the last message of a user says; a view of predictions holds its texts by itself."""

_NOT_EMPTY = "batch_not_empty"


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
    """Do the shipped rules of the table stay in force? Those of lineage.waivers.NEVER do in any case."""

    may_be_empty: bool = False
    """May a batch hold no row? If not, the shipped batch_not_empty stays in force in any case."""

    rules: tuple[RuleEntry, ...] = Field(min_length=1)
    """In the order in which a report shows them, after the shipped ones."""


def load(path: str | Path, shipped: dict[str, Suite]) -> Suite:
    """The suite that a file describes.

    Raises ConfigError: no such table, type, argument or column, no regular expression, or two rules of one
    name, shipped ones that stay in force among them.
    """
    given = read_config(SuiteFile, path)
    if given.table not in shipped:
        raise ConfigError(f"suite '{path}': table '{given.table}' has no view; there are {_list(shipped)}")
    base = shipped[given.table]
    entries = json.dumps([entry.model_dump() for entry in given.rules], sort_keys=True)
    rules = _Rules(base, given.extends, given.may_be_empty, entries)
    view = _WithTexts(base.view, TEXTS.get(given.table, ()))
    suite = replace(base, rules=rules, view=view, source=Path(path).name)
    columns = list(suite.frame(TABLES[given.table].schema.empty_table(), _nothing).columns)
    with quiet():
        from expectations.thresholds import DEFAULTS

        for entry in given.rules:
            _check(entry, columns, str(path), given.table)
        names = [_name(rule) for rule in rules(DEFAULTS)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"suite '{path}': there are two rules '{twice}'; give each a name of its own")
    return suite


@dataclass(frozen=True)
class _Rules:
    """The rules of such a suite; it travels to workers, so it holds text and no live objects."""

    base: Suite
    extends: bool
    may_be_empty: bool
    entries: str  # JSON

    def __call__(self, thresholds: Thresholds) -> list[Expectation]:
        shipped = [rule for rule in self.base.rules(thresholds) if self._stays(_name(rule))]
        return [*shipped, *(_rule(RuleEntry.model_validate(entry)) for entry in json.loads(self.entries))]

    def _stays(self, shipped: str) -> bool:
        if shipped == _NOT_EMPTY:
            return not self.may_be_empty
        return self.extends or shipped in NEVER


@dataclass(frozen=True)
class _WithTexts:
    """A shipped view and the texts beside it; it travels to workers."""

    base: Callable[[pa.Table, pa.Table], pd.DataFrame]
    texts: tuple[str, ...]

    def __call__(self, batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
        flat = self.base(batch, facts)
        missing = [name for name in self.texts if name not in flat.columns]
        return flat.assign(**{name: _text(batch, name).to_pandas() for name in missing})


def _text(batch: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    return talk.last_of_user(batch["messages"]) if name == "question" else batch[name]


def _name(rule: Expectation) -> str:
    assert rule.meta is not None  # shipped rules and those of a file are told what they are called
    return rule.meta["rule"]


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


def _check(entry: RuleEntry, columns: Sequence[str], path: str, table: str) -> None:
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
    for regex in (kwargs.get("regex") or "", *(kwargs.get("regex_list") or ())):
        try:
            re.compile(regex)
        except (re.error, OverflowError) as error:
            raise ConfigError(
                f"{where} has regex '{regex}', which is no regular expression of Python: {error}"
            ) from error


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
