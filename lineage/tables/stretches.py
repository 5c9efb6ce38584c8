"""The rows that one commit added, in stretches that can be read without each other."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.commit import batch_files
from lineage.tables.damage import told
from lineage.tables.files import conformed
from lineage.tables.layout import TableVersion
from lineage.tables.place import location, open_filesystem


@dataclass(frozen=True)
class Stretch:
    """Row groups of one file, one after the other."""

    path: str
    """Relative to the table's folder."""

    groups: tuple[int, ...]
    rows: int
    run_id: str
    """The run whose rows these are; others may share the file."""


def stretches(settings: Settings, batch: TableVersion, *, least_rows: int) -> list[Stretch]:
    """The stretches of a commit's files, in order; each but a file's last has at least so many rows."""
    spec = batch.spec
    found: list[Stretch] = []
    filesystem, folder = open_filesystem(settings, location(settings, spec))
    run_id, files = batch_files(settings, batch)
    for path in (each["path"] for each in files):
        with told(settings, spec), filesystem.open_input_file(f"{folder}/{path}") as source:
            metadata = pq.ParquetFile(source).metadata
        groups: list[int] = []
        rows = 0
        for number in range(metadata.num_row_groups):
            groups.append(number)
            rows += metadata.row_group(number).num_rows
            if rows >= least_rows or number == metadata.num_row_groups - 1:
                found.append(Stretch(path, tuple(groups), rows, run_id))
                groups, rows = [], 0
    return found


def read_stretch(settings: Settings, stretch: Stretch, *, of: TableSpec) -> pa.Table:
    """Its rows, in the table's schema."""
    filesystem, folder = open_filesystem(settings, location(settings, of))
    with told(settings, of), filesystem.open_input_file(f"{folder}/{stretch.path}") as source:
        rows = pq.ParquetFile(source).read_row_groups(list(stretch.groups))
        rows = conformed(rows, of.schema)
        return rows.filter(pc.equal(rows["run_id"], stretch.run_id))
