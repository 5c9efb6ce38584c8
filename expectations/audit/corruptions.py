"""The frozen list: each way in which a batch can be bad, as thought of before the suites were tuned.

    CORRUPTIONS    D9's 33 kinds of noise, and what can happen to rows between a source and a model
    VERSION        raised whenever the list, the made sample or a planting changes
    digest()       over what is declared and over what is planted in the made sample; a test holds it against
                   tests/golden/corruptions.json

A suite is scored over the corruptions that a gate can be expected to notice. Which those are was said here
first, with the reason where one cannot; the raw score is over all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from expectations.audit.listed.books import curricula, predictions
from expectations.audit.listed.documents import documents
from expectations.audit.listed.examples import examples
from expectations.audit.listed.traces import traces
from expectations.audit.planting import Corruption
from expectations.audit.sample import toy
from infra.screen import plain
from lineage.rows import canonical_json

VERSION = 4

CORRUPTIONS: tuple[Corruption, ...] = (
    *traces(),
    *documents(),
    *examples(),
    *curricula(),
    *predictions(),
)


def declared() -> dict[str, Any]:
    """What is said of the list, for the golden file: how many of which table, and the digests."""
    return {
        "version": VERSION,
        "corruptions": len(CORRUPTIONS),
        "expected": sum(each.expected for each in CORRUPTIONS),
        "by_table": {
            table: sum(each.table == table for each in CORRUPTIONS)
            for table in dict.fromkeys(each.table for each in CORRUPTIONS)
        },
        "declared": _sha(canonical_json([each.declared() for each in CORRUPTIONS])),
        "planted": _sha(canonical_json({each.name: effect(each) for each in CORRUPTIONS})),
    }


def effect(corruption: Corruption) -> str:
    """Digest of what the corruption changes in the made sample: which cells to what, which rows come."""
    clean = toy(corruption.table).batch
    damaged = corruption.planted(toy(corruption.table))
    told: dict[str, Any] = {"rows": damaged.num_rows}
    for name in clean.column_names:
        before, after = clean[name], damaged[name]
        if before.equals(after):
            continue
        told[name] = _changes(before, after)
    return _sha(canonical_json(told))


def _changes(before: pa.ChunkedArray, after: pa.ChunkedArray) -> list[Any]:
    old = before.to_pylist()
    return [
        [place, _said(value)]
        for place, value in enumerate(after.to_pylist())
        if place >= len(old) or _said(old[place]) != _said(value)
    ]


def _said(value: Any) -> Any:
    """As canonical JSON takes it: numbers that are none become words."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {name: _said(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_said(part) for part in value]
    return plain(value)


def _sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
