"""Files, folders, globs, archives and object stores -> URIs, each once; and what could not be looked into."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import pyarrow.fs

from infra.storage.archives import entries, is_archive
from infra.storage.decompression import LIMITS, Limits
from infra.storage.places import (
    filesystem,
    is_local,
    join,
    local_path,
    local_uri,
    name_of,
    object_uri,
    split,
    store_and_key,
)
from infra.storage.problems import Problem, StorageError, told

_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Expanded(Sequence[str]):
    """The URIs that sources stand for, as a sequence, beside what could not be looked into."""

    uris: tuple[str, ...]
    """Local ones first, by path; an archive's members by name; then objects. Each once."""

    problems: tuple[Problem, ...] = ()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """One of the URIs, or several."""
        return self.uris[index]

    def __len__(self) -> int:
        """How many URIs there are."""
        return len(self.uris)


def expand(sources: Sequence[str], *, limits: Limits = LIMITS) -> Expanded:
    """What files, folders, globs, archives and their URIs (file, s3 and others that pyarrow knows) stand for.

    Hidden names inside folders, prefixes and archives are passed over. A linked folder is looked into once.
    What cannot be looked into is a problem, and the others go on; a source that names nothing at all raises
    StorageError.
    """
    stored: dict[str, tuple[object, ...]] = {}  # containers, and what they are sorted by
    members: dict[str, set[str]] = {}
    problems: list[Problem] = []
    for source in sources:
        known = len(problems)
        found, wanted = _containers(source, problems), None
        if "://" in source and split(source)[1] is not None:
            wanted = split(source)[1]
        count = 0
        for container, order in found:
            stored[container] = order
            if not is_archive(name_of(container)):
                count += wanted is None
                continue
            inside = _inside(container, wanted, problems, limits)
            members.setdefault(container, set()).update(inside)
            count += len(inside)
        if not count and len(problems) == known:
            raise StorageError(
                f"source '{source}' names no file; expected a file, a folder or a glob that matches"
            )
    uris: list[str] = []
    for container in sorted(stored, key=lambda uri: stored[uri]):
        uris += sorted(members[container]) if container in members else [container]
    return Expanded(tuple(uris), tuple(dict.fromkeys(problems)))


def _containers(source: str, problems: list[Problem]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The URIs of files and objects that a source stands for, and what to sort them by."""
    if "://" in source and not is_local(source):
        yield from ((uri, (1, uri)) for uri in _objects(split(source)[0], problems))
        return
    path = local_path(split(source)[0]) if is_local(source) else Path(source).expanduser()
    for found in _files(path, problems):
        absolute = found.absolute()
        yield local_uri(absolute), (0, *absolute.parts)


def _files(path: Path, problems: list[Problem]) -> Iterator[Path]:
    try:
        path.lstat()
    except OSError as error:
        if isinstance(error, PermissionError):
            problems.append(_problem(local_uri(path.absolute()), error))
            return
    if path.is_dir():
        yield from _walk(path, problems)
    elif path.is_file():
        yield path
    elif "**" in path.parts:
        first = next(at for at, part in enumerate(path.parts) if _MAGIC.search(part))
        base, pattern = Path(*path.parts[:first]), path.parts[first:]
        yield from (
            found for found in _walk(base, problems) if _matches(found.relative_to(base).parts, pattern)
        )
    else:
        yield from (Path(found) for found in glob.glob(str(path)) if Path(found).is_file())


def _walk(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """All files below a folder. Linked folders come after the real ones, each once: a loop ends."""
    seen: set[tuple[int, int]] = set()
    real, linked = [folder], []
    while real or linked:
        here = real.pop() if real else linked.pop(0)
        try:
            state = here.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(here) as listing:
                inside = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(_problem(local_uri(here.absolute()), error))
            continue
        for entry in inside:
            if entry.name.startswith("."):
                continue
            path = here / entry.name
            try:
                if entry.is_dir():
                    (linked if entry.is_symlink() else real).append(path)
                elif entry.is_file():
                    yield path
                elif entry.is_symlink():
                    entry.stat()  # a link that leads nowhere raises; one to a device is passed over
            except OSError as error:
                problems.append(_problem(local_uri(path.absolute()), error))


def _objects(source: str, problems: list[Problem]) -> Iterator[str]:
    """The URIs of objects that a URI names: one object, all below a prefix, or what a glob matches."""
    store, key = store_and_key(source)
    files, root = filesystem(store)
    try:
        if key and not key.endswith("/"):
            with told(source):
                is_object = files.get_file_info(f"{root}/{key}").type == pyarrow.fs.FileType.File
            if is_object:
                yield object_uri(store, key)
                return
        prefix, pattern = key.rstrip("/"), ("**",)
        parts = tuple(prefix.split("/"))
        first = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), None)
        if first is not None:
            prefix, pattern = "/".join(parts[:first]), parts[first:]
        base = f"{root}/{prefix}".rstrip("/")
        with told(source, "cannot be listed"):
            recursive = len(pattern) > 1 or "**" in pattern
            chosen = pyarrow.fs.FileSelector(base, allow_not_found=True, recursive=recursive)
            listing = files.get_file_info(chosen)
        for info in listing:
            below = info.path[len(base) + 1 :]
            if info.type == pyarrow.fs.FileType.File and _matches(tuple(below.split("/")), pattern):
                yield object_uri(store, f"{prefix}/{below}".lstrip("/"))
    except StorageError as error:
        problems.append(Problem(source, str(error)))


def _inside(container: str, wanted: str | None, problems: list[Problem], limits: Limits) -> set[str]:
    """The URIs of an archive's members, or of the one that is wanted."""
    found: set[str] = set()
    one = None if wanted is None else join(container, wanted)
    try:
        with closing(entries(container, limits=limits)) as inside:
            for entry in inside:
                if entry.uri != one and (one is not None or entry.is_hidden):
                    continue
                if entry.refusal:
                    problems.append(Problem(entry.uri, entry.refusal))
                else:
                    found.add(entry.uri)
    except StorageError as error:
        problems.append(Problem(container, str(error)))
    return found


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """As in a shell: '*' stays within a part, '**' is any number of parts, neither finds hidden names."""
    if not pattern:
        return not parts
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        if not rest:
            return bool(parts) and not any(part.startswith(".") for part in parts)
        return _matches(parts, rest) or bool(
            parts and not parts[0].startswith(".") and _matches(parts[1:], pattern)
        )
    if not parts or (parts[0].startswith(".") and not head.startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], head) and _matches(parts[1:], rest)


def _problem(uri: str, error: OSError) -> Problem:
    return Problem(uri, f"source '{uri}' cannot be read: {error.strerror or error}")
