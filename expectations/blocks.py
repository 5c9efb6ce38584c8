"""One commit against its suite, block by block: on Ray's workers where it is large, here where it is not.

    stretches of the commit -> keys -> facts (in one place) -> views -> measured -> merged

A worker holds one block at a time. In one place are only the keys and facts of all rows, a few bytes each,
and the columns of rules that cannot be measured by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from expectations.measuring import Measured, Plan, both, merged
from expectations.suites.suite import Admitted, Suite
from expectations.thresholds import Thresholds
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.tables import Stretch, TableVersion

if TYPE_CHECKING:
    import pandas as pd

BLOCK_ROWS = 50_000
FEW_ROWS = 200_000  # starting Ray takes as long as judging these here
_RETRIES = 2  # of a block whose worker died


@dataclass(frozen=True)
class Batch:
    """What the worker needs to know of a commit that is judged."""

    settings: Settings
    version: TableVersion
    suite: Suite
    thresholds: Thresholds

    def rows(self, stretch: Stretch) -> pa.Table:
        """The rows of one of its stretches."""
        return tables.read_stretch(self.settings, stretch, of=self.version.spec)

    def plan(self) -> Plan:
        """How its rules are measured."""
        return _plan(self.suite, self.thresholds.model_dump_json())


def measured(runtime: Runtime, batch: Batch, admitted: Admitted) -> tuple[list[Measured], int]:
    """What the suite's rules ask of the commit's rows, in their order; and how many rows those are."""
    blocks = tables.stretches(batch.settings, batch.version, least_rows=BLOCK_ROWS)
    rows = sum(block.rows for block in blocks)
    each = _on_workers(runtime) if rows > FEW_ROWS else _here
    schema = batch.version.spec.schema
    keys = pa.concat_tables(
        [batch.suite.keys(schema.empty_table()), *each(_keys, [(batch, b) for b in blocks])]
    )
    facts = batch.suite.facts(keys.unify_dictionaries().combine_chunks(), admitted)
    firsts = accumulate((block.rows for block in blocks), initial=0)
    mine = [facts.slice(first, block.rows) for first, block in zip(firsts, blocks, strict=False)]
    tasks = [(batch, block, known) for block, known in zip(blocks, mine, strict=True)]
    parts = list(each(_measure, tasks)) or [_measured(batch, schema.empty_table(), facts)]
    plan = batch.plan()
    whole = _together([columns for _, columns in parts])
    return both(merged([found for found, _ in parts]), plan.measure_whole(whole)), rows


def _keys(batch: Batch, block: Stretch) -> pa.Table:
    return batch.suite.keys(batch.rows(block))


def _measure(batch: Batch, block: Stretch, facts: pa.Table) -> tuple[list[Measured | None], pd.DataFrame]:
    return _measured(batch, batch.rows(block), facts)


def _measured(batch: Batch, rows: pa.Table, facts: pa.Table) -> tuple[list[Measured | None], pd.DataFrame]:
    """What can be measured of the block, and its part of the columns that are judged together."""
    view, plan = batch.suite.view(rows, facts), batch.plan()
    asked = [name for name in plan.columns_of_whole() if name in view.columns]
    return plan.measure(view), view.loc[:, asked]


@lru_cache(maxsize=8)
def _plan(suite: Suite, thresholds: str) -> Plan:
    """Built once per process."""
    return Plan.of(suite.build(Thresholds.model_validate_json(thresholds)).expectations)


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts, ignore_index=True)


def _here(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    return (work(*task) for task in tasks)


def _on_workers(runtime: Runtime) -> Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[Any]]:
    """Work done on Ray, results in the order of the tasks; no more tasks at once than there are CPUs."""
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
