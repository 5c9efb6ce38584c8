"""What each rank fed at each step, written down as it was fed, whatever becomes of the training.

    a step ends ──▶ one line in the rank's log ──▶ with the next state: what counts ──▶ consumption, steps
                              └── lines that no state kept ──▶ steps, marked as lost

A line is in the log when its step is done. A state (training.states) holds the lines of all ranks up to its
step, so a checkpoint and what it ate are one commit. Lines that a state does not hold are of goes that were
lost: their steps were taken again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from training.recipe import TrainingError

_BITS = 128


@dataclass(frozen=True)
class Fed:
    """What one rank fed at one step, and what came of the step."""

    run_id: str
    go: int
    """Which start of the workers within the run, from 1."""
    step: int
    rank: int
    world_size: int
    slots: tuple[int, ...]
    rows: tuple[int, ...]
    """The row_no of what was fed in each slot."""
    tokens: int
    loss_tokens: int
    digest: str
    """Sum of `slot_digest` over the slots, in hex; over all ranks of a step see `step_digests`."""
    loss: float
    """Mean per loss token of the whole step, the same on every rank."""
    grad_norm: float
    """Of the whole step, before clipping; the same on every rank."""
    micro_batch_size: int
    seconds: float

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What no two share."""
        return (self.run_id, self.go, self.step, self.rank)


class FedLog:
    """One rank's log in the folder that a training works in; the lines of each go in a file of their own."""

    def __init__(self, work: Path, *, run_id: str, go: int, rank: int) -> None:
        """Begin the log of a go."""
        work.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = open(work / f"fed-{run_id}-{go:03d}-{rank:05d}.jsonl", "a", encoding="utf-8")  # noqa: SIM115

    def write(self, fed: Fed) -> None:
        """Put a line where it stays when this process is killed. Raises TrainingError on a full disk."""
        try:
            self._file.write(json.dumps(asdict(fed)) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"what step {fed.step} fed cannot be written to {self._file.name} ({error.strerror}); make "
                "room and give the command again: it goes on from the last state"
            ) from error

    def close(self) -> None:
        """No more lines come."""
        self._file.close()


def goes(work: Path, run_id: str) -> int:
    """How often workers were started for a run until now."""
    return max((int(path.stem.split("-")[-2]) for path in work.glob(f"fed-{run_id}-*.jsonl")), default=0)


def logged(work: Path) -> list[Fed]:
    """Every whole line of every log; the last of a killed process may be cut off."""
    return [fed for path in sorted(work.glob("fed-*.jsonl")) for fed in read(path)]


def read(path: Path) -> list[Fed]:
    """The whole lines of one log."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [fed_from(json.loads(line)) for line in lines]


def fed_from(told: Mapping[str, Any]) -> Fed:
    """A line as it was written."""
    return Fed(**{**told, "slots": tuple(told["slots"]), "rows": tuple(told["rows"])})


def slot_digest(step: int, slot: int, parts: Iterable[bytes]) -> int:
    """What was fed in one slot: a number of 128 bits over its place and the tensors' contents."""
    digest = hashlib.blake2b(b"".join([b"%d,%d," % (step, slot), *parts]), digest_size=_BITS // 8)
    return int.from_bytes(digest.digest(), "big")


def summed(digests: Iterable[int]) -> str:
    """The sum of slots' digests in hex: the same however slots are shared out among ranks."""
    return f"{sum(digests) % 2**_BITS:032x}"


def step_digests(counted: Iterable[Fed]) -> dict[int, str]:
    """Per step, what all ranks together fed."""
    found: dict[int, list[int]] = {}
    for fed in counted:
        found.setdefault(fed.step, []).append(int(fed.digest, 16))
    return {step: summed(digests) for step, digests in sorted(found.items())}


def consumption(plan: pa.Table, counted: Sequence[Fed]) -> pa.Table:
    """The rows that were eaten, by step and slot: step, rank, slot, row_no, loss_tokens, pack, offset."""
    steps, slots = (plan[name].to_numpy() for name in ("step", "slot"))
    begins = np.searchsorted(steps, np.arange(int(steps[-1]) + 2))
    places = [begins[fed.step] + np.asarray(fed.slots, dtype=np.int64) for fed in counted]
    ranks = [np.full(len(fed.slots), fed.rank, dtype=np.int16) for fed in counted]
    order = np.concatenate(places) if places else np.empty(0, np.int64)
    row_nos = [np.asarray(fed.rows, dtype=np.int64) for fed in counted]
    eaten = plan.take(pa.array(order))
    table = pa.table(
        {
            "step": steps[order],
            "rank": np.concatenate(ranks) if ranks else np.empty(0, np.int16),
            "slot": slots[order],
            "row_no": np.concatenate(row_nos) if row_nos else np.empty(0, np.int64),
            "loss_tokens": eaten["n_loss_tokens"],
            "pack": eaten["pack"],
            "offset": eaten["offset"],
        }
    )
    return table.sort_by([("step", "ascending"), ("slot", "ascending")]).combine_chunks()


def steps_table(work: Path, counted: Sequence[Fed]) -> pa.Table:
    """Every step that any go of this work took, whether it counts or was lost, by STEP's keys."""
    counts = {fed.key for fed in counted}
    every = {fed.key: fed for fed in [*logged(work), *counted]}
    rows = [
        {
            "fed_by": fed.run_id,
            "go": fed.go,
            "step": fed.step,
            "rank": fed.rank,
            "world_size": fed.world_size,
            "rows": len(fed.slots),
            "tokens": fed.tokens,
            "loss_tokens": fed.loss_tokens,
            "digest": fed.digest,
            "loss": fed.loss,
            "grad_norm": fed.grad_norm,
            "micro_batch_size": fed.micro_batch_size,
            "lost": fed.key not in counts,
        }
        for _, fed in sorted(every.items())
    ]
    return pa.Table.from_pylist(rows, schema=STEPS_SCHEMA)


STEPS_SCHEMA = pa.schema(
    [
        ("fed_by", pa.string()),
        ("go", pa.int32()),
        ("step", pa.int32()),
        ("rank", pa.int16()),
        ("world_size", pa.int16()),
        ("rows", pa.int32()),
        ("tokens", pa.int64()),
        ("loss_tokens", pa.int64()),
        ("digest", pa.string()),
        ("loss", pa.float64()),
        ("grad_norm", pa.float64()),
        ("micro_batch_size", pa.int32()),
        ("lost", pa.bool_()),
    ]
)
