"""States to resume a training from: trained tensors, optimiser and ledger in one folder, there whole or not.

    step-00000200/  trained.safetensors  optimizer.safetensors  optimizer.json  fed.jsonl  state.json

Written under another name, renamed when all is on the disk; the state before goes when the new name is there
too, so a crash at any moment leaves a whole one. The learning rate follows from the step, and what is random
from seed, step and rank, so neither is stored. No pickles.

Errors: TrainingError, where a state cannot be written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.ledger import Fed, read
from training.recipe import TrainingError

if TYPE_CHECKING:
    import torch

log = logging.getLogger("stemma.states")

_FILES = ("trained.safetensors", "optimizer.safetensors", "optimizer.json", "fed.jsonl")


@dataclass(frozen=True)
class State:
    """A state on disk: the steps taken, and what they ate."""

    folder: Path
    step: int
    fed: tuple[Fed, ...]


def latest(work: Path) -> State | None:
    """The state with the most steps whose files are what they were when written."""
    for folder in sorted(work.glob("step-*"), reverse=True):
        try:
            record = json.loads((folder / "state.json").read_text())
            wrong = [name for name in _FILES if _digest(folder / name) != record["files"][name]]
        except (OSError, ValueError, KeyError) as error:
            wrong, record = [str(error)], {}
        if not wrong:
            return State(folder, record["step"], tuple(read(folder / "fed.jsonl")))
        log.warning("the state %s is damaged (%s) and passed over", folder.name, wrong[0])
    return None


def save(
    work: Path,
    *,
    step: int,
    trained: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    fed: Sequence[Fed],
) -> None:
    """Put down a state after `step` steps, in place of those before it. Raises TrainingError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    work.mkdir(parents=True, exist_ok=True)
    for left in work.glob(".step-*"):  # of killed processes
        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=f".step-{step:08d}-", dir=work))
    try:
        tensors, rest = _taken_apart(optimizer.state_dict())
        save_file({name: p.detach().cpu().contiguous() for name, p in trained.items()}, folder / _FILES[0])
        save_file(tensors, folder / _FILES[1])
        (folder / _FILES[2]).write_text(json.dumps(rest))
        (folder / _FILES[3]).write_text("".join(json.dumps(asdict(each)) + "\n" for each in fed))
        files = {name: _digest(folder / name) for name in _FILES}
        (folder / "state.json").write_text(json.dumps({"step": step, "files": files}))
        _sync(folder)
        target = work / f"step-{step:08d}"
        shutil.rmtree(target, ignore_errors=True)  # damaged, or latest() had found it
        folder.rename(target)
        _sync_names(work)
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk by its own error
        raise TrainingError(
            f"the state after step {step} cannot be written to {work} ({error}); make room "
            "and give the command again: it goes on from the state before"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for older in work.glob("step-*"):
        if older.name < target.name:
            shutil.rmtree(older)


def restore(
    state: State, *, trained: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Bring trained tensors and optimiser to a state. Raises TrainingError where it is not of this one."""
    import torch
    from safetensors.torch import load_file

    stored = load_file(state.folder / _FILES[0])
    if stored.keys() != trained.keys():
        raise TrainingError(
            f"the state {state.folder} is of another training: it holds {len(stored)} tensors, this one "
            f"trains {len(trained)}; remove the folder to begin anew"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(stored[name])
    rest = json.loads((state.folder / _FILES[2]).read_text())
    optimizer.load_state_dict(_put_together(load_file(state.folder / _FILES[1]), rest))


def _taken_apart(optimizer: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of an optimiser's state by `parameter.name`, and all else as JSON can say it."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for parameter, values in optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(parameter), {})[name] = value
    groups = [
        {k: v for k, v in group.items() if not isinstance(v, torch.Tensor)}
        for group in optimizer["param_groups"]
    ]
    return tensors, {"state": plain, "param_groups": groups}


def _put_together(tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(key): dict(values) for key, values in rest["state"].items()}
    for key, tensor in tensors.items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = tensor
    return {"state": state, "param_groups": rest["param_groups"]}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Nothing is renamed before it is on the disk."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    _sync_names(folder)


def _sync_names(folder: Path) -> None:
    """What lies in a folder is on the disk by its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
