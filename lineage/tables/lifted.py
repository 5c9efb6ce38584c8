"""Put rows that recalls took out back into the newest version of their table."""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage.schemas import TableSpec
from lineage.tables.commit import ATTEMPTS, added_file, is_written, log_entry, name_after, written_after
from lineage.tables.files import write_file
from lineage.tables.layout import TableVersion, open_to_write
from lineage.tables.place import TableError
from lineage.tables.reads import batches, read, read_ever, withdrawn


def put_back(
    settings: Settings, row_nos: pa.Int64Array, *, of: TableSpec, recall: str, run_id: str
) -> TableVersion | None:
    """Put the rows that `could_stand` gives back into a row table by one commit, as they were.

    Whoever withdraws their batch later takes them along. Returns the new version, or None where none is to
    come back, so that doing it twice changes nothing.
    """
    for attempt in range(ATTEMPTS):
        table = open_to_write(settings, of)
        if table is None:
            return None
        rows = could_stand(settings, row_nos, of=of)
        if not rows.num_rows:
            return None
        batch_of = batches(settings, of)
        added = []
        for batch_run in sorted(rows["run_id"].unique().to_pylist()):
            log = log_entry(settings, batch_of[batch_run])
            first = next(entry["add"]["path"] for entry in log if "add" in entry)
            name = name_after(first, recall, run_id)
            part = rows.filter(pc.equal(rows["run_id"], batch_run)).sort_by("row_no")
            added.append(added_file(write_file(settings, part, into=of, name=name)))
        metadata = {"stemma.run_id": run_id, "stemma.lift": recall}
        if is_written(settings, of, table, added, metadata):
            return written_after(settings, of, table.version(), metadata)
        time.sleep(0.01 * attempt)
    raise TableError(f"'{of.name}' could not be written: {ATTEMPTS} other writers came first; try again")


def could_stand(settings: Settings, row_nos: pa.Int64Array, *, of: TableSpec) -> pa.Table:
    """Those of the rows that are out of a row table's newest version and could stand in it again.

    Not the rows of a batch that was withdrawn meanwhile, nor one whose id another row bears by now: judged
    anew under another value, it came again.
    """
    now = read(settings, of, columns=["row_no", "row_id"])
    rows = read_ever(settings, of, where=pads.field("row_no").isin(row_nos))
    rows = rows.sort_by([("row_no", "descending")])
    for name in ("row_no", "row_id"):
        rows = rows.filter(pc.invert(pc.is_in(rows[name], now[name].combine_chunks())))
    refused = withdrawn(settings, of)
    gone = [run_id for run_id, batch in batches(settings, of).items() if str(batch) in refused]
    rows = rows.filter(pc.invert(pc.is_in(rows["run_id"], pa.array(gone, pa.string()))))
    first: dict[bytes, int] = {}
    for position, row_id in enumerate(rows["row_id"].to_pylist()):
        first.setdefault(row_id, position)  # of several with one id the one that stood last
    return rows.take(pa.array(sorted(first.values()), pa.int64()))
