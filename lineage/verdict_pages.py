"""The page and the text of a verdict, kept in the lake so that MLflow can be shown them at any time.

Only what is drawn above (expectations.reports) is stored here, as files below docs/verdicts; the verdict
itself is in the table `verdicts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow.dataset as pads
import pyarrow.fs

from infra.settings import Settings
from lineage import tables
from lineage.schemas import RUN
from lineage.tables import TableVersion, open_filesystem

_FOLDER = ("docs", "verdicts")
_KINDS = ("html", "txt")
_GATE = ".gate"


def keep(settings: Settings, batch: TableVersion, files: Mapping[str, str]) -> None:
    """Keep the `html` and the `txt` of a verdict; they replace those of an earlier one on the same commit."""
    filesystem, folder = open_filesystem(settings, settings.path(*_FOLDER))
    filesystem.create_dir(folder, recursive=True)
    for kind in _KINDS:
        with filesystem.open_output_stream(f"{folder}/{batch}.{kind}") as sink:
            sink.write(files[kind].encode("utf-8", errors="replace"))


def kept(settings: Settings, batch: TableVersion | str) -> dict[str, str]:
    """File name -> content of what is kept of a commit's verdict; empty where nothing is."""
    filesystem, folder = open_filesystem(settings, settings.path(*_FOLDER))
    found: dict[str, str] = {}
    for kind in _KINDS:
        try:
            with filesystem.open_input_stream(f"{folder}/{batch}.{kind}") as source:
                found[f"{batch}.{kind}"] = source.read().decode()
        except FileNotFoundError:
            continue
    return found


def show_gate(settings: Settings, batch: TableVersion) -> str | None:
    """Let the last finished gate of a commit be shown in MLflow, now or by a later sync; its run, if any.

    Only of gates that somebody asked for: a search has thousands of others, one for each of its curricula.
    """
    run_id = _last_gate(settings, batch)
    if run_id is not None:
        filesystem, folder = open_filesystem(settings, settings.path(*_FOLDER))
        filesystem.create_dir(folder, recursive=True)
        with filesystem.open_output_stream(f"{folder}/{run_id}{_GATE}") as sink:
            sink.write(str(batch).encode())
    return run_id


def gates_to_show(settings: Settings) -> frozenset[str]:
    """The runs of all gates that are to be shown."""
    filesystem, folder = open_filesystem(settings, settings.path(*_FOLDER))
    files = filesystem.get_file_info(pyarrow.fs.FileSelector(folder, allow_not_found=True))
    return frozenset(f.base_name.removesuffix(_GATE) for f in files if f.base_name.endswith(_GATE))


def _last_gate(settings: Settings, batch: TableVersion) -> str | None:
    done = (pads.field("job") == "gate") & (pads.field("status") == "COMPLETE")
    rows = tables.read(settings, RUN, columns=["run_id", "inputs", "at"], where=done).sort_by("at")
    mine = [row["run_id"] for row in rows.to_pylist() if json.loads(row["inputs"]) == [str(batch)]]
    return mine[-1] if mine else None
