"""How damage is done to rows: what a corruption is, and the few moves that all of them are made of.

    corruption.planted(sample, seed=0) -> the batch with the damage in it

A corruption hits a share of the rows that it is about, drawn by a generator of its own: the same sample is
always damaged in the same way, whatever else is planted.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from expectations.audit.sample import Sample
from lineage.schemas import TABLES

Plant = Callable[[Sample, list[int], random.Random], pa.Table]
"""(sample, places of the rows to hit, ascending) -> the batch, damaged."""

Rewrite = Callable[[str, random.Random], str]
ONE = 0.0
"""A rate that means exactly one row."""

ALL = 1.0


class NotPlanted(ValueError):
    """The sample holds nothing that this corruption could damage."""


@dataclass(frozen=True)
class Corruption:
    """One way in which a batch can be bad."""

    name: str
    """Table, a dot, and what is wrong."""

    family: str
    does: str
    """What is done to the rows that are hit, in a sentence that ends `the rows that are hit ...`."""

    plant: Plant
    rate: float = 0.1
    """Share of the rows that it is about; at least one row; 0 means exactly one."""

    among: tuple[tuple[str, str], ...] = ()
    """Which rows it is about: those with these values in these columns."""

    why_not: str = ""
    """Why no gate can be expected to notice; empty where one can."""

    @property
    def table(self) -> str:
        """The table whose rows are damaged."""
        return self.name.partition(".")[0]

    @property
    def expected(self) -> bool:
        """Can a gate be expected to notice?"""
        return not self.why_not

    def declared(self) -> dict[str, Any]:
        """What is frozen of it: all but how it is programmed."""
        return {
            "name": self.name,
            "family": self.family,
            "does": self.does,
            "rate": self.rate,
            "among": [list(pair) for pair in self.among],
            "why_not": self.why_not,
        }

    def planted(self, sample: Sample, *, seed: int = 0) -> pa.Table:
        """The batch of the sample with this damage. Raises NotPlanted where nothing was changed."""
        rng = random.Random(f"{seed}:{self.name}")
        places = self._places(sample.batch, rng)
        if not places:
            raise NotPlanted(f"{self.name}: no row of the sample is one that it is about")
        damaged = self.plant(sample, places, rng)
        if damaged.equals(sample.batch):
            raise NotPlanted(f"{self.name}: the sample has nothing that it changes")
        return damaged

    def _places(self, batch: pa.Table, rng: random.Random) -> list[int]:
        about = list(range(batch.num_rows))
        for name, value in self.among:
            values = batch[name].to_pylist()
            about = [place for place in about if values[place] == value]
        count = 1 if self.rate == ONE else max(1, round(self.rate * len(about)))
        return sorted(rng.sample(about, min(count, len(about))))


def put(rows: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    """The rows with one column replaced."""
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))


def cell(name: str, change: Callable[[Any, random.Random], Any]) -> Plant:
    """The value of a column goes through a function."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        values = sample.batch[name].to_pylist()
        for place in places:
            values[place] = change(values[place], rng)
        return put(sample.batch, name, values)

    return plant


def fixed(name: str, value: Any) -> Plant:
    """A column says this."""
    return cell(name, lambda _value, _rng: value)


def swapped(one: str, other: str) -> Plant:
    """Two columns of a row change places."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        left, right = sample.batch[one].to_pylist(), sample.batch[other].to_pylist()
        for place in places:
            left[place], right[place] = right[place], left[place]
        return put(put(sample.batch, one, left), other, right)

    return plant


def shifted(*names: str) -> Plant:
    """The rows that are hit hold what the next one of them held, the last what the first did."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        rows = sample.batch
        for name in names:
            values = rows[name].to_pylist()
            held = [values[place] for place in places]
            for place, value in zip(places, held[1:] + held[:1], strict=True):
                values[place] = value
            rows = put(rows, name, values)
        return rows

    return plant


def shuffled(name: str) -> Plant:
    """The values of a column are dealt anew among the rows that are hit."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        values = sample.batch[name].to_pylist()
        held = [values[place] for place in places]
        rng.shuffle(held)
        for place, value in zip(places, held, strict=True):
            values[place] = value
        return put(sample.batch, name, values)

    return plant


def text_of(row: Mapping[str, Any]) -> str:
    """What a row asks or tells: the last user message of a trace, the text of all others."""
    if "response" not in row:
        return row["text"]
    asked = [message["content"] for message in row["messages"] if message["role"] == "user"]
    return asked[-1] if asked else ""


def with_text(row: Mapping[str, Any], text: str | None) -> dict[str, Any]:
    """The row with another text; the last user message of a trace or an example follows."""
    changed = dict(row)
    if "text" in changed:
        changed["text"] = text
    if "messages" in changed:
        messages = [dict(message) for message in changed["messages"]]
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last is not None:
            messages[last]["content"] = text
        changed["messages"] = messages
    return changed


def rows_anew(change: Callable[[dict[str, Any], random.Random, Sample], dict[str, Any]]) -> Plant:
    """The whole row goes through a function."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        rows = sample.batch.to_pylist()
        for place in places:
            rows[place] = change(rows[place], rng, sample)
        return pa.Table.from_pylist(rows, schema=sample.batch.schema)

    return plant


def text(change: Rewrite) -> Plant:
    """What the row asks or tells is rewritten."""
    return rows_anew(lambda row, rng, _sample: with_text(row, change(text_of(row) or "", rng)))


def word(name: str, change: Rewrite) -> Plant:
    """Another column of text is rewritten."""
    return cell(name, lambda value, rng: change(value or "", rng))


def added(*changes: Callable[[dict[str, Any], random.Random], dict[str, Any]], times: int = 1) -> Plant:
    """Each row that is hit comes again, so many times, as another row that goes through the functions."""

    def plant(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
        rows = sample.batch.to_pylist()
        new = [dict(rows[place]) for place in places for _ in range(times)]
        for index, row in enumerate(new):
            row |= _fresh(row, len(rows) + index)
            for change in changes:
                row |= change(row, rng)
        return pa.Table.from_pylist(rows + new, schema=sample.batch.schema)

    return plant


def _fresh(row: Mapping[str, Any], index: int) -> dict[str, Any]:
    """An identity and a place of its own, for rows that have one."""
    if "source_span" not in row:
        return {}
    return {
        "row_id": hashlib.sha256(b"again" + row["row_id"] + str(index).encode()).digest()[:16],
        "row_no": 50_000_000 + index,
        "source_span": f"bytes:{index * 400}-{index * 400 + 400}",
    }


def kept(share: float) -> Plant:
    """Only this share of the batch is left, from its beginning."""
    return lambda sample, _places, _rng: sample.batch.slice(0, round(share * sample.batch.num_rows))


def without_hits(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """The rows that are hit are missing."""
    hit = set(places)
    return sample.batch.take([place for place in range(sample.batch.num_rows) if place not in hit])


def evaluated(sample: Sample, *, task: str) -> list[dict[str, Any]]:
    """The rows on which models are scored, here and among what is admitted. Raises NotPlanted without any."""
    stored = sample.admitted.get("examples", TABLES["examples"].schema.empty_table()).to_pylist()
    own = sample.batch.to_pylist() if sample.table == "examples" else []
    found = [row for row in [*stored, *own] if row["split"] in ("gate", "report") and row["task"] == task]
    if not found:
        raise NotPlanted(f"no example of task {task} is one that models are scored on")
    return found
