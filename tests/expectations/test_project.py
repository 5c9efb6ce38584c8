"""Great Expectations' own project: what a notebook finds in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from expectations.gate import admit
from expectations.reports.project import HERE, config, write_project
from expectations.suites import SUITES
from infra.settings import SettingsError
from lineage.schemas import TRACE

NOTEBOOK = """
import json, sys
import great_expectations as gx
context = gx.get_context(mode="file", project_root_dir=sys.argv[1])
results = context.validation_results_store
print(json.dumps({
    "suites": {suite.name: len(suite.expectations) for suite in context.suites.all()},
    "results": [[key.batch_identifier, results.get(key).success] for key in results.list_keys()],
}))
"""


def notebook(folder: Path) -> dict:
    """What a process that knows nothing of us finds in the project of this folder."""
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(folder)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_repository_carries_a_project_that_lists_our_suites_and_opening_it_changes_no_file_of_ours():
    assert (HERE / "gx" / "great_expectations.yml").read_text() == config(suites="../suites/snapshots/")
    ours = [HERE / "gx", HERE / "suites" / "snapshots"]
    before = {path: path.read_bytes() for folder in ours for path in folder.rglob("*.[jy]*")}
    found = notebook(HERE)["suites"]
    snapshots = {path.stem: json.loads(path.read_text()) for path in ours[1].glob("*.json")}
    assert found == {name: len(suite["expectations"]) for name, suite in snapshots.items()}
    assert found.keys() == SUITES.keys()
    assert before.items() <= {p: p.read_bytes() for folder in ours for p in folder.rglob("*.[jy]*")}.items()


def test_a_project_written_from_a_lake_lists_its_results_too(lake, toy, tmp_path):
    admit(lake.runtime, lake.store(toy.traces(), TRACE, key="a"))
    admit(lake.runtime, lake.store(toy.traces(source="log-b", scorer="unstated"), TRACE, key="b"))
    assert write_project(lake.settings, tmp_path / "project") == 2
    before = written(tmp_path / "project")
    found = notebook(tmp_path / "project")
    assert sorted(found["results"]) == [["traces@1", True], ["traces@2", False]]
    assert found["suites"].keys() == SUITES.keys()
    assert before <= written(tmp_path / "project")


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(lake, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="choose another folder with --gx"):
        write_project(lake.settings, tmp_path / "file")
