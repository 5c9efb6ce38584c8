"""What every reader owes, whatever its format: a class of tests that costs a reader one fixture.

    class TestMyReader(ReaderConformance):
        @pytest.fixture
        def golden(self) -> Golden:
            return Golden(MyReader())

A format's golden folder holds input.* and rows.json: short, readable, changed only on purpose. The input is
read the way a job reads it: recognised, surveyed, cut, framed, stamped, stored in a lake; Ray is not needed.
"""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra import storage
from infra.settings import Settings
from infra.storage import StorageError, survey
from lineage import bans, sources, tables
from lineage.ancestry import source_bytes
from lineage.rows import origin_of
from lineage.sources import Entry
from lineage.stamp import Source, Stamp
from pipelines import formats, framing
from pipelines.formats import READERS, Recognised
from pipelines.readers import Reader, Unreadable
from pipelines.readers.field_map import load_map
from pipelines.runner.reading import Done, Keeping, Read, Stretch, Task, Work, carry_out, read_block

FORMATS = Path(__file__).parent / "golden" / "formats"
SEPARATORS = b" \t\n\r\x0b\x0c,[]\xef\xbb\xbf"  # what lies between records and belongs to none

BLOCK_BYTES = 32 * 1024 * 1024
STAMP = Stamp("aa-1", "sha256:code", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


@dataclass(frozen=True)
class Golden:
    """A reader, and the example that it is held to."""

    reader: Reader

    @property
    def name(self) -> str:
        return self.reader.fingerprint.name

    @cached_property
    def file(self) -> Path:
        (file,) = (FORMATS / self.name).glob("input.*")
        return file

    @cached_property
    def content(self) -> bytes:
        return self.file.read_bytes()

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        return json.loads((FORMATS / self.name / "rows.json").read_text(encoding="utf-8"))

    @property
    def is_recognised(self) -> bool:
        """Whether its format is recognised; a field map is given."""
        return self.reader in READERS

    def how(self, uri: str, head: bytes) -> Recognised:
        """As a job would read a source that lies there and begins so."""
        if self.is_recognised:
            return formats.recognised(uri, head)
        return formats.as_named(uri, head, self.reader)

    @cached_property
    def work(self) -> Work:
        """All of it, in one piece."""
        return self.work_at(self.file.as_uri())

    def work_at(self, uri: str, *, block_bytes: int = BLOCK_BYTES) -> Work:
        """A copy of it, cut into blocks of about that size."""
        (_, head), *_ = storage.heads([uri], formats.HEAD)
        assert isinstance(head, bytes)
        how, file = self.how(uri, head), survey(uri, block_bytes=block_bytes)
        return Work(file, Source(uri, file.revision, origin_of(how.first)), how.reader, how.framing, uri)

    def read(self, content: bytes | None = None) -> Read:
        """What the golden input, or another in its place, gives."""
        content = self.content if content is None else content
        (read,) = read_block(content, 0, self.work, self.reader.writes, Keeping())
        return read


def every_golden() -> list[Golden]:
    """Of every format that is recognised, and of the maps."""
    maps = [load_map(FORMATS / name / "map.toml") for name in ("field_map", "document_map")]
    return [Golden(reader) for reader in (*READERS, *maps)]


class ReaderConformance:
    """Inherit, and give the fixture `golden`."""

    def test_its_golden_rows_come_out_through_real_framing(self, golden: Golden):
        read = golden.read()
        assert as_golden(read.rows.to_pylist()) == golden.rows
        assert read.rows.schema == golden.reader.writes.derivable
        for column in golden.reader.writes.own:
            assert column.nullable or read.rows[column.name].null_count == 0, column.name
        assert_nothing_is_lost(golden, golden.content, read)

    def test_it_is_recognised_and_nobody_else_claims_its_records(self, golden: Golden):
        how = golden.how(golden.file.as_uri(), golden.content)
        assert how.reader == golden.reader
        assert how.why
        claimed = {golden.name} if golden.is_recognised else set()
        assert claimants(golden.file.name, golden.content) == claimed

    def test_reading_again_gives_the_same(self, golden: Golden):
        first, again = golden.read(), golden.read()
        assert first.rows.equals(again.rows)
        assert (first.places, first.records, first.empty) == (again.places, again.records, again.empty)

    @hypothesis_settings(
        max_examples=8,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(block_bytes=st.integers(1, 4000), tasks=st.integers(1, 3))
    def test_wherever_it_is_cut_and_whoever_reads_it_the_rows_are_the_same(
        self, golden: Golden, settings: Settings, block_bytes: int, tasks: int
    ):
        pieces = golden.work_at(golden.file.as_uri(), block_bytes=block_bytes)
        whole = read_into(settings, [golden.work], name="whole")
        cut = read_into(settings, [pieces], name="cut", tasks=tasks)
        assert cut.drop_columns(["row_no"]).equals(whole.drop_columns(["row_no"]))

    def test_every_span_leads_back_to_its_bytes_in_archives_too(
        self, golden: Golden, settings: Settings, tmp_path: Path
    ):
        copies = copies_of(golden.file, tmp_path)
        works = [golden.work_at(uri) for uri in storage.expand([str(path) for path in copies])]
        assert len(works) == len(copies) == 4
        done = carried_out(settings, works, name="copies")
        assert done.file is not None
        into = golden.reader.writes
        sources.record(settings, [_entry(work) for work in works], run_id=STAMP.run_id, at=STAMP.at)
        tables.commit(settings, [done.file], into=into, run_id=STAMP.run_id, keys=["copies"])
        ids: dict[str, list[bytes]] = {}
        origins = sources.origins(settings)
        for row in tables.read(settings, into).sort_by("row_no").to_pylist():
            first, end = (int(at) for at in row["source_span"].removeprefix("bytes:").split("-"))
            assert source_bytes(row, origins=origins) == golden.content[first:end]
            ids.setdefault(row["source_uri"], []).append(row["row_id"])
        assert ids.keys() == {work.file.uri for work in works}
        (same,) = {tuple(each) for each in ids.values()}
        assert len(set(same)) == len(golden.rows)

    def test_an_empty_source_gives_no_rows(self, golden: Golden, tmp_path: Path):
        for content in (b"", b"\n \r\n"):
            read = golden.read(content)
            assert read.rows.num_rows == 0
            assert_nothing_is_lost(golden, content, read)
        empty = tmp_path / golden.file.name
        empty.write_bytes(b"")
        with pytest.raises(StorageError, match="is empty"):
            survey(empty.as_uri())


def claimants(name: str, content: bytes) -> set[str]:
    """Names of the readers that know a source, or a record of it, again."""
    found = set()
    framed = frames(content, framing.framing_of(name, content))
    records = [each.value for each in framed if each.unreadable is None]
    for reader in READERS:
        if hasattr(reader, "read_document"):
            is_it = reader.recognises_document(name, content)  # type: ignore[union-attr]
        else:
            is_it = any(reader.recognises(record) for record in records)  # type: ignore[union-attr]
        if is_it:
            found.add(reader.fingerprint.name)
    return found


def assert_nothing_is_lost(golden: Golden, content: bytes, read: Read, cut: str = "") -> None:
    """Each record is in rows, in quarantine or empty; each byte in one of them, or it is a separator."""
    cut = cut or golden.work.framing
    with_rows = set(read.places.spans)
    lost = {span for span, _, _ in read.lost}
    assert read.records == len(with_rows) + len(lost) + read.empty or not _has_own_spans(golden)
    assert not with_rows & lost
    assert len(read.places.spans) == read.rows.num_rows
    for span, record, why in read.lost:
        first, end = bytes_of(span)
        assert content[first:end] == record
        assert why.reason != "reader_failed", why
        assert why.reason != "not_storable" or "surrogates not allowed" in why.detail, why
    if not _has_own_spans(golden):
        _assert_document_is_covered(golden, content, read)
        return
    framed = frames(content, cut)
    assert read.records == len(framed)
    at = 0
    for first, end in [*(bytes_of(each.span) for each in framed), (len(content), len(content))]:
        is_header = cut == "csv" and at == 0
        assert is_header or not content[at:first].strip(SEPARATORS)
        at = end
    spans = {each.span for each in framed}
    assert with_rows <= spans
    assert lost <= spans
    assert len(spans - with_rows - lost) == read.empty


def _has_own_spans(golden: Golden) -> bool:
    """Whether no two records share bytes; parts of a document may, and may leave out what rows say anew."""
    return not hasattr(golden.reader, "read_document")


def _assert_document_is_covered(golden: Golden, content: bytes, read: Read) -> None:
    """What lies in no part is blank, front matter, or a line that the rows of a session tell beside it."""
    try:
        parts = golden.reader.read_document(golden.file.name, content)  # type: ignore[union-attr]
    except Unreadable:
        assert (read.records, len(read.lost), read.rows.num_rows) == (1, 1, 0)
        return
    assert read.records == len(parts)
    assert [part.end for part in parts] == sorted(part.end for part in parts)
    at, gaps = 0, []
    for part in sorted(parts, key=lambda part: part.first):
        assert 0 <= part.first <= part.end <= len(content)
        gaps.append(content[at : part.first])
        at = max(at, part.end)
    gaps.append(content[at:])
    if golden.name == "markdown" and gaps[0].removeprefix(b"\xef\xbb\xbf").startswith(b"---"):
        gaps = gaps[1:]
    for line in (line for gap in gaps for line in gap.decode("utf-8-sig").split("\n")):
        assert not line.strip() or isinstance(json.loads(line), dict)


def frames(content: bytes, cut: str) -> list[framing.Framed]:
    """The records of a source that is not cut by rows."""
    if cut == "csv":
        return list(framing.frame_csv(io.BytesIO(content)))
    return list(
        framing.frame_values(io.BytesIO(content)) if cut == "values" else framing.frame_lines(content)
    )


def bytes_of(span: str) -> tuple[int, int]:
    first, end = span.removeprefix("bytes:").split("-")
    return int(first), int(end)


def as_golden(value: Any) -> Any:
    """Rows as golden files hold them: without what is None, times as ISO text."""
    if isinstance(value, dict):
        return {key: as_golden(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [as_golden(item) for item in value]
    return value.isoformat() if isinstance(value, dt.datetime) else value


def copies_of(file: Path, folder: Path) -> list[Path]:
    """The file plain, compressed, and in two kinds of archive."""
    content = file.read_bytes()
    plain, zst = folder / file.name, folder / f"{file.name}.zst"
    plain.write_bytes(content)
    zst.write_bytes(pa.compress(content, "zstd", asbytes=True))
    inside = f"folder/{file.name}"
    with tarfile.open(folder / "copy.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo(inside)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    with zipfile.ZipFile(folder / "copy.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(inside, content)
    return [plain, zst, folder / "copy.tar.gz", folder / "copy.zip"]


def carried_out(
    settings: Settings, works: Sequence[Work], *, name: str, some: slice = slice(None), number: int = 0
) -> Done:
    """Some stretches of the works, read into one file that is not committed."""
    stretches = [(work, block) for work in works for block in work.blocks][some]
    numbers = itertools.count(number, 10_000)
    task = Task(
        name,
        works[0].reader.writes,
        tuple(Stretch(work, block, next(numbers), 10_000) for work, block in stretches),
    )
    return carry_out(task, settings=settings, stamp=STAMP, banned=bans.standing(settings), keeping=Keeping())


def read_into(settings: Settings, works: Sequence[Work], *, name: str, tasks: int = 1) -> pa.Table:
    """The rows as stored, in the order of their numbers, read by so many tasks."""
    into = works[0].reader.writes
    count = sum(len(work.blocks) for work in works)
    size = max(1, -(-count // tasks))
    read = [into.schema.empty_table()]
    for at in range(0, count, size):
        done = carried_out(
            settings, works, name=f"{name}{at}", some=slice(at, at + size), number=at * 1_000_000
        )
        if done.file is not None:
            read.append(tables.read_file(settings, done.file.path, of=into))
    return pa.concat_tables(read)


def _entry(work: Work) -> Entry:
    reader = work.reader.fingerprint
    return Entry(
        source_uri=work.file.uri,
        source_revision=work.file.revision,
        reader=f"{reader.name}@{reader.revision}",
        table=work.reader.writes.name,
        key=work.key,
        origin=work.source.origin,
        size=work.file.size,
        whole=work.file.whole,
    )
