"""How fast sources come in, beside those that do less: `python benchmarks/ingest.py [--gb 0.64]`.

A generated log of judged chat exchanges is taken in by ours, bare (no `extra`, no look for personal data)
and with all defaults; by a plain pyarrow loop that reads and writes the same bytes without provenance, two
threads; by stock Ray Data, `read_json().write_delta()`; by DuckDB's COPY, Daft's Delta writer and datatrove
where they are installed. zstd on all sides, Ray warm, each into a fresh table, in turn, the median of three
rounds; stock Ray and datatrove, which take ten times as long, once.

Then ours alone: two sizes (time must grow with bytes, memory of a worker must not), and the same bytes as
short and as very long lines. The last line is JSON: ratio_to_pyarrow and speedup_over_stock_ray, which are
of the bare one, as those do no more; ratio_with_all_defaults, peak_worker_mb, mb_per_s.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies one that bears a package's name

import psutil
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from infra.runtime import Runtime
from infra.settings import settings_from_environment
from pipelines.ingest import IngestConfig, ingest

BLOCK = 32 * 1024 * 1024
ROUNDS = 3
GB = 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to take in a log, beside others.")
    parser.add_argument("--gb", type=float, default=0.64, help="Size of the log.")
    parser.add_argument("--large-gb", type=float, default=2.5, help="Size of the large one.")
    parser.add_argument("--only", nargs="*", help="Some of the contenders.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log = write_log(folder / "log.jsonl", int(options.gb * GB))
        lake = str(folder / "warm")
        with Runtime(settings_from_environment(lake)) as runtime:
            ours(runtime, write_log(folder / "small.jsonl", 10**7), folder, extra=True, pii="flag")
            race(runtime, log, folder, options.only)
            shapes(runtime, log, folder, int(options.large_gb * GB))
    print(json.dumps(FIGURES))


FIGURES: dict[str, float] = {}


def race(runtime: Runtime, log: Path, folder: Path, only: list[str] | None) -> None:
    """All contenders on one log; fills FIGURES."""
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "pyarrow loop, no provenance": (ROUNDS, lambda: pyarrow_loop(log, folder / "pyarrow")),
        "stemma, bare": (ROUNDS, lambda: ours(runtime, log, folder, extra=False, pii="off")),
        "stemma, all defaults": (ROUNDS, lambda: ours(runtime, log, folder, extra=True, pii="flag")),
        "Ray read_json().write_delta()": (1, lambda: stock_ray(runtime, log, folder / "ray")),
        "DuckDB COPY": (ROUNDS, lambda: duckdb_copy(log, folder / "duckdb.parquet")),
        "Daft to Delta": (ROUNDS, lambda: daft_delta(log, folder / "daft")),
        "datatrove": (1, lambda: datatrove_copy(log, folder / "datatrove")),
    }
    took: dict[str, list[float]] = {}
    peak = Peak()
    for number in range(ROUNDS):
        for name, (rounds, run) in contenders.items():
            if number >= rounds or (only and name not in only):
                continue
            try:
                with peak if name.startswith("stemma") else Peak():
                    started = time.monotonic()
                    run()
                    took.setdefault(name, []).append(time.monotonic() - started)
            except ImportError:
                continue
    size = log.stat().st_size
    print(f"{'log of ' + format(size / 1e6, '.0f') + ' MB':<34}{'seconds':>9}{'MB/s':>8}{'x pyarrow':>11}")
    base = statistics.median(took.get("pyarrow loop, no provenance", [float("nan")]))
    for name, seconds in took.items():
        median = statistics.median(seconds)
        print(f"{name:<34}{median:>9.1f}{size / 1e6 / median:>8.0f}{median / base:>11.2f}")
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    bare, whole = medians.get("stemma, bare"), medians.get("stemma, all defaults")
    if bare and whole:
        FIGURES["ratio_to_pyarrow"] = round(bare / base, 2)
        FIGURES["ratio_with_all_defaults"] = round(whole / base, 2)
        if stock := medians.get("Ray read_json().write_delta()"):
            FIGURES["speedup_over_stock_ray"] = round(stock / bare, 1)
        FIGURES["peak_worker_mb"] = round(peak.bytes / 1e6)
        FIGURES["mb_per_s"] = round(size / 1e6 / whole)


def shapes(runtime: Runtime, log: Path, folder: Path, large: int) -> None:
    """Ours on more bytes, and on other lengths of line."""
    print(f"\n{'stemma, all defaults':<34}{'seconds':>9}{'MB/s':>8}{'worker MB':>11}")
    for name, make in {
        f"{log.stat().st_size / 1e6:,.0f} MB, lines of 1 kB": lambda: log,
        f"{large / 1e6:,.0f} MB, lines of 1 kB": lambda: write_log(folder / "large.jsonl", large),
        "1,000,000 lines of 200 bytes": lambda: write_lines(folder / "short.jsonl", 1_000_000, 200),
        "1,000 lines of 1 MB": lambda: write_lines(folder / "long.jsonl", 1_000, 1_000_000),
    }.items():
        source = make()
        with Peak() as peak:
            started = time.monotonic()
            ours(runtime, source, folder, extra=True, pii="flag")
            took = time.monotonic() - started
        print(f"{name:<34}{took:>9.1f}{source.stat().st_size / 1e6 / took:>8.0f}{peak.bytes / 1e6:>11.0f}")
        if source != log:
            source.unlink()


# ---------------------------------------------------------------- contenders


def ours(runtime: Runtime, log: Path, folder: Path, *, extra: bool, pii: str) -> None:
    """Ingest into a fresh lake."""
    lake = folder / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    there = Runtime(settings_from_environment(str(lake)))
    ingest(there, IngestConfig.model_validate({"sources": (str(log),), "extra": extra, "pii": pii}))


def pyarrow_loop(log: Path, out: Path) -> None:
    """Read blocks of whole lines, write each as Parquet: the floor without Ray, identity or provenance."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    pa.set_cpu_count(2)
    with log.open("rb") as source:
        rest, number = b"", 0
        while chunk := source.read(BLOCK):
            block = rest + chunk
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            options = pj.ReadOptions(block_size=4 * 1024 * 1024)
            table = pj.read_json(io.BytesIO(block[:cut]), read_options=options)
            pq.write_table(table, out / f"{number:05d}.parquet", compression="zstd")
            number += 1
        if rest:
            pq.write_table(pj.read_json(io.BytesIO(rest)), out / f"{number:05d}.parquet", compression="zstd")


