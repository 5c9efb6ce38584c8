"""The questions: which rows made this checkpoint, where does a row come from, and which bytes are those?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.screen import plain
from infra.settings import Settings
from infra.storage import StorageError, first_record, read_span
from lineage import tables
from lineage.bans import banned
from lineage.consumption import Checkpoint, eaten_by
from lineage.curricula import load
from lineage.models import ModelVersion, aliases
from lineage.registry import Pedigree
from lineage.report import reports_of
from lineage.rows import source_row_id
from lineage.schemas import EXAMPLE, PROVENANCE, REJECTED, ROW_TABLES, TableSpec
from lineage.tables import TableError

_MOST_ROWS_PER_RECORD = 256  # ordinals tried; a record that gives more rows has not been seen
GROUPED_BY = ("source_revision", "prompt_version", "scorer")


class LineageError(TableError):
    """A row cannot be found, or its source no longer says what it said."""


@dataclass(frozen=True)
class Lineage:
    """What a checkpoint ate: one row per example, with provenance, slice, first step and how often."""

    checkpoint: Checkpoint
    rows: pa.Table
    """Provenance columns, and slice, answer, text, first_step, last_step, times, loss_tokens, and recalled:
    the recall that took the row back, or empty. Sorted by first_step.
    """

    sources: Mapping[bytes, tuple[dict[str, Any], ...]]
    """Row id -> the source rows it comes from: row_id, uri, revision, span, reader, prompt, scorer."""

    @property
    def slices(self) -> dict[str, int]:
        """Rows per slice of the curriculum."""
        return dict(sorted(Counter(self.rows["slice"].to_pylist()).items()))

    def grouped(self, by: Sequence[str] = GROUPED_BY) -> pa.Table:
        """Rows, loss tokens and steps per value of provenance columns, most rows first."""
        found = self.rows.group_by(list(by)).aggregate(
            [("row_id", "count"), ("loss_tokens", "sum"), ("first_step", "min"), ("last_step", "max")]
        )
        renamed = {"row_id_count": "rows", "loss_tokens_sum": "loss_tokens"}
        renamed |= {"first_step_min": "first_step", "last_step_max": "last_step"}
        found = found.rename_columns([renamed.get(name, name) for name in found.column_names])
        return found.sort_by([("rows", "descending"), *((name, "ascending") for name in by)])


def lineage(settings: Settings, checkpoint: Checkpoint) -> Lineage:
    """Every row that the checkpoint consumed, with where it comes from.

    Raises LineageError if one is not stored.
    """
    rows = eaten_rows(settings, checkpoint)
    return Lineage(checkpoint, rows, _sources(settings, rows))


def eaten_rows(settings: Settings, checkpoint: Checkpoint) -> pa.Table:
    """The rows of `Lineage`, without the search for their sources."""
    eaten = eaten_by(settings, checkpoint)
    per_row = eaten.group_by("row_no").aggregate(
        [("step", "min"), ("step", "max"), ("step", "count"), ("loss_tokens", "sum")]
    )
    per_row = per_row.rename_columns(["row_no", "first_step", "last_step", "times", "loss_tokens"])
    wanted = [column.name for column in PROVENANCE] + ["answer", "text", "kind"]
    where = pads.field("row_no").isin(per_row["row_no"].combine_chunks())
    stored = tables.read_ever(settings, EXAMPLE, columns=wanted, where=where)
    if stored.num_rows != per_row.num_rows:
        raise LineageError(
            f"checkpoint {checkpoint.name} ate {per_row.num_rows} rows, "
            f"of which {stored.num_rows} are stored; run: stemma fsck"
        )
    members = load(settings, checkpoint.curriculum).members.select(["row_no", "slice"])
    rows = _beside(_beside(stored, per_row), members)
    gone = banned(settings)
    recalled = [gone.get(row_no, "") for row_no in rows["row_no"].to_pylist()]
    rows = rows.append_column("recalled", pa.array(recalled, pa.string()))
    return rows.sort_by([("first_step", "ascending"), ("row_no", "ascending")])


def _beside(rows: pa.Table, more: pa.Table) -> pa.Table:
    """The columns of `more` beside `rows`, matched by row_no; Arrow's own join cannot carry lists."""
    found = more.take(pc.index_in(rows["row_no"], more["row_no"].combine_chunks()))
    for name in found.column_names:
        if name != "row_no":
            rows = rows.append_column(name, found[name])
    return rows


