"""The rows that a run was fed, with their provenance: as facts for MLflow, and as a table for whoever asks.

    curriculum     what a training run was offered     held against the curriculum's root
    eaten          what its checkpoint ate             held against the consumption's root
    evaluated      what a model was scored on          held against the digest of the rows

Each is named by a small dict without secrets, which `lineage.registry.datasets.LakeSource` carries.

Errors: FedError.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import queries, tables
from lineage.consumption import Checkpoint, checkpoints, consumption_root, eaten_by
from lineage.curricula import Curriculum, root_of
from lineage.queries import Lineage
from lineage.rows import rows_digest
from lineage.schemas import CONSUMPTION, CURRICULUM, EXAMPLE, PREDICTION, PROVENANCE, RUN
from lineage.tables import TableError, TableVersion

Context = Literal["training", "eaten", "eval"]


class FedError(TableError):
    """The rows that a run was fed cannot be shown again; the message says why."""


@dataclass(frozen=True)
class Fed:
    """One set of rows that a run was fed, as MLflow shows it among the run's inputs."""

    context: Context
    name: str
    root: str
    """In hex, whole."""

    source: Mapping[str, Any]
    """Names the rows for `read_fed`."""

    profile: Mapping[str, Any]
    columns: Mapping[str, str] = field(default_factory=dict)
    """Name -> Arrow's type, of what `read_fed` gives."""


def of_curriculum(settings: Settings, curriculum: Curriculum) -> Fed:
    """What a training run was offered."""
    source = {
        "lake": settings.shown_lake,
        "table": str(curriculum.version),
        "curriculum": curriculum.root,
    }
    profile = {
        "rows": curriculum.members.num_rows,
        "slices": curriculum.slices,
        "table_version": str(curriculum.version),
        "curriculum": curriculum.root,
    }
    columns = _columns(_OF_MEMBERS)
    return Fed("training", str(curriculum.version), curriculum.root, source, profile, columns)


def of_checkpoint(settings: Settings, checkpoint: Checkpoint, found: Lineage) -> Fed:
    """What a checkpoint ate. Its name holds the run: no two runs share a source."""
    version = _stored_in(settings, checkpoint)
    source = {
        "lake": settings.shown_lake,
        "table": str(version),
        "run": checkpoint.run_id,
        "step": checkpoint.step,
    }
    profile = {
        "rows": found.count,
        "times_fed": found.times,
        "slices": found.slices,
        "table_version": str(version),
        "curriculum": checkpoint.curriculum,
        "root": checkpoint.consumption_root,
    }
    columns = {field.name: str(field.type) for field in eaten(found.first_rows(0)).schema}
    name = f"{version} of {checkpoint.name}"
    return Fed("eaten", name, checkpoint.consumption_root, source, profile, columns)


def of_evaluation(settings: Settings, run_id: str, *, digest: str, split: str) -> Fed:
    """What an evaluation scored; `digest` is that of its rows. All that scored these rows share it.

    The table version is the first that holds all of them.
    """
    numbers = _predicted(settings, run_id)
    mine = pads.field("row_no").isin(numbers)
    scored = tables.read_ever(settings, EXAMPLE, columns=["run_id", "condition"], where=mine)
    stored = tables.batches(settings, EXAMPLE)
    version = max((stored[run] for run in scored["run_id"].unique().to_pylist()), key=lambda v: v.version)
    profile = {
        "rows": scored.num_rows,
        "conditions": dict(sorted(Counter(scored["condition"].to_pylist()).items())),
        "split": split,
        "table_version": str(version),
        "rows_digest": digest,
    }
    source = {"lake": settings.shown_lake, "table": str(version), "rows": digest}
    return Fed("eval", f"{version} {split}", _hex(digest), source, profile, _columns(_OF_EXAMPLES))


def read_fed(settings: Settings, source: Mapping[str, Any]) -> pa.Table:
    """The rows that a source names, ids in hex. Raises FedError where they are not those any more."""
    if settings.is_local and not Path(settings.lake, "tables").is_dir():
        raise FedError(f"there is no lake at '{settings.shown_lake}' on this machine; mount or copy it there")
    if "run" in source:
        return _eaten(settings, _checkpoint(settings, source["run"], source["step"]))
    if "curriculum" in source:
        return _members(settings, source["table"], source["curriculum"])
    return _evaluated(settings, source["rows"])


def eaten(rows: pa.Table) -> pa.Table:
    """Rows of a Lineage as they are shown: what was fed, slice, steps, times, loss tokens, provenance."""
    return _shown(rows, first=_EATEN)


