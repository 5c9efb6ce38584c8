"""Where things are: the lake, the tracking server, the Ray cluster. Never what is computed.

The only module that reads the environment. Settings travel to workers as a value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class SettingsError(ValueError):
    """A place that was named cannot be used; the message says what to set instead."""


@dataclass(frozen=True)
class Settings:
    """Where one Stemma lake lives and who keeps its books."""

    lake: str
    """Root URI of the lake: an absolute folder or an object-store URI, without a trailing slash."""

    tracking_uri: str
    """MLflow's tracking URI. On the embedded default an SQLite file inside the lake."""

    ray_address: str | None = None
    """Address of a running Ray cluster; None starts Ray on this machine."""

    storage_options: Mapping[str, str] = field(default_factory=dict)
    """Options for the object store, in delta-rs' names.

    Never credentials: workers take those from their own place.
    """

    @property
    def is_local(self) -> bool:
        """Is the lake a folder of this machine?"""
        return "://" not in self.lake

    def path(self, *parts: str) -> str:
        """A place inside the lake."""
        return "/".join((self.lake, *parts))


def settings_from_environment(lake: str | None = None) -> Settings:
    """Read STEMMA_LAKE, MLFLOW_TRACKING_URI and RAY_ADDRESS; an argument wins over its variable.

    Raises SettingsError when the lake cannot be a lake (a file, or a folder that cannot be written).
    """
    place = lake or os.environ.get("STEMMA_LAKE") or ".stemma"
    if "://" not in place:
        place = str(writable_folder(Path(place)))
    place = place.rstrip("/")
    embedded = f"sqlite:///{place}/mlflow.db" if "://" not in place else ""
    return Settings(
        lake=place,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or embedded,
        ray_address=os.environ.get("RAY_ADDRESS") or None,
    )


def writable_folder(folder: Path) -> Path:
    """The folder as an absolute path; it need not exist, but it or its nearest parent must be writable."""
    folder = folder.expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"lake '{folder}' is a file, expected a folder; choose another with --lake")
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        raise SettingsError(
            f"lake '{folder}' cannot be written ('{existing}' is read-only for you); choose --lake"
        )
    return folder


def test_data_folder() -> Path:
    """The folder of real data that tests marked `data` read (STEMMA_TEST_DATA, default ../shared/data)."""
    return Path(
        os.environ.get("STEMMA_TEST_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data"
    ).resolve()


def prepare_environment() -> None:
    """Settle what libraries read from the environment, before any of them is imported.

    Quiet telemetry, no progress bars of other people's, and no search for models on the network by surprise.
    """
    quiet = {
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TOKENIZERS_PARALLELISM": "false",
        # Threads that spin while they wait cost ten times their use beside another busy process.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TQDM_DISABLE": "1",
        "GIT_PYTHON_REFRESH": "quiet",
        # The trials table is a search's log: no CSV, JSON and TensorBoard files per trial, unless asked for.
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # Ctrl-C ends the run as aborted; Tune would return as if the search were complete.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        # A trial runs in the folder in which it would run alone.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)


def let_workers_import_us() -> None:
    """Put the folder of our packages on the PYTHONPATH that a Ray of our own starts its workers with.

    For packages that only this process can import (a checkout on sys.path, from another folder). In the
    environment, for a `runtime_env` would cost 1-2 s: Ray's prestarted workers have none, and are not used.
    """
    root = str(Path(__file__).parents[1])
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # An installed package is found anyway, and its folder would come before the standard library.
    if root not in known and Path(root).name not in ("site-packages", "dist-packages"):
        os.environ["PYTHONPATH"] = os.pathsep.join((root, *filter(None, known)))
