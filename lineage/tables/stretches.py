"""The rows that one commit added, in stretches that can be read without each other."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.damage import told
from lineage.tables.files import conformed
from lineage.tables.layout import TableVersion, open_table
from lineage.tables.place import location, open_filesystem
from lineage.tables.snapshots import file_list


@dataclass(frozen=True)
class Stretch:
    """Row groups of one file, one after the other."""

    path: str
    """Relative to the table's folder."""

    groups: tuple[int, ...]
    rows: int


def stretches(settings: Settings, batch: TableVersion, *, least_rows: int) -> list[Stretch]:
    """The stretches of a commit's files, in order; each but a file's last has at least so many rows."""
    spec = batch.spec
    found: list[Stretch] = []
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    for path in _added(settings, batch):
        with told(settings, spec), filesystem.open_input_file(f"{folder}/{path}") as source:
            metadata = pq.ParquetFile(source).metadata
        groups: list[int] = []
        rows = 0
        for number in range(metadata.num_row_groups):
            groups.append(number)
            rows += metadata.row_group(number).num_rows
            if rows >= least_rows or number == metadata.num_row_groups - 1:
                found.append(Stretch(path, tuple(groups), rows))
                groups, rows = [], 0
    return found


def read_stretch(settings: Settings, stretch: Stretch, *, of: TableSpec) -> pa.Table:
    """Its rows, in the table's schema."""
    filesystem, folder = open_filesystem(settings, location(settings, of))
    with told(settings, of), filesystem.open_input_file(f"{folder}/{stretch.path}") as source:
        rows = pq.ParquetFile(source).read_row_groups(list(stretch.groups))
        return conformed(rows, of.schema)


def _added(settings: Settings, batch: TableVersion) -> list[str]:
    """The files that the commit added, sorted."""
    before, after = (
        {each["path"] for each in file_list(settings, batch.spec, handle)} if handle else set()
        for handle in (
            open_table(settings, batch.spec, batch.version - 1) if batch.version else None,
            open_table(settings, batch.spec, batch.version),
        )
    )
    return sorted(after - before)
