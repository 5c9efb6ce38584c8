"""What the tests of ingest share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.settings import Settings
from tests.pipelines.log_lake import Lake


@pytest.fixture
def lake(settings: Settings, tmp_path: Path, toys: SimpleNamespace) -> Iterator[Lake]:
    """An empty lake beside an empty folder of logs; whatever a test does to it, fsck finds it sound."""
    (tmp_path / "logs").mkdir()
    lake = Lake(settings, tmp_path / "logs", toys)
    yield lake
    lake.require_sound()
