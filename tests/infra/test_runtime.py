"""What a worker imports is what its driver imports."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.runtime import Runtime
from infra.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, sys
from infra.runtime import Runtime
from infra.settings import settings_from_environment

def look():
    import lineage, training, mine
    return [lineage.__file__, training.__file__, mine.__file__, *sys.path]

with Runtime(settings_from_environment(sys.argv[1]), num_cpus=1) as runtime:
    print(json.dumps(runtime.ray().get(runtime.ray().remote(look).remote())))
"""


def test_a_dashboards_url_is_no_place_to_connect_to(settings: Settings):
    with pytest.raises(SettingsError, match=r"RAY_ADDRESS is a dashboard's URL.*stemma submit"):
        Runtime(dataclasses.replace(settings, ray_address="http://127.0.0.1:8265")).ray()


@pytest.mark.cluster
def test_a_folder_named_like_ours_hides_nothing_from_workers(tmp_path: Path):
    own, script = tmp_path / "own", tmp_path / "script"
    for folder in (own / "training", own / "lineage", script):
        folder.mkdir(parents=True)
    for package in ("training", "lineage"):
        (own / package / "__init__.py").write_text("raise RuntimeError('not ours')")
    (script / "mine.py").write_text("")
    (script / "driver.py").write_text(DRIVER)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, str(script / "driver.py"), str(tmp_path / "lake")],
        cwd=own,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lineage, training, mine, *path = json.loads(done.stdout)
    assert (lineage, training) == (f"{ROOT}/lineage/__init__.py", f"{ROOT}/training/__init__.py")
    assert mine == str(script / "mine.py")
    assert str(own) not in path
