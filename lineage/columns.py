"""What a stored column and table are, and the provenance columns that every row of a row table carries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

UNSTATED = "unstated"  # the source does not say
NOT_APPLICABLE = "not_applicable"  # there is nothing to say
MIXED = "mixed"  # the parents of a merged row disagree

TIMESTAMP = pa.timestamp("us", tz="UTC")
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("name", pa.string()),
        ("tool_calls", pa.string()),  # JSON text: arguments differ from tool to tool, the schema must not
        ("tool_call_id", pa.string()),
        ("extra", pa.string()),  # JSON text: parts that are not text, by reference and digest
    ]
)


@dataclass(frozen=True)
class Column:
    """One column: what it holds, and whether it may be empty."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class TableSpec:
    """A table: why it exists, what it holds, who alone writes it."""

    name: str
    purpose: str
    writer: str
    keys: tuple[str, ...]
    own: tuple[Column, ...]
    provenance: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns in stored order: provenance after what the table holds itself."""
        return self.own + (PROVENANCE if self.provenance else ())

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a stored row."""
        return _schema(self.columns)

    @cached_property
    def payload(self) -> pa.Schema:
        """The Arrow schema of what a row says, not of where it comes from: identity is computed over it."""
        return _schema(self.own)

    @cached_property
    def derivable(self) -> pa.Schema:
        """What a step may return: the payload, and provenance that a step may state anew."""
        return _schema(self.own + tuple(column for column in PROVENANCE if column.name in STATED))


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema([pa.field(column.name, column.type) for column in columns])


PROVENANCE = (
    Column("row_id", pa.binary(), "16 bytes, derived from content: identity across runs and machines"),
    Column(
        "row_no", pa.int64(), "compact number, unique in the lake, from a lease; never part of an identity"
    ),
    Column("parents", pa.list_(pa.binary()), "row_ids this row was derived from; empty only for source rows"),
    Column("parent_nos", pa.list_(pa.int64()), "row_nos of the parents, in the same order"),
    Column(
        "derivation", pa.string(), "source; joint: all parents were needed; alternative: any one suffices"
    ),
    Column("source_uri", pa.string(), "the source this row was read from"),
    Column("source_revision", pa.string(), "digest of the source's content, never of its path"),
    Column(
        "source_span",
        pa.string(),
        "where in it: bytes:FIRST-END of the decompressed content, row:N of Parquet",
    ),
    Column("prompt_name", pa.string(), "the prompt that produced the output"),
    Column("prompt_version", pa.string(), "and its version"),
    Column("generator", pa.string(), "who wrote the output: model, human, template"),
    Column("generator_revision", pa.string(), "and its revision"),
    Column("scorer", pa.string(), "who judged the row"),
    Column("scorer_revision", pa.string(), "and its revision"),
    Column("score", pa.float64(), "the judgement", nullable=True),
    Column("threshold", pa.float64(), "what the judgement was held against", nullable=True),
    Column("step", pa.string(), "the reader or step that made the row"),
    Column("step_revision", pa.string(), "its declared revision"),
    Column("code_revision", pa.string(), "digest over the packages that ran, uncommitted changes included"),
    Column("run_id", pa.string(), "the run that wrote the row"),
    Column("extracted_at", TIMESTAMP, "when"),
    Column("review", pa.string(), "none, approved, rejected or overridden"),
    Column("reviewer", pa.string(), "by whom"),
)

STATED = (
    "prompt_name",
    "prompt_version",
    "generator",
    "generator_revision",
    "scorer",
    "scorer_revision",
    "score",
    "threshold",
    "review",
    "reviewer",
)
"""Provenance that a source or a step may state; all other provenance columns are stamped."""
