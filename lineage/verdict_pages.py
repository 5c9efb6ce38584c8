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


def gates_to_show(settings: Settings) -> frozenset[str]:
    """The runs that MLflow shows as gates: of each commit whose page is kept, the last finished one."""
    filesystem, folder = open_filesystem(settings, settings.path(*_FOLDER))
    files = filesystem.get_file_info(pyarrow.fs.FileSelector(folder, allow_not_found=True))
    wanted = {info.base_name.removesuffix(".html") for info in files if info.base_name.endswith(".html")}
    if not wanted:
        return frozenset()
    return frozenset(run for batch, run in _gates(settings).items() if batch in wanted)


def gate_of(settings: Settings, batch: TableVersion) -> str | None:
    """The last finished gate of a commit, or None."""
    return _gates(settings).get(str(batch))


def _gates(settings: Settings) -> dict[str, str]:
    """Commit -> its last finished gate."""
    done = (pads.field("job") == "gate") & (pads.field("status") == "COMPLETE")
    rows = tables.read(settings, RUN, columns=["run_id", "inputs", "at"], where=done).sort_by("at")
    return {json.loads(row["inputs"])[0]: row["run_id"] for row in rows.to_pylist()}
