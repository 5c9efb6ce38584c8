"""The verb `stemma lineage`: of a model, of a row, and of an answer; on the screen, as JSON, as a page."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pyarrow as pa
import typer

from infra.cli import Json, Lake, existing, words
from infra.screen import SHOWN, harmless, plain, print_table
from infra.settings import Settings
from lineage import (
    ancestry,
    answer,
    bans,
    exchanges,
    models,
    pedigrees,
    queries,
    registry,
    row_pedigrees,
    waivers,
)
from lineage import sources as book
from lineage.ancestry import LineageError
from lineage.consumption import CheckpointError, runs_starting
from lineage.review import history, standing, told
from lineage.rows import LEAST_PREFIX

_TOLD = (
    "prompt_name",
    "prompt_version",
    "generator",
    "scorer",
    "score",
    "threshold",
    "review",
    "run_id",
)


def lineage(
    of: Annotated[
        str | None,
        typer.Argument(help="A model (champion, NAME@VERSION, a run id) or a row id, or their start."),
    ] = None,
    by: Annotated[str, typer.Option(help="Provenance columns to group by, comma-separated.")] = ",".join(
        queries.GROUPED_BY
    ),
    of_answer: Annotated[
        str | None,
        typer.Option(
            "--answer",
            metavar="TRACE",
            help="Rank what was eaten by nearness to an exchange: a trace's row id, a JSON file, - for text.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="With --answer: who answered, where the trace does not say (default champion)."),
    ] = None,
    top: Annotated[int, typer.Option(help="With --answer: how many rows.")] = 20,
    page: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write the pedigree as one HTML page.")
    ] = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Which rows made a model, and at which steps; what a row comes from, down to the source's bytes; which
    rows that a model ate an answer is like.

    --json of a row has the keys table, text, answer, recalled, reviews, row, ancestors, descendants,
    eaten_by, rejected, sources. Each of ancestors and descendants has recalled (the recall that took it
    back) and reviewed (the last review that counts), or null.

    Example: stemma lineage champion --by prompt_version,scorer
    """
    settings = existing(lake)
    if page is not None:
        _require_place(page)
    if of_answer is not None:
        if of is not None or page is not None:
            raise LineageError(
                "--answer asks about an exchange alone; leave out the model or row, and --html"
            )
        return _answer(settings, of_answer, model, top, as_json)
    if of is None or model is not None:
        raise LineageError(
            "--model says who answered, and needs --answer TRACE"
            if of is not None
            else "name a model or a row, or an exchange with --answer TRACE [--model MODEL]"
        )
    _require_one_kind(settings, of)
    try:
        checkpoint, version = models.resolve(settings, of)
    except (CheckpointError, models.ModelError) as no_model:
        if not re.fullmatch(rf"[0-9a-f]{{{LEAST_PREFIX},32}}", of):
            raise
        try:
            return _row(settings, of, page, as_json)
        except LineageError as no_row:
            raise LineageError(f"{no_model}; {no_row}") from no_row
    found = queries.lineage(settings, checkpoint)
    if page is not None:
        _write(page, registry.pedigree_html(pedigrees.of_model(settings, found, version)))
    elif as_json:
        told = {"model": str(version) if version else None, **queries.as_json(found)}
        under = [asdict(each) for each in waivers.behind(settings, checkpoint)]
        print(json.dumps(told | {"waivers": plain(under)}))
    else:
        _checkpoint(found, version, _columns(by), waivers.behind(settings, checkpoint))
    return 0


def _require_one_kind(settings: Settings, of: str) -> None:
    """Raise LineageError where the start of an id is that of a run and of a row."""
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST_PREFIX},32}}", of):
        return
    runs = [f"{run_id} (run)" for run_id in runs_starting(settings, of)[:8]]
    rows = ancestry.rows_starting(settings, of) if runs else []
    if rows:
        raise LineageError(f"'{of}' could be any of: {', '.join(runs + rows)}; give more of it")