def stock_ray(runtime: Runtime, log: Path, out: Path) -> None:
    """What Ray Data offers by itself."""
    shutil.rmtree(out, ignore_errors=True)
    runtime.ray().data.read_json(str(log)).write_delta(str(out))


def duckdb_copy(log: Path, out: Path) -> None:
    """DuckDB's engine, without a table format."""
    import duckdb

    with duckdb.connect(config={"threads": 2}) as engine:
        engine.execute(f"copy (from read_json_auto('{log}')) to '{out}' (format parquet, compression zstd)")


def daft_delta(log: Path, out: Path) -> None:
    """Daft's writer of Delta tables."""
    import daft  # pyright: ignore[reportMissingImports]

    shutil.rmtree(out, ignore_errors=True)
    daft.read_json(str(log)).write_deltalake(str(out))


def datatrove_copy(log: Path, out: Path) -> None:
    """datatrove's own JSONL reader and Parquet writer, two workers."""
    from datatrove.executor import LocalPipelineExecutor  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline.readers import JsonlReader  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline.writers import ParquetWriter  # pyright: ignore[reportMissingImports]

    shutil.rmtree(out, ignore_errors=True)
    reader = JsonlReader(str(log.parent), glob_pattern=log.name, text_key="id")
    LocalPipelineExecutor([reader, ParquetWriter(str(out))], tasks=1, workers=1).run()


# ---------------------------------------------------------------- logs, memory


def write_log(path: Path, size: int) -> Path:
    """Judged exchanges of about 1 kB a line; distinct texts, fields with and without a column."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5_000)]
    system = " ".join(draw.choices(words, k=20))
    with path.open("w", encoding="ascii") as out:
        written = number = 0
        while written < size:
            asked = " ".join(draw.choices(words, k=draw.randint(5, 40)))
            answer = " ".join(draw.choices(words, k=draw.randint(2, 30)))
            line = json.dumps(exchange(number, system, asked, answer, draw)) + "\n"
            written += out.write(line)
            number += 1
    return path


def exchange(number: int, system: str, asked: str, answer: str, draw: random.Random) -> dict[str, object]:
    """One line of the log."""
    key = f"chatcmpl-{number:012x}"
    said = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
    told = {"role": "assistant", "content": answer}
    used = {"prompt_tokens": draw.randint(10, 99), "completion_tokens": draw.randint(1, 40)}
    return {
        "id": key,
        "request": {
            "model": "router",
            "temperature": 0.2,
            "messages": said,
            "metadata": {"prompt_name": "router", "prompt_version": str(1 + number % 3), "team": "it"},
        },
        "response": {
            "id": key,
            "object": "chat.completion",
            "model": "router@1",
            "created": 1_760_000_000 + number,
            "system_fingerprint": "fp_44709d6fcb",
            "choices": [{"index": 0, "message": told, "finish_reason": "stop", "logprobs": None}],
            "usage": used | {"total_tokens": 100},
        },
        "verdict": {
            "value": draw.choice(["pass", "fail"]),
            "judge": "exact-match",
            "judge_version": "1",
            "score": round(draw.random(), 3),
            "threshold": 0.5,
        },
        "client_id": f"c{number % 97}",
    }


def write_lines(path: Path, count: int, size: int) -> Path:
    """So many lines of about this size: a supervised exchange with an answer as long as it takes."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(500)]
    text = " ".join(draw.choices(words, k=size // 4))
    with path.open("w", encoding="ascii") as out:
        for number in range(count):
            line: dict[str, object] = {
                "id": f"c{number}",
                "request": {"model": "m", "messages": [{"role": "user", "content": f"q{number}"}]},
                "response": {"model": "m", "choices": [{"message": {"role": "assistant", "content": ""}}]},
            }
            room = max(size - len(json.dumps(line)), 1)
            line["response"]["choices"][0]["message"]["content"] = text[:room]  # type: ignore[index]
            out.write(json.dumps(line) + "\n")
    return path


class Peak:
    """The most memory that any one of Ray's workers held while it was watched (resident set, bytes)."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()

    def __enter__(self) -> Peak:
        """Watch."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look away."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for process in psutil.Process(os.getpid()).children(recursive=True):
                try:
                    if process.name().startswith("ray::"):
                        memory = process.memory_info()
                        self.bytes = max(self.bytes, memory.rss - getattr(memory, "shared", 0))
                except psutil.Error:
                    continue


if __name__ == "__main__":
    sys.exit(main())
