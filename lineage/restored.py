"""What comes back with a version that serves again: adapter, curriculum, what it ate, config, evaluations.

Each is looked at before an alias moves: a version of which a part is lost cannot be told, trained again or
compared with, so it does not serve.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from infra.models import ModelError as AdapterError
from infra.models import adapter_config_digest, adapter_digest
from infra.redaction import without_credentials
from infra.settings import Settings
from lineage import curricula, models, runs, tables
from lineage.consumption import Checkpoint, consumption_root, eaten_by
from lineage.curricula import root_of
from lineage.models import ModelError
from lineage.report import predictions_of, reports_of
from lineage.rows import rows_digest
from lineage.schemas import EXAMPLE
from lineage.tables import TableError

_ADAPTER = ("adapter_config.json", "stemma.json")  # beside the tensors: how they are loaded
_SPLITS = ("gate", "report")


@dataclass(frozen=True)
class Evaluation:
    """What a version was last scored on, on one split."""

    split: str
    run_id: str
    rows: int
    digest: str
    """Over the ids of the rows, as in the evaluation's own input."""

    reports: dict[str, list[float]]
    """metric.condition -> value, low, high, n."""


@dataclass(frozen=True)
class Restored:
    """A version and everything that stands behind it."""

    model: str
    checkpoint: str
    adapter_digest: str
    curriculum: str
    curriculum_version: str
    config: dict[str, Any]
    """The resolved config of its training run."""

    evaluations: tuple[Evaluation, ...]

    def as_json(self) -> dict[str, Any]:
        """Stable keys: the facet `restored` of a rollback, and the evidence of its events."""
        return asdict(self)


def restored(settings: Settings, reference: str) -> Restored:
    """What stands behind a version. Raises ModelError, which names the part, where one is lost or altered."""
    checkpoint, version = models.resolve(settings, reference)
    try:
        _check_adapter(checkpoint)
        curriculum = _curriculum(settings, checkpoint)
        _check_eaten(settings, checkpoint)
        config = _config(settings, checkpoint)
        evaluations = tuple(_evaluations(settings, checkpoint))
    except (TableError, AdapterError, runs.RunError, OSError) as error:
        raise ModelError(f"{reference} cannot serve again: {error}") from error
    return Restored(
        str(version or reference),
        checkpoint.name,
        checkpoint.adapter_digest,
        checkpoint.curriculum,
        str(curriculum),
        config,
        evaluations,
    )


def _check_adapter(checkpoint: Checkpoint) -> None:
    if "://" in checkpoint.uri:
        place = without_credentials(checkpoint.uri)
        raise ModelError(
            f"the adapter at '{place}' lies in an object store, where it cannot be verified; mount the "
            "store, and copy the lake to a folder"
        )
    if adapter_digest(checkpoint.uri) != checkpoint.adapter_digest:
        raise ModelError(f"the adapter at '{checkpoint.uri}' is not the one that was trained")
    for name in _ADAPTER:
        path = Path(checkpoint.uri, name)
        try:
            json.loads(path.read_text())
        except ValueError as error:
            raise ModelError(f"'{path}' is no JSON ({error}); restore it from a copy of the lake") from error
    if checkpoint.adapter_config_digest not in (None, adapter_config_digest(checkpoint.uri)):
        raise ModelError(
            f"the config beside the adapter at '{checkpoint.uri}' (its JSON files) is not the one that was "
            "committed; restore it from a copy of the lake"
        )


def _curriculum(settings: Settings, checkpoint: Checkpoint) -> tables.TableVersion:
    found = curricula.load(settings, checkpoint.curriculum)
    if root_of(found.members) != checkpoint.curriculum:
        raise ModelError(f"curriculum {checkpoint.curriculum[:12]} no longer hashes to its root")
    _require_stored(settings, found.members, f"curriculum {checkpoint.curriculum[:12]}")
    return found.version


def _check_eaten(settings: Settings, checkpoint: Checkpoint) -> None:
    """What a model ate must be told as long as it serves: a recall of it asks."""
    eaten = eaten_by(settings, checkpoint)
    where = pads.field("row_no").isin(eaten["row_no"].unique())
    rows = tables.read_ever(settings, EXAMPLE, columns=["row_no", "row_id"], where=where)
    ids = dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    if consumption_root(eaten, ids) != checkpoint.consumption_root:
        raise ModelError(f"what {checkpoint.name} ate no longer hashes to its root; run: stemma fsck")


def _config(settings: Settings, checkpoint: Checkpoint) -> dict[str, Any]:
    config = json.loads(runs.find(settings, checkpoint.run_id)["config"])
    if not config:
        raise ModelError(f"the config of run {checkpoint.run_id} is not on record")
    return config


def _evaluations(settings: Settings, checkpoint: Checkpoint) -> list[Evaluation]:
    numbers = reports_of(settings, checkpoint.run_id)
    found: list[Evaluation] = []
    for split in _SPLITS:
        predictions = predictions_of(settings, checkpoint.run_id, split=split)
        if not predictions.num_rows:
            continue
        run_id = predictions["run_id"][0].as_py()
        _require_stored(settings, predictions, f"the evaluation set of run {run_id}")
        reports = {
            f"{n.metric}.{n.condition}": [n.value, n.low, n.high, n.n] for n in numbers if n.run_id == run_id
        }
        digest = rows_digest(predictions["row_id"].to_pylist())
        found.append(Evaluation(split, run_id, predictions.num_rows, digest, reports))
    if not found:
        raise ModelError("no evaluation of it is on record; run: stemma evaluate MODEL")
    return found


def _require_stored(settings: Settings, rows: pa.Table, what: str) -> None:
    where = pads.field("row_no").isin(rows["row_no"].combine_chunks())
    stored = tables.read_ever(settings, EXAMPLE, columns=["row_id"], where=where)["row_id"].to_pylist()
    lost = set(rows["row_id"].to_pylist()) - set(stored)
    if lost:
        raise ModelError(f"{what} holds {len(lost)} rows that are not stored; run: stemma fsck")