def _answer(settings: Settings, trace: str, model: str | None, top: int, as_json: bool) -> int:
    asked = exchanges.find_exchange(settings, trace, text=sys.stdin.read)
    found = answer.behind_answer(settings, asked, model=model, top=top)
    if as_json:
        print(json.dumps(found.as_json()))
        return 0
    said = asked.exchange
    print(f"asked    {_line(said.request)}")
    print(f"answered {_line(said.answer) or 'nothing is given'}")
    print(f"by       {found.version or 'not registered'}: checkpoint {found.checkpoint.name}")
    print(f"Of the {found.candidates:,} rows that it ate, the {len(found.rows)} nearest.")
    print(f"This is {answer.SIMILARITY}.")
    for note in found.notes:
        print(harmless(note))
    if found.same_label is not None:
        print(f"{found.same_label} of the {len(found.rows)} carry the same label: {_line(said.answer)}")
    for row in found.rows:
        print(f"\n{row['rank']:>3}  {_why(row)}")
        print(f"     {_line(row['text'])} -> {_line(row['answer'])}")
        if row["shared"]:
            print(f"     in common: {_line(row['shared'])}")
        first = "no step" if row["first_step"] is None else f"first at step {row['first_step']}"
        print(
            f"     {row['row_id'].hex()[:12]}, {row['slice'] or 'no slice'}, {first}; "
            + harmless(f"prompt {row['prompt']}, scorer {row['scorer']}")
        )
        for source in row["sources"][:3]:
            name = PurePosixPath(source["source_uri"]).name
            print(f"     {harmless(name)} {source['source_span']} ({source['source_revision'][:15]})")
        if len(row["sources"]) > 3:
            print(f"     and {len(row['sources']) - 3} more sources")
    return 0


def _why(row: dict[str, Any]) -> str:
    parts = [part.upper() for part in [row["own"]] if part] + [row["how"]]
    if row["answered"] and row["similarity"] is None:
        parts.append(f"{row['answered']:.0%} of the answer")
    if row["recalled"]:
        parts.append(f"CALLED BACK by {row['recalled']}")
    return ", ".join(parts)


def _line(text: str, width: int = 110) -> str:
    """Somebody's text on one line."""
    flat = harmless(" ".join(text.split()))
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _checkpoint(
    found: queries.Lineage,
    version: models.ModelVersion | None,
    by: list[str],
    under: Sequence[waivers.Waiver],
) -> None:
    checkpoint = found.checkpoint
    print(f"{version or 'not registered'}: checkpoint {checkpoint.name}")
    print(f"adapter {checkpoint.adapter_digest[:23]}, curriculum {checkpoint.curriculum[:16]}")
    print(f"base {checkpoint.base_model} ({checkpoint.base_digest[:23]})")
    slices = ", ".join(f"{name} {count}" for name, count in found.slices.items())
    print(f"{found.count} rows, {checkpoint.step} steps, {found.loss_tokens} loss tokens; {slices}")
    if found.recalled:
        count = sum(found.recalled.values())
        print(f"{count} of its rows were called back by {', '.join(sorted(found.recalled))}")
    for each in under:
        told = f"{each.table}: {each.rule} ({each.id}, by {each.by}): {each.reason}"
        print(harmless(f"some of it was admitted under a waiver of {told}"))
    shown = found.grouped(by).to_pylist()
    print_table("", [{name: _short(name, value) for name, value in row.items()} for row in shown[:SHOWN]])
    print(f"all columns: --json; one row down to its source: stemma lineage {found.first.hex()[:12]}")


def _contacts(settings: Settings, row_id: bytes) -> list[dict[str, Any]]:
    """The checkpoints that ate a row or what came of it, with the versions that they are."""
    named = {(each.run_id, each.step): str(each) for each in models.versions(settings)}
    return [
        {
            "run_id": each.checkpoint.run_id,
            "step": each.checkpoint.step,
            "model": named.get((each.checkpoint.run_id, each.checkpoint.step)),
            "rows": each.rows,
            "first_step": each.first_step,
            "times": each.times,
        }
        for each in queries.contacts(settings, row_id)
    ]


def _row(settings: Settings, prefix: str, page: str | None, as_json: bool) -> int:
    """Exit 1 where a source's bytes cannot be shown; all else is told."""
    spec, row = ancestry.find_row(settings, prefix)
    if page is not None:
        _write(page, registry.row_pedigree_html(row_pedigrees.of_row(settings, spec, row)))
        return 0
    graph = ancestry.ancestors_of(settings, [row["row_no"]])
    origins = [ancestor for ancestor in graph.values() if not ancestor["parents"]]
    origins.sort(key=lambda origin: origin["row_no"])
    called_back = {each.id: each for each in bans.recalls(settings)}
    gone = bans.banned(settings)
    recall = called_back.get(gone.get(row["row_no"], ""))
    text, answer = row_pedigrees.said(row)
    reviewed = standing(settings).last

    def marks(relative: dict[str, Any]) -> dict[str, Any]:
        last = reviewed.get(relative["row_id"])
        return {"recalled": gone.get(relative["row_no"]), "reviewed": vars(last) if last else None}

    above = [ancestor for i, ancestor in graph.items() if i != row["row_id"]]
    below = ancestry.descendants(settings, row["row_id"])
    known, superseded = book.origins(settings), book.superseded(settings)
    found = {
        "table": spec.name,
        "text": text,
        "answer": answer,
        "recalled": {"recall": recall.id, "reason": recall.reason} if recall else None,
        "row": plain(row),
        "ancestors": plain([each | marks(each) for each in above]),
        "descendants": plain([each | marks(each) for each in below]),
        "eaten_by": _contacts(settings, row["row_id"]),
        "rejected": plain(ancestry.rejections(settings, row["row_id"])),
        "reviews": plain([vars(said) for said in history(settings, row["row_id"])]),
        "sources": [_source(origin, known, superseded) for origin in origins],
    }
    if as_json:
        print(json.dumps(found, default=str))
    else:
        for line in _lines(found, str(recall.selector) if recall else ""):
            print(harmless(line))
    return 1 if any(source["problem"] for source in found["sources"]) else 0


