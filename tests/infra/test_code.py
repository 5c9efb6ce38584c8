from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.code import commit_of, lock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two committed packages, `one` and `two`, and an ignored folder `env`."""
    root = tmp_path / "checkout"
    for package in ("one", "two", "env"):
        (root / package).mkdir(parents=True)
        (root / package / "module.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("env\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=ann", "-c", "user.email=ann@localhost", "commit", "-q", "-m", "first")
    return root


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout


def packages(root: Path) -> list[Path]:
    return [root / "one", root / "two"]


def test_the_commit_is_that_of_the_code_wherever_one_stands(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    head = git(checkout, "rev-parse", "HEAD").strip()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as a hook of another repository has it
    assert commit_of(packages(checkout)) == head


@pytest.mark.parametrize(
    ("place", "is_dirty"), [("one/module.py", True), ("two/new.py", True), ("notes.txt", False)]
)
def test_code_that_was_changed_since_is_dirty_and_other_files_do_not_count(
    place: str, is_dirty: bool, checkout: Path
):
    (checkout / place).write_text("changed")
    assert commit_of(packages(checkout)).endswith("+dirty") == is_dirty


def test_what_is_installed_in_a_folder_that_a_repository_ignores_is_of_no_commit(checkout: Path):
    assert commit_of([checkout / "env"]) == ""


def test_without_git_or_outside_a_repository_there_is_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert commit_of([tmp_path]) == ""
    monkeypatch.setenv("PATH", "")
    assert commit_of(packages(checkout)) == ""


def test_the_lock_is_the_same_in_another_process_and_another_where_more_is_installed(tmp_path: Path):
    more = tmp_path / "something-1.0.dist-info"
    more.mkdir()
    (more / "METADATA").write_text("Metadata-Version: 2.1\nName: something\nVersion: 1.0\n")

    def elsewhere(*path: Path) -> str:
        given = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *path])), "PYTHONHASHSEED": "7"}
        script = "from infra.code import lock; print(lock())"
        done = subprocess.run(
            [sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert elsewhere() == lock()
    assert elsewhere(tmp_path) != lock()
