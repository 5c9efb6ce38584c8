"""A lake and a folder of logs, and what one asks of them: without Ray, the runner works in this process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.settings import Settings
from lineage import tables
from lineage.fsck import fsck
from lineage.runs import Outcome
from lineage.schemas import TRACE, TableSpec
from pipelines.ingest import IngestConfig, ingest
from tests.lineage.in_process import RuntimeHere


class Lake:
    """See the module's sentence."""

    def __init__(self, settings: Settings, folder: Path, toys: SimpleNamespace):
        self.settings, self.runtime, self.folder, self._toys = settings, RuntimeHere(settings), folder, toys

    def write(self, name: str, *lines: Any, end: str = "\n") -> Path:
        path = self.folder / name
        text = [each if isinstance(each, str) else json.dumps(each) for each in lines]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(("\n".join(text) + end).encode())
        return path

    def log(self, name: str, *questions: str, end: str = "\n") -> Path:
        return self.write(name, *(self._toys.exchange(each, "a") for each in questions), end=end)

    def ingest(self, *paths: Path | str, **more: Any) -> Outcome:
        named = {"sources": tuple(map(str, paths)), "max_quarantined": 1, **more}
        return ingest(self.runtime, IngestConfig.model_validate(named))

    def added(self, *paths: Path | str, **more: Any) -> int:
        """How many rows an ingest adds."""
        before = len(self.ids())
        self.ingest(*paths, **more)
        return len(self.ids()) - before

    def rows(self, table: TableSpec = TRACE) -> list[dict[str, Any]]:
        return tables.read(self.settings, table).sort_by("row_no").to_pylist()

    def ids(self) -> list[str]:
        return [row["row_id"].hex() for row in self.rows()]

    def questions(self) -> list[str]:
        return sorted(row["messages"][-1]["content"] for row in self.rows())

    def require_sound(self) -> None:
        broken = [(check.name, check.found) for check in fsck(self.settings) if check.found]
        assert broken == []
        assert len(set(self.ids())) == len(self.ids())


def stemma(lake: Lake, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The command, in this process: exit code, stdout, stderr."""
    from infra.cli import run

    capsys.readouterr()
    code = run(words[0], [*words[1:], "--lake", lake.settings.lake])
    said = capsys.readouterr()
    return code, said.out, said.err
