"""The job behind `stemma ingest --retry-quarantine`: what could not be read is read again, by new readers.

The bytes lie in quarantine, so the sources need not be there any more. What can be read now is stored as if
it had been read then, under the same ids; the entry in quarantine stays, as what happened.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, sources, tables
from lineage.runs import Outcome, Run, carry_out, code_revision
from lineage.schemas import QUARANTINE, ROW_TABLES, TableSpec
from lineage.stamp import Source, Stamp
from pipelines.formats import FORMATS
from pipelines.personal import treatment
from pipelines.readers import Reader
from pipelines.runner.reading import Keeping, read_again

_KEPT = ("source_uri", "source_revision", "source_span", "reader", "reason", "record")


def retry(runtime: Runtime) -> Outcome:
    """Read what lies in quarantine again, and store what can be read now, as one commit per table.

    The counts hold `in`, the records that were read now, and `still_quarantined`. Raises RunError while the
    same work goes on elsewhere.
    """
    settings = runtime.settings
    waiting = _waiting(settings)
    spans = hashlib.sha256(
        "".join(sorted(each["source_revision"] + each["source_span"] for each in waiting)).encode()
    )

    def work(run: Run) -> Outcome:
        by_source: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for each in waiting:
            by_source[each["source_uri"], each["source_revision"], each["reader"]].append(each)
        stamp = Stamp(run.id, code_revision(), runtime.now())
        read: dict[str, list[pa.Table]] = defaultdict(list)
        records = 0
        for (uri, revision, name), lost in sorted(by_source.items()):
            reader, origin = _reader(name), _origin(settings, revision, name)
            if reader is None or origin is None:
                continue
            spec = reader.writes
            keeping = Keeping(
                personal=treatment(settings, "redact" if name.endswith("+redacted") else "flag")
            )
            rows, count = read_again(lost, Source(uri, revision, origin), reader, keeping, stamp)
            records += count
            read[spec.name].append(rows)
        return _stored(settings, run, read, records, still=len(waiting) - records)

    return carry_out(
        runtime,
        "ingest",
        config={"retry": spans.hexdigest(), "lifts": bans.lifts(settings)},
        inputs=[],
        work=work,
    )


def _waiting(settings: Settings) -> list[dict[str, Any]]:
    """What lies in quarantine and is stored nowhere, each record once."""
    rows = tables.read(settings, QUARANTINE, columns=list(_KEPT)).to_pylist()
    stored: set[tuple[str, str]] = set()
    for spec in ROW_TABLES[:2]:
        found = tables.read(settings, spec, columns=["source_revision", "source_span"])
        stored |= set(zip(*(column.to_pylist() for column in found.columns), strict=True))
    once = {(row["source_revision"], row["source_span"]): row for row in rows}
    return [row for at, row in sorted(once.items()) if at not in stored]


def _reader(name: str) -> Reader | None:
    return FORMATS.get(name.removesuffix("+redacted"))


def _origin(settings: Settings, revision: str, name: str) -> bytes | None:
    found = (
        entry.origin
        for entry in sources.entries(settings)
        if entry.source_revision == revision and entry.reader.partition("@")[0] == name
    )
    return next(found, None)


def _stored(
    settings: Settings, run: Run, read: Mapping[str, Sequence[pa.Table]], records: int, *, still: int
) -> Outcome:
    banned, versions, out = bans.standing(settings), [], 0
    for name, parts in sorted(read.items()):
        spec: TableSpec = next(each for each in ROW_TABLES if each.name == name)
        rows = pa.concat_tables(parts)
        refused = banned.refused(rows, spec)
        rows = rows.filter(
            pa.array([position not in refused for position in range(rows.num_rows)], pa.bool_())
        )
        if not rows.num_rows:
            continue
        first = tables.reserve(settings, rows.num_rows, run_id=run.id)
        numbers = pa.array(range(first, first + rows.num_rows), pa.int64())
        rows = rows.set_column(rows.column_names.index("row_no"), spec.schema.field("row_no"), numbers)
        file = tables.write_file(settings, rows, into=spec, name=f"{run.id}-{name}")
        versions.append(
            tables.commit(settings, [file], into=spec, run_id=run.id, keys=[f"run:{run.identity}"])
        )
        out += rows.num_rows
    counts = {"records": records, "rows": out, "still_quarantined": still}
    return Outcome(tuple(map(str, versions)), counts)
