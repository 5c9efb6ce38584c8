"""What gating costs: `python benchmarks/gate.py [--rows 1000000] [--large 0]`.

A batch of examples, judged by the full suite: by ours, block by block on Ray; by plain Great Expectations on
one pandas frame in a process of its own (reading and the conversion to pandas counted on both sides, the same
rules); and, as the floor, the row rules as one DuckDB query over the same files. Then a log of as many
exchanges is taken in and gated: what gating costs beside it.

Last, the share of the frozen list of damage that the suites notice. The last line is JSON: gate_s,
ratio_to_plain_gx, peak_worker_mb, ingest_overhead, mutation_score.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies one that bears a package's name

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from benchmarks.ingest import Peak, write_log
from expectations.audit.mutations import mutations
from expectations.gate import admit
from infra.runtime import Runtime
from infra.settings import Settings, settings_from_environment
from lineage import tables
from lineage.schemas import EXAMPLE, TRACE, TableSpec
from lineage.tables import TableVersion
from lineage.verdicts import Verdict, record
from pipelines.ingest import IngestConfig, ingest

PORTION = 50_000
FIGURES: dict[str, float] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to gate a batch.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--large", type=int, default=0, help="Rows of a second batch, ours alone.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        settings = settings_from_environment(str(Path(temporary) / "lake"))
        with Runtime(settings) as runtime:
            runtime.ray()
            warm = write_examples(settings, 250_000, "warm")
            admit(runtime, warm)
            batch = write_examples(settings, options.rows, "batch")
            took, worker_mb = gated(runtime, batch)
            plain_s, plain_mb = alone(plain_gx, settings, batch)
            floor_s, _ = alone(duckdb_floor, settings, batch)
            print(f"{f'{options.rows:,} examples, full suite':<40}{'seconds':>9}{'peak MB':>9}")
            for name, seconds, mb in (
                ("stemma, by block on Ray (a worker)", took, worker_mb),
                ("Great Expectations, one pandas frame", plain_s, plain_mb),
                ("DuckDB, the row rules as one query", floor_s, 0),
            ):
                print(f"{name:<40}{seconds:>9.1f}{mb:>9.0f}")
            FIGURES.update(gate_s=round(took, 1), ratio_to_plain_gx=round(took / plain_s, 2))
            FIGURES["peak_worker_mb"] = round(worker_mb)
            if options.large:
                took, worker_mb = gated(runtime, write_examples(settings, options.large, "large"))
                print(f"{f'stemma, {options.large:,} examples':<40}{took:>9.1f}{worker_mb:>9.0f}")
            beside_ingest(runtime, Path(temporary), options.rows)
    found = mutations()
    score, raw = found.score or 0.0, found.raw_score or 0.0
    print(f"of the damage that a gate can notice {score:.1%} is noticed, of all {raw:.1%}")
    FIGURES["mutation_score"] = round(score, 3)
    print(json.dumps(FIGURES))


def gated(runtime: Runtime, batch: TableVersion) -> tuple[float, float]:
    """(seconds, MB of the largest worker)."""
    with Peak() as peak:
        started = time.monotonic()
        verdict = admit(runtime, batch)
        took = time.monotonic() - started
    assert verdict.passed, [rule.sentence for rule in verdict.rules if rule.outcome != "pass"]
    return took, peak.bytes / 1e6


def beside_ingest(runtime: Runtime, folder: Path, rows: int) -> None:
    """A log of as many exchanges, taken in and gated."""
    log = write_log(folder / "log.jsonl", rows * 1_000)
    started = time.monotonic()
    outcome = ingest(runtime, IngestConfig(sources=(str(log),)))
    ingest_s = time.monotonic() - started
    gate_s, _ = gated(runtime, tables.resolve(runtime.settings, outcome.outputs[0]))
    name = f"a log of {outcome.counts['out']:,} exchanges"
    print(f"{name:<40}{ingest_s:>9.1f}   and its gate {gate_s:.1f}")
    FIGURES["ingest_overhead"] = round(gate_s / ingest_s, 2)


def alone(work: Any, settings: Settings, batch: TableVersion) -> tuple[float, float]:
    """A contender in a process of its own: (seconds of its work, MB at its peak)."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_timed, args=(answers, work, settings, batch))
    process.start()
    seconds, peak = answers.get()
    process.join()
    return seconds, peak / 1e6


def _timed(answers: Any, work: Any, settings: Settings, batch: TableVersion) -> None:
    import resource

    seconds = work(settings, batch)
    answers.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def plain_gx(settings: Settings, batch: TableVersion) -> float:
    """Great Expectations as its documentation has it: one frame, one validation definition."""
    from expectations.gx import open_context, quiet
    from expectations.measuring import RESULT_FORMAT
    from expectations.suites import SUITES
    from expectations.thresholds import DEFAULTS

    suite = SUITES[batch.table]
    with quiet():
        from great_expectations import ValidationDefinition

        rules = suite.build(DEFAULTS)
        context = open_context()
        asset = context.data_sources.add_pandas("lake").add_dataframe_asset("batch")
        definition = ValidationDefinition(
            name="v", data=asset.add_batch_definition_whole_dataframe("b"), suite=context.suites.add(rules)
        )
        started = time.monotonic()
        rows = tables.read_batch(settings, batch)
        frame = suite.frame(rows, partial(_admitted, settings, batch))
        result = definition.run(batch_parameters={"dataframe": frame}, result_format=RESULT_FORMAT)
        assert result.success
        return time.monotonic() - started


