"""The verbs around a recall: `stemma impact`, `stemma rollback`; and the options of a selector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from infra.cli import Json, Lake, existing, open_runtime
from lineage.impact import Impact
from lineage.impact import impact as radius_of
from lineage.rollback import roll_back
from lineage.selectors import Selector

Prompt = Annotated[str | None, typer.Option(help="Rows of this prompt: NAME@VERSION, or NAME for all.")]
Scorer = Annotated[str | None, typer.Option(help="Rows that it judged: NAME@REVISION, or NAME.")]
Generator = Annotated[str | None, typer.Option(help="Rows that it wrote: NAME@REVISION, or NAME.")]
SourceRevision = Annotated[str | None, typer.Option(help="Rows of this content of a source: its digest.")]
Rows = Annotated[list[str] | None, typer.Option("--row", help="A row's id or its start; may be repeated.")]
Where = Annotated[str | None, typer.Option(help="SQL condition over the columns of a row table.")]


def impact(
    prompt: Prompt = None,
    source_revision: SourceRevision = None,
    scorer: Scorer = None,
    generator: Generator = None,
    row: Rows = None,
    where: Where = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """What a bad value, source or row reaches: rows, curricula, runs, checkpoints, aliases. Options combine.

    Example: stemma impact --prompt router@2
    """
    selector = Selector(prompt, scorer, generator, source_revision, tuple(row or ()), where)
    found = radius_of(existing(lake), selector)
    if as_json:
        print(json.dumps(found.as_json()))
        return 0
    print("\n".join(told(found)))
    print(f"call it back: stemma recall {found.selector} --reason TEXT --dry-run")
    return 0


def rollback(
    reason: Annotated[str, typer.Option(help="Why; it stands in the log of events.")],
    name: Annotated[str | None, typer.Option(help="The model, where several have a champion.")] = None,
    to: Annotated[int | None, typer.Option(help="The version to go back to.")] = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Move `champion` back to the clean version that reigned before it.

    Example: stemma rollback --reason "complaints about meeting rooms"
    """
    existing(lake)
    with open_runtime(lake) as runtime:
        outcome = roll_back(runtime, name, reason=reason, to=to)
    if as_json:
        print(json.dumps({"run_id": outcome.run_id, **outcome.facets}))
    else:
        moved = outcome.facets
        print(f"{moved['name']}@champion: version {moved['from']} -> {moved['to']}")
    return 0


def told(found: Impact) -> Iterator[str]:
    """The blast radius as lines of text."""
    yield f"{found.selector} reaches"
    for name, number in found.by_table.items():
        yield f"  {number:>7,} of {found.stored[name]:,} rows of {name}"
    for curriculum in found.curricula:
        yield f"  {curriculum.rows:>7,} of {curriculum.of:,} rows of curriculum {curriculum.curriculum[:12]}"
    names = {(each.run_id, each.step): each for each in found.models}
    for checkpoint in found.checkpoints:
        model = names.get((checkpoint.run_id, checkpoint.step))
        yield (
            f"  {checkpoint.rows:>7,} of {checkpoint.of:,} rows that checkpoint {checkpoint.run_id}/"
            f"{checkpoint.step} ate ({checkpoint.share:.0%}), the first at step {checkpoint.first_contact}"
            + (f": {model}" if model else "")
        )
    jobs = [run.job for run in found.runs]
    counted = ", ".join(f"{jobs.count(job)} {job}" for job in dict.fromkeys(jobs))
    yield f"  {len(jobs):>7,} runs: {counted}"
    aliases = [f"{each.name}@{alias} ({each})" for each in found.models for alias in each.aliases]
    yield f"  {len(aliases):>7,} aliases" + (f": {', '.join(aliases)}" if aliases else "")
