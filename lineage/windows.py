"""Windows of time: the day or the week in which a trace happened, for what went wrong since some Tuesday.

2026-11-17            a day, in UTC; where all traces lie within two weeks
week of 2026-11-16    a week from Monday on; where they do not
batch 07b7a50e-1      the ingestion, where the source does not say when
"""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.compute as pc

_DAYS = 14  # more values than these are more tests, each of which must then say more to stand out
_WEEK, _BATCH = "week of ", "batch "


def windows(happened_at: pa.ChunkedArray, batches: pa.ChunkedArray) -> pa.Array:
    """The window of each trace; `batches`: the run that stored it."""
    ends = pc.min_max(happened_at).as_py()
    by_day = ends["min"] is None or ends["max"] - ends["min"] < dt.timedelta(days=_DAYS)
    start = pc.floor_temporal(happened_at, unit="day" if by_day else "week")  # weeks start on Monday
    day = pc.cast(pc.cast(start, pa.date32()), pa.string())
    named = pc.binary_join_element_wise("" if by_day else _WEEK, day, "")
    window = pc.coalesce(named, pc.binary_join_element_wise(_BATCH, batches, ""))
    return window.combine_chunks() if isinstance(window, pa.ChunkedArray) else window


def condition(window: str) -> str:
    """SQL that means the traces of a window."""
    if window.startswith(_BATCH):
        return f"happened_at is null and run_id = '{window.removeprefix(_BATCH)}'"
    first = dt.date.fromisoformat(window.removeprefix(_WEEK))
    end = first + dt.timedelta(days=7 if window.startswith(_WEEK) else 1)
    return f"happened_at >= '{first}T00:00:00Z' and happened_at < '{end}T00:00:00Z'"
