"""The verbs of this folder: `stemma` lineage, status, query, fsck."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from infra.cli import Json, Lake, existing, words
from infra.screen import SHOWN, plain, print_table
from infra.settings import Settings
from lineage import bans, models, queries, runs, tables, verdicts
from lineage import fsck as checks
from lineage.consumption import CheckpointError
from lineage.schemas import BOOKS, ROW_TABLES, TABLES
from lineage.tables import TableError


def lineage(
    of: Annotated[
        str, typer.Argument(help="A model (champion, NAME@VERSION, a run id) or a row id, or their start.")
    ],
    by: Annotated[str, typer.Option(help="Provenance columns to group by, comma-separated.")] = ",".join(
        queries.GROUPED_BY
    ),
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Which rows made a model, and at which steps; or what a row comes from, down to the source's bytes.

    Example: stemma lineage champion --by prompt_version,scorer
    """
    settings = existing(lake)
    try:
        checkpoint, version = models.resolve(settings, of)
    except (CheckpointError, models.ModelError) as no_model:
        if not re.fullmatch(r"[0-9a-f]{4,32}", of):
            raise
        try:
            return _row(settings, of, as_json)
        except queries.LineageError as no_row:
            raise queries.LineageError(f"{no_model}; {no_row}") from no_row
    found = queries.lineage(settings, checkpoint)
    if as_json:
        print(json.dumps({"model": str(version) if version else None, **queries.as_json(found)}))
        return 0
    _checkpoint(found, version, _columns(by))
    return 0


def status(lake: Lake = None, as_json: Json = False) -> int:
    """What the lake holds: tables, batches and their verdicts, runs, models and aliases.

    Example: stemma status
    """
    settings = existing(lake)
    found = _status(settings)
    if as_json:
        print(json.dumps(found, default=str))
        return 0
    print_table("tables", found["tables"])
    print_table("batches", found["batches"])
    print_table("models", found["models"])
    print_table("recalls", found["recalls"])
    print_table("last runs", found["runs"][-15:])
    return 0


