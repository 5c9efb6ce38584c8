"""The job behind `stemma ingest`: sources become one batch of traces, each row once.

Unreadable lines go to quarantine.

survey (digest, lines) -> lease of row numbers -> parse and write on Ray -> quarantine -> one commit
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict

from infra.runtime import Runtime
from infra.storage import SourceFile, expand, open_source, survey
from lineage import bans, tables
from lineage.rows import canonical_json
from lineage.runs import Outcome, Run, carry_out, identity_of, of_any_attempt
from lineage.schemas import REJECTED, TRACE
from lineage.tables import TableVersion
from pipelines.readers import Reader
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.readers.field_map import FieldMap
from pipelines.readers.json_lines import parse_json_line
from pipelines.runner import read_sources

log = logging.getLogger("stemma.ingest")

FORMATS: dict[str, Reader] = {"chat_completions": ChatCompletions()}


class IngestError(Exception):
    """Nothing could be ingested; the message says why."""


class IngestConfig(BaseModel):
    """What `stemma ingest` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...]
    """Files, folders or globs."""

    format: str = "auto"
    """A format's name, or auto: seen from the first records."""

    field_map: str | None = None
    """A TOML file that maps fields to columns, for JSON lines of any other shape."""


def ingest(runtime: Runtime, config: IngestConfig, *, parent: Run | None = None) -> Outcome:
    """Store the sources' rows as one commit. Sources that are stored already, byte for byte, are passed over.

    The outcome's outputs name the commits that hold the sources, whenever they were made. Raises IngestError
    when no record could be read, StorageError when a source cannot be.
    """
    found = {uri: survey(uri) for uri in expand(config.sources)}
    readers = {uri: choose_reader(source, config) for uri, source in found.items()}
    # Copies of one content are one source, under the first of their paths.
    by_key = {
        _key_now(runtime, source_key(source, readers[uri]), readers[uri]): uri
        for uri, source in sorted(found.items(), reverse=True)
    }

    def work(run: Run) -> Outcome:
        fresh = {key: uri for key, uri in by_key.items() if not _is_stored(runtime, key, readers[uri])}
        counts = {"sources": len(found), "sources_stored_before": len(by_key) - len(fresh)}
        versions: set[TableVersion] = set()
        if fresh:
            pairs = [(found[uri], readers[uri]) for uri in fresh.values()]
            holding, read = read_sources(runtime, pairs, run=run, keys=list(fresh))
            versions, counts = set(holding), counts | read
        versions |= {v for key, uri in by_key.items() if (v := _version_of(runtime, key, readers[uri]))}
        if not fresh:
            counts |= _counted_before(runtime, versions, run)
        if not versions:
            raise IngestError(_why_nothing(runtime, run, len(fresh), counts))
        return Outcome(tuple(str(version) for version in sorted(versions)), counts)

    inputs = [f"{uri}#{source.revision}" for uri, source in found.items()]
    recorded = {
        "format": config.format,
        "readers": {uri: _identity(reader) for uri, reader in readers.items()},
        "lifts": bans.lifts(runtime.settings),
    }
    outcome = carry_out(runtime, "ingest", config=recorded, inputs=inputs, work=work, parent=parent)
    _require_rows_left(runtime, [source.revision for source in found.values()])
    return outcome


def _why_nothing(runtime: Runtime, run: Run, sources: int, counts: Mapping[str, int]) -> str:
    mine = pads.field("run_id") == run.id
    refused = tables.read(runtime.settings, REJECTED, columns=["reason"], where=mine)["reason"].to_pylist()
    if not refused:
        return f"no record of {sources} sources could be read; see table 'quarantine' for the reasons"
    recalls = ", ".join(sorted({reason.removeprefix("recalled:") for reason in refused}))
    lost = counts["quarantined"]
    unread = f", and {lost} records could not be read (see table 'quarantine')" if lost else ""
    return (
        f"nothing was stored: all {len(refused)} rows of {sources} sources are banned by recall {recalls}"
        f"{unread}; see: stemma status"
    )


