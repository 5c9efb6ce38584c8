"""Which rows of a failing batch may be moved to `rejected` so that the others pass, and moving them.

    rejected (the rows, with the first rule that each broke)  ->  out of their table, by one commit

Both find what an earlier, killed go has done. The verdict comes after them, so rows are admitted only when
all that broke a rule are out; the batch's own version still shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from lineage import tables
from lineage.runs import Run
from lineage.schemas import NOT_APPLICABLE, REJECTED
from lineage.tables import TableVersion
from lineage.verdicts import Rule


def reasons(keys: pa.Table, rules: Sequence[Rule], broken: Mapping[str, pa.Array]) -> dict[bytes, str]:
    """Row id -> the first rule, in the suite's order, that refuses the batch and that the row broke.

    Empty where rows cannot be moved one by one: a rule about the whole batch refuses it, one crashed, or two
    rows share an id or a number.
    """
    refusing = [rule for rule in rules if rule.refuses]
    if not all(len(broken.get(rule.name, ())) for rule in refusing):
        return {}
    if any(pc.count_distinct(keys[name]).as_py() != keys.num_rows for name in ("row_id", "row_no")):
        return {}
    found: dict[bytes, str] = {}
    for rule in refusing:
        for row_id in broken[rule.name].to_pylist():
            found.setdefault(row_id, rule.name)
    return found


def move(
    settings: Settings,
    keys: pa.Table,
    moved: Mapping[bytes, str],
    *,
    of: TableVersion,
    suite: str,
    suite_digest: str,
    run: Run,
) -> None:
    """Put rows on record as rejected, then take them out of the newest version of their table.

    `keys`: row_id and row_no of all rows of the batch.
    """
    is_among = pc.is_in(keys["row_id"], pa.array(list(moved), pa.binary()))
    going = keys.filter(is_among).select(["row_id", "row_no"])
    count = going.num_rows
    said = {
        "row_id": going["row_id"],
        "row_no": going["row_no"],
        "step": pa.repeat(suite, count),
        "step_revision": pa.repeat(suite_digest, count),
        "reason": pa.array([moved[row_id] for row_id in going["row_id"].to_pylist()], pa.string()),
        "scorer": pa.repeat(NOT_APPLICABLE, count),
        "scorer_revision": pa.repeat(NOT_APPLICABLE, count),
        "score": pa.nulls(count, pa.float64()),
        "threshold": pa.nulls(count, pa.float64()),
        "run_id": pa.repeat(run.id, count),
    }
    told = pa.table([said[name] for name in REJECTED.schema.names], schema=REJECTED.schema)
    tables.replace(settings, told, into=REJECTED, run_id=run.id)
    tables.route_out(settings, going["row_no"].combine_chunks(), of=of, run_id=run.id)
