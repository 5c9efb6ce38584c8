"""The job behind `stemma ingest`: sources become rows of `traces` or `documents`, each record once.

    sources -> format -> survey (digest, lines) -> works (what is not stored yet) -> runner.read_sources

What is stored is known by content and reader, never by path. A source that grew gives only its new part; one
that was rewritten in place is another content, and the old one is on record as superseded.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

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
from lineage.schemas import NOT_APPLICABLE, QUARANTINE, REJECTED, TABLES, TableSpec
from lineage.sources import Entry
from lineage.stamp import Source
from lineage.tables import AlreadyStored, TableVersion
from pipelines import formats, live
from pipelines.formats import Recognised, UnknownFormat
from pipelines.personal import Treatment, treatment
from pipelines.readers import Reader
from pipelines.readers.field_map import load_map
from pipelines.runner import Keeping, Told, Work, beginning, read_sources, stored_earlier

log = logging.getLogger("stemma.ingest")

_TRIES = 5  # with others that store the same sources at the same time


class IngestError(Exception):
    """Nothing could be ingested; the message says why."""


class IngestConfig(BaseModel):
    """What `stemma ingest` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...]
    """Files, folders, globs, archives, object-store URIs; mlflow:EXPERIMENT for traces of MLflow."""

    format: str = "auto"
    """A format's name, or auto: seen from the content."""

    field_map: str | None = None
    """A TOML file that maps fields to columns, for records of any other shape."""

    extra: bool = True
    """Keep the fields that have no column, in `extra`."""

    pii: Literal["off", "flag", "redact"] = "flag"
    """Personal data and secrets: count them in `pii`, and replace them by pseudonyms, or neither.

    What cannot be read lies in quarantine as it is, whatever is said here: else it could not be read again.
    """

    max_quarantined: float = Field(default=0.05, ge=0, le=1)
    """Share of the records that may be unreadable; above it nothing is stored."""


