"""Is every row what was stored, and does it come from where it says?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from infra.storage import StorageError, survey
from lineage import sources as book
from lineage import tables
from lineage.ancestry import LineageError, source_bytes
from lineage.consumption import checkpoints, eaten_by
from lineage.schemas import CURRICULUM, EXAMPLE, REVIEW, ROW_TABLES, RUN, TABLES

Findings = tuple[int, list[str]]
"""How many things were looked at, and a sentence for each that is wrong."""

SAMPLED = 200  # source rows per table: more than every tenth of the demo's
# What a commit of rows may be about.
_OURS = ("stemma.keys", "stemma.withdrawn", "stemma.recall", "stemma.lift", "stemma.vacuumed")


def files(settings: Settings) -> Findings:
    """Every table reads back whole, and no commit that a run made is lost."""
    looked_at, found = 0, []
    newest: dict[str, int] = {}
    for spec in TABLES.values():
        count, damaged = tables.damage(settings, spec)
        looked_at += count
        found += damaged
        version = None if damaged else tables.current(settings, spec)
        newest |= {} if damaged else {spec.name: version.version if version else -1}
    if RUN.name not in newest:
        return looked_at, found
    for run in tables.read(settings, RUN, columns=["run_id", "outputs"]).to_pylist():
        for output in json.loads(run["outputs"]):
            table, _, number = output.partition("@")
            if table in newest and int(number) > newest[table]:
                state = f"the newest is {table}@{newest[table]}" if newest[table] >= 0 else "there is no log"
                found.append(f"run {run['run_id']} wrote {output}, but {state}; restore the table's log")
    return looked_at, found


def commits(settings: Settings) -> Findings:
    """Every commit that touches rows says which run made it, and what for."""
    looked_at, found = 0, []
    for spec in (*ROW_TABLES, CURRICULUM):
        for entry in tables.commits(settings, spec):
            looked_at += 1
            operation = entry.get("operation", "unknown operation")
            is_ours = "stemma.run_id" in entry and any(name in entry for name in _OURS)
            # what makes a table, or gives it a column, touches no row, and no run's work depends on it
            is_ours |= (entry["version"], operation) == (0, "CREATE TABLE")
            is_ours |= operation == "ADD COLUMN" and tables.COLUMNS in entry
            if not is_ours:
                found.append(
                    f"{spec.name}@{entry['version']} ({operation}) was made by no run; restore the table "
                    "from a copy of the lake, and change rows through jobs only"
                )
    return looked_at, found


def sources(settings: Settings) -> Findings:
    """The source's bytes give the row's id again.

    A sample: at most SAMPLED rows per table, at even distances. A source that is gone, or was changed since,
    says nothing about the row, and its rows do not count as looked at.
    """
    looked_at, found = 0, []
    revisions: dict[str, str] = {}
    origins = book.origins(settings)
    for spec in ROW_TABLES:
        names = ["row_no", "row_id", "source_uri", "source_revision", "source_span", "step", "step_revision"]
        rows = tables.read(settings, spec, columns=[*names, "derivation"]).sort_by("row_no")
        read = [i for i, kind in enumerate(rows["derivation"].to_pylist()) if kind == "source"]
        chosen = read[:: -(-len(read) // SAMPLED) or 1]
        for row in rows.take(pa.array(chosen, pa.int64())).to_pylist():
            try:
                source_bytes(row, origins=origins)
            except LineageError:
                uri = row["source_uri"]
                if uri not in revisions:
                    revisions[uri] = _revision(uri)
                if revisions[uri] != row["source_revision"]:
                    continue
                found.append(
                    f"{spec.name}: row {row['row_no']} is not what {row['source_span']} of '{uri}' gives, "
                    "though that source is unchanged"
                )
            except ValueError:
                found.append(f"{spec.name}: row {row['row_no']} has no span: '{row['source_span']}'")
            looked_at += 1
    return looked_at, found


def closure(settings: Settings) -> Findings:
    """Nothing names a row that is not stored, nor by a number that is another row's.

    Nor does a row come from itself: where parents have smaller numbers than children, no way leads back.
    """
    numbers: dict[bytes, set[int]] = {}
    named: list[tuple[str, bytes, int]] = []
    found: list[str] = []
    for spec in ROW_TABLES:
        rows = tables.read_ever(settings, spec, columns=["row_id", "row_no", "parents", "parent_nos"])
        columns = (rows[name].to_pylist() for name in rows.column_names)
        for row_id, row_no, parents, parent_nos in zip(*columns, strict=True):
            numbers.setdefault(row_id, set()).add(row_no)
            if len(parents) != len(parent_nos):
                found.append(
                    f"row {row_no} of {spec.name} names {len(parents)} parents, but {len(parent_nos)} numbers"
                )
                continue
            later = [number for number in parent_nos if number >= row_no]
            if later or row_id in parents:
                who = f"row {later[0]}" if later else "itself"
                found.append(
                    f"row {row_no} of {spec.name} names {who} as its parent, which is no earlier row"
                )
            pairs = zip(parents, parent_nos, strict=True)
            named += [(f"row {row_no} of {spec.name}", parent, number) for parent, number in pairs]
    members = tables.read(settings, CURRICULUM, columns=["curriculum", "row_id", "row_no", "answer", "text"])
    named += [
        (f"curriculum {row['curriculum'][:12]}", row["row_id"], row["row_no"]) for row in members.to_pylist()
    ]
    reviewed = tables.read(settings, REVIEW, columns=["row_id", "row_no"]).to_pylist()
    named += [("a review", row["row_id"], row["row_no"]) for row in reviewed]
    for who, row_id, number in named:
        if row_id not in numbers:
            found.append(f"{who} names {row_id.hex()}, which is not stored")
        elif number not in numbers[row_id]:
            found.append(
                f"{who} names {row_id.hex()} by number {number}, but its number is {min(numbers[row_id])}"
            )
    found += _altered(settings, members)
    known = set().union(*numbers.values())
    looked_at = len(named)
    for checkpoint in checkpoints(settings):
        try:
            eaten = eaten_by(settings, checkpoint)["row_no"].to_pylist()
        except tables.Damaged as error:
            found.append(f"what checkpoint {checkpoint.name} ate could not be checked: {error}")
            continue
        looked_at += len(eaten)
        strangers = sorted({number for number in eaten if number not in known})
        if strangers:
            found.append(f"checkpoint {checkpoint.name} ate rows {strangers[:5]}, which are not stored")
    return looked_at, found


def exactly_once(settings: Settings) -> Findings:
    """No identity stands twice, and no place in a source was read twice by one reader."""
    found: list[str] = []
    looked_at = 0
    for spec in ROW_TABLES:
        rows = tables.read(settings, spec, columns=["row_id", "row_no"])
        looked_at += rows.num_rows
        for column in ("row_id", "row_no"):
            found += [
                f"{spec.name}: {column} {_shown(value)} is stored {n} times"
                for value, n in _repeated(rows[column])
            ]
    numbers = [
        n
        for spec in ROW_TABLES
        for n in tables.read(settings, spec, columns=["row_no"])["row_no"].to_pylist()
    ]
    found += [f"row_no {number} is used in two tables" for number, n in Counter(numbers).items() if n > 1]
    return looked_at, found + _read_twice(settings)


def _read_twice(settings: Settings) -> list[str]:
    """A record may give several rows, but to one run alone: what was read before is known by its ids."""
    place = ["source_revision", "source_span", "step", "step_revision"]
    found: list[str] = []
    for spec in ROW_TABLES:
        source = pads.field("derivation") == "source"
        rows = tables.read(settings, spec, columns=[*place, "run_id"], where=source)
        counted = rows.group_by(place).aggregate([("run_id", "count_distinct")])
        twice = counted.filter(pc.greater(counted["run_id_count_distinct"], 1)).to_pylist()
        found += [
            f"{spec.name}: {row['source_span']} of {row['source_revision'][:23]} was read and stored by "
            f"{row['run_id_count_distinct']} runs"
            for row in twice[:5]
        ]
    return found


def _repeated(column: pa.ChunkedArray) -> list[tuple[Any, int]]:
    return [(value, n) for value, n in Counter(column.to_pylist()).items() if n > 1][:5]


def _shown(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _altered(settings: Settings, members: pa.Table) -> Iterator[str]:
    """A sentence for each curriculum with members that say something else than the examples they copy."""
    columns = ["row_id", "answer", "text"]
    examples = tables.read_ever(settings, EXAMPLE, columns=columns).to_pylist()
    says = {row["row_id"]: (row["answer"], row["text"]) for row in examples}
    altered: dict[str, list[bytes]] = {}
    for row in members.to_pylist():
        copied = (row["answer"], row["text"])
        if says.get(row["row_id"], copied) != copied:
            altered.setdefault(row["curriculum"], []).append(row["row_id"])
    for root, row_ids in altered.items():
        yield (
            f"curriculum {root[:12]} holds {len(row_ids)} members with another answer or text than the "
            f"example's, as {row_ids[0].hex()}"
        )


def _revision(uri: str) -> str:
    """The digest of a source as it is now; empty where it cannot be read."""
    try:
        return survey(uri).revision
    except StorageError:
        return ""
