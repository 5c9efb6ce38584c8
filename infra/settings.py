"""Where things are: the lake, the tracking server, the Ray cluster. Never what is computed.

The only module that reads the environment. Settings travel to workers as a value.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from infra.redaction import without_credentials

_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH")
_SECRET_LENGTH = 6  # characters; a shorter value is part of too many words

DASHBOARD = "http://127.0.0.1:8265"  # where Ray's own dashboard listens unless told otherwise

QUIET = {
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
"""What libraries read from the environment, unless the person set it otherwise.

Quiet telemetry, no progress bars of other people's, and no search for models on the network by surprise.
"""


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
    def shown_lake(self) -> str:
        """The lake as it may be told to others."""
        return without_credentials(self.lake)

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
    """Settle what libraries read from the environment, before any of them is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def environment_but(prefix: str) -> dict[str, str]:
    """What a program that we start finds in its environment: ours, without what begins so."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefix)}


def dashboard_address(address: str | None = None) -> str:
    """Where jobs are submitted: the argument, RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or Ray's default.

    Raises SettingsError for what is no URL of a dashboard.
    """
    chosen = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or DASHBOARD
    parts = urlparse(chosen)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"'{without_credentials(chosen)}' is no URL of a Ray dashboard, expected one like {DASHBOARD}; "
            "choose with --address (RAY_API_SERVER_ADDRESS, RAY_ADDRESS)"
        )
    return chosen


def insist_on_dashboard(url: str) -> None:
    """Have Ray's job client go to this URL: it prefers these variables to its argument."""
    os.environ["RAY_API_SERVER_ADDRESS"] = url


def job_environment(lake: str | None = None) -> dict[str, str]:
    """The variables that a job on a cluster runs with: QUIET, STEMMA_LAKE, MLFLOW_TRACKING_URI if set.

    Raises SettingsError for a place that only this machine knows, and for a password, which would be on
    show in the cluster's dashboard.
    """
    chosen = {"STEMMA_LAKE": lake or os.environ.get("STEMMA_LAKE") or "./.stemma"}
    if tracking := os.environ.get("MLFLOW_TRACKING_URI"):
        chosen["MLFLOW_TRACKING_URI"] = tracking
    for name, place in chosen.items():
        setting = "--lake or STEMMA_LAKE" if name == "STEMMA_LAKE" else name
        if "://" in place and urlparse(place).password is not None:
            raise SettingsError(
                f"{setting} holds a password, which a job would show to everybody on the cluster; take it "
                "out, and give the cluster's machines their own credentials"
            )
        if _is_relative(place):
            raise SettingsError(
                f"'{place}' would be another folder on each of the cluster's machines; set {setting} to an "
                "absolute path on storage that all of them share, or to a URI"
            )
    return {name: os.environ.get(name, value) for name, value in QUIET.items()} | chosen


def endpoint_key() -> str | None:
    """The key that an OpenLineage endpoint asks for (OPENLINEAGE_API_KEY); it is told to nobody else."""
    return os.environ.get("OPENLINEAGE_API_KEY") or None


def named_secret(variable: str) -> str:
    """What the environment variable that a config names holds, a secret; '' where it is not set."""
    return os.environ.get(variable, "").strip()


def secret_values() -> frozenset[str]:
    """What the environment holds under names that speak of a secret: nobody is told it, nor is it stored."""
    named = (
        value.strip()
        for name, value in os.environ.items()
        if any(word in name.upper() for word in _SECRET_WORDS)
    )
    return frozenset(value for value in named if len(value) >= _SECRET_LENGTH)


def hooks_override() -> str:
    """The file of hooks that STEMMA_HOOKS names; empty where it is not set."""
    return os.environ.get("STEMMA_HOOKS") or ""


def pseudonym_key(settings: Settings) -> bytes:
    """What pseudonyms for personal data are made with: STEMMA_PII_KEY, or a file in the lake, made at first.

    Raises SettingsError for a lake in an object store without that variable: a secret is not uploaded.
    """
    if given := os.environ.get("STEMMA_PII_KEY"):
        return given.encode()
    if not settings.is_local:
        raise SettingsError("pseudonyms need a key: set STEMMA_PII_KEY to a secret that this lake keeps")
    path = Path(settings.lake, "pii.key")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        new = path.with_name(f"pii.{secrets.token_hex(4)}.key")
        with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        with suppress(FileExistsError):  # of two that make one at once the first counts
            os.link(new, path)
        new.unlink()
    return path.read_bytes()


def _is_relative(place: str) -> bool:
    if place.startswith("sqlite:///"):
        place = place.removeprefix("sqlite:///")
    return "://" not in place and place != "databricks" and not Path(place).is_absolute()
