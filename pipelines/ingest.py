"""The job behind `stemma ingest`: sources become rows of `traces` or `documents`, each record once.

    sources -> format -> survey (digest, lines) -> works (what is not stored yet) -> runner.read_sources

What is stored is known by content and reader, never by path. A source that grew gives only its new part; one
that was rewritten in place is another content, and the old one is on record as superseded.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, Field

from infra import storage
from infra.runtime import Runtime
from infra.settings import Settings
from infra.storage import Problem, SourceFile, StorageError
from lineage import bans, sources, tables
from lineage.rows import canonical_json, origin_of
from lineage.runs import Outcome, Run, carry_out, identity_of, of_any_attempt
from lineage.schemas import NOT_APPLICABLE, REJECTED, ROW_TABLES
from lineage.sources import Entry
from lineage.stamp import Source
from lineage.tables import AlreadyStored, TableVersion
from pipelines import formats, live
from pipelines.formats import Recognised, UnknownFormat
from pipelines.personal import Treatment, treatment
from pipelines.readers import Reader
from pipelines.readers.field_map import load_map
from pipelines.runner import Keeping, Told, Work, read_sources

log = logging.getLogger("stemma.ingest")

_TRIES = 5  # with others that store the same sources at the same time


class IngestError(Exception):
    """Nothing could be ingested; the message says why."""


class IngestConfig(BaseModel):
    """What `stemma ingest` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...]
    """Files, folders, globs, archives, object-store URIs; mlflow:EXPERIMENT: traces on the tracking server."""

    format: str = "auto"
    """A format's name, or auto: seen from the content."""

    field_map: str | None = None
    """A TOML file that maps fields to columns, for records of any other shape."""

    extra: bool = True
    """Keep the fields that have no column, in `extra`."""

    pii: Literal["off", "flag", "redact"] = "flag"
    """Personal data and secrets: count them in `pii`, and replace them by pseudonyms, or neither."""

    max_quarantined: float = Field(default=0.05, ge=0, le=1)
    """Share of the records that may be unreadable; above it nothing is stored."""


@dataclass(frozen=True)
class Found:
    """A source as it is now, and how it is to be read."""

    file: SourceFile
    how: Recognised
    reader: str
    """Identity of the reader under the config: format, revision, a digest of parameters, redaction."""

    @property
    def key(self) -> str:
        """What the commit protocol knows the content by."""
        return source_key(self.file, self.reader)

    @property
    def origin(self) -> bytes:
        """What the source is known by however it grows."""
        return origin_of(self.how.first)


def ingest(
    runtime: Runtime,
    config: IngestConfig,
    *,
    parent: Run | None = None,
    show: Callable[[Told], None] = lambda told: None,
) -> Outcome:
    """Store the sources' rows, one commit per table. What is stored already, byte for byte, is passed over.

    The outcome's outputs name the commits that hold the sources, whenever they were made; its facets hold
    `formats` (source -> format and what showed it) and `problems` (sources that could not be read: the others
    were). Raises IngestError when nothing could be read or too much of it could not, StorageError when the
    only source cannot be.
    """
    settings = runtime.settings
    keeping = Keeping(config.extra, treatment(settings, config.pii))
    found, problems = _look(settings, config, keeping.personal)
    if not found:
        raise IngestError("; ".join(problem.message for problem in problems))

    def work(run: Run) -> Outcome:
        for _ in range(_TRIES):
            plan = _plan(settings, found)
            counts = {"sources": len(found), "sources_stored_before": len(found) - len(plan.works)}
            try:
                if plan.works:
                    counts |= read_sources(
                        runtime,
                        plan.works,
                        run=run,
                        entries=plan.entries,
                        keeping=keeping,
                        most_quarantined=config.max_quarantined,
                        show=show,
                    )[1]
                else:
                    before = plan.versions(settings, rows_came_again=False)
                    counts |= _counted_before(settings, before, run)
            except AlreadyStored:  # by another process, just now: look again at what is left to do
                continue
            versions = plan.versions(settings, rows_came_again=counts.get("known", 0) > 0)
            if not versions and counts.get("in", 0) != counts.get("empty", 0):
                raise IngestError(_why_nothing(settings, run, len(plan.works), counts))
            facets = {
                "formats": {each.file.uri: f"{each.reader}: {each.how.why}" for each in found},
                "problems": {problem.uri: problem.message for problem in problems},
            }
            return Outcome(tuple(str(version) for version in versions), counts, facets)
        raise IngestError(
            f"others stored the same sources {_TRIES} times while this job read them; run it again"
        )

    recorded = {
        "format": config.format,
        "readers": {each.file.uri: each.reader for each in found},
        "lifts": bans.lifts(settings),
        **config.model_dump(include={"extra", "pii", "max_quarantined"}),
    }
    inputs = [f"{each.file.uri}#{each.file.revision}" for each in found]
    outcome = carry_out(runtime, "ingest", config=recorded, inputs=inputs, work=work, parent=parent)
    _require_rows_left(settings, found)
    return outcome


