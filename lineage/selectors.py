"""Selector: which rows are meant, by a value of their provenance, by id or by SQL. Several parts combine.

Selector(prompt="router@2")     every row whose prompt is router, version 2
Selector(scorer="judge")        every row that any version of judge scored
Selector(rows=("3fa4",))        the row whose id starts so
Selector(where="answer = ''")   what SQL over each row table finds
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables
from lineage.graph import RowGraph, graph
from lineage.rows import ID_BYTES, LEAST_PREFIX, canonical_json
from lineage.schemas import MIXED, NOT_APPLICABLE, ROW_TABLES, UNSTATED, TableSpec
from lineage.tables import StatementError, TableError

_VERSIONED = {
    "prompt": ("prompt_name", "prompt_version"),
    "scorer": ("scorer", "scorer_revision"),
    "generator": ("generator", "generator_revision"),
}


class SelectorError(TableError):
    """A selector names nothing, or too much; the message says what there is."""


@dataclass(frozen=True)
class Selector:
    """What is meant; a row is meant when every part that is given says so."""

    prompt: str | None = None
    """NAME@VERSION, or NAME for all its versions."""

    scorer: str | None = None
    """NAME@REVISION, or NAME for all its revisions."""

    generator: str | None = None
    """NAME@REVISION, or NAME for all its revisions."""

    source_revision: str | None = None
    """Digest of a source's content, or its start."""

    reviewer: str | None = None
    """Who reviewed or corrected the row. A recall also takes back what he said of rows in reviews, where
    nothing but values is named."""

    rows: tuple[str, ...] = ()
    """Ids of rows in hex, or their starts; any of them."""

    where: str | None = None
    """SQL condition over the columns of a row table."""

    through_models: bool = False
    """Also what models wrote that were trained on such rows, and what came of that."""

    def __post_init__(self) -> None:
        """Raise SelectorError unless something is named."""
        if not self.named:
            raise SelectorError(
                "nothing is named; give one or more of: --prompt NAME@V, --scorer NAME@V, "
                "--generator NAME@V, --source-revision R, --reviewer NAME, --row ID, --where SQL"
            )

    @classmethod
    def parse(cls, text: str) -> Selector:
        """The selector that `encode` wrote."""
        given = json.loads(text)
        return cls(**{**given, "rows": tuple(given.get("rows", ()))})

    def encode(self) -> str:
        """Canonical JSON of the parts that are given."""
        return canonical_json(self.as_json()).decode()

    def as_json(self) -> dict[str, object]:
        """The parts that are given."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in parts.items() if v}

    @property
    def named(self) -> tuple[str, ...]:
        """The parts that say which rows are meant."""
        return tuple(name for name in self.as_json() if name != "through_models")

    def __str__(self) -> str:
        """As the options of the command line."""
        words = [("--row " + row) for row in self.rows]
        for name, value in self.as_json().items():
            if isinstance(value, str):
                words.append(f"--{name.replace('_', '-')} {json.dumps(value) if ' ' in value else value}")
        return " ".join(words + ["--through-models"] * self.through_models)

    def on_values(self) -> pads.Expression | None:
        """The condition on provenance columns, or None where no value is named or more than values are.

        It holds for rows that do not exist yet: what a standing ban refuses.
        """
        if self.rows or self.where:
            return None
        condition: pads.Expression | None = None
        for part, (name, version) in _VERSIONED.items():
            value = getattr(self, part)
            if value is not None:
                condition = _and(condition, _is(name, version, value))
        if self.source_revision is not None:
            start = pa.compute.starts_with(pads.field("source_revision"), self.source_revision)
            condition = _and(condition, start)
        if self.reviewer is not None:
            condition = _and(condition, pads.field("reviewer") == self.reviewer)
        return condition


def resolved(settings: Settings, selector: Selector) -> Selector:
    """The selector with starts of ids and digests written out, so that it names the same things for ever.

    Raises SelectorError where a start is unknown or ambiguous, with the candidates.
    """
    known = graph(settings)
    rows = tuple(sorted(_only(known, "row", prefix) for prefix in selector.rows))
    revision = selector.source_revision
    if revision is not None:
        revision = _only(known, "source revision", revision)
    return replace(selector, source_revision=revision, rows=rows)


def matching(settings: Settings, selector: Selector, rows: RowGraph) -> np.ndarray:
    """Which of the rows the selector means: bool (rows)."""
    meant = np.ones(len(rows.numbers), bool)
    for part, (name, version) in _VERSIONED.items():
        value = getattr(selector, part)
        if value is not None:
            meant &= _has(rows, name, version, value)
    if selector.source_revision is not None:
        revisions = rows.column("source_revision")
        meant &= revisions.where(v.startswith(selector.source_revision) for v in revisions.values)
    if selector.reviewer is not None:
        reviewers = rows.column("reviewer")
        meant &= reviewers.where(v == selector.reviewer for v in reviewers.values)
    if selector.rows:
        meant &= _at(rows, np.concatenate([rows.starting_with(row) for row in selector.rows]))
    if selector.where is not None:
        found = [_found_by_sql(settings, selector.where, spec).to_numpy() for spec in ROW_TABLES]
        meant &= _at(rows, rows.positions(np.concatenate(found)))
    return meant


def check_sql(settings: Settings, where: str) -> None:
    """Raise SelectorError unless some row table understands the condition."""
    failures: list[str] = []
    for spec in ROW_TABLES:
        if tables.current(settings, spec) is None:
            continue
        try:
            tables.require_fits(settings, spec, where)
        except StatementError as error:
            failures.append(f"{spec.name}: {str(error).removeprefix('the statement failed: ')}")
        else:
            return
    raise SelectorError(f"--where '{where}' fits no table; {'; '.join(failures) or 'the lake holds no rows'}")


def known_values(settings: Settings, part: str) -> list[str]:
    """What a part of a selector could name in this lake, most rows first."""
    rows = graph(settings)
    first, *more = (rows.column(name) for name in _VERSIONED.get(part, (part,)))
    pairs, counts = np.unique(
        np.stack([first.codes, *(each.codes for each in more)]), axis=1, return_counts=True
    )
    found: Counter[str] = Counter()
    for codes, count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        values = [each.values[code] for each, code in zip((first, *more), codes, strict=True)]
        if not {UNSTATED, NOT_APPLICABLE, MIXED} >= set(values):
            found["@".join(values)] += count
    return [value for value, _ in found.most_common()]


def _found_by_sql(settings: Settings, where: str, spec: TableSpec) -> pa.ChunkedArray:
    try:
        found = tables.rows_where(settings, spec, where)
    except StatementError:  # it names columns of another table; check_sql has seen that it fits one
        return pa.chunked_array([], pa.int64())
    return found["row_no"].cast(pa.int64())


def _only(rows: RowGraph, what: str, prefix: str) -> str:
    """The one row id, or the one source revision, that starts so."""
    bare = prefix.removeprefix("sha256:")
    found: set[str] = set()
    if what == "source revision":
        known = rows.column("source_revision").values
        if prefix in known:
            return prefix
        found = {value for value in known if value.removeprefix("sha256:").startswith(bare)}
    elif re.fullmatch(rf"[0-9a-f]{{1,{2 * ID_BYTES}}}", prefix):
        found = {rows.ids[position].tobytes().hex() for position in rows.starting_with(prefix)}
    if not found or len(bare) < LEAST_PREFIX:
        raise SelectorError(
            f"no {what} starts with '{prefix}' (at least {LEAST_PREFIX} hex digits are needed)"
        )
    if len(found) > 1:
        raise SelectorError(f"'{prefix}' could be any of: {', '.join(sorted(found)[:8])}")
    return found.pop()


def _has(rows: RowGraph, name: str, version: str, value: str) -> np.ndarray:
    """As `_is`, of rows in memory."""
    names = rows.column(name)
    meant = names.where(v == value for v in names.values)
    head, at, tail = value.rpartition("@")
    if at and head in names.values:
        versions = rows.column(version)
        meant |= names.where(v == head for v in names.values) & versions.where(
            v == tail for v in versions.values
        )
    return meant


def _at(rows: RowGraph, positions: np.ndarray) -> np.ndarray:
    meant = np.zeros(len(rows.numbers), bool)
    meant[positions[positions >= 0]] = True
    return meant


def _is(name: str, version: str, value: str) -> pads.Expression:
    """Is the value NAME@VERSION, or NAME alone? Names may hold an @ themselves."""
    whole = pads.field(name) == value
    head, at, tail = value.rpartition("@")
    return whole | ((pads.field(name) == head) & (pads.field(version) == tail)) if at else whole


def _and(first: pads.Expression | None, second: pads.Expression) -> pads.Expression:
    return second if first is None else first & second
