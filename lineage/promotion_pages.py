"""The page of a promotion, kept in the lake so that MLflow can be shown it at any time: promotions/RUN.html.

Only what is drawn above (training.promotion.page) is stored here; the decision itself is in `runs`, and the
moves it made in `events`.
"""

from __future__ import annotations

from infra.settings import Settings
from lineage.tables import open_filesystem

_FOLDER = "promotions"


def keep(settings: Settings, run_id: str, page: str) -> None:
    """Keep the page of a promotion's run, in place of an earlier one of the same run."""
    filesystem, folder = open_filesystem(settings, settings.path(_FOLDER))
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(f"{folder}/{run_id}.html") as sink:
        sink.write(page.encode("utf-8", errors="replace"))


def kept(settings: Settings, run_id: str) -> str:
    """The page of a run; empty where there is none."""
    filesystem, folder = open_filesystem(settings, settings.path(_FOLDER))
    try:
        with filesystem.open_input_stream(f"{folder}/{run_id}.html") as source:
            return source.read().decode()
    except FileNotFoundError:
        return ""


def place(settings: Settings, run_id: str) -> str:
    """Where a run's page lies."""
    return settings.path(_FOLDER, f"{run_id}.html")