# ---------------------------------------------------------------- what there is to read


def _look(settings: Settings, config: IngestConfig, personal: Treatment) -> tuple[list[Found], list[Problem]]:
    """The sources as they are now, each content once; and those that cannot be read or are of no format."""
    sources_found = storage.expand(live.exported(settings, config.sources))
    problems = list(sources_found.problems)
    given = _given_reader(config)
    how: dict[str, Recognised] = {}
    for uri, head in storage.heads(sources_found, formats.HEAD):
        if isinstance(head, Problem):
            problems.append(head)
            continue
        try:
            how[uri] = formats.as_named(uri, head, given) if given else formats.recognised(uri, head)
        except (StorageError, UnknownFormat) as error:
            problems.append(Problem(uri, str(error)))
    known = sources.entries(settings)
    readers = {uri: identity(each.reader, personal) for uri, each in how.items()}
    sizes = {
        uri: [each.size for each in sources.relatives(known, origin=origin_of(how[uri].first), reader=reader)]
        for uri, reader in readers.items()
    }
    files, unread = storage.survey_all(how, prefixes=sizes)
    found = [Found(file, how[file.uri], readers[file.uri]) for file in files]
    found = _with_each_other(found)
    problems += unread
    for each in found:
        log.info("ingest: %s is %s (%s)", each.file.uri, each.reader, each.how.why)
    # Copies of one content are one source, under the first of their paths.
    once = {each.key: each for each in sorted(found, key=lambda each: each.file.uri, reverse=True)}
    return sorted(once.values(), key=lambda each: each.file.uri), problems


def _with_each_other(found: Sequence[Found]) -> list[Found]:
    """The same, surveyed once more where one of them may have grown from another."""
    alike: dict[tuple[bytes, str], set[int]] = defaultdict(set)
    for each in found:
        alike[each.origin, each.reader].add(each.file.size)
    settled = []
    for each in found:
        shorter = {size for size in alike[each.origin, each.reader] if size < each.file.size}
        if shorter - each.file.prefix_revisions.keys():
            known = {*shorter, *each.file.prefix_revisions}
            each = replace(each, file=storage.survey(each.file.uri, prefixes=known))
        settled.append(each)
    return settled


def _given_reader(config: IngestConfig) -> Reader | None:
    if config.field_map is not None:
        return load_map(config.field_map)
    try:
        return None if config.format == "auto" else formats.named(config.format)
    except UnknownFormat as error:
        raise IngestError(str(error)) from error


def source_key(source: SourceFile, reader: str) -> str:
    """What the commit protocol knows a source by: its content and who read it, not its path."""
    return f"source:{source.revision}:{reader}"


def identity(reader: Reader, personal: Treatment) -> str:
    """Who read a source, under which treatment: format, revision, and a digest of parameters."""
    fingerprint = personal.of(reader.fingerprint)
    if not fingerprint.parameters:
        return f"{fingerprint.name}@{fingerprint.revision}"
    digest = hashlib.sha256(canonical_json(dict(fingerprint.parameters))).hexdigest()[:12]
    return f"{fingerprint.name}@{fingerprint.revision}:{digest}"


# ---------------------------------------------------------------- what of it is not stored yet


