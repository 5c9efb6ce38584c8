"""Where a table lies in the lake, and which version of it is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from infra.settings import Settings
from lineage.schemas import TABLES, TableSpec
from lineage.tables.damage import told
from lineage.tables.place import TableError, location


class UnknownTable(TableError):
    """A table or a version was named that does not exist."""


@dataclass(frozen=True, order=True)
class TableVersion:
    """One version of one table, written `examples@7`."""

    table: str
    version: int

    def __str__(self) -> str:
        """The version as `table@version`."""
        return f"{self.table}@{self.version}"

    @property
    def spec(self) -> TableSpec:
        """What the table holds."""
        return TABLES[self.table]


_ATTEMPTS = 50

COLUMNS = "stemma.columns"
"""In a commit's metadata: the columns that it gave a table which is older than they are."""

# Old versions stay readable: a checkpoint names the versions it was made from, for as long as it lives.
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}


def open_table(settings: Settings, spec: TableSpec, version: int | None = None) -> DeltaTable | None:
    """The table at a version (None: the newest), or None where it was never written."""
    uri = location(settings, spec)
    if settings.is_local and not Path(uri, "_delta_log").is_dir():
        return None
    with told(settings, spec):
        try:
            return DeltaTable(uri, version=version, storage_options=dict(settings.storage_options) or None)
        except TableNotFoundError:
            return None


def open_to_write(settings: Settings, spec: TableSpec) -> DeltaTable | None:
    """The newest version, with all columns of its schema, or None where it was never written. Safe to race.

    A table that is older than a column gets it by a commit of its own, which touches no file: in rows written
    before, the column is empty.
    """
    for _ in range(_ATTEMPTS):
        table = open_table(settings, spec)
        if table is None:
            return None
        with told(settings, spec):
            known = {field.name for field in table.schema().fields}
            younger = [field for field in spec.schema if field.name not in known]
            if not younger:
                return table
            named = CommitProperties(
                custom_metadata={COLUMNS: ",".join(field.name for field in younger)}, max_commit_retries=0
            )
            try:
                table.alter.add_columns(Schema.from_arrow(pa.schema(younger)).fields, commit_properties=named)
            except CommitFailedError:  # somebody else has just written; perhaps these columns
                continue
    raise TableError(f"'{spec.name}' could not be given a column: {_ATTEMPTS} others came first; try again")


def create_table(settings: Settings, spec: TableSpec) -> DeltaTable:
    """The table as `open_to_write` gives it, made empty if it was never written. Safe to race."""
    existing = open_to_write(settings, spec)
    if existing is not None:
        return existing
    with told(settings, spec):
        if settings.is_local:
            Path(location(settings, spec)).mkdir(parents=True, exist_ok=True)
        try:
            return DeltaTable.create(
                location(settings, spec),
                pa.schema(spec.schema),
                mode="ignore",
                configuration=_CONFIGURATION,
                storage_options=dict(settings.storage_options) or None,
            )
        except CommitFailedError:  # somebody else has just made it
            made = open_to_write(settings, spec)
            if made is None:
                raise
            return made


def current(settings: Settings, spec: TableSpec) -> TableVersion | None:
    """The newest version of a table, or None where it was never written."""
    table = open_table(settings, spec)
    return None if table is None else TableVersion(spec.name, table.version())


def resolve(settings: Settings, reference: str) -> TableVersion:
    """The version that `examples@7` or `examples` (the newest) names. Raises UnknownTable."""
    match = re.fullmatch(r"([a-z_]+)(?:@(\d+))?", reference)
    if not match or match[1] not in TABLES:
        raise UnknownTable(
            f"'{reference}' names no table; expected NAME@VERSION with one of: {', '.join(sorted(TABLES))}"
        )
    newest = current(settings, TABLES[match[1]])
    if newest is None:
        raise UnknownTable(f"table '{match[1]}' was never written in lake '{settings.shown_lake}'")
    if match[2] is None:
        return newest
    if int(match[2]) > newest.version:
        raise UnknownTable(f"'{reference}' does not exist; the newest version is {newest}")
    return TableVersion(match[1], int(match[2]))
