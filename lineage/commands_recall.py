"""The verbs around a recall: `stemma` suspects, impact, rollback; a selector's options; the end of a recall.

`stemma recall` itself is in search/commands.py, for it may train again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import pyarrow.compute as pc
import typer

from infra.cli import Json, Lake, existing, open_runtime, words
from infra.screen import SHOWN, print_table
from lineage import suspects as suspicion
from lineage.bans import banned
from lineage.impact import impact as radius_of
from lineage.lift import lift
from lineage.reached import Impact, Written
from lineage.recall import RecallError, find
from lineage.rollback import roll_back
from lineage.selectors import Selector

_LISTED = 12  # curricula and checkpoints on the screen

Prompt = Annotated[str | None, typer.Option(help="Rows of this prompt: NAME@VERSION, or NAME for all.")]
Scorer = Annotated[str | None, typer.Option(help="Rows that it judged: NAME@REVISION, or NAME.")]
Generator = Annotated[str | None, typer.Option(help="Rows that it wrote: NAME@REVISION, or NAME.")]
Reviewer = Annotated[
    str | None,
    typer.Option(help="Rows that this reviewer judged or corrected, and all he said in reviews."),
]
SourceRevision = Annotated[str | None, typer.Option(help="Rows of this content of a source: its digest.")]
Rows = Annotated[list[str] | None, typer.Option("--row", help="A row's id or its start; may be repeated.")]
Where = Annotated[str | None, typer.Option(help="SQL condition over the columns of a row table.")]


def suspects(
    by: Annotated[
        str, typer.Option(help="What to look at, comma-separated; also: window, the day or week it happened.")
    ] = ",".join(suspicion.COLUMNS),
    sources: Annotated[
        list[str] | None, typer.Option("--source", help="Only traces whose source matches this pattern.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="How often chance alone may point at any value at all.")
    ] = 0.05,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Which prompt, source, scorer, generator or reviewer touches more failures than chance explains.

    failed: by the trace's own verdict; contradicted: a second opinion on what was derived from it disagrees.

    Example: stemma suspects --by prompt,reviewer
    """
    found = suspicion.suspects(existing(lake), by=words(by), alpha=alpha, sources=sources or ["*"])
    if as_json:
        print(json.dumps(suspicion.as_json(found)))
    else:
        _findings(found)
    return 0


