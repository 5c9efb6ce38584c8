"""Ids are for ever: tests/golden/ids.json may grow, but no id in it may change.

The file says what each id is made of; here it is made again. Run as a program, it prints all of them.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lineage.bans import payload_digest, recall_id
from lineage.consumption import ledger_digest
from lineage.curricula import curriculum_root
from lineage.recipe import Recipe
from lineage.rows import (
    Fingerprint,
    canonical_payload,
    derived_row_id,
    origin_of,
    rows_digest,
    source_row_ids,
)
from lineage.schemas import EXAMPLE, TABLES, TRACE
from lineage.selectors import Selector
from lineage.stamp import Places, Source, Stamp, stamp_derived, stamp_source
from lineage.tasks import Task
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.readers.field_map import FieldMap
from pipelines.readers.json_lines import decode_json_object
from pipelines.step import Step
from pipelines.steps.duplicates import MergeDuplicates
from pipelines.steps.judged import ExampleFromTrace
from tests.conformance import every_golden

ROOT = Path(__file__).parents[2]
GOLDEN: dict[str, dict[str, dict[str, Any]]] = json.loads((ROOT / "tests/golden/ids.json").read_text())
CASES = [(kind, name) for kind, cases in GOLDEN.items() for name in cases]
STAMP = Stamp("00-1", "sha256:code", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
FORMATS = {golden.name: golden for golden in every_golden()}
READERS = {
    "chat_completions": ChatCompletions(),
    "field_map": FieldMap(
        fields=(("correction", "truth"), ("input", "question"), ("response", "{key}.says")),
        constants=(("scorer", "exact-match"), ("threshold", 0.5)),
        keys=("one", "two"),
    ),
}


def made(kind: str, case: dict[str, Any]) -> Any:
    """What a case's inputs give now."""
    if kind == "source rows":
        of = case["of"]
        (row_id,) = source_row_ids(
            reader=of["reader"],
            revision=of["revision"],
            origin=origin_of(_bytes(of["first_record"])),
            positions=[of["position"]],
            records=[_bytes(of["record"])],
            ordinals=[of["ordinal"]],
        )
        return row_id.hex()
    if kind == "derived rows":
        return _derived(**case["of"])
    if kind == "read rows":
        return [row.hex() for row in _read(**case["of"])["row_id"].to_pylist()]
    if kind == "formats":
        return _of_format(**case["of"])
    if kind == "curated rows":
        return [row.hex() for row in _curated(**case["of"])["row_id"].to_pylist()]
    if kind == "payloads":
        spec = TABLES[case["of"]["table"]]
        return payload_digest(dict.fromkeys(spec.schema.names) | case["of"]["row"], spec).hex()
    if kind == "curriculum roots":
        return curriculum_root([(bytes.fromhex(row), *rest) for row, *rest in case["of"]])
    if kind == "ledgers":
        slots = [
            dict(zip(("step", "slot", "row_id", "loss_tokens"), slot, strict=True)) for slot in case["of"]
        ]
        return ledger_digest(
            pa.Table.from_pylist([s | {"row_id": bytes.fromhex(s["row_id"])} for s in slots])
        )
    if kind == "recalls":
        return recall_id(Selector(**case["of"] | {"rows": tuple(case["of"].get("rows", ()))}))
    if kind == "recipes":
        return Recipe(**case["of"]).key
    assert kind == "inputs of jobs"
    return rows_digest(bytes.fromhex(row) for row in case["of"])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _derived(steps: list[list[Any]], parents: list[str], says: dict[str, Any], ordinal: int) -> str:
    payload = canonical_payload(says, pa.schema([(name, pa.null()) for name in says]))
    found = {
        derived_row_id(
            steps=[Fingerprint(*step) for step in steps],
            parents=[bytes.fromhex(parent) for parent in order],
            payload=payload,
            ordinal=ordinal,
        )
        for order in permutations(parents)
    }
    assert len(found) == 1, "the order of parents counted"
    return found.pop().hex()


def _read(reader: str, records: list[str]) -> pa.Table:
    """As ingest does: each line is a record, and stands where the one before it ended."""
    lines = [_bytes(record) for record in records]
    starts = [sum(len(line) + 1 for line in lines[:n]) for n in range(len(lines))]
    made = [READERS[reader].read(decode_json_object(line)) for line in lines]
    each = [
        (at, line, n) for at, line, rows in zip(starts, lines, made, strict=True) for n in range(len(rows))
    ]
    positions, records, ordinals = (list(values) for values in zip(*each, strict=True))
    spans = [f"bytes:{at}-{at + len(line)}" for at, line, _ in each]
    return stamp_source(
        pa.Table.from_pylist([row for rows in made for row in rows], schema=TRACE.derivable),
        Places(positions, spans, records, ordinals),
        into=TRACE,
        source=Source("file:///anywhere.jsonl", "sha256:any", origin_of(lines[0])),
        reader=READERS[reader].fingerprint,
        stamp=STAMP,
        first_row_no=0,
    )


def _of_format(format: str) -> list[str]:
    """Ids of the rows of the format's golden input."""
    golden = FORMATS[format]
    reader, places = golden.reader.fingerprint, golden.read().places
    ids = source_row_ids(
        reader=reader.name,
        revision=reader.revision,
        origin=golden.work.source.origin,
        positions=places.positions,
        records=places.records,
        ordinals=places.ordinals,
    )
    return [row_id.hex() for row_id in ids]


def _curated(reader: str, records: list[str], task: Task = "classification") -> pa.Table:
    """As curate does, with the two steps that make rows."""
    rows = _read(reader, records)
    steps: tuple[Step, ...] = (ExampleFromTrace(task, "train"), MergeDuplicates())
    for number, step in enumerate(steps, start=1):
        fingerprints = [each.fingerprint for each in steps[:number]]
        rows = stamp_derived(step.derive(rows), rows, into=EXAMPLE, steps=fingerprints, stamp=STAMP)
    return rows


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_id_comes_out_as_it_did_when_it_was_written_down(kind: str, name: str):
    case = GOLDEN[kind][name]
    assert made(kind, case) == case["is"]


def test_no_id_twice():
    assert GOLDEN["formats"].keys() == FORMATS.keys()
    assert {case["of"]["reader"] for case in GOLDEN["read rows"].values()} == READERS.keys()
    ids = [str(GOLDEN[kind][name]["is"]) for kind, name in CASES]
    assert len(set(ids)) == len(ids) >= 51


@pytest.mark.parametrize(
    ("hash_seed", "zone", "language"),
    [("1", "Asia/Kathmandu", "C"), ("4242", "America/St_Johns", "tr_TR.UTF-8")],
)
def test_another_process_place_and_hash_seed_give_the_same_ids(hash_seed: str, zone: str, language: str):
    given = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed, "TZ": zone, "LC_ALL": language}
    told = subprocess.run(
        [sys.executable, __file__],
        cwd="/",
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout) == [GOLDEN[kind][name]["is"] for kind, name in CASES]


if __name__ == "__main__":
    print(json.dumps([made(kind, GOLDEN[kind][name]) for kind, name in CASES]))
