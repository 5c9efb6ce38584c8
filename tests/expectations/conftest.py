"""A toy help desk: a handful of traces, examples and a curriculum, sound until a test plants a defect."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.rows import Derivation, Fingerprint
from lineage.schemas import CURRICULUM, DOCUMENT, EXAMPLE, TRACE, TableSpec
from lineage.stamp import Places, Source, Stamp, stamp_derived, stamp_source
from lineage.tables import TableVersion

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LABELS = ("balance", "transfer", "card")


def places(source: str, rows: int) -> Places:
    """Records of a hundred bytes, one after the other."""
    spans = [f"bytes:{i * 100}-{i * 100 + 100}" for i in range(rows)]
    records = [f"{source}-{i}".encode() * 10 for i in range(rows)]
    return Places([i * 100 for i in range(rows)], spans, records, [0] * rows)


class Toy:
    """Makes batches as readers and steps would."""

    def traces(
        self, rows: int = 6, *, source: str = "log-a", reader: str = "chat_completions", **changes: Any
    ) -> pa.Table:
        """Judged chat-log lines; `changes` replace columns of every row."""
        read = [self.trace(f"{source}: question {i}") | changes for i in range(rows)]
        origin = Source(f"/logs/{source}.jsonl", digest(source), f"{source}-0".encode())
        made = stamp_source(
            pa.Table.from_pylist(read, schema=TRACE.derivable),
            places(source, rows),
            into=TRACE,
            source=origin,
            reader=Fingerprint(reader, 1, {}),
            stamp=self.stamp(f"ingest-{source}"),
            first_row_no=0,
        )
        return numbered(made, source)

    def trace(self, question: str) -> dict[str, Any]:
        return {
            "trace_key": "unstated",
            "model_requested": "bot",
            "model_answered": "bot@1",
            "messages": [message("user", question)],
            "response": "balance",
            "verdict": "pass",
            "prompt_name": "intent",
            "prompt_version": "v3",
            "generator": "bot",
            "generator_revision": "1",
            "scorer": "judge",
            "scorer_revision": "2",
            "score": 1.0,
            "threshold": 0.5,
        }

    def examples(
        self, rows: int = 6, *, source: str = "log-a", split: str = "train", **changes: Any
    ) -> pa.Table:
        """Classification examples, each derived from one trace; `changes` replace columns of every row."""
        parents = self.traces(rows, source=source)
        payload = [
            {
                "task": "classification",
                "split": split,
                "kind": "passed",
                "messages": [message("user", f"{source}: question {i}")],
                "text": f"{source}: question {i}",
                "answer": LABELS[i % len(LABELS)],
                "condition": "not_applicable" if split == "train" else "clean",
            }
            | changes
            for i in range(rows)
        ]
        derivation = Derivation(
            pa.Table.from_pylist(payload, schema=EXAMPLE.payload), [(i,) for i in range(rows)]
        )
        step = Fingerprint("ExampleFromTrace", 1, {"split": split})
        made = stamp_derived(
            derivation, parents, into=EXAMPLE, steps=[step], stamp=self.stamp(f"curate-{source}-{split}")
        )
        return numbered(made, f"{source}-{split}")

    def documents(self, rows: int = 3, *, source: str = "manual", **changes: Any) -> pa.Table:
        """Sections of a manual; `changes` replace columns of every row."""
        said = {"kind": "markdown", "title": source, "language": "en"}
        read = [said | {"text": f"section {i}"} | changes for i in range(rows)]
        origin = Source(f"/docs/{source}.md", digest(source), b"first")
        reader = Fingerprint("markdown", 1, {})
        made = stamp_source(
            pa.Table.from_pylist(read, schema=DOCUMENT.derivable),
            places(source, rows),
            into=DOCUMENT,
            source=origin,
            reader=reader,
            stamp=self.stamp(f"ingest-{source}"),
            first_row_no=0,
        )
        return numbered(made, source)

    def curriculum(self, examples: pa.Table, slices: Sequence[str] = ("gold",), **changes: Any) -> pa.Table:
        """All these examples as members, the slices in turn."""
        members = [
            {
                "curriculum": "c" * 64,
                "row_id": row["row_id"],
                "row_no": row["row_no"],
                "slice": slices[i % len(slices)],
                "weight": 1.0,
                "answer": row["answer"],
                "text": row["text"],
                "run_id": "curriculum-1",
            }
            | changes
            for i, row in enumerate(examples.to_pylist())
        ]
        return pa.Table.from_pylist(members, schema=CURRICULUM.schema)

    def stamp(self, run: str) -> Stamp:
        return Stamp(f"{run}-1", f"sha256:{'0' * 32}", START)


class Lake:
    """A lake in a temporary folder, with a clock that moves one second each time it is asked."""

    def __init__(self, folder: Path):
        self.settings = Settings(lake=str(folder), tracking_uri="")
        self.seconds = 0
        self.runtime = Runtime(self.settings, now=self._tick)

    def store(self, rows: pa.Table, into: TableSpec, *, key: str) -> TableVersion:
        run_id = rows["run_id"][0].as_py() if rows.num_rows else f"{key}-1"
        version = tables.current(self.settings, into)
        name = f"{run_id}-{0 if version is None else version.version}"
        file = tables.write_file(self.settings, rows, into=into, name=name)
        return tables.commit(self.settings, [file], into=into, run_id=run_id, keys=[key])

    def _tick(self) -> dt.datetime:
        self.seconds += 1
        return START + dt.timedelta(seconds=self.seconds)


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def numbered(rows: pa.Table, block: str) -> pa.Table:
    """Row numbers from a block of its own for each name."""
    first = int.from_bytes(hashlib.sha256(block.encode()).digest()[:3], "big") * 1000
    return with_column(rows, "row_no", range(first, first + rows.num_rows))


def with_column(rows: pa.Table, name: str, values: Sequence[Any] | Any) -> pa.Table:
    """The rows with one column replaced: by values, or by one value for all."""
    given = list(values) if isinstance(values, list | tuple | range) else [values] * rows.num_rows
    field = rows.schema.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, pa.array(given, field.type))


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    made = Lake(tmp_path / "lake")
    with made.runtime:
        yield made


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Lake]:
    """Another lake, which goes its own way."""
    made = Lake(tmp_path / "twin")
    with made.runtime:
        yield made


@pytest.fixture
def change() -> Callable[[pa.Table, str, Any], pa.Table]:
    return with_column


@pytest.fixture
def admitted_of() -> Callable[..., Any]:
    """A lake in memory for frames: table name -> its admitted rows."""

    def of(stored: Mapping[str, pa.Table] | None = None) -> Any:
        def read(spec: TableSpec, columns: Sequence[str], where: pads.Expression) -> pa.Table:
            rows = (stored or {}).get(spec.name, spec.schema.empty_table())
            return pads.dataset(rows).to_table(columns=list(columns), filter=where)

        return read

    return of