def query(
    statement: Annotated[str, typer.Argument(help="One SELECT (DataFusion SQL) over the lake's tables.")],
    out: Annotated[
        str | None, typer.Option(help="Write all rows to a Parquet or CSV file instead of the screen.")
    ] = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Read-only SQL over the lake; at most 50 rows to the screen.

    Example: stemma query "select prompt_version, count(*) from traces group by 1"
    """
    settings = existing(lake)
    if not re.match(r"\s*(select|with|show|describe)\b", statement, re.IGNORECASE):
        raise TableError("only SELECT, WITH, SHOW and DESCRIBE are read; nothing can be written from here")
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # the engine holds the interpreter, so Ctrl-C must not ask it
    rows = tables.sql(settings, statement)
    if out is not None:
        _write(rows, out)
        print(f"{rows.num_rows} rows in {out}")
    elif as_json:
        print(json.dumps(plain(rows.slice(0, SHOWN).to_pylist())))
    else:
        print_table("", rows.slice(0, SHOWN).to_pylist())
        if rows.num_rows > SHOWN:
            print(f"{rows.num_rows - SHOWN} more rows; take them all with --out FILE")
    return 0


def fsck(
    repair: Annotated[
        bool, typer.Option("--repair", help="First set aliases in MLflow back to where the lake's log says.")
    ] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Check every invariant of the lake; exit 1 if one is broken.

    Example: stemma fsck
    """
    settings = existing(lake)
    for sentence in checks.repair(settings) if repair else ():
        print(f"repaired: {sentence}", file=sys.stderr)
    done = checks.fsck(settings)
    if as_json:
        print(json.dumps([vars(check) for check in done]))
    else:
        for check in done:
            print(
                f"{'ok    ' if not check.found else 'BROKEN'}  {check.name:<13} {check.looked_at:>8,} checked"
            )
            for sentence in check.found[:20]:
                print(f"        {sentence}")
    return 1 if any(check.found for check in done) else 0


def _checkpoint(found: queries.Lineage, version: models.ModelVersion | None, by: list[str]) -> None:
    checkpoint = found.checkpoint
    print(f"{version or 'not registered'}: checkpoint {checkpoint.name}")
    print(f"adapter {checkpoint.adapter_digest[:23]}, curriculum {checkpoint.curriculum[:16]}")
    print(f"base {checkpoint.base_model} ({checkpoint.base_digest[:23]})")
    slices = ", ".join(f"{name} {count}" for name, count in found.slices.items())
    print(f"{found.count} rows, {checkpoint.step} steps; {slices}")
    if found.recalled:
        count = sum(found.recalled.values())
        print(f"{count} of its rows were called back by {', '.join(sorted(found.recalled))}")
    shown = found.grouped(by).to_pylist()
    print_table("", [{name: _short(name, value) for name, value in row.items()} for row in shown[:SHOWN]])
    row_id = found.rows["row_id"][0].as_py().hex()
    print(f"all columns: --json; one row down to its source: stemma lineage {row_id[:12]}")


def _row(settings: Settings, prefix: str, as_json: bool) -> int:
    spec, row = queries.find_row(settings, prefix)
    graph = queries.ancestors(settings, [row["row_id"]])
    origins = [ancestor for ancestor in graph.values() if not ancestor["parents"]]
    origins.sort(key=lambda origin: origin["row_no"])
    called_back = {each.id: each for each in bans.recalls(settings)}
    recall = called_back.get(bans.banned(settings).get(row["row_no"], ""))
    found = {
        "table": spec.name,
        "recalled": {"recall": recall.id, "reason": recall.reason} if recall else None,
        "row": plain(row),
        "ancestors": plain([ancestor for i, ancestor in graph.items() if i != row["row_id"]]),
        "descendants": plain(queries.descendants(settings, row["row_id"])),
        "rejected": plain(queries.rejections(settings, row["row_id"])),
        "sources": [
            {
                **{n: origin[n] for n in ("source_uri", "source_revision", "source_span")},
                "bytes": queries.source_bytes(origin).decode("utf-8", "backslashreplace"),
            }
            for origin in origins
        ],
    }
    if as_json:
        print(json.dumps(found, default=str))
        return 0
    print(
        f"{spec.name} {row['row_id'].hex()}  (row_no {row['row_no']}, {row['step']} r{row['step_revision']})"
    )
    for name in (
        "prompt_name",
        "prompt_version",
        "generator",
        "scorer",
        "score",
        "threshold",
        "review",
        "run_id",
    ):
        print(f"  {name:<16} {row[name]}")
    if recall:
        print(f"  called back by recall {recall.id} ({recall.selector}): {recall.reason}")
    for ancestor in found["ancestors"]:
        made_by = f"{ancestor['step']} r{ancestor['step_revision']}"
        print(f"  from {ancestor['table']} {ancestor['row_id']} ({made_by})")
    for descendant in found["descendants"]:
        print(f"  into {descendant['table']} {descendant['row_id']} ({descendant['step']})")
    for rejection in found["rejected"]:
        print(f"  rejected by {rejection['step']}: {rejection['reason']} (run {rejection['run_id']})")
    for source in found["sources"]:
        print(f"  source {source['source_uri']} {source['source_span']} ({source['source_revision'][:23]})")
        print(f"    {source['bytes']}")
    return 0


def _status(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    held, batches = [], []
    for spec in TABLES.values():
        version = tables.current(settings, spec)
        if version is not None:
            rows = tables.read(settings, spec, columns=[spec.schema.names[0]]).num_rows
            held.append({"table": str(version), "rows": rows, "holds": spec.purpose})
    gone = {str(b) for s in ROW_TABLES for b in tables.withdrawn(settings, s)}
    for spec in (*ROW_TABLES, *(book for book in BOOKS if book.name == "curricula")):
        for run_id, batch in tables.batches(settings, spec).items():
            verdict = verdicts.latest(settings, batch)
            state = verdict.outcome if verdict else "not gated"
            state += ", withdrawn" if str(batch) in gone else ""
            batches.append({"batch": str(batch), "verdict": state, "run": run_id})
    moved = models.aliases(settings)
    registered = [
        {
            "model": str(version),
            "run": version.run_id,
            "aliases": ", ".join(
                alias for alias, n in moved.get(version.name, {}).items() if n == version.version
            ),
        }
        for version in models.versions(settings)
    ]
    called_back = [
        {
            "recall": each.id,
            "what": str(each.selector),
            "reason": each.reason,
            "by": each.actor,
            "at": each.at,
            "state": f"lifted: {each.lift.reason}" if each.lift else "stands",
        }
        for each in bans.all_recalls(settings)
    ]
    return {
        "tables": held,
        "batches": batches,
        "models": registered,
        "recalls": called_back,
        "runs": runs.latest(settings),
    }


def _columns(by: str) -> list[str]:
    wanted = words(by)
    known = {column.name for column in queries.PROVENANCE} | {"slice", "kind", "answer"}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise queries.LineageError(
            f"cannot group by {unknown or 'nothing'}; known: {', '.join(sorted(known))}"
        )
    return wanted


def _write(rows: pa.Table, out: str) -> None:
    if Path(out).suffix == ".csv":
        import pyarrow.csv

        nested = [field.name for field in rows.schema if pa.types.is_nested(field.type)]
        if nested:
            raise TableError(
                f"CSV cannot hold the lists in {', '.join(nested)}; write .parquet, or select less"
            )
        pyarrow.csv.write_csv(rows, out)
    else:
        pq.write_table(rows, out)


def _short(name: str, value: Any) -> Any:
    return value[:15] if name == "source_revision" and isinstance(value, str) else value