def _eaten(settings: Settings, checkpoint: Checkpoint) -> pa.Table:
    ledger, rows = eaten_by(settings, checkpoint), queries.lineage(settings, checkpoint).rows
    ids = dict(zip(rows["row_no"].to_pylist(), rows["row_id"].to_pylist(), strict=True))
    if consumption_root(ledger, ids) != checkpoint.consumption_root:
        raise FedError(f"what checkpoint {checkpoint.name} ate does not hash to its root; run: stemma fsck")
    return eaten(rows)


def _members(settings: Settings, table: str, root: str) -> pa.Table:
    version = tables.resolve(settings, table)
    members = tables.read(settings, version, where=pads.field("curriculum") == root)
    if not members.num_rows or root_of(members) != root:
        raise FedError(f"curriculum {root[:12]} in {table} does not hash to its root; run: stemma fsck")
    rows = _examples(settings, members["row_no"].combine_chunks())
    place = pc.index_in(rows["row_no"], members["row_no"].combine_chunks())
    for name in ("slice", "weight"):
        rows = rows.append_column(name, members[name].take(place))
    return _shown(rows.sort_by("row_id"), first=_OF_MEMBERS)


def _evaluated(settings: Settings, digest: str) -> pa.Table:
    done = (pads.field("job") == "evaluate") & (pads.field("status") == "COMPLETE")
    wanted = f"examples:{digest}"
    for event in tables.read(settings, RUN, columns=["run_id", "inputs"], where=done).to_pylist():
        if wanted in json.loads(event["inputs"]):
            rows = _examples(settings, _predicted(settings, event["run_id"]))
            if rows_digest(rows["row_id"].to_pylist()) == digest:
                return _shown(rows.sort_by("row_id"), first=_OF_EXAMPLES)
    raise FedError(f"no evaluation of rows {digest[:12]} is on record; run: stemma fsck")


def _predicted(settings: Settings, run_id: str) -> pa.Array:
    mine = pads.field("run_id") == run_id
    return tables.read(settings, PREDICTION, columns=["row_no"], where=mine)["row_no"].combine_chunks()


def _stored_in(settings: Settings, checkpoint: Checkpoint) -> TableVersion:
    """The version of `consumption` in which a checkpoint's record was written."""
    found = [
        entry["version"]
        for entry in tables.commits(settings, CONSUMPTION)
        if entry.get("stemma.run_id") == checkpoint.run_id
    ]
    return TableVersion(CONSUMPTION.name, max(found)) if found else tables.resolve(settings, CONSUMPTION.name)


def _checkpoint(settings: Settings, run_id: str, step: int) -> Checkpoint:
    found = next((c for c in checkpoints(settings) if (c.run_id, c.step) == (run_id, step)), None)
    if found is None:
        raise FedError(f"checkpoint {run_id}/{step} is not in the lake '{settings.shown_lake}'")
    return found


def _examples(settings: Settings, numbers: pa.Array) -> pa.Table:
    """Also those that a recall took out since."""
    columns = [*(column.name for column in PROVENANCE), "text", "answer", "split", "condition"]
    found = tables.read_ever(settings, EXAMPLE, columns=columns, where=pads.field("row_no").isin(numbers))
    if found.num_rows != len(numbers.unique()):
        raise FedError(f"of {len(numbers.unique())} rows {found.num_rows} are stored; run: stemma fsck")
    return found


_EATEN = (
    "row_id",
    "text",
    "answer",
    "slice",
    "first_step",
    "last_step",
    "times",
    "loss_tokens",
    "recalled",
)
_OF_MEMBERS = ("row_id", "slice", "weight", "text", "answer")
_OF_EXAMPLES = ("row_id", "split", "condition", "text", "answer")
_HELD_ELSEWHERE = frozenset({"parent_nos"})  # numbers of one lake, beside `parents`


def _shown(rows: pa.Table, *, first: Sequence[str]) -> pa.Table:
    """These columns, then the provenance; ids in hex."""
    names = [*first, *(c.name for c in PROVENANCE if c.name not in (*first, *_HELD_ELSEWHERE))]
    found = rows.select(names)
    for name in ("row_id", "parents"):
        ids = [_hex(value) for value in found[name].to_pylist()]
        kind = pa.list_(pa.string()) if name == "parents" else pa.string()
        found = found.set_column(found.column_names.index(name), name, pa.array(ids, kind))
    return found


def _hex(value: Any) -> Any:
    if isinstance(value, list):
        return [_hex(item) for item in value]
    return value.hex() if isinstance(value, bytes) else str(value).rpartition(":")[2]


def _columns(first: Sequence[str]) -> dict[str, str]:
    kinds = {c.name: str(c.type) for c in (*CURRICULUM.columns, *EXAMPLE.columns)}
    kinds |= {"row_id": str(pa.string()), "parents": str(pa.list_(pa.string()))}
    names = [*first, *(c.name for c in PROVENANCE if c.name not in (*first, *_HELD_ELSEWHERE))]
    return {name: kinds[name] for name in names}