def _admitted(
    settings: Settings, batch: TableVersion, spec: TableSpec, columns: Sequence[str], where: pads.Expression
) -> pa.Table:
    others = pads.field("run_id") != tables.stored_by(settings, batch)
    return tables.read(settings, spec, columns=columns, where=where & others)


def duckdb_floor(settings: Settings, batch: TableVersion) -> float:
    """What an engine needs to look at every row once: the rules on rows as sums over conditions."""
    import duckdb

    folder = Path(settings.lake, "tables", batch.table)
    conditions = (
        "octet_length(row_id) = 16",
        "row_no >= 0",
        "derivation in ('source', 'joint', 'alternative')",
        "len(parents) = len(parent_nos) and len(parents) = len(list_distinct(parents))",
        "regexp_matches(source_span, '^(bytes:[0-9]+-[0-9]+|row:[0-9]+|mixed)$')",
        "regexp_matches(source_revision, '^(mixed|([a-z0-9]+:)?[0-9a-f]{16,128}|[a-z_]+@[0-9]+)$')",
        "regexp_matches(code_revision, '^sha256:[0-9a-f]{32,64}$')",
        "score between 0 and 1",
        "split in ('train', 'gate', 'report')",
        "length(trim(answer)) > 0",
        "length(trim(text)) between 1 and 20000",
        "score >= threshold",
    )
    sums = ", ".join(f"sum(not ({each}))" for each in conditions)
    unique = (
        "count(distinct row_id), count(distinct row_no), count(distinct (text, answer, split, condition))"
    )
    started = time.monotonic()
    with duckdb.connect(config={"threads": 2}) as engine:
        engine.execute(
            f"select count(*), {sums}, {unique} from read_parquet('{folder}/*.parquet')"
        ).fetchall()
    return time.monotonic() - started


def write_examples(settings: Settings, rows: int, name: str) -> TableVersion:
    """A batch of distinct examples, 40 labels, on split train, each derived from one admitted trace."""
    run, parents = f"{name:0<16}-1", f"{name:0<14}of-1"
    draw, rng = random.Random(name), np.random.default_rng(len(name))
    syllables = [f"{first}{then}" for first in "bcdfghklmnprstvw" for then in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(5_000)]
    first = tables.reserve(settings, 2 * rows, run_id=run)
    with (
        tables.FileWriter(settings, TRACE, parents) as logged,
        tables.FileWriter(settings, EXAMPLE, run) as file,
    ):
        for at in range(0, rows, PORTION):
            count = min(PORTION, rows - at)
            texts = [" ".join(draw.choices(words, k=12)) for _ in range(count)]
            traces = _rows(TRACE, _trace(first + at, texts, rng) | {"run_id": parents})
            logged.write(traces)
            file.write(_rows(EXAMPLE, _example(first + rows + at, texts, traces, rng) | {"run_id": run}))
    admitted = tables.commit(settings, [logged.written()], into=TRACE, run_id=parents, keys=[parents])
    verdict = Verdict(admitted, "pass", "traces", "sha256:0", rows, ())
    record(Runtime(settings), verdict, batch_run=parents, run_id=parents)
    return tables.commit(settings, [file.written()], into=EXAMPLE, run_id=run, keys=[run])


_STATED = {
    "source_uri": "file:///logs/day.jsonl",
    "source_revision": "sha256:" + "a" * 64,
    "prompt_name": "intent",
    "prompt_version": "3",
    "generator": "bot",
    "generator_revision": "1",
    "scorer": "judge",
    "scorer_revision": "2",
    "score": 1.0,
    "threshold": 0.5,
    "step_revision": "1",
    "code_revision": "sha256:" + "b" * 64,
    "extracted_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "review": "none",
    "reviewer": "not_applicable",
}


def _trace(first: int, texts: list[str], rng: Any) -> dict[str, Any]:
    return _placed(first, texts, rng) | {
        "parents": [[]] * len(texts),
        "parent_nos": [[]] * len(texts),
        "derivation": "source",
        "step": "chat_completions",
        "trace_key": "unstated",
        "model_requested": "bot",
        "model_answered": "bot@1",
        "response": [f"label_{number % 40}" for number in range(first, first + len(texts))],
        "verdict": "pass",
    }


def _example(first: int, texts: list[str], parents: pa.Table, rng: Any) -> dict[str, Any]:
    return _placed(first, texts, rng) | {
        "source_span": parents["source_span"],
        "parents": [[row_id] for row_id in parents["row_id"].to_pylist()],
        "parent_nos": [[number] for number in parents["row_no"].to_pylist()],
        "derivation": "joint",
        "step": "ExampleFromTrace",
        "task": "classification",
        "split": "train",
        "kind": "passed",
        "condition": "not_applicable",
        "text": texts,
        "answer": parents["response"],
    }


def _placed(first: int, texts: list[str], rng: Any) -> dict[str, Any]:
    numbers = range(first, first + len(texts))
    return {
        "row_id": [bytes(row) for row in rng.integers(0, 256, (len(texts), 16), dtype=np.uint8)],
        "row_no": list(numbers),
        "source_span": [f"bytes:{number * 100}-{number * 100 + 99}" for number in numbers],
        "messages": [[{"role": "user", "content": text}] for text in texts],
    }


def _rows(spec: TableSpec, columns: dict[str, Any]) -> pa.Table:
    count, columns = len(columns["row_id"]), _STATED | columns
    made = []
    for field in spec.schema:
        value = columns.get(field.name)
        if isinstance(value, list | pa.ChunkedArray):
            made.append(value if isinstance(value, pa.ChunkedArray) else pa.array(value, field.type))
        else:
            made.append(pa.repeat(pa.scalar(value, field.type), count))
    return pa.table(made, schema=spec.schema)


if __name__ == "__main__":
    main()
