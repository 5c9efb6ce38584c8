"""Which code runs here: what our packages say, which commit they are of, and what is installed beside them.

Each is looked up once per process. The digest bears identity; commit and lock are there to find it again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from infra import PACKAGES
from infra.settings import environment_but

_PATIENCE_S = 10  # git on a slow share; nobody waits longer to be told a commit
_OURS = "stemma"  # our own distribution: its version says nothing that the digest of our code does not


@cache
def code_revision() -> str:
    """Digest over our packages' source files as they are on this machine, uncommitted changes included."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = _folder(package)
        if root is None:
            continue
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".toml", ".json") and "__pycache__" not in path.parts:
                digest.update(f"{package}/{path.relative_to(root).as_posix()}".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()[:32]}"


@cache
def commit() -> str:
    """The git commit that our packages are checked out from, with `+dirty` where they were changed since.

    Empty where they are not under git: installed, or carried to a cluster as a wheel.
    """
    return commit_of([folder for package in PACKAGES if (folder := _folder(package))])


def commit_of(folders: list[Path]) -> str:
    """The commit of these folders' files, whatever the current folder is. Empty where git does not hold them.

    A folder that is only ignored by a repository around it, such as an environment in a project, is not held.
    """
    if not _git(folders[0], "ls-files", "--", "."):
        return ""
    head = _git(folders[0], "rev-parse", "HEAD")
    if not head:
        return ""
    changed = _git(folders[0], "status", "--porcelain", "--", *(str(folder) for folder in folders))
    return f"{head}+dirty" if changed else head


@cache
def lock() -> str:
    """Digest over name and version of everything that is installed beside us: equal ones, equal libraries."""
    # Ray and setuptools put copies that they carry on the path: none of those is installed.
    installed = [each for each in sys.path if Path(each).name == "site-packages"]
    path = [each for each in sys.path if not any(Path(site) in Path(each).parents for site in installed)]
    found = distributions(path=path)
    names = {(re.sub(r"[-_.]+", "-", each.name or "").lower(), each.version) for each in found}
    listed = sorted(f"{name}=={version}" for name, version in names if name != _OURS)
    return f"sha256:{hashlib.sha256(chr(10).join(listed).encode()).hexdigest()[:32]}"


def _folder(package: str) -> Path | None:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def _git(folder: Path, *words: str) -> str:
    """What git says in a folder; nothing where there is no git, or it does not want to."""
    program = shutil.which("git")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "--no-optional-locks", "-C", str(folder), *words],
            env=environment_but("GIT_"),  # a hook's would point to another repository
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
