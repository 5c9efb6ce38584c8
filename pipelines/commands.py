"""The verbs of this folder: `stemma ingest`, `stemma curate`."""

from __future__ import annotations

from typing import Annotated

import typer

from expectations.gate import admit, exit_code
from expectations.reports import as_text
from infra.cli import Lake, Set, open_runtime
from infra.config import read_config
from infra.runtime import Runtime
from lineage.runs import Outcome
from lineage.tables import resolve
from pipelines import curate as curation
from pipelines import ingest as ingestion


def ingest(
    sources: Annotated[list[str], typer.Argument(help="Files, folders or globs.")],
    format: Annotated[str, typer.Option(help="A format's name, or auto.")] = "auto",
    field_map: Annotated[str | None, typer.Option(help="TOML map from fields to columns.")] = None,
    gate: Annotated[bool, typer.Option(help="Validate what was stored.")] = True,
    lake: Lake = None,
) -> int:
    """Store sources as rows of `traces`, then put them before the gate.

    Example: stemma ingest logs/*.jsonl
    """
    config = ingestion.IngestConfig(sources=tuple(sources), format=format, field_map=field_map)
    with open_runtime(lake) as runtime:
        return _told(runtime, "ingest", ingestion.ingest(runtime, config), gate=gate)


def curate(
    config: Annotated[str | None, typer.Argument(help="TOML config.")] = None,
    set: Set = None,
    gate: Annotated[bool, typer.Option(help="Validate what was stored.")] = True,
    lake: Lake = None,
) -> int:
    """Derive examples from admitted traces, then put them before the gate.

    Example: stemma curate curate.toml --set split=train
    """
    with open_runtime(lake) as runtime:
        wanted = read_config(curation.CurateConfig, config, set or ())
        return _told(runtime, "curate", curation.curate(runtime, wanted), gate=gate)


def _told(runtime: Runtime, job: str, outcome: Outcome, *, gate: bool) -> int:
    """Print what a job did, gate its batches, and return the worst exit code."""
    counts = ", ".join(f"{name} {number:,}" for name, number in outcome.counts.items() if number)
    print(f"{job} {', '.join(outcome.outputs)}{' (done before)' if outcome.again else ''}: {counts}")
    if not gate:
        return 0
    codes = []
    for output in outcome.outputs:
        verdict = admit(runtime, resolve(runtime.settings, output))
        print(as_text(verdict, runtime.settings))
        codes.append(exit_code(verdict))
    return max(codes, default=0)
