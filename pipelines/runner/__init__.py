"""Runs readers and steps on Ray Data, stamps what they make, and stores it. The only caller of lineage.stamp.

    sources.py    sources -> rows: plans the work, commits once per table
    reading.py    one worker's part of that: bytes -> one file
    steps.py      rows -> rows
    losses.py     what does not go on, and the balance

Both paths end alike: row numbers are leased, files are written beside the table, the losses (quarantine,
rejected) are committed, and one commit makes the rows visible.
"""

from pipelines.runner.losses import RunnerError, check_balance
from pipelines.runner.reading import Keeping, Work
from pipelines.runner.sources import Told, TooManyQuarantined, beginning, read_sources, stored_earlier
from pipelines.runner.steps import apply, derive

__all__ = [
    "Keeping",
    "RunnerError",
    "Told",
    "TooManyQuarantined",
    "Work",
    "apply",
    "beginning",
    "check_balance",
    "derive",
    "read_sources",
    "stored_earlier",
]
