"""Which provenance value is suspect, when nobody knows the culprit: excess failures of the rows it touches.

Signals and strata are those of lineage.evidence, the numbers those of lineage.excess. Within a stratum a
value's rows are compared with all others, so nothing is blamed for being used where failures are common.
A suspicion is no conviction: values that are used together share their excess, and what was bad for everybody
stands out for nobody.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from infra.settings import Settings
from lineage.evidence import COLUMNS, WINDOW, Signal, admitted_traces, codes, contradicted, failed
from lineage.excess import Comparison, comparisons, holm, telling
from lineage.tables import TableError
from lineage.windows import condition


class SuspectsError(TableError):
    """There is nothing to suspect anything by; the message says what is missing."""


@dataclass(frozen=True)
class Suspect:
    """One value of one provenance column under one signal, compared with all rows that do not have it."""

    column: str
    value: str
    """NAME@VERSION; for a source URI#REVISION; a window as lineage.windows calls it."""

    signal: Signal
    touched: int
    """Rows compared; repeats of one request to one value count once."""

    failures: int
    expected: float
    """Failures these rows would have at the other values' rates, stratum by stratum."""

    excess: float
    low: float
    """Lower end of the 95 % interval of the excess, of this value alone: not widened for the others."""

    high: float
    p: float
    """One-sided, exact, adjusted for all values tested under both signals (Holm)."""

    same_rows_as: tuple[str, ...]
    """Other columns' values ("COLUMN VALUE") that touch exactly the same rows: no numbers tell them apart."""

    selector: str
    """What `stemma impact` takes to follow it, quoted for a shell."""


@dataclass(frozen=True)
class Findings:
    """Every value that could be tested, the most suspect first, and what was left out."""

    suspects: tuple[Suspect, ...]
    alpha: float
    looked_at: dict[Signal, int]
    """Traces that each signal can speak of."""

    nothing_beside: int
    """Tests left out: there are no other rows of the same stratum, or none, or all, of its rows failed."""

    too_few: int
    """Tests left out: too few rows to stand out even if all of them had failed."""

    @property
    def standing_out(self) -> tuple[Suspect, ...]:
        """Those beyond chance."""
        return tuple(suspect for suspect in self.suspects if suspect.p < self.alpha)


def suspects(
    settings: Settings,
    *,
    by: Sequence[str] = tuple(COLUMNS),
    alpha: float = 0.05,
    sources: Sequence[str] = ("*",),
) -> Findings:
    """Rank the values of provenance columns over the admitted traces whose source matches a pattern.

    Raises SuspectsError for an unknown column, and where no admitted trace was judged or contradicted.
    """
    known = (*COLUMNS, WINDOW)
    unknown = [column for column in by if column not in known]
    if unknown or not by:
        raise SuspectsError(f"cannot look at {unknown or 'nothing'}; known: {', '.join(known)}")
    if not 0 < alpha < 1:
        raise SuspectsError(f"alpha is {alpha}, expected a chance between 0 and 1, such as 0.05")
    traces = admitted_traces(settings, sources)
    if not traces.num_rows:
        raise SuspectsError(
            f"no admitted traces match sources {list(sources)}; ingest and gate them first: stemma status"
        )
    evidence: dict[Signal, pa.Table] = {
        "failed": failed(traces),
        "contradicted": contradicted(settings, traces),
    }
    if not any(rows.num_rows for rows in evidence.values()):
        raise SuspectsError(
            f"none of {traces.num_rows} admitted traces has a verdict, and no admitted curation contradicted "
            "any, so there is nothing to go by; next: stemma curate"
        )
    return rank(evidence, by=by, alpha=alpha)


def rank(evidence: Mapping[Signal, pa.Table], *, by: Sequence[str], alpha: float) -> Findings:
    """The ranking, of tables as lineage.evidence makes them: by adjusted p, then by excess.

    Rows that say nothing (null) are compared with, never suspected.
    """
    tests: list[_Test] = []
    same: dict[tuple[Signal, str, str], tuple[str, ...]] = {}
    for signal, rows in evidence.items():
        if not rows.num_rows:
            continue
        strata, requests = codes(rows["stratum"])[0], codes(rows["request"])[0]
        bad = rows["failed"].to_numpy(zero_copy_only=False)
        touching: dict[bytes, list[tuple[str, str]]] = {}
        for column in by:
            if (signal, column) == ("failed", "reviewer"):
                continue  # reviewers are called to failures: they come after the verdict, and cause none
            values, names = codes(rows[column])
            found = comparisons(values, strata, bad, requests)
            tests += [_Test(signal, column, names[code], comparison) for code, comparison in found.items()]
            for code, digest in _rows_of(values).items():
                touching.setdefault(digest, []).append((column, names[code]))
        for several in touching.values():
            for column, value in several:
                others = (f"{c} {v}" for c, v in several if (c, v) != (column, value))
                same[signal, column, value] = tuple(others)
    beside = [test for test in tests if test.comparison.rows.size]
    tested = [beside[index] for index in telling([test.comparison.least_p for test in beside], alpha=alpha)]
    adjusted = holm([test.comparison.p for test in tested])
    found = [_suspect(test, p=p, same=same[test[:3]]) for test, p in zip(tested, adjusted, strict=True)]
    found.sort(key=lambda s: (s.p, -s.excess, s.signal, s.column, s.value))
    return Findings(
        suspects=tuple(found),
        alpha=alpha,
        looked_at={signal: rows.num_rows for signal, rows in evidence.items()},
        nothing_beside=len(tests) - len(beside),
        too_few=len(beside) - len(tested),
    )


def as_json(found: Findings) -> dict[str, Any]:
    """The findings as JSON values."""
    said = asdict(found)
    said["suspects"] = [
        {"rank": rank, **asdict(suspect)} for rank, suspect in enumerate(found.suspects, start=1)
    ]
    return said | {"standing_out": len(found.standing_out)}


class _Test(NamedTuple):
    signal: Signal
    column: str
    value: str
    comparison: Comparison


def _suspect(test: _Test, *, p: float, same: tuple[str, ...]) -> Suspect:
    signal, column, value, comparison = test
    low, high = comparison.interval
    return Suspect(
        column=column,
        value=value,
        signal=signal,
        touched=int(comparison.rows.sum()),
        failures=int(comparison.failures.sum()),
        expected=comparison.expected,
        excess=comparison.excess,
        low=low,
        high=high,
        p=p,
        same_rows_as=same,
        selector=_selector(column, value),
    )


def _selector(column: str, value: str) -> str:
    if column == "source":
        return f"--source-revision {shlex.quote(value.rpartition('#')[2])}"
    if column == WINDOW:
        return f"--where {shlex.quote(condition(value))}"
    return f"--{column} {shlex.quote(value)}"


def _rows_of(codes: np.ndarray) -> dict[int, bytes]:
    """Per code a digest of the rows that bear it."""
    order = np.argsort(codes, kind="stable")
    held, starts = np.unique(codes[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {
        int(code): blake2b(part.tobytes(), digest_size=16).digest()
        for code, part in zip(held, parts, strict=True)
        if code >= 0
    }