@dataclass(frozen=True)
class Found:
    """A source as it is now, and how it is to be read."""

    file: SourceFile
    how: Recognised
    reader: str
    """Identity of the reader under the config: format, revision, a digest of parameters, redaction."""

    @cached_property
    def key(self) -> str:
        """What the commit protocol knows the content by."""
        return source_key(self.file, self.reader)

    @cached_property
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

    The outcome's outputs name the commits that hold the sources, whenever they were made. Its facets hold
    `formats` (source -> format and what showed it), `problems` (sources that could not be read: the others
    were), `superseded` (sources that held something else before) and `unreadable` (reason -> records in
    quarantine). Raises IngestError when nothing could be read or too much of it could not, StorageError when
    the only source cannot be.
    """
    settings = runtime.settings
    keeping = Keeping(config.extra, treatment(settings, config.pii))
    found, problems = _look(settings, config, keeping.personal)
    if not found:
        raise IngestError("; ".join(problem.message for problem in problems))

    def work(run: Run) -> Outcome:
        for _ in range(_TRIES):
            plan = _plan(settings, found)
            new_of = {"sources": len(found), "sources_stored_before": len(found) - len(plan.works)}
            earlier = stored_earlier(settings, run)
            read: Mapping[str, int] = {}
            try:
                if plan.works:
                    _, read = read_sources(
                        runtime,
                        plan.works,
                        run=run,
                        entries=plan.entries,
                        keeping=keeping,
                        most_quarantined=config.max_quarantined,
                        show=show,
                    )
                else:
                    sources.record(settings, plan.entries, run_id=run.id, at=runtime.now())
            except AlreadyStored:  # by another process, just now: look again at what is left to do
                continue
            counts = new_of | _summed(
                [*(tables.facts(settings, version)["counts"] for version in earlier), read]
            )
            versions = plan.versions(settings, rows_came_again=counts.get("known", 0) > 0)
            if not versions and not counts.get("known") and counts.get("in", 0) != counts.get("empty", 0):
                raise IngestError(_why_nothing(settings, run, len(plan.works), counts))
            facets = {
                "formats": {each.file.uri: f"{each.reader}: {each.how.why}" for each in found},
                "problems": {problem.uri: problem.message for problem in problems},
                "unreadable": _reasons(settings, run) if read.get("quarantined") else {},
                "superseded": [
                    entry.source_uri for entry in plan.entries if entry.supersedes != NOT_APPLICABLE
                ],
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
    families = sources.families(sources.entries(settings))
    readers = {uri: identity(each.reader, personal) for uri, each in how.items()}
    sizes = {
        uri: [each.size for each in families.get((origin_of(how[uri].first), reader), ())]
        for uri, reader in readers.items()
    }
    files, unread = storage.survey_all(how, prefixes=sizes)
    found = []
    for file in files:
        try:
            if how[file.uri].framing == "lines":
                storage.require_lines(file)
            found.append(Found(file, how[file.uri], readers[file.uri]))
        except StorageError as error:
            problems.append(Problem(file.uri, str(error)))
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
    """New ones for the book of sources."""

    holding: Sequence[tuple[str, str]]
    """(table, key) of every commit that holds, or will hold, some of the sources."""

    alike: Sequence[tuple[str, str]]
    """Of commits that may hold rows that come again: of sources that begin as one of these does."""

    def versions(self, settings: Settings, *, rows_came_again: bool) -> list[TableVersion]:
        """The commits that hold the sources now."""
        return sorted(
            set(_held(settings, [*self.holding, *(self.alike if rows_came_again else ())]).values())
        )


def _held(settings: Settings, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], TableVersion]:
    """(table, key) -> the batch that holds it, where it is stored."""
    by_table: dict[str, list[str]] = defaultdict(list)
    for name, key in keys:
        by_table[name].append(key)
    return {
        (name, key): version
        for name, mine in by_table.items()
        for key, version in tables.holders(settings, mine, into=TABLES[name]).items()
    }


def _plan(settings: Settings, found: Sequence[Found]) -> _Plan:
    """The works for what is not stored, the shortest source first: a longer one may begin with it."""
    beginnings = _beginnings(settings, found)  # first: what others store after this look is then noticed
    known = sources.entries(settings)
    families, places = sources.families(known), sources.last_at_place(known)
    cousins = _Cousins(known)
    asked = [(kin.table, kin.key) for each in found for kin in families[each.origin, each.reader]]
    held = _held(settings, [*asked, *((each.how.reader.writes.name, each.key) for each in found)])
    standing = set(held)  # and what the works below will store
    unbooked = _Unbooked(settings, known)
    lifted = [recall.id for recall in bans.all_recalls(settings) if recall.lifts or recall.lift]
    works: list[Work] = []
    entries: list[Entry] = []
    holding: list[tuple[str, str]] = []
    alike: list[tuple[str, str]] = []
    for each in sorted(found, key=lambda each: (each.file.size, each.file.uri)):
        into = each.how.reader.writes
        family = families[each.origin, each.reader]
        kin = [*family]
        mine = [entry for entry in kin if entry.source_revision == each.file.revision]
        there = places.get((sources.place_of(each.file.uri), each.reader))
        if mine:
            entry = mine[-1]
        else:
            is_stored = (into.name, each.key) in held
            stand = [] if is_stored else [other for other in kin if (other.table, other.key) in standing]
            entry = _entry(each, stand, there)
        parts = sources.chain([*kin, entry], entry)
        fresh = [] if mine else [entry]
        if mine and there is not None and there not in parts:  # it came back to where another lay meanwhile
            fresh = [replace(entry, source_uri=each.file.uri, supersedes=there.source_revision)]
        entries += fresh
        family += fresh
        others = [other for other in kin if other not in parts]
        holding += [(part.table, part.key) for part in parts]
        theirs = cousins.of(each)
        alike += [(other.table, other.key) for other in (*others, *theirs)]
        for before, part in zip([None, *parts], parts, strict=False):
            if (part.table, part.key) in standing:
                continue
            standing.add((part.table, part.key))
            may_come = kin
            if not mine and part is entry:  # what it grew by is new, but for a last line without end
                is_cut = before is not None and before.whole < before.size
                may_come = [*others, before] if is_cut else others
            ids = _ids(settings, into, [*may_come, *theirs]) | unbooked.ids(into, each.reader)
            works.append(replace(_part(each, part, before), known=ids, beginning=beginnings[each.key]))
        batches = {held[part.table, part.key] for part in parts if (part.table, part.key) in held}
        if lifted and any(_refused_rows(settings, batch, lifted) for batch in batches):
            key = f"{each.key}:lifts:{bans.lifts(settings)}"
            holding.append((into.name, key))
            if not tables.is_stored(settings, key, into=into):
                ids = _ids(settings, into, kin) | unbooked.ids(into, each.reader)
                again = _part(each, replace(entry, key=key), None)
                works.append(replace(again, known=ids, beginning=beginnings[each.key]))
    return _Plan(works, entries, holding, alike)


class _Cousins:
    """What the same readers read under other parameters, as another field map: with the same ids."""

    def __init__(self, known: Iterable[Entry]):
        self._alike: dict[tuple[bytes, str], list[Entry]] = defaultdict(list)
        for entry in known:
            self._alike[entry.origin, _without_parameters(entry.reader)].append(entry)

    def of(self, found: Found) -> list[Entry]:
        alike = self._alike.get((found.origin, _without_parameters(found.reader)), [])
        return [entry for entry in alike if entry.reader != found.reader]


def _without_parameters(reader: str) -> str:
    return reader.partition(":")[0]


def _beginnings(settings: Settings, found: Sequence[Found]) -> dict[str, tuple[str, int]]:
    """By key of each source: what all that begin alike are counted under, and the count."""
    named = {each.key: beginning(each.origin, each.reader) for each in found}
    counts: dict[tuple[str, str], int] = {}
    for name in {each.how.reader.writes.name for each in found}:
        mine = [named[each.key] for each in found if each.how.reader.writes.name == name]
        counts |= {(name, at): n for at, n in tables.counts(settings, mine, into=TABLES[name]).items()}
    return {
        each.key: (named[each.key], counts[each.how.reader.writes.name, named[each.key]]) for each in found
    }


def _part(found: Found, part: Entry, before: Entry | None) -> Work:
    """The work for a content, or for what it has beyond the one that it grew from."""
    source = Source(found.file.uri, part.source_revision, found.origin)
    first = before.whole if before is not None else 0
    return Work(found.file, source, found.how.reader, found.how.framing, part.key, first=first, end=part.size)


def _entry(found: Found, kin: Sequence[Entry], there: Entry | None) -> Entry:
    """What goes on record of a new content. `there`: what was last read from its place."""
    base = sources.grown(kin, found.file.prefix_revisions) if found.how.framing == "lines" else None
    behind = {part.source_revision for part in sources.chain(kin, base)} if base else set()
    before = there.source_revision if there is not None else NOT_APPLICABLE
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
        supersedes=NOT_APPLICABLE if before in behind else before,
    )


def _ids(settings: Settings, into: TableSpec, contents: Sequence[Entry]) -> frozenset[bytes]:
    """Ids of the rows stored from these contents."""
    if not contents:
        return frozenset()
    revisions = sorted({each.source_revision for each in contents})
    where = pads.field("source_revision").isin(pa.array(revisions, pa.string()))
    return frozenset(tables.read(settings, into, columns=["row_id"], where=where)["row_id"].to_pylist())


class _Unbooked:
    """Rows that were stored before there was a book of sources: nobody knows how their sources begin."""

    def __init__(self, settings: Settings, known: Sequence[Entry]):
        self._settings = settings
        self._keys = {entry.key for entry in known}
        self._found: dict[tuple[str, str], frozenset[bytes]] = {}

    def ids(self, into: TableSpec, reader: str) -> frozenset[bytes]:
        """The ids of those that this reader read into a table."""
        at = (into.name, reader)
        if at not in self._found:
            runs = [
                run
                for run, keys in tables.stored_keys(self._settings, into).items()
                if any(self._is_older(key, reader) for key in keys)
            ]
            where = pads.field("run_id").isin(pa.array(runs, pa.string()))
            rows = tables.read(self._settings, into, columns=["row_id"], where=where) if runs else None
            self._found[at] = frozenset(rows["row_id"].to_pylist() if rows is not None else ())
        return self._found[at]

    def _is_older(self, key: str, reader: str) -> bool:
        whole = key.partition(":lifts:")[0]
        return key.startswith("source:") and whole.endswith(f":{reader}") and whole not in self._keys


def _refused_rows(settings: Settings, batch: TableVersion, recalls: Sequence[str]) -> bool:
    """Did one of these recalls keep rows out of the commit?"""
    reasons = pads.field("reason").isin(pa.array([f"recalled:{each}" for each in recalls], pa.string()))
    where = of_any_attempt(identity_of(tables.stored_by(settings, batch))) & reasons
    return tables.read(settings, REJECTED, columns=["row_no"], where=where).num_rows > 0


# ---------------------------------------------------------------- what is said of it


def _summed(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _reasons(settings: Settings, run: Run) -> dict[str, int]:
    """Why records of this run lie in quarantine, and how many."""
    mine = pads.field("run_id") == run.id
    return Counter(tables.read(settings, QUARANTINE, columns=["reason"], where=mine)["reason"].to_pylist())


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
    mine = {each.file.revision for each in found}
    mine |= {
        part.source_revision
        for family in sources.families(sources.entries(settings)).values()
        for entry in family
        if entry.source_revision in mine
        for part in sources.chain(family, entry)
    }
    theirs = pads.field("source_revision").isin(pa.array(sorted(mine), pa.string()))
    here = pa.array(sorted({each.how.reader.writes.name for each in found}), pa.string())
    banned = bans.ban_rows(
        settings, columns=["row_id", "recall"], where=theirs & pads.field("table").isin(here)
    )
    gone = {ban["row_id"]: ban["recall"] for ban in banned.to_pylist()}
    if gone and not any(
        tables.read(settings, TABLES[name], columns=["row_no"], where=theirs).num_rows
        for name in here.to_pylist()
    ):
        raise IngestError(
            f"all {len(gone)} rows of these sources were stored before and are banned by recall "
            f"{', '.join(sorted(set(gone.values())))}; see: stemma status"
        )
