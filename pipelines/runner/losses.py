"""What does not go on: rows that recalls refuse, rows that are stored already; and the balance of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from infra.settings import Settings
from lineage import bans, tables
from lineage.bans import Bans
from lineage.rows import Fingerprint
from lineage.schemas import NOT_APPLICABLE, REJECTED, TableSpec


class RunnerError(Exception):
    """A job's balance does not come out; nothing was committed."""


def check_balance(counts: Mapping[str, int]) -> None:
    """rows in (+ created) = rows out + merged + rejected + quarantined + empty. Raises RunnerError.

    empty: records that are of their format and hold no row.
    """
    left = counts["in"] + counts["created"]
    lost = counts["rejected"] + counts.get("quarantined", 0) + counts.get("empty", 0)
    if left != counts["out"] + counts["merged"] + lost or counts["created"] < 0:
        raise RunnerError(f"rows do not balance: {counted(counts)}")


def without_banned(
    rows: pa.Table, spec: TableSpec, banned: Bans
) -> tuple[pa.Table, list[tuple[dict[str, Any], str]]]:
    """The rows that may be stored; and what may not, each with the recall that refuses it."""
    refused = banned.refused(rows, spec)
    if not refused:
        return rows, []
    named = rows.select(["row_id", "row_no", "parents", "parent_nos"])
    lost = named.take(pa.array(list(refused), pa.int64())).to_pylist()
    kept = [position not in refused for position in range(rows.num_rows)]
    return rows.filter(pa.array(kept, pa.bool_())), list(zip(lost, refused.values(), strict=True))


def recalled(refused: Sequence[tuple[Mapping[str, Any], str]], maker: Fingerprint, run_id: str) -> pa.Table:
    """Rows of `rejected`: a source row under its own id, a derived one under those of its parents."""
    found: dict[bytes, dict[str, Any]] = {}
    for row, recall in refused:
        behind = list(zip(row["parents"], row["parent_nos"], strict=True)) or [(row["row_id"], -1)]
        for row_id, row_no in behind:
            found[row_id] = {
                "row_id": row_id,
                "row_no": row_no,
                "step": maker.name,
                "step_revision": str(maker.revision),
                "reason": f"recalled:{recall}",
                "scorer": NOT_APPLICABLE,
                "scorer_revision": NOT_APPLICABLE,
                "score": None,
                "threshold": None,
                "run_id": run_id,
            }
    return pa.Table.from_pylist(list(found.values()), schema=REJECTED.schema)


def require_same_bans(settings: Settings, banned: Bans) -> None:
    """Raise RunnerError where a recall came while the job ran: its rows may be among these."""
    if bans.standing(settings) != banned:
        raise RunnerError(
            "a recall came while the job ran, or was lifted, so nothing was committed; run it again"
        )


def stored_ids(settings: Settings, into: TableSpec) -> frozenset[bytes]:
    """The ids of all rows that a table holds now."""
    return frozenset(tables.read(settings, into, columns=["row_id"])["row_id"].to_pylist())


def with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The rows with other values in a column."""
    position = rows.column_names.index(name)
    return rows.set_column(position, rows.schema.field(name), values)


def counted(counts: Mapping[str, int]) -> str:
    """Counts in words; zeros are left out."""
    return ", ".join(f"{name} {number}" for name, number in counts.items() if number)