def pedigree(settings: Settings, found: Lineage, version: ModelVersion) -> Pedigree:
    """What a person wants to know of a model version on one page; lineage.registry.pedigree draws it."""
    checkpoint = found.checkpoint
    by = (
        "source_revision",
        "source_uri",
        "prompt_name",
        "prompt_version",
        "scorer",
        "scorer_revision",
        "generator",
    )
    standing = aliases(settings).get(version.name, {})
    facts = {
        "model": {
            "name": version.name,
            "version": version.version,
            "run_id": checkpoint.run_id,
            "adapter_digest": checkpoint.adapter_digest,
            "base_model": checkpoint.base_model,
            "base_digest": checkpoint.base_digest,
            "at": checkpoint.at,
        },
        "curriculum": {"root": checkpoint.curriculum, "rows": found.rows.num_rows, "slices": found.slices},
        "groups": found.grouped(by).to_pylist(),
        "reports": [asdict(report) for report in reports_of(settings, checkpoint.run_id)],
        "aliases": sorted(alias for alias, number in standing.items() if number == version.version),
    }
    return cast(Pedigree, facts)


def find_row(settings: Settings, prefix: str) -> tuple[TableSpec, dict[str, Any]]:
    """The stored row whose id starts with a hex prefix.

    Raises LineageError with the candidates if several do.
    """
    if len(prefix) < 4 or any(c not in "0123456789abcdef" for c in prefix):
        raise LineageError(f"'{prefix}' is no row id; expected at least 4 hex digits")
    found: list[tuple[TableSpec, bytes]] = []
    for spec in ROW_TABLES:
        ids = tables.read_ever(settings, spec, columns=["row_id"])["row_id"].to_pylist()
        found += [(spec, row_id) for row_id in ids if row_id.hex().startswith(prefix)]
    if not found:
        raise LineageError(f"no row's id starts with '{prefix}'")
    if len(found) > 1:
        candidates = ", ".join(f"{row_id.hex()} ({spec.name})" for spec, row_id in found[:8])
        raise LineageError(f"'{prefix}' could be any of: {candidates}")
    spec, row_id = found[0]
    return spec, tables.read_ever(settings, spec, where=pads.field("row_id") == row_id).to_pylist()[0]


