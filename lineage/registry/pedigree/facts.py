"""What a pedigree says, as plain values; lineage.pedigrees gathers them, the other modules here draw them."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

SCHEMA = "stemma.pedigree/1"


class Model(TypedDict):
    """The version whose pedigree this is; version 0 is a checkpoint without a registered name."""

    name: str
    version: int
    run_id: str
    adapter_digest: str
    base_model: str
    base_digest: str
    at: dt.datetime | str


class Curriculum(TypedDict):
    """What the training run was offered: its root, and its rows by slice."""

    root: str
    rows: int
    slices: Mapping[str, int]


class Portion(TypedDict):
    """A number of consumed rows: what of the loss they were, and the first and last step that ate one."""

    rows: int
    loss_tokens: int
    recalled: int
    """How many of the rows were called back."""
    first_step: int
    last_step: int


class Group(Portion):
    """Consumed rows of one provenance."""

    source_uri: str
    source_revision: str
    prompt_name: str
    prompt_version: str
    scorer: str
    scorer_revision: str
    generator: str
    generator_revision: str


class Others(Portion):
    """All that is not listed, so that what is listed and this add up to the whole."""

    values: int
    """How many groups or values it holds."""


class Value(Portion):
    """Consumed rows of one value of a provenance column."""

    name: str
    revision: str


class Fold(TypedDict):
    """The consumed rows by one part of their provenance; values and others account for every row."""

    by: str
    values: Sequence[Value]
    others: Others | None


class Strip(TypedDict):
    """Slots eaten over time. `starts` are the first steps of the bins, `slots` has one number per bin."""

    by: str
    steps: int
    starts: Sequence[int]
    series: Sequence[Series]


class Series(TypedDict):
    """One value's slots per bin."""

    name: str
    slots: Sequence[int]
    recalled: bool
    """Whether most rows of the value were called back."""


class Reported(TypedDict):
    """One number about the model with its 95 % interval; a number that is not there is None."""

    metric: str
    split: str
    condition: str
    value: float | None
    low: float | None
    high: float | None
    n: int


class Relative(TypedDict):
    """Another version, and how many rows stand between: written by the one, eaten by the other."""

    name: str
    version: int
    run_id: str
    rows: NotRequired[int]


class Reached(TypedDict):
    """A recall that took back rows which the model ate."""

    id: str
    selector: str
    reason: str
    rows: int
    first_step: int


class Waived(TypedDict):
    """Leave to break a rule, under which some of what the model ate was admitted."""

    id: str
    table: str
    rule: str
    reason: str
    by: str
    at: dt.datetime
    until: dt.datetime


class Ancestor(TypedDict):
    """A row that another was derived from; `depth` is 1 for its parents. `span` is empty but for sources."""

    depth: int
    table: str
    row_id: str
    step: str
    prompt: str
    source_uri: str
    span: str


class Ate(TypedDict):
    """One consumed row, with what it was derived from; `more` ancestors are not listed."""

    row_id: str
    text: str
    answer: str
    slice: str
    first_step: int
    times: int
    prompt: str
    scorer: str
    recalled: str
    made_by: str
    ancestors: Sequence[Ancestor]
    more: int


class Pedigree(TypedDict):
    """The facts about a model. `parents` wrote some of its rows, `children` ate rows that it wrote."""

    model: Model
    curriculum: Curriculum
    groups: Sequence[Group]
    others: NotRequired[Others | None]
    folds: NotRequired[Sequence[Fold]]
    strips: NotRequired[Sequence[Strip]]
    rows: NotRequired[Sequence[Ate]]
    reports: Sequence[Reported]
    recalls: NotRequired[Sequence[Reached]]
    waivers: NotRequired[Sequence[Waived]]
    previous: NotRequired[Relative | None]
    parents: NotRequired[Sequence[Relative]]
    children: NotRequired[Sequence[Relative]]
    aliases: NotRequired[Sequence[str]]


class Node(TypedDict):
    """A place in a row's tree. Level 0 is the row; lower is what it comes from, higher what came of it."""

    key: str
    level: int
    kind: str
    """source, row, or model."""
    title: str
    note: str
    recalled: bool


class RowPedigree(TypedDict):
    """The facts about a row."""

    table: str
    row_id: str
    text: str
    answer: str
    provenance: Mapping[str, str]
    recall: NotRequired[Reached | None]
    nodes: Sequence[Node]
    edges: Sequence[tuple[str, str]]
    """From key to key, always to a higher level."""
    more: Mapping[int, int]
    """Level -> how many of it are not among the nodes."""
    rejected: Sequence[str]


def pedigree_json(facts: Pedigree) -> str:
    """The facts as JSON, keys sorted, groups in the page's order; a number that is none becomes null."""
    ordered = {**facts, "groups": in_order(facts["groups"]), "schema": SCHEMA}
    return json.dumps(_plain(ordered), sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def in_order(groups: Sequence[Group]) -> list[Group]:
    """The groups, most rows first."""
    return sorted(groups, key=lambda group: (-group["rows"], *(str(value) for value in group.values())))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, dt.datetime) else value
