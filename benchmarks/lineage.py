"""How quickly questions are answered on two synthetic lakes: `python benchmarks/lineage.py [--lakes DIR]`.

Flywheel: 3,000 runs of 1,200 rows over a pool of 300,000, appended run by run. Large: 10 million rows, 20
checkpoints of 3 million rows each. Each question is asked in a process of its own, first cold, then warm
(median of five), and the same is asked of DuckDB with a plain join over the same Parquet files, which answers
without the standing recalls, the aliases and the step of first contact per checkpoint that ours names.

Prints one table per lake, then one line of JSON with the worse of the two lakes: lineage_s,
row_to_checkpoints_ms, impact_s, recall_dry_run_s, bytes_per_consumed_row, peak_gb. With --lakes the lakes are
kept there and used again; building both takes some 25 minutes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).with_name("lakes"))  # else this file would be taken for the package

import synthetic  # pyright: ignore[reportMissingImports]

from infra.settings import Settings
from lineage import models, queries, tables
from lineage.consumption import checkpoints
from lineage.impact import impact
from lineage.recall import would_move
from lineage.schemas import CONSUMPTION, ROW_TABLES, TRACE
from lineage.selectors import Selector

SHAPES = {"flywheel": synthetic.FLYWHEEL, "large": synthetic.LARGE}
BAD = Selector(prompt="router@7")
UNITS = {"lineage": 1, "row_to_checkpoints": 1e3, "impact": 1, "recall_dry_run": 1}
WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds per question on synthetic lakes.")
    parser.add_argument("--lakes", help="Keep the lakes in this folder, and use those that are there.")
    parser.add_argument("--only", choices=SHAPES, help="One of the two.")
    parser.add_argument("--ask", nargs=2, metavar=("WHOM", "LAKE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(ask(*options.ask)))
        return
    wanted = [options.only] if options.only else list(SHAPES)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(Path(options.lakes or folder), name) for name in wanted}
    print(json.dumps({key: max(each[key] for each in found.values()) for key in next(iter(found.values()))}))


def measure(folder: Path, name: str) -> dict[str, float]:
    """Build one lake where it is not there, ask everybody, print the table."""
    lake = folder / name
    if not (lake / "built").exists():
        print(f"building {name} ...", file=sys.stderr)
        synthetic.build(str(lake), SHAPES[name])
        (lake / "built").touch()
    ours, peer = (apart(whom, lake) for whom in ("stemma", "duckdb"))
    print(f"\n{name}: {SHAPES[name]}")
    print(f"{'question':<22}{'stemma cold':>13}{'warm':>10}{'duckdb cold':>13}{'warm':>10}   (seconds)")
    for question in UNITS:
        (cold, warm), theirs = ours["seconds"][question], peer["seconds"].get(question)
        shown = f"{theirs[0]:>13.3f}{theirs[1]:>10.3f}" if theirs else f"{'-':>13}{'-':>10}"
        print(f"{question:<22}{cold:>13.3f}{warm:>10.3f}{shown}")
    print(f"{'peak GB':<22}{ours['peak_gb']:>13.2f}{'':>10}{peer['peak_gb']:>13.2f}")
    eaten, log = consumed_bytes(Settings(lake=str(lake), tracking_uri=""))
    print(f"bytes per consumed row: {eaten:.2f} (and {log:.2f} of Delta's log)")
    figures = {
        f"{name}_{'ms' if unit > 1 else 's'}": round(ours["seconds"][name][1] * unit, 3)
        for name, unit in UNITS.items()
    }
    return figures | {"bytes_per_consumed_row": round(eaten, 2), "peak_gb": round(ours["peak_gb"], 2)}


def apart(whom: str, lake: Path) -> dict[str, Any]:
    """Ask in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--ask", whom, str(lake)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def ask(whom: str, lake: str) -> dict[str, Any]:
    """Cold and warm seconds per question, and the most memory it took."""
    settings = Settings(lake=lake, tracking_uri="")
    questions = (of_stemma if whom == "stemma" else of_duckdb)(settings)
    found = {name: seconds(question) for name, question in questions.items()}
    return {"seconds": found, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def seconds(question: Callable[[], object]) -> tuple[float, float]:
    times: list[float] = []
    for _ in range(1 + WARM):
        started = time.perf_counter()
        question()
        times.append(time.perf_counter() - started)
    return times[0], statistics.median(times[1:])


def of_stemma(settings: Settings) -> dict[str, Callable[[], object]]:
    def counts() -> object:
        found = queries.lineage(settings, models.resolve(settings, "champion")[0])
        return found.count, found.slices, found.recalled, found.grouped()

    row_id, _ = asked_for(settings)

    def dry_run() -> object:
        return would_move(settings, impact(settings, BAD))

    return {
        "lineage": counts,
        "row_to_checkpoints": lambda: queries.contacts(settings, row_id),
        "impact": lambda: impact(settings, BAD),
        "recall_dry_run": dry_run,
    }


def of_duckdb(settings: Settings) -> dict[str, Callable[[], object]]:
    import duckdb

    engine = duckdb.connect()
    engine.execute("SET threads TO 2")
    for spec in (*ROW_TABLES, CONSUMPTION):
        newest = tables.snapshot(settings, spec)
        if newest is not None:
            files = [settings.path("tables", spec.name, each["path"]) for each in newest.files]
            engine.execute(f"CREATE VIEW {spec.name} AS SELECT * FROM read_parquet({files!r})")
    last = checkpoints(settings)[-1].run_id
    _, row_no = asked_for(settings)
    counts = f"""
        SELECT source_revision, prompt_version, scorer, count(DISTINCT row_no) AS rows,
               sum(loss_tokens), min(eaten.step), max(eaten.step)
        FROM consumption AS eaten JOIN examples USING (row_no)
        WHERE eaten.run_id = '{last}' GROUP BY ALL ORDER BY rows DESC"""
    eaters = f"""
        SELECT run_id, min(step), count(*) FROM consumption
        WHERE row_no = {row_no} OR row_no IN (
            SELECT row_no FROM examples WHERE list_contains(parent_nos, {row_no}))
        GROUP BY run_id"""
    reached = """
        WITH bad AS (SELECT row_no FROM traces WHERE prompt_name = 'router' AND prompt_version = '7'),
        edges AS (SELECT row_no, derivation, unnest(parent_nos) AS parent FROM examples),
        derived AS (
            SELECT edges.row_no FROM edges LEFT JOIN bad ON edges.parent = bad.row_no GROUP BY edges.row_no
            HAVING bool_and(bad.row_no IS NOT NULL)
                OR bool_or(bad.row_no IS NOT NULL AND edges.derivation = 'joint')),
        fallen AS (SELECT row_no FROM derived UNION SELECT row_no FROM examples
                   WHERE prompt_name = 'router' AND prompt_version = '7')
        SELECT run_id, count(DISTINCT row_no), count(*), sum(loss_tokens), min(step)
        FROM consumption SEMI JOIN fallen USING (row_no) GROUP BY run_id"""
    statements = {"lineage": counts, "row_to_checkpoints": eaters, "impact": reached}
    return {name: lambda sql=sql: engine.execute(sql).fetchall() for name, sql in statements.items()}


def asked_for(settings: Settings) -> tuple[bytes, int]:
    """Id and number of a trace in the middle of the lake."""
    newest = tables.snapshot(settings, TRACE)
    assert newest is not None
    file = newest.files[len(newest.files) // 2]["path"]
    rows = tables.read_file(settings, file, of=TRACE, columns=["row_id", "row_no"])
    row = rows.slice(rows.num_rows // 2, 1).to_pylist()[0]
    return row["row_id"], row["row_no"]


def consumed_bytes(settings: Settings) -> tuple[float, float]:
    """Bytes on disk per consumed row: the newest version's files, and Delta's log."""
    newest = tables.snapshot(settings, CONSUMPTION)
    assert newest is not None
    rows = sum(each["num_records"] for each in newest.files)
    log = Path(settings.path("tables", CONSUMPTION.name, "_delta_log"))
    held = sum(file.stat().st_size for file in log.iterdir())
    return sum(each["size_bytes"] for each in newest.files) / rows, held / rows


if __name__ == "__main__":
    main()