def ancestors(settings: Settings, row_ids: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """The rows and everything they were derived from, by row id, down to the sources."""
    found: dict[bytes, dict[str, Any]] = {}
    wanted = set(row_ids)
    columns = [column.name for column in PROVENANCE]
    while wanted:
        some = pa.array(sorted(wanted), pa.binary())
        level: list[dict[str, Any]] = []
        for spec in ROW_TABLES:
            rows = tables.read_ever(settings, spec, columns=columns, where=pads.field("row_id").isin(some))
            level += [row | {"table": spec.name} for row in rows.to_pylist()]
        found.update({row["row_id"]: row for row in level})
        missing = wanted - found.keys()
        if missing:
            raise LineageError(
                f"row {sorted(missing)[0].hex()} is named as a parent but not stored; run: stemma fsck"
            )
        wanted = {parent for row in level for parent in row["parents"]} - found.keys()
    return found


def descendants(settings: Settings, row_id: bytes) -> list[dict[str, Any]]:
    """Every row that was derived from a row, at any depth: table, row_id, row_no, step."""
    found: dict[bytes, dict[str, Any]] = {}
    wanted = {row_id}
    while wanted:
        level: dict[bytes, dict[str, Any]] = {}
        for spec in ROW_TABLES:
            rows = tables.read_ever(settings, spec, columns=["row_id", "row_no", "parents", "step"])
            for row in rows.to_pylist():
                if wanted & set(row.pop("parents")):
                    level[row["row_id"]] = row | {"table": spec.name}
        wanted = level.keys() - found.keys()
        found.update(level)
    return sorted(found.values(), key=lambda row: row["row_no"])


def rejections(settings: Settings, row_id: bytes) -> list[dict[str, Any]]:
    """Why a row did not go on, by each step that refused it."""
    return tables.read(settings, REJECTED, where=pads.field("row_id") == row_id).to_pylist()


def source_bytes(row: Mapping[str, Any]) -> bytes:
    """The bytes of a source row's record.

    Raises LineageError when the source is gone or holds something else.
    """
    span = row["source_span"]
    if not span.startswith("bytes:"):
        raise LineageError(f"row {row['row_id'].hex()} has several sources; ask for its ancestors")
    first, end = (int(number) for number in span.removeprefix("bytes:").split("-"))
    try:
        record = read_span(row["source_uri"], first, end)
        is_as_read = len(record) == end - first and _gives(row, first, record)
    except StorageError as error:
        raise LineageError(
            f"{error}; revision {row['source_revision']} is what row {row['row_id'].hex()} came from"
        ) from error
    if len(record) != end - first:
        raise LineageError(
            f"source '{row['source_uri']}' is shorter than when row {row['row_id'].hex()} was read from it"
        )
    if not is_as_read:
        raise LineageError(
            f"source '{row['source_uri']}' was rewritten: what lies at {span} now does not give row "
            f"{row['row_id'].hex()}; restore revision {row['source_revision']}"
        )
    return record


def as_json(found: Lineage) -> dict[str, Any]:
    """The lineage as JSON values.

    `rows` has DESIGN's provenance names, ids in hex, and each row's `sources`.
    """
    checkpoint = {name: plain(getattr(found.checkpoint, name)) for name in Checkpoint.__dataclass_fields__}
    rows = [plain(row | {"sources": found.sources[row["row_id"]]}) for row in found.rows.to_pylist()]
    return {
        "checkpoint": checkpoint,
        "rows": rows,
        "slices": found.slices,
        "groups": found.grouped().to_pylist(),
    }


def _gives(row: Mapping[str, Any], position: int, record: bytes) -> bool:
    """Would reading this record, where the source lies now, give the row again?

    Its id says so, which a copy of the source keeps and a source that grew; a digest of the file would not.
    """
    facts: dict[str, Any] = {"reader": row["step"], "revision": int(row["step_revision"])}
    facts |= {"first_record": first_record(row["source_uri"]), "position": position, "record": record}
    return any(source_row_id(**facts, ordinal=n) == row["row_id"] for n in range(_MOST_ROWS_PER_RECORD))


def _sources(settings: Settings, rows: pa.Table) -> dict[bytes, tuple[dict[str, Any], ...]]:
    graph = ancestors(settings, rows["row_id"].to_pylist())
    return {row_id: tuple(_roots(row_id, graph)) for row_id in rows["row_id"].to_pylist()}


def _roots(row_id: bytes, graph: Mapping[bytes, dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[bytes, dict[str, Any]] = {}
    wanted = [row_id]
    while wanted:
        row = graph[wanted.pop()]
        if row["row_id"] in seen:
            continue
        seen[row["row_id"]] = row
        wanted.extend(row["parents"])
    shown = (
        "row_id",
        "source_uri",
        "source_revision",
        "source_span",
        "step",
        "step_revision",
        "prompt_name",
        "prompt_version",
        "scorer",
    )
    roots = sorted((row for row in seen.values() if not row["parents"]), key=lambda row: row["row_id"])
    return [{name: row[name] for name in shown} for row in roots]
