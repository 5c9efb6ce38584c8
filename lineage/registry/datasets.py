"""What a run was fed, as MLflow's Dataset and DatasetSource: exact rows of the lake, loadable without us.

    CurriculumDataset(name, digest, profile, schema) ── source ──▶ LakeSource ── load() ──▶ pandas.DataFrame

MLflow finds LakeSource by the entry point `mlflow.dataset_source`, so a process that has only `import mlflow`
in it can load what a run was fed. MLflow keeps one source per (experiment, name, digest), that of the first
writer: so a source says nothing that two runs with the same name and digest could differ in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource

from infra.redaction import without_credentials

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.types import Schema

DIGEST_CHARACTERS = 36  # all that MLflow keeps of a digest: 144 bits of the root; the profile has it whole


class LakeSource(DatasetSource):
    """Rows of a lake: a curriculum, what a checkpoint ate, or what a model was evaluated on."""

    def __init__(
        self, lake: str, table: str, *, curriculum: str = "", run: str = "", step: int = 0, rows: str = ""
    ) -> None:
        """Name the rows: `table` is exact (`curricula@7`); then one of the three that `lineage.fed` reads."""
        self.lake = without_credentials(lake)
        self.table = table
        self.curriculum = curriculum
        self.run = run
        self.step = step
        self.rows = rows

    @staticmethod
    def _get_source_type() -> str:
        return "stemma"

    @staticmethod
    def _can_resolve(_: Any) -> bool:
        return False  # nothing else than what we wrote names a lake's rows

    @classmethod
    def _resolve(cls, raw_source: Any) -> LakeSource:
        raise NotImplementedError(f"{raw_source!r} does not say which rows of a lake are meant")

    def load(self) -> pd.DataFrame:
        """The rows with their provenance, ids in hex, held against the digest that they were logged under.

        Raises FedError where the lake is out of reach, or its rows are no longer those.
        """
        from infra.settings import Settings
        from lineage.fed import read_fed

        return read_fed(Settings(self.lake, tracking_uri=""), self.to_dict()).to_pandas()

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes: no storage options, no password."""
        found: dict[str, Any] = {"lake": self.lake, "table": self.table}
        found |= {"curriculum": self.curriculum} if self.curriculum else {}
        found |= {"run": self.run, "step": self.step} if self.run else {}
        return found | ({"rows": self.rows} if self.rows else {})

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> LakeSource:
        """The source that `to_dict` described."""
        named = dict(source_dict)
        return cls(named.pop("lake"), named.pop("table"), **named)


class CurriculumDataset(Dataset):
    """Rows that a run was fed, named by table version and Merkle root; rows by slice are its profile."""

    def __init__(
        self,
        source: LakeSource,
        *,
        name: str,
        root: str,
        profile: Mapping[str, Any],
        columns: Mapping[str, str],
    ) -> None:
        """`root` is the whole digest in hex; `columns` are names and types of what `source.load()` gives."""
        self._root = root
        self._profile = dict(profile)
        self._columns = dict(columns)
        super().__init__(source=source, name=name)

    def _compute_digest(self) -> str:
        return self._root[:DIGEST_CHARACTERS]

    @property
    def profile(self) -> dict[str, Any]:
        """Rows, rows by slice, table version and the whole root."""
        return self._profile

    @property
    def schema(self) -> Schema:
        """The columns of the rows."""
        from mlflow.types import ColSpec, Schema

        return Schema([ColSpec(_TYPES.get(kind, "string"), name) for name, kind in self._columns.items()])

    def to_dict(self) -> dict[str, str]:
        """MLflow's own fields, with profile and schema as JSON."""
        schema = json.dumps({"mlflow_colspec": self.schema.to_dict()})
        return {**super().to_dict(), "profile": json.dumps(self._profile), "schema": schema}

    def under(self, name: str) -> CurriculumDataset:
        """The same rows under another name."""
        source = self.source
        assert isinstance(source, LakeSource)
        return CurriculumDataset(
            source, name=name, root=self._root, profile=self._profile, columns=self._columns
        )


_TYPES: Mapping[str, Any] = {"int32": "integer", "int64": "long", "double": "double", "bool": "boolean"}