@dataclass(frozen=True)
class _Plan:
    works: Sequence[Work]
    entries: Sequence[Entry]
    """Of the works, for the book of sources."""

    holding: Sequence[tuple[str, str]]
    """(table, key) of every commit that holds, or will hold, some of the sources."""

    alike: Sequence[tuple[str, str]]
    """Of commits that may hold rows that come again: of sources that begin as one of these does."""

    def versions(self, settings: Settings, *, rows_came_again: bool) -> list[TableVersion]:
        """The commits that hold the sources now."""
        found = (
            tables.batch_with(settings, key, into=_spec(name))
            for name, key in (*self.holding, *(self.alike if rows_came_again else ()))
            if _is_stored(settings, name, key)
        )
        return sorted({version for version in found if version is not None})


def _spec(name: str) -> Any:
    return next(spec for spec in ROW_TABLES if spec.name == name)


def _is_stored(settings: Settings, table: str, key: str) -> bool:
    return tables.is_stored(settings, key, into=_spec(table))


def _plan(settings: Settings, found: Sequence[Found]) -> _Plan:
    """The works for what is not stored, the shortest source first: a longer one may begin with it."""
    known, works, entries, holding, alike = sources.entries(settings), [], [], [], []
    for each in sorted(found, key=lambda each: (each.file.size, each.file.uri)):
        table, kin = each.how.reader.writes.name, _kin(known, each)
        stored = [entry for entry in kin if _is_stored(settings, entry.table, entry.key)]
        mine = [entry for entry in kin if entry.source_revision == each.file.revision]
        if mine:
            parts = sources.chain(known, mine[-1])
            works += [_part(each, parts, number) for number, part in enumerate(parts) if part not in stored]
            holding += [(part.table, part.key) for part in parts]
        elif _is_stored(settings, table, each.key):  # before there was a book of sources
            holding.append((table, each.key))
        else:
            before = stored + _kin(entries, each)
            entry = _entry(each, before, _place_before(settings, known, each))
            works.append(_as_grown(settings, each, entry, before))
            alike += [(other.table, other.key) for other in before]
            holding += [(part.table, part.key) for part in sources.chain(before, entry)]
            entries.append(entry)
            continue
        if (key := _key_after_lifts(settings, each)) is not None:
            holding.append((table, key))
            if not _is_stored(settings, table, key):
                works.append(replace(_work(each), key=key, known=_ids(settings, each, stored)))
    return _Plan(works, entries, holding, alike)


def _kin(entries: Sequence[Entry], found: Found) -> list[Entry]:
    return sources.relatives(entries, origin=found.origin, reader=found.reader)


def _place_before(settings: Settings, known: Sequence[Entry], found: Found) -> str | None:
    """The stored content that was last read from where the source lies."""
    place = sources.place_of(found.file.uri)
    there = [
        each for each in known if (sources.place_of(each.source_uri), each.reader) == (place, found.reader)
    ]
    stored = [each for each in there if _is_stored(settings, each.table, each.key)]
    return stored[-1].source_revision if stored else None


def _work(found: Found) -> Work:
    source = Source(found.file.uri, found.file.revision, found.origin)
    return Work(found.file, source, found.how.reader, found.how.framing, found.key)


def _part(found: Found, parts: Sequence[Entry], number: int) -> Work:
    """A part of a source whose rows were withdrawn, while other parts of it are stored."""
    part, before = parts[number], parts[number - 1] if number else None
    source = Source(found.file.uri, part.source_revision, found.origin)
    return replace(
        _work(found), source=source, key=part.key, first=before.whole if before else 0, end=part.size
    )


def _entry(found: Found, kin: Sequence[Entry], before: str | None) -> Entry:
    """What goes on record of a new content. `before`: what was last read from its place."""
    base = sources.grown(kin, found.file.prefix_revisions) if found.how.framing == "lines" else None
    behind = {part.source_revision for part in sources.chain(kin, base)} if base else set()
    return Entry(
        source_uri=found.file.uri,
        source_revision=found.file.revision,
        reader=found.reader,
        table=found.how.reader.writes.name,
        key=found.key,
        origin=found.origin,
        size=found.file.size,
        whole=found.file.whole if found.how.framing == "lines" else found.file.size,
        grown_from=base.source_revision if base else NOT_APPLICABLE,
        supersedes=before if before is not None and before not in behind else NOT_APPLICABLE,
    )


