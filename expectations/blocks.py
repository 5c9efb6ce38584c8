"""One commit against its suite, block by block: on Ray's workers where it is large, here where it is not.

    stretches of the commit -> keys -> facts (in one place) -> views -> measured -> merged

A worker holds one block at a time. In one place are only the keys and facts of all rows, a few bytes each,
and the columns of rules that cannot be measured by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from expectations.measuring import Measured, Plan, both, merged
from expectations.suites.suite import Admitted, Suite
from expectations.thresholds import Thresholds
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.rows import without_ids
from lineage.tables import Stretch, TableVersion

if TYPE_CHECKING:
    import pandas as pd

BLOCK_ROWS = 100_000
FEW_ROWS = 200_000  # starting Ray takes as long as judging these here
_RETRIES = 2  # of a block whose worker died

_Each = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[Any]]


@dataclass(frozen=True)
class Batch:
    """What a worker needs to know of a commit that is judged."""

    settings: Settings
    version: TableVersion
    suite: Suite
    thresholds: Thresholds
    without: frozenset[bytes] = frozenset()
    """Ids of rows that are judged no more."""

    def rows(self, block: Stretch) -> pa.Table:
        """The rows of one of its blocks."""
        return without_ids(tables.read_stretch(self.settings, block, of=self.version.spec), self.without)

    def plan(self) -> Plan:
        """How its rules are measured."""
        return _plan(self.suite, self.thresholds.model_dump_json())


class Measuring:
    """A batch whose keys are known, to be measured, and asked for the rows that break a rule."""

    def __init__(self, runtime: Runtime, batch: Batch, admitted: Admitted) -> None:
        self.batch = batch
        self._blocks = tables.stretches(batch.settings, batch.version, least_rows=BLOCK_ROWS)
        many = sum(block.rows for block in self._blocks) > FEW_ROWS
        self._each = _on_workers(runtime) if many else _here
        parts = list(self._each(_keys, [(batch, block) for block in self._blocks]))
        self._counts = [part.num_rows for part in parts]
        none = batch.suite.keys(batch.version.spec.schema.empty_table())
        self.keys = pa.concat_tables([none, *parts]).unify_dictionaries().combine_chunks()
        """Of all rows, in order; among them `row_id`."""
        self._facts = batch.suite.facts(self.keys, admitted)

    @cached_property
    def measured(self) -> list[Measured]:
        """What the suite's rules ask of the rows, in their order."""
        import pandas as pd

        plan = self.batch.plan()
        parts = list(self._each(_measured, self._tasks()))
        whole = pd.concat([columns for _, columns in parts], ignore_index=True)
        return both(merged([found for found, _ in parts]), plan.measure_whole(whole))

    def failing(self, place: int) -> pa.Array:
        """The ids of all rows that break a rule, given by its place in the suite."""
        ids = pc.fill_null(self.keys["row_id"].combine_chunks(), b"")
        return ids.take(pa.array(self.measured[place].failing))

    def _tasks(self) -> list[tuple[Any, ...]]:
        """Each block with its facts; one of no rows where there is none."""
        firsts = list(accumulate(self._counts, initial=0))
        mine = [self._facts.slice(at, count) for at, count in zip(firsts, self._counts, strict=False)]
        tasks: list[tuple[Any, ...]] = [
            (self.batch, block, facts) for block, facts in zip(self._blocks, mine, strict=True)
        ]
        return tasks or [(self.batch, None, self._facts)]


def _keys(batch: Batch, block: Stretch) -> pa.Table:
    return batch.suite.keys(batch.rows(block))


def _measured(
    batch: Batch, block: Stretch | None, facts: pa.Table
) -> tuple[list[Measured | None], pd.DataFrame]:
    """What can be measured of the block, and its part of the columns that are judged together."""
    rows = batch.version.spec.schema.empty_table() if block is None else batch.rows(block)
    view, plan = batch.suite.view(rows, facts), batch.plan()
    asked = [name for name in plan.columns_of_whole() if name in view.columns]
    return plan.measure(view), view.loc[:, asked]


@lru_cache(maxsize=8)
def _plan(suite: Suite, thresholds: str) -> Plan:
    """Built once per process."""
    return Plan.of(suite.build(Thresholds.model_validate_json(thresholds)).expectations)


def _here(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    return (work(*task) for task in tasks)


def _on_workers(runtime: Runtime) -> _Each:
    """Work done on Ray, results in the order of the tasks; few more tasks at once than there are CPUs."""
    ray = runtime.ray()
    most = max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def each(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        remote = ray.remote(work).options(max_retries=_RETRIES)
        waiting: list[Any] = []
        for task in tasks:
            waiting.append(remote.remote(*task))
            if len(waiting) > 2 * most:
                yield ray.get(waiting.pop(0))
        yield from (ray.get(each) for each in waiting)

    return each