def _source(
    origin: dict[str, Any], known: Mapping[tuple[str, str], bytes], superseded: Sequence[book.Superseded]
) -> dict[str, Any]:
    """Where a source row was read, its bytes or why they cannot be had, and what lies in its place now."""
    said: dict[str, Any] = {"bytes": None, "problem": None}
    said["superseded_by"] = book.superseded_by(superseded, origin)
    try:
        said["bytes"] = ancestry.source_bytes(origin, origins=known).decode("utf-8", "backslashreplace")
    except LineageError as error:
        said["problem"] = str(error)
    return {name: origin[name] for name in ("source_uri", "source_revision", "source_span")} | said


def _lines(found: dict[str, Any], selector: str) -> Iterator[str]:
    row, recalled = found["row"], found["recalled"]
    yield f"{found['table']} {row['row_id']}  (row_no {row['row_no']}, {row['step']} r{row['step_revision']})"
    yield f"  {'text':<16} {_line(found['text']) or 'none'}"
    yield f"  {'answer':<16} {_line(found['answer']) or 'none'}"
    for name in _TOLD:
        yield f"  {name:<16} {row[name]}"
    if recalled:
        yield f"  called back by recall {recalled['recall']} ({selector}): {recalled['reason']}"
    for said in found["reviews"]:
        yield f"  reviewed: {told(said)}"
    for ancestor in found["ancestors"]:
        made_by = f"{ancestor['step']} r{ancestor['step_revision']}"
        yield f"  from {ancestor['table']} {ancestor['row_id']} ({made_by}){_marks(ancestor)}"
    for descendant in found["descendants"]:
        made = f"{descendant['table']} {descendant['row_id']} ({descendant['step']})"
        yield f"  into {made}{_marks(descendant)}"
    for contact in found["eaten_by"]:
        who = f"{contact['model'] or 'checkpoint'} {contact['run_id']}/{contact['step']}"
        yield (
            f"  eaten by {who}, first at step {contact['first_step']}, {contact['times']} times "
            f"(with what came of it {contact['rows']} rows)"
        )
    for rejection in found["rejected"]:
        yield f"  rejected by {rejection['step']}: {rejection['reason']} (run {rejection['run_id']})"
    for source in found["sources"]:
        yield f"  source {source['source_uri']} {source['source_span']} ({source['source_revision'][:23]})"
        if source["superseded_by"]:
            yield f"    superseded by revision {source['superseded_by'][:23]}: it was rewritten in place"
        yield f"    {source['bytes'] if source['problem'] is None else source['problem']}"


def _marks(relative: dict[str, Any]) -> str:
    recalled, reviewed = relative["recalled"], relative["reviewed"]
    parts = [f", called back by recall {recalled}"] if recalled else []
    return "".join(parts + ([f", {told(reviewed)}"] if reviewed else []))


def _require_place(page: str) -> None:
    """Raise LineageError where no file can be written, before what takes time."""
    place = Path(page).expanduser().absolute()
    if not place.parent.is_dir():
        raise LineageError(f"--html '{page}': there is no folder '{place.parent}'; make it first")
    if place.is_dir():
        raise LineageError(f"--html '{page}' is a folder; expected the name of a file")


def _write(page: str, html: str) -> None:
    try:
        Path(page).expanduser().write_text(html, encoding="utf-8")
    except OSError as error:
        raise LineageError(f"--html '{page}' cannot be written: {error.strerror}; choose another") from error
    print(f"the pedigree is in {page}")


def _columns(by: str) -> list[str]:
    wanted = words(by)
    known = {column.name for column in queries.PROVENANCE if column.type == pa.string()}
    known |= {"slice", "kind", "answer", "recalled"}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise LineageError(f"cannot group by {unknown or 'nothing'}; known: {', '.join(sorted(known))}")
    return wanted


def _short(name: str, value: Any) -> Any:
    if name == "share":
        return f"{value:.1%}"
    return value[:15] if name == "source_revision" and isinstance(value, str) else value
