"""The part of Ray that the runner uses, within this process: no worker is waited for, and each can be killed.

What goes to a worker and comes back is pickled, as Ray does it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from infra.runtime import Runtime


class RuntimeHere(Runtime):
    """A runtime without a Ray session."""

    def ray(self) -> Any:
        """What stands in for the `ray` module."""
        return SimpleNamespace(
            data=SimpleNamespace(from_items=Items, from_arrow=Blocks),
            get=pickle.loads,
            cluster_resources=lambda: {"CPU": 2.0},
            exceptions=SimpleNamespace(WorkerCrashedError=ChildProcessError),
        )


@dataclass(frozen=True)
class Items:
    items: Sequence[dict[str, Any]]
    override_num_blocks: int = 1

    def map(self, work: Callable[[dict[str, Any]], dict[str, Any]], **_: object) -> Items:
        return Items([pickle.loads(pickle.dumps(work(dict(item)))) for item in self.items])

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        return iter(self.items)


@dataclass(frozen=True)
class Blocks:
    rows: pa.Table

    def repartition(self, count: int) -> Blocks:
        assert count == 1  # of fewer than 2,000 rows nobody asks for more
        return self

    def map_batches(self, work: Callable[[pa.Table], pa.Table], **_: object) -> Blocks:
        return Blocks(pickle.loads(pickle.dumps(work(self.rows))))

    def to_arrow_refs(self) -> list[bytes]:
        return [pickle.dumps(self.rows)]
