"""The verbs of this folder: `stemma ingest`, `stemma curate`, `stemma review`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from expectations.config import GateConfig
from expectations.gate import admit_by, exit_code
from expectations.reports import as_text, in_brief
from infra.cli import Json, Lake, Set, existing, open_runtime
from infra.config import ConfigError, read_config
from infra.runtime import Runtime
from infra.screen import plain
from infra.settings import Settings
from lineage import verdicts
from lineage.review import ReviewError, Word, history, standing, told
from lineage.runs import Outcome
from lineage.selectors import Selector, resolved
from lineage.tables import resolve
from pipelines import curate as curation
from pipelines import ingest as ingestion
from pipelines.progress import ReadingProgress
from pipelines.requeue import retry
from pipelines.review import review as put_on_record

GateConfigFile = Annotated[str | None, typer.Option(help="TOML config of the gate, as for stemma gate.")]


def ingest(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="Files, folders, globs, archives, object-store URIs."),
    ] = None,
    format: Annotated[str, typer.Option(help="A format's name, or auto: seen from the content.")] = "auto",
    field_map: Annotated[str | None, typer.Option(help="TOML map from fields to columns.")] = None,
    extra: Annotated[bool, typer.Option(help="Keep the fields that have no column.")] = True,
    pii: Annotated[bool, typer.Option(help="Look for personal data and secrets, and count them.")] = True,
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace personal data and secrets by pseudonyms.")
    ] = False,
    max_quarantined: Annotated[
        float, typer.Option(help="Share of records that may be unreadable; above it nothing is stored.")
    ] = 0.05,
    retry_quarantine: Annotated[
        bool, typer.Option("--retry-quarantine", help="Read again what could not be read before.")
    ] = False,
    gate: Annotated[bool, typer.Option(help="Validate what was stored.")] = True,
    gate_config: GateConfigFile = None,
    lake: Lake = None,
) -> int:
    """Store sources as rows of `traces` or `documents`, then put them before the gate.

    Each record is stored once, however often, from wherever and beside whomever its source is read; a source
    that grew gives its new part. Exit 1 where a source could not be read (the others were) or a gate refused.

    Example: stemma ingest logs/*.jsonl
    """
    if retry_quarantine == bool(sources):
        raise ingestion.IngestError("give sources, or --retry-quarantine alone")
    if redact and not pii:
        raise ingestion.IngestError("--redact replaces what is found; give it without --no-pii")
    if not 0 <= max_quarantined <= 1:
        raise ingestion.IngestError(f"--max-quarantined is a share from 0 to 1, not {max_quarantined}")
    config = ingestion.IngestConfig(
        sources=tuple(sources or ()),
        format=format,
        field_map=field_map,
        extra=extra,
        pii="redact" if redact else "flag" if pii else "off",
        max_quarantined=max_quarantined,
    )
    by = _gate_config(gate_config, gate=gate)
    with open_runtime(lake) as runtime, ReadingProgress() as progress:
        if retry_quarantine:
            outcome = retry(runtime, extra=extra, pii=pii)
            told = [_retried(outcome.counts)]
        else:
            outcome = ingestion.ingest(runtime, config, show=progress.show)
            told = _ingested(outcome)
        progress.stop()
        print("\n".join(told))
        for problem in outcome.facets.get("problems", {}).values():
            print(f"NOT READ  {problem}", file=sys.stderr)
        code = _gated(runtime, outcome, by)
        return max(code, 1) if outcome.facets.get("problems") else code


def _ingested(outcome: Outcome) -> list[str]:
    """What was read as what, the balance, and what else a reader of it should know, a line each."""
    facets = outcome.facets
    lines = [f"read as {how}" for how in sorted(set(facets.get("formats", {}).values()))]
    lines.append(_balance(outcome))
    if unreadable := facets.get("unreadable"):
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(unreadable.items()))
        where = f"select * from quarantine where run_id = '{outcome.run_id}'"
        lines.append(f'in quarantine: {reasons}; see: stemma query "{where}"')
    lines += [
        f"rewritten: {uri}; the rows of what it held before stay, on record as superseded"
        for uri in facets.get("superseded", ())
    ]
    return lines


def _balance(outcome: Outcome) -> str:
    """read = stored + quarantined + duplicates, in records, and what else they can become."""
    counts = outcome.counts
    if outcome.again:
        return "nothing new: this was ingested before, and nothing of it changed"
    if "in" not in counts:
        return f"nothing new: all {counts['sources_stored_before']} sources were stored before"
    parts = {
        "stored": counts["records_stored"],
        "quarantined": counts["quarantined"],
        "duplicates": counts["records_known"],
        "recalled": counts["records_recalled"],
        "without a row": counts["empty"],
    }
    listed = " + ".join(f"{number:,} {what}" for what, number in parts.items() if number or what == "stored")
    rows = counts["out"] - counts["known"]
    personal = f", {counts['personal']:,} of them with personal data or secrets" if counts["personal"] else ""
    return f"{counts['in']:,} records read = {listed}; {rows:,} rows stored{personal}"


def _retried(counts: Mapping[str, int]) -> str:
    """What came of the records that lay in quarantine."""
    more = f", {counts['recalled']:,} rows recalled" if counts["recalled"] else ""
    return (
        f"{counts['records']:,} records can be read now: {counts['rows']:,} rows stored{more}; "
        f"{counts['still_quarantined']:,} cannot, {counts['not_tried']:,} were read by a map (ingest their "
        f"sources again with a mended one), {counts['of_unstored']:,} are of sources that are not stored "
        "(ingest those again)"
    )


def curate(
    config: Annotated[str | None, typer.Argument(help="TOML config.")] = None,
    set: Set = None,
    gate: Annotated[bool, typer.Option(help="Validate what was stored.")] = True,
    gate_config: GateConfigFile = None,
    lake: Lake = None,
) -> int:
    """Derive examples from admitted traces, then put them before the gate.

    Example: stemma curate curate.toml --set split=train
    """
    by = _gate_config(gate_config, gate=gate)
    with open_runtime(lake) as runtime:
        wanted = read_config(curation.CurateConfig, config, set or ())
        outcome = curation.curate(runtime, wanted)
        counts = ", ".join(f"{name} {number:,}" for name, number in outcome.counts.items() if number)
        print(f"curate{' (done before)' if outcome.again else ''}: {counts}")
        return _gated(runtime, outcome, by)


def review(
    rows: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROW]...", help="Ids of traces or examples, or their starts."),
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="It is right as it is, whatever a filter or scorer says.")
    ] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="Nothing is learnt from it, and no model is scored on it.")
    ] = False,
    label: Annotated[str | None, typer.Option(help="The right answer, in place of its own.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the record.")] = "",
    reviewer: Annotated[str | None, typer.Option(help="Who says so; the user if nobody is named.")] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Show what was said, of these rows or of all, and change nothing.")
    ] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Approve, reject or relabel rows: a person's word beats every automated verdict, from the next run on.

    Of a relabelled example a row with the right answer is stored and gated at once. The last review of a row
    counts; what was called back stays so.

    Example: stemma review 3fa4c1 --label reset_password --reason "it asks for a new password"
    """
    settings = existing(lake)
    words: dict[Word, bool] = {"approved": approve, "rejected": reject, "relabelled": label is not None}
    verdicts: list[Word] = [word for word in words if words[word]]
    if listed:
        if verdicts:
            raise ReviewError("--list changes nothing; give it without --approve, --reject and --label")
        _list(settings, rows or [], as_json)
        return 0
    if len(verdicts) != 1:
        raise ReviewError("say exactly one of --approve, --reject and --label ANSWER; or see --list")
    with open_runtime(lake) as runtime:
        done = put_on_record(runtime, rows or [], verdicts[0], reason=reason, reviewer=reviewer, label=label)
    if as_json:
        counts = {"counts": dict(done.counts), "outputs": list(done.outputs), "again": done.again}
        print(json.dumps({"run_id": done.run_id, **counts, **done.facets}))
        return 0
    facets = done.facets
    state = "was on record before; nothing was changed" if done.again else "is on record"
    print(f"{facets['verdict']} by {facets['reviewer']}: {done.counts['rows']} rows; {state}")
    for batch in done.outputs:
        print(f"  with the answer '{facets['label']}': {batch}, admitted")
    print("the next curate, finetune and evaluate obey; what was trained on before: stemma lineage ROW")
    return 0


def _list(settings: Settings, references: list[str], as_json: bool) -> None:
    """What was said, oldest first, and whether it counts: it is the last word, and not taken back."""
    wanted = resolved(settings, Selector(rows=tuple(references))).rows if references else None
    counting = standing(settings).last
    found = [
        plain(vars(said) | {"counts": counting.get(said.row_id) == said})
        for said in history(settings)
        if wanted is None or said.row_id.hex() in wanted
    ]
    if as_json:
        print(json.dumps(found))
        return
    for said in found:
        state = "" if said["counts"] else " (counts no more)"
        print(f"{said['table']} {said['row_id']}  {told(said)}{state}")
    if not found:
        print("nothing was reviewed")


def _gate_config(path: str | None, *, gate: bool) -> GateConfig | None:
    """What the gate goes by; None where nothing is gated. What is wrong with it is told before the job."""
    if path and not gate:
        raise ConfigError("--gate-config says how to gate; give it without --no-gate")
    config = GateConfig.read(path) if gate else None
    if config is not None and path:
        _ = config.suites_in_force
    return config


def _gated(runtime: Runtime, outcome: Outcome, by: GateConfig | None) -> int:
    """Gate a job's batches and return the worst exit code. A verdict of before is told in a line."""
    codes = [0]
    for output in outcome.outputs:
        batch = resolve(runtime.settings, output)
        if by is None:
            print(f"{batch}: not gated; see: stemma gate {batch}")
            continue
        before = verdicts.latest(runtime.settings, batch)
        verdict = admit_by(runtime, batch, by)
        print((in_brief if verdict == before and verdict.passed else as_text)(verdict, runtime.settings))
        codes.append(exit_code(verdict))
    return max(codes)