def _as_grown(settings: Settings, found: Found, entry: Entry, kin: Sequence[Entry]) -> Work:
    """The work for a content that is new, or for what is new of it."""
    behind = sources.chain(kin, entry)[:-1]
    others = [each for each in kin if each not in behind]
    if behind and behind[-1].whole < behind[-1].size:  # its last line had no end: it comes once more
        others.append(behind[-1])
    first = behind[-1].whole if behind else 0
    return replace(_work(found), first=first, known=_ids(settings, found, others))


def _ids(settings: Settings, found: Found, kin: Sequence[Entry]) -> frozenset[bytes]:
    """Ids of the rows stored from these contents, which the source may give again."""
    if not kin:
        return frozenset()
    where = pads.field("source_revision").isin(pa.array([each.source_revision for each in kin], pa.string()))
    rows = tables.read(settings, found.how.reader.writes, columns=["row_id"], where=where)
    return frozenset(rows["row_id"].to_pylist())


def _key_after_lifts(settings: Settings, found: Found) -> str | None:
    """A further key of a stored source, where a recall that was lifted since refused some of its rows."""
    into = found.how.reader.writes
    lifted = [each.id for each in bans.all_recalls(settings) if each.lifts or each.lift]
    batch = tables.batch_with(settings, found.key, into=into) if lifted else None
    if batch is None:
        return None
    where = of_any_attempt(identity_of(tables.stored_by(settings, batch)))
    where &= pads.field("reason").isin(pa.array([f"recalled:{each}" for each in lifted], pa.string()))
    if not tables.read(settings, REJECTED, columns=["row_no"], where=where).num_rows:
        return None
    return f"{found.key}:lifts:{bans.lifts(settings)}"


# ---------------------------------------------------------------- what is said of it


def _counted_before(settings: Settings, versions: Iterable[TableVersion], run: Run) -> Mapping[str, int]:
    """The counts of the batch that an earlier, killed go of the same run committed; none where none did."""
    for version in versions:
        if identity_of(tables.stored_by(settings, version)) == run.identity:
            return tables.facts(settings, version)["counts"]
    return {}


def _why_nothing(settings: Settings, run: Run, sources: int, counts: Mapping[str, int]) -> str:
    mine = pads.field("run_id") == run.id
    refused = tables.read(settings, REJECTED, columns=["reason"], where=mine)["reason"].to_pylist()
    if not refused:
        return f"no record of {sources} sources could be read; see table 'quarantine' for the reasons"
    recalls = ", ".join(sorted({reason.removeprefix("recalled:") for reason in refused}))
    lost = counts["quarantined"]
    unread = f", and {lost} records could not be read (see table 'quarantine')" if lost else ""
    return (
        f"nothing was stored: all {len(refused)} rows of {sources} sources are banned by recall {recalls}"
        f"{unread}; see: stemma status"
    )


def _require_rows_left(settings: Settings, found: Sequence[Found]) -> None:
    """Raise IngestError where the sources were stored, and recalls took every row of them out again."""
    known = sources.entries(settings)
    mine = {each.file.revision for each in found}
    mine |= {
        part.source_revision
        for entry in known
        if entry.source_revision in mine
        for part in sources.chain(known, entry)
    }
    theirs = pads.field("source_revision").isin(pa.array(sorted(mine), pa.string()))
    here = pa.array(sorted({each.how.reader.writes.name for each in found}), pa.string())
    banned = bans.ban_rows(
        settings, columns=["row_id", "recall"], where=theirs & pads.field("table").isin(here)
    )
    gone = {ban["row_id"]: ban["recall"] for ban in banned.to_pylist()}
    if gone and not any(
        tables.read(settings, _spec(name), columns=["row_no"], where=theirs).num_rows
        for name in here.to_pylist()
    ):
        raise IngestError(
            f"all {len(gone)} rows of these sources were stored before and are banned by recall "
            f"{', '.join(sorted(set(gone.values())))}; see: stemma status"
        )
