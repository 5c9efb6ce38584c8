"""The tiny demo, told twice on one lake: once for all tests that look at what it leaves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from infra.settings import Settings, settings_from_environment
from lineage import tables
from lineage.schemas import CHECKPOINT, CURRICULUM, EVENT, EXAMPLE, MODEL, TRACE

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Told:
    """Two runs of the demo on one lake, and the lake's table versions after each."""

    settings: Settings
    runs: tuple[subprocess.CompletedProcess[str], ...]
    seconds: tuple[float, ...]
    versions: tuple[dict[str, str], ...]


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Shared: nothing in its lake may be changed."""
    lake = str(tmp_path_factory.mktemp("demo") / "lake")
    settings = settings_from_environment(lake)
    runs, seconds, after = [], [], []
    for _ in range(2):
        start = monotonic()
        runs.append(stemma("demo", "--scale", "tiny", "--lake", lake))
        seconds.append(monotonic() - start)
        after.append(versions(settings))
    return Told(settings, tuple(runs), tuple(seconds), tuple(after))


def stemma(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=560)


def versions(settings: Settings) -> dict[str, str]:
    specs = (TRACE, EXAMPLE, CURRICULUM, CHECKPOINT, MODEL, EVENT)
    return {spec.name: str(tables.current(settings, spec)) for spec in specs}