def impact(
    prompt: Prompt = None,
    source_revision: SourceRevision = None,
    scorer: Scorer = None,
    generator: Generator = None,
    reviewer: Reviewer = None,
    row: Rows = None,
    where: Where = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """What a bad value, source or row reaches: rows, curricula, runs, checkpoints, aliases. Options combine.

    Example: stemma impact --prompt router@2
    """
    selector = Selector(prompt, scorer, generator, source_revision, reviewer, tuple(row or ()), where)
    settings = existing(lake)
    found = radius_of(settings, selector)
    if as_json:
        print(json.dumps(found.as_json()))
        return 0
    print("\n".join(told(found)))
    standing = find(settings, found.selector)
    if standing:
        print(f"called back by recall {standing.id}: {standing.reason}")
        return 0
    out = found.rows.filter(pc.invert(found.rows["stored"]))["row_no"].to_pylist()
    if out:
        gone = banned(settings)
        by = ", ".join(sorted({gone[row_no] for row_no in out if row_no in gone}))
        count = f"all {len(out):,}" if len(out) == found.rows.num_rows else f"{len(out):,}"
        print(f"{count} of these rows are out already" + (f", called back by recall {by}" if by else ""))
    if len(out) < found.rows.num_rows:
        rest = "the others" if out else "it"
        print(f"call {rest} back: stemma recall {found.selector} --reason TEXT --dry-run")
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
        back = moved["restored"]
        print(f"{moved['name']}@champion: version {moved['from']} -> {moved['to']}")
        print(f"  adapter     {back['adapter_digest'][:23]} of {back['checkpoint']}")
        print(f"  curriculum  {back['curriculum'][:16]} ({back['curriculum_version']})")
        print(f"  config      {_shortly(back['config'])}")
        for each in back["evaluations"]:
            numbers = ", ".join(f"{name} {values[0]:.3f}" for name, values in sorted(each["reports"].items()))
            print(f"  scored on   {each['rows']} rows of {each['split']} ({each['digest'][:12]}): {numbers}")
    return 0


def end_recall(reference: str, *, reason: str, beside: Sequence[str], lake: str | None, as_json: bool) -> int:
    """What `stemma recall --lift` does; `beside` are other options that were given, of which none fits."""
    if beside:
        raise RecallError(f"--lift ends a recall as it was ordered; leave out {', '.join(beside)}")
    existing(lake)
    with open_runtime(lake) as runtime:
        outcome = lift(runtime, reference, reason=reason)
    facets, counts = outcome.facets, outcome.counts
    if as_json:
        print(json.dumps({"run_id": outcome.run_id, "counts": dict(counts), **facets}))
        return 0
    print(f"recall {facets['recall']} is lifted: {counts['back']} of its {counts['rows']} rows are back")
    if counts.get("others_back"):
        print(f"  and {counts['others_back']} that other recalls had banned: an alternative is back")
    out = counts["rows"] - counts["back"] - counts["still_banned"]
    if counts["still_banned"]:
        print(f"  {counts['still_banned']} stay out: another recall bans them")
    if out:
        print(f"  {out} stay out: their batch was withdrawn, or they came again by another way")
    print("  no alias was moved")
    for version in facets["may_serve"]:
        name = version.rpartition("@")[0]
        print(f"  {version} may serve again, if it passes: stemma promote {version} --name {name}")
    return 0


def told(found: Impact) -> Iterator[str]:
    """The blast radius as lines of text."""
    yield f"{found.selector} reaches"
    yield from _reached(found, found.stored)
    if found.words:
        each = ", ".join(f"{number} {verdict}" for verdict, number in found.words.items())
        yield f"  {sum(found.words.values()):>7,} words of {found.selector.reviewer}: {each}"
    jobs = [run.job for run in found.runs]
    counted = ", ".join(f"{jobs.count(job)} {job}" for job in dict.fromkeys(jobs))
    yield f"  {len(jobs):>7,} runs: {counted}"
    if found.written is not None:
        deep = f"{found.written.generations} generation{'s' if found.written.generations > 1 else ''} deep"
        part = "of these, " if found.selector.through_models else ""
        beside = "" if found.selector.through_models else ", and recalled with --through-models only"
        yield f"{part}written by a reached model, or come of that ({deep}){beside}"
        yield from _reached(found.written, found.stored)


def _reached(found: Impact | Written, stored: Mapping[str, int]) -> Iterator[str]:
    for name, number in found.by_table.items():
        yield f"  {number:>7,} of {stored[name]:,} rows of {name}"
    for curriculum in found.curricula[:_LISTED]:
        yield f"  {curriculum.rows:>7,} of {curriculum.of:,} rows of curriculum {curriculum.curriculum[:12]}"
    yield from _more(len(found.curricula), "curricula")
    names = {(each.run_id, each.step): each for each in found.models}
    serving = {state for state, model in names.items() if model.aliases}
    ranked = sorted(found.checkpoints, key=lambda each: (each.run_id, each.step) not in serving)
    for checkpoint in ranked[:_LISTED]:
        model = names.get((checkpoint.run_id, checkpoint.step))
        yield (
            f"  {checkpoint.rows:>7,} of {checkpoint.of:,} rows that checkpoint {checkpoint.run_id}/"
            f"{checkpoint.step} ate ({checkpoint.share:.0%})" + (f": {model}" if model else "")
        )
        if checkpoint.damaged is not None:
            yield f"{'':>10}when it ate them, and how much, cannot be told: {checkpoint.damaged}"
            continue
        clean = (
            f"{checkpoint.run_id}/{checkpoint.clean_before}" if checkpoint.clean_before else "the base model"
        )
        yield (
            f"{'':>10}{checkpoint.loss_tokens:,} of {checkpoint.of_loss_tokens:,} loss tokens; "
            f"the first at step {checkpoint.first_contact} of {checkpoint.step}, clean before it: {clean}"
        )
    yield from _more(len(found.checkpoints), "checkpoints")
    aliases = [f"{each.name}@{alias} ({each})" for each in found.models for alias in each.aliases]
    yield f"  {len(aliases):>7,} aliases" + (f": {', '.join(aliases)}" if aliases else "")


def _more(count: int, what: str) -> Iterator[str]:
    if count > _LISTED:
        yield f"  {count - _LISTED:>7,} more {what}: --json"


def _findings(found: suspicion.Findings) -> None:
    looked_at = ", ".join(f"{count:,} for '{signal}'" for signal, count in found.looked_at.items())
    print(f"traces looked at: {looked_at}")
    shown = [
        {
            "rank": rank,
            "value": f"{suspect.column} {_name(suspect.value)}",
            "signal": suspect.signal,
            "touched": f"{suspect.touched:,}",
            "failures": f"{suspect.failures:,}",
            "expected": f"{suspect.expected:,.1f}",
            "excess [95 %]": f"{suspect.excess:+,.1f} [{suspect.low:+,.1f}, {suspect.high:+,.1f}]",
            "adjusted p": f"{suspect.p:.3f}" if suspect.p >= 0.001 else f"{suspect.p:.0e}",
        }
        for rank, suspect in enumerate(found.suspects[:SHOWN], start=1)
    ]
    print_table("", shown)
    if len(found.suspects) > SHOWN:
        print(f"{len(found.suspects) - SHOWN} more: --json")
    if found.nothing_beside or found.too_few:
        print(
            f"not tested: {found.nothing_beside} without other rows, or other outcomes, to compare with; "
            f"{found.too_few} with too few rows to stand out"
        )
    for suspect in found.standing_out:
        if suspect.same_rows_as:
            others = ", ".join(_name(other) for other in suspect.same_rows_as)
            print(f"{suspect.column} {_name(suspect.value)}: same rows as {others}")
    if not found.standing_out:
        print(f"no value stands out beyond chance (adjusted p < {found.alpha:g})")
        return
    print(f"next: stemma impact {found.standing_out[0].selector}")


def _shortly(config: dict[str, Any]) -> str:
    """The parts of a config that a person looks for first."""
    training = config.get("training", config)
    shown = ("method", "base_model", "learning_rate", "num_train_epochs", "seed")
    return ", ".join(f"{name} {training[name]}" for name in shown if name in training) or json.dumps(config)


def _name(value: str) -> str:
    """A source by its file's name and the start of its digest; anything else as it is called."""
    return re.sub(r"\S*/([^/]*#\w+:\w{8})\w*$", r"\1", value)
