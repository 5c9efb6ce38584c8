"""Which rows a book names, as bitmaps: the members of each curriculum, the items of each evaluation.

A file of a book never changes, so what it names is read once and kept: a row takes a bit to two bytes,
whatever else the book says of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyroaring import BitMap64

from infra.settings import Settings
from lineage import tables
from lineage.schemas import TableSpec

_MOST_FILES = 50_000
_lock = threading.RLock()
_kept: dict[tuple[Any, ...], dict[tuple[str, ...], BitMap64]] = {}


def members(settings: Settings, book: TableSpec, by: Sequence[str]) -> Mapping[tuple[str, ...], BitMap64]:
    """Values of the text columns `by` -> the row numbers beside them, in a book's newest version."""
    newest = tables.snapshot(settings, book)
    found: dict[tuple[str, ...], BitMap64] = {}
    if newest is None:
        return found
    for each in newest.files:
        for key, numbers in _of_file(newest, each, tuple(by)).items():
            found[key] = found[key] | numbers if key in found else numbers
    return found


def _of_file(
    newest: tables.Snapshot, file: Mapping[str, Any], by: tuple[str, ...]
) -> dict[tuple[str, ...], BitMap64]:
    place = (newest.table, file["path"], by)
    with _lock:
        if place in _kept:
            return _kept[place]
    columns = [*by, "row_no"]
    rows = tables.read_file(newest.settings, file["path"], of=newest.spec, columns=columns, as_codes=True)
    found: dict[tuple[str, ...], BitMap64] = {}
    codes = [rows[name].unify_dictionaries().combine_chunks() for name in by]
    together = np.zeros(rows.num_rows, np.int64)
    for each in codes:
        together = together * len(each.dictionary) + each.indices.to_numpy(zero_copy_only=False)
    numbers = rows["row_no"].to_numpy()
    for code, first in zip(*np.unique(together, return_index=True), strict=True):
        key = tuple(each[int(first)].as_py() for each in codes)
        found[key] = BitMap64(np.sort(numbers[together == code]).astype(np.uint64))
    with _lock:
        if len(_kept) >= _MOST_FILES:
            _kept.clear()
        _kept[place] = found
    return found