def _require_rows_left(runtime: Runtime, revisions: Sequence[str]) -> None:
    """Raise IngestError where the sources were stored, and recalls took every row of them out again."""
    theirs = pads.field("source_revision").isin(pa.array(revisions, pa.string()))
    of_traces = theirs & (pads.field("table") == TRACE.name)
    found = bans.ban_rows(runtime.settings, columns=["row_id", "recall"], where=of_traces).to_pylist()
    gone = {ban["row_id"]: ban["recall"] for ban in found}
    if gone and not tables.read(runtime.settings, TRACE, columns=["row_no"], where=theirs).num_rows:
        raise IngestError(
            f"all {len(gone)} rows of these sources were stored before and are banned by recall "
            f"{', '.join(sorted(set(gone.values())))}; see: stemma status"
        )


def source_key(source: SourceFile, reader: Reader) -> str:
    """What the commit protocol knows a source by: its content and who read it, not its path."""
    return f"source:{source.revision}:{_identity(reader)}"


def _key_now(runtime: Runtime, key: str, reader: Reader) -> str:
    """The source's key, or a further one where a recall that was lifted since refused some of its rows."""
    settings = runtime.settings
    lifted = [each.id for each in bans.all_recalls(settings) if each.lifts or each.lift]
    batch = tables.batch_with(settings, key, into=reader.writes) if lifted else None
    if batch is None:
        return key
    where = of_any_attempt(identity_of(tables.stored_by(settings, batch)))
    where &= pads.field("reason").isin(pa.array([f"recalled:{each}" for each in lifted], pa.string()))
    refused = tables.read(settings, REJECTED, columns=["row_no"], where=where).num_rows
    return f"{key}:lifts:{bans.lifts(settings)}" if refused else key


def choose_reader(source: SourceFile, config: IngestConfig) -> Reader:
    """The reader that the config names, or that recognises the source's first readable records."""
    if config.field_map is not None:
        return FieldMap.load(config.field_map)
    if config.format != "auto":
        if config.format not in FORMATS:
            raise IngestError(
                f"unknown format '{config.format}'; known: auto, {', '.join(FORMATS)}, or give a field map"
            )
        return FORMATS[config.format]
    for record in _first_records(source):
        for name, reader in FORMATS.items():
            if reader.recognises(record):
                log.info("ingest: %s looks like %s", source.uri, name)
                return reader
    raise IngestError(
        f"source '{source.uri}' has no known format in its first records; "
        "name one with --format or give --field-map"
    )


def _is_stored(runtime: Runtime, key: str, reader: Reader) -> bool:
    return tables.is_stored(runtime.settings, key, into=reader.writes)


def _version_of(runtime: Runtime, key: str, reader: Reader) -> TableVersion | None:
    """The batch that holds a source now; None where it was withdrawn or its rows lie in other batches."""
    if not _is_stored(runtime, key, reader):
        return None
    return tables.batch_with(runtime.settings, key, into=reader.writes)


def _counted_before(runtime: Runtime, versions: Iterable[TableVersion], run: Run) -> Mapping[str, int]:
    """The counts of the batch that an earlier, killed go of the same run committed; none where none did."""
    for version in versions:
        if identity_of(tables.stored_by(runtime.settings, version)) == run.identity:
            return tables.facts(runtime.settings, version)["counts"]
    return {}


def _first_records(source: SourceFile, most: int = 20) -> Sequence[Mapping[str, Any]]:
    with open_source(source.uri) as stream:
        lines = [line for _, line in zip(range(most), stream, strict=False)]
    parsed = (parse_json_line(line) for line in lines)
    return [record for record in parsed if isinstance(record, Mapping)]


def _identity(reader: Reader) -> str:
    fingerprint = reader.fingerprint
    if not fingerprint.parameters:
        return f"{fingerprint.name}@{fingerprint.revision}"
    digest = hashlib.sha256(canonical_json(dict(fingerprint.parameters))).hexdigest()[:12]
    return f"{fingerprint.name}@{fingerprint.revision}:{digest}"
