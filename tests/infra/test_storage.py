from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.storage import (
    Block,
    Limits,
    StorageError,
    expand,
    first_record,
    open_source,
    read_span,
    require_lines,
    stream_blocks,
    stream_sources,
    survey,
    survey_all,
    unchanged,
)

CONTENT = (
    b"\n  \n" + b"".join(b'{"n": %d, "text": "%s"}\r\n' % (n, b"x" * (n % 50)) for n in range(400)) + b"end"
)


def records(block: Block, content: bytes | None = None) -> Iterator[tuple[int, int, bytes]]:
    """(line number in the source, first byte, bytes) of each line of a block that is not blank."""
    if content is None:
        content = read_span(block.uri, block.first, block.end)
    position = block.first
    for offset, line in enumerate(content.split(b"\n")):
        record = line.rstrip(b"\r")
        if record.strip():
            yield block.lines_before + offset, position, record
        position += len(line) + 1


SMALL = Limits(max_ratio=20, free_bytes=10_000)


def tarred(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else 0
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return packed.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


NEIGHBOURS = {"a/first.jsonl": b"first\n" * 999, "a/log.jsonl": CONTENT, "z.jsonl": b"last\n"}

CONTAINERS: dict[str, Callable[[], bytes]] = {
    "log.jsonl": lambda: CONTENT,
    "log.jsonl.gz": lambda: gzip.compress(CONTENT),
    "parts.jsonl.gz": lambda: gzip.compress(CONTENT[:999]) + gzip.compress(CONTENT[999:]),
    "log.jsonl.bz2": lambda: bz2.compress(CONTENT),
    "log.jsonl.zst": lambda: zstd(CONTENT),
    "parts.jsonl.zst": lambda: zstd(CONTENT[:999]) + zstd(CONTENT[999:]),
    "log.tar!/a/log.jsonl": lambda: tarred(NEIGHBOURS),
    "log.tar.gz!/a/log.jsonl": lambda: tarred(NEIGHBOURS, "w:gz"),
    "log.tgz!/a/log.jsonl": lambda: tarred(NEIGHBOURS, "w:gz"),
    "log.tar.bz2!/a/log.jsonl": lambda: tarred(NEIGHBOURS, "w:bz2"),
    "log.tar.zst!/a/log.jsonl": lambda: zstd(tarred(NEIGHBOURS)),
    "log.zip!/a/log.jsonl": lambda: zipped(NEIGHBOURS),
    "stored.zip!/a/log.jsonl": lambda: zipped(NEIGHBOURS, zipfile.ZIP_STORED),
    "bzipped.zip!/a/log.jsonl": lambda: zipped(NEIGHBOURS, zipfile.ZIP_BZIP2),
    "twice.tar!/a/log.jsonl.gz": lambda: tarred({"a/log.jsonl.gz": gzip.compress(CONTENT), "b": b"b"}),
    "twice.tgz!/log.jsonl.zst": lambda: tarred({"log.jsonl.zst": zstd(CONTENT), "b": b"b"}, "w:gz"),
    "twice.zip!/log.jsonl.bz2": lambda: zipped({"log.jsonl.bz2": bz2.compress(CONTENT)}),
}


@pytest.fixture(params=CONTAINERS)
def contained(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of the same content, each time in another container."""
    container = tmp_path / request.param.partition("!/")[0]
    container.write_bytes(CONTAINERS[request.param]())
    return f"file://{tmp_path}/{request.param}"


def as_plain(tmp_path: Path) -> str:
    (tmp_path / "plain").write_bytes(CONTENT)
    return (tmp_path / "plain").as_uri()


def test_a_container_is_expanded_to_what_is_in_it(contained: str, tmp_path: Path):
    assert contained in list(expand([str(tmp_path)]))
    assert list(expand([contained])) == [contained]
    assert expand([contained, str(tmp_path)]).problems == ()


def test_every_container_gives_the_same_content_and_revision_as_the_plain_file(
    contained: str, tmp_path: Path
):
    with open_source(contained) as content:
        assert content.read() == CONTENT
    plain, found = survey(as_plain(tmp_path), block_bytes=1000), survey(contained, block_bytes=1000)
    assert (found.revision, found.size, found.lines) == (plain.revision, len(CONTENT), 403)
    assert (
        first_record(found.uri)
        == first_record(plain.uri)
        == first_record(contained)
        == b'{"n": 0, "text": ""}'
    )
    assert [replace(block, uri=plain.uri) for block in found.blocks] == list(plain.blocks)
    assert len(plain.blocks) > 10


def test_spans_lead_back_to_the_bytes_in_every_container(contained: str):
    source = survey(contained, block_bytes=2000)
    told = [record for block in source.blocks for record in records(block)]
    assert len(told) == 401
    for line, first, record in told[::57]:
        assert read_span(contained, first, first + len(record)) == record
        assert CONTENT.split(b"\n")[line].rstrip(b"\r") == record
    assert read_span(contained, len(CONTENT) - 3, len(CONTENT) + 9) == b"end"


def test_blocks_may_be_cut_anywhere(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(CONTENT)
    whole = [record for block in survey(path.as_uri()).blocks for record in records(block)]
    for size in (50, 64, 333, 5000):
        cut = survey(path.as_uri(), block_bytes=size)
        assert [record for block in cut.blocks for record in records(block)] == whole
        assert cut.revision == survey(path.as_uri()).revision
    assert len(whole) == 401


def test_blocks_come_in_one_pass_in_every_container(contained: str):
    source = survey(contained, block_bytes=2000)
    whole = list(stream_blocks(source, source.blocks))
    assert b"".join(content for _, content in whole) == CONTENT
    assert [block for block, _ in whole] == list(source.blocks)
    some = source.blocks[1::3]
    assert list(stream_blocks(source, some)) == [(b, CONTENT[b.first : b.end]) for b in some]
    assert [r for block, content in whole for r in records(block, content)] == [
        r for block in source.blocks for r in records(block)
    ]
    assert list(stream_blocks(source, ())) == []


def test_blocks_out_of_order_are_refused(tmp_path: Path):
    source = survey(as_plain(tmp_path), block_bytes=2000)
    with pytest.raises(ValueError, match="comes after one that ends at"):
        list(stream_blocks(source, source.blocks[::-1]))


def test_all_members_of_an_archive_come_in_one_pass(tmp_path: Path):
    (tmp_path / "log.tgz").write_bytes(tarred(NEIGHBOURS, "w:gz"))
    as_plain(tmp_path)
    sources, problems = survey_all(expand([str(tmp_path)]), block_bytes=1000)
    assert problems == []
    contents: dict[str, bytes] = {}
    for block, content in stream_sources(sources):
        contents[block.uri] = contents.get(block.uri, b"") + content
    assert sorted(contents.values()) == sorted([*NEIGHBOURS.values(), CONTENT])


def test_a_source_travels_to_workers(contained: str):
    source = survey(contained)
    assert pickle.loads(pickle.dumps(source)) == source


@given(
    content=st.lists(st.sampled_from([b"a", b"bb", b"\n", b" \n", b"\r\n", b"c" * 40]), max_size=60).map(
        b"".join
    ),
    block_bytes=st.integers(1, 90),
)
def test_however_blocks_are_cut_they_are_whole_lines_and_cover_the_source(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, block_bytes: int
):
    path = tmp_path_factory.mktemp("cut") / "log"
    path.write_bytes(content)
    if not content.strip():
        with pytest.raises(StorageError, match="is empty"):
            survey(path.as_uri())
        return
    source = survey(path.as_uri(), block_bytes=block_bytes)
    pieces = [content[block.first : block.end] for block in source.blocks]
    assert b"".join(pieces) == content
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert [block.lines for block in source.blocks] == [len(piece.splitlines()) for piece in pieces]
    assert [b.lines_before for b in source.blocks] == [content[: b.first].count(b"\n") for b in source.blocks]
    assert first_record(source.uri) == next(line.strip() for line in content.split(b"\n") if line.strip())


def test_prefixes_have_the_revision_that_the_source_had_before_it_grew(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(CONTENT[:5000])
    before = survey(path.as_uri())
    path.write_bytes(CONTENT)
    now = survey(path.as_uri(), prefixes=(len(CONTENT), 5000, 1, 10**9), block_bytes=333)
    assert set(now.prefix_revisions) == {1, 5000, len(CONTENT)}
    assert now.prefix_revisions[5000] == before.revision != now.revision
    assert now.prefix_revisions[len(CONTENT)] == now.revision
    assert now.blocks == survey(path.as_uri(), block_bytes=333).blocks
    again, _ = survey_all([path.as_uri()], prefixes={path.as_uri(): (5000,)})
    assert again[0].prefix_revisions == {5000: before.revision}


def test_a_line_of_fifty_megabytes_is_one_block_and_longer_than_allowed_is_one_sentence(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(b"short\n" + b"x" * 50_000_000 + b"\nshort\n")
    source = survey(path.as_uri())
    assert (source.lines, source.size) == (3, 50_000_013)
    longest = max(source.blocks, key=lambda block: block.end - block.first)
    assert max(len(record) for _, _, record in records(longest)) == 50_000_000
    less = Limits(max_line_bytes=40_000_000)
    with pytest.raises(StorageError, match=r"has a line of 50000000 bytes or more, allowed are 40000000"):
        require_lines(source, limits=less)
    assert first_record(path.as_uri(), limits=less) == b"short"
    path.write_bytes(b"x" * 50_000_000)
    with pytest.raises(StorageError, match=r"has a line of 40000001 bytes or more, allowed are 40000000"):
        first_record(path.as_uri(), limits=less)


def test_more_than_one_source_may_hold_is_refused(tmp_path: Path):
    for name in ("log", "log.gz", "log.zip!/log"):
        path = tmp_path / name.partition("!/")[0]
        path.write_bytes(
            {"log": CONTENT, "log.gz": gzip.compress(CONTENT)}.get(name, zipped({"log": CONTENT}))
        )
        with pytest.raises(StorageError, match=r"has \d+ bytes.*allowed are 5000"):
            survey(f"file://{tmp_path}/{name}", limits=Limits(max_bytes=5000, max_member_bytes=5000))


@pytest.mark.parametrize("empty", ["log", "log.gz", "log.zst", "log.tar!/log", "log.zip!/log"])
def test_an_empty_source_is_refused(tmp_path: Path, empty: str):
    packed = {"log": b"", "log.gz": gzip.compress(b""), "log.zst": zstd(b"")}
    packed |= {"log.tar!/log": tarred({"log": b""}), "log.zip!/log": zipped({"log": b""})}
    (tmp_path / empty.partition("!/")[0]).write_bytes(packed[empty])
    with pytest.raises(StorageError, match="is empty; expected at least one record"):
        survey(f"file://{tmp_path}/{empty}")


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "log.jsonl"])
def test_what_is_cut_short_is_told_and_never_taken_for_the_whole(tmp_path: Path, name: str):
    file, _, member = name.partition("!/")
    whole = CONTAINERS[name]()
    size = len(whole.rstrip(b"\0"))  # a tar is filled up
    for kept in (size // 2, size // 3, 40):
        (tmp_path / file).write_bytes(whole[:kept])
        found, problems = expand([str(tmp_path)]), []
        sources, problems = survey_all(found)
        told = [*found.problems, *problems]
        assert told
        assert all("cannot be read" in problem.message and file in problem.message for problem in told)
        revision = survey(as_plain(tmp_path)).revision
        assert all(source.revision != revision for source in sources if not source.uri.endswith(member))
        (tmp_path / "plain").unlink()


def test_a_tar_that_ends_between_two_members_is_told(tmp_path: Path):
    whole = tarred({"a": b"a" * 512, "b": b"b" * 512})
    (tmp_path / "log.tar").write_bytes(whole[:1024])
    found = expand([str(tmp_path)])
    assert [uri.rpartition("!/")[2] for uri in found] == ["a"]
    assert "its end is missing" in found.problems[0].message


def test_a_damaged_member_of_a_zip_is_told(tmp_path: Path):
    whole = zipped({"a": b"good\n", "b": b"x" * 999}, zipfile.ZIP_STORED)
    (tmp_path / "log.zip").write_bytes(whole.replace(b"xxxxx", b"xxyxx", 1))
    sources, problems = survey_all(expand([str(tmp_path)]))
    assert [source.uri.rpartition("!/")[2] for source in sources] == ["a"]
    assert "Bad CRC-32" in problems[0].message


@pytest.mark.parametrize("name", ["log.gz", "log.bz2", "log.zst", "log.zip", "log.tar.gz", "log.tar"])
def test_a_bomb_is_refused_with_what_was_found_and_what_is_allowed(tmp_path: Path, name: str):
    bomb = b"0" * 3_000_000
    (tmp_path / name).write_bytes(
        {
            "log.gz": lambda: gzip.compress(bomb),
            "log.bz2": lambda: bz2.compress(bomb),
            "log.zst": lambda: zstd(bomb),
            "log.zip": lambda: zipped({"a": bomb}),
            "log.tar.gz": lambda: tarred({"a": bomb}, "w:gz"),
            "log.tar": lambda: tarred({"a.gz": gzip.compress(bomb)}),
        }[name]()
    )
    found = expand([str(tmp_path)], limits=SMALL)
    sources, problems = survey_all(found, limits=SMALL)
    assert sources == []
    told = [*found.problems, *problems]
    assert "decompression bomb" in told[0].message
    assert "allowed are 20 for each beyond the first 10000" in told[0].message
    assert survey_all(expand([str(tmp_path)]), limits=replace(SMALL, free_bytes=4_000_000))[1] == []


def test_two_layers_of_compression_do_not_multiply_what_is_allowed(tmp_path: Path):
    inner = gzip.compress(b"0" * 300_000_000, 9)  # 1000:1
    (tmp_path / "log.zip").write_bytes(zipped({"a.gz": inner}))
    limits = Limits(max_ratio=1500, free_bytes=1_000_000)
    assert len(inner) / len(zipped({"a.gz": inner})) > 10
    _, problems = survey_all(expand([str(tmp_path)], limits=limits), limits=limits)
    assert "decompression bomb" in problems[0].message


def test_members_of_a_zip_that_share_their_bytes_are_a_bomb_together(tmp_path: Path):
    # What a zip says of its members stands at its end: one stored kilobyte, listed a hundred times.
    whole = zipped({"0": os.urandom(1000)}, zipfile.ZIP_STORED)
    at = whole.index(b"PK\x01\x02")
    entry, end = whole[at : whole.index(b"PK\x05\x06")], whole[whole.index(b"PK\x05\x06") :]
    listed = entry * 100
    count = (100).to_bytes(2, "little")
    end = end[:8] + count + count + len(listed).to_bytes(4, "little") + end[16:]
    (tmp_path / "log.zip").write_bytes(whole[:at] + listed + end)
    found = expand([str(tmp_path)], limits=Limits(max_ratio=2, free_bytes=1000))
    assert list(found) == []
    assert "decompression bomb: 100000 bytes" in found.problems[0].message


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("special")
    info.type, info.linkname = kind, target
    return info


def named(info: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    info.name = name
    return info


def test_members_that_lead_out_or_are_no_files_are_refused_one_by_one(tmp_path: Path):
    refused: dict[str, bytes | tarfile.TarInfo] = {
        "../up": b"x",
        "a/../../up": b"x",
        "/etc/absolute": b"x",
        "C:\\absolute": b"x",
        "..\\up": b"x",
        "link": named(special(tarfile.SYMTYPE, "/etc/passwd"), "link"),
        "hard": named(special(tarfile.LNKTYPE, "good"), "hard"),
        "device": named(special(tarfile.CHRTYPE), "device"),
        "pipe": named(special(tarfile.FIFOTYPE), "pipe"),
        "inner.tar.gz": b"x",
        "inner.ZIP": b"x",
    }
    folder = named(special(tarfile.DIRTYPE), "folder")
    members = {"./good": b"x\n", "folder": folder, **refused, ".hidden/x": b"x", "also good!/x": b"x\n"}
    (tmp_path / "log.tar").write_bytes(tarred(members))
    found = expand([str(tmp_path)])
    assert list(found) == [f"file://{tmp_path}/log.tar!/{name}" for name in ("also%20good%21/x", "good")]
    assert [unquote(p.uri.partition("!/")[2]) for p in found.problems] == list(refused)
    assert all("is refused: it" in problem.message for problem in found.problems)
    sources, problems = survey_all(found)
    assert (len(sources), problems) == (2, [])
    with pytest.raises(StorageError, match="is refused: it is a link"):
        open_source(f"file://{tmp_path}/log.tar!/link")


def test_a_zip_s_links_and_escapes_are_refused_and_the_others_go_on(tmp_path: Path):
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../up", "x")
        archive.writestr("good", "x\n")
    found = expand([str(tmp_path / "log.zip")])
    assert [uri.rpartition("!/")[2] for uri in found] == ["good"]
    assert [problem.message.partition("refused: ")[2] for problem in found.problems] == [
        "it is a link",
        "its name leads out of the archive",
    ]


def test_a_sparse_member_is_refused(tmp_path: Path):
    info = tarfile.TarInfo("holes")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": "1000000", "GNU.sparse.map": "0,1"}
    (tmp_path / "log.tar").write_bytes(tarred({"holes": info}, "w"))
    assert "sparse" in expand([str(tmp_path)]).problems[0].message


def test_a_second_member_of_one_name_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "log.tar", "w") as tar:
        for content in (b"old\n", b"new\n"):
            info = tarfile.TarInfo("log")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found = expand([str(tmp_path)])
    assert read_span(found[0], 0, 9) == b"old\n"
    assert [p.message.partition("refused: ")[2] for p in found.problems] == [
        "it is a second member of that name"
    ]


def test_a_path_that_looks_like_a_member_is_a_path(tmp_path: Path):
    folder = tmp_path / "odd.tar!" / "ünï %20#?"
    folder.mkdir(parents=True)
    (folder / "log!.jsonl").write_bytes(b"x\n")
    (uri,) = expand([str(tmp_path)])
    assert "!" not in uri
    assert list(expand([uri])) == [uri]
    assert read_span(uri, 0, 9) == b"x\n"


def test_names_that_are_no_utf8_lead_back_to_their_bytes(tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(b"x\n")
    (uri,) = expand([str(tmp_path)])
    assert read_span(uri, 0, 9) == b"x\n"
    (tmp_path / "names.tar").write_bytes(tarred({"caf\udce9": b"y\n"}))
    assert [read_span(uri, 0, 9) for uri in expand([str(tmp_path / "names.tar")])] == [b"y\n"]


def test_a_loop_of_folders_ends_and_a_linked_folder_is_read_once(tmp_path: Path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.jsonl").write_bytes(b"a\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jsonl").write_bytes(b"b\n")
    (tmp_path / "data" / "deep" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "deep")
    (tmp_path / "data" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    names = ["deep/a.jsonl", "there/b.jsonl"]
    for source in (str(tmp_path / "data"), str(tmp_path / "data" / "**" / "*.jsonl")):
        found = expand([source])
        assert list(found) == [f"file://{tmp_path}/data/{name}" for name in names]
        assert found.problems == ()


def test_hidden_names_are_passed_over(tmp_path: Path):
    for name in (".git/config", "a/.cache/x", ".x", "a/b/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert list(expand([str(tmp_path)])) == [(tmp_path / "a" / "b" / "x").as_uri()]
    assert list(expand([str(tmp_path / ".git")])) == [(tmp_path / ".git" / "config").as_uri()]


def test_globs_find_files_and_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.jsonl", "b.jsonl", "c.txt", "d/e/f.jsonl", "g[1].jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "h.zip").write_bytes(zipped({"i.jsonl": b"x"}))
    monkeypatch.chdir(tmp_path)

    def names(*sources: str) -> list[str]:
        return [uri.removeprefix(f"file://{tmp_path}/") for uri in expand(sources)]

    assert names("?.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names("**/*.jsonl") == ["a.jsonl", "b.jsonl", "d/e/f.jsonl", "g%5B1%5D.jsonl"]
    assert names("g[1].jsonl", f"file://{tmp_path}/a.jsonl", "a.jsonl") == ["a.jsonl", "g%5B1%5D.jsonl"]
    assert names("*.zip") == ["h.zip!/i.jsonl"]
    assert names(f"{tmp_path}/d/**") == ["d/e/f.jsonl"]


@pytest.mark.parametrize(
    "source", ["gone", "*.gone", "**/*.gone", "here.zip", "file:///gone", "HERE.zip!/gone"]
)
def test_a_source_that_names_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str):
    (tmp_path / "here.zip").write_bytes(zipped({}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="names no file; expected a file, a folder or a glob"):
        expand([source.replace("HERE", f"file://{tmp_path}/here")])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("file://elsewhere/log", "lies on host 'elsewhere'"),
        ("s3://key:secret@bucket/log", "holds a password"),
        ("gopher://place/log", "is no object store"),
    ],
)
def test_a_place_that_cannot_be_one_is_refused_in_a_sentence(source: str, reason: str):
    with pytest.raises(StorageError, match=reason) as refused:
        expand([source])
    assert "secret" not in str(refused.value)


def test_a_link_that_leads_nowhere_is_a_problem_and_the_others_go_on(tmp_path: Path):
    (tmp_path / "good").write_bytes(b"x\n")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    found = expand([str(tmp_path)])
    assert list(found) == [(tmp_path / "good").as_uri()]
    (problem,) = found.problems
    assert problem.uri == (tmp_path / "dangling").as_uri()
    assert problem.message == f"source '{problem.uri}' cannot be read: No such file or directory"


def test_a_file_that_may_not_be_read_is_a_problem_and_the_others_go_on(tmp_path: Path):
    for name in ("closed", "good", "shut/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x\n")
    (tmp_path / "closed").chmod(0)
    if os.access(tmp_path / "closed", os.R_OK):
        pytest.skip("this user may read everything")
    (tmp_path / "shut").chmod(0)
    found = expand([str(tmp_path)])
    sources, problems = survey_all(found)
    (tmp_path / "shut").chmod(0o700)
    assert [source.uri for source in sources] == [(tmp_path / "good").as_uri()]
    assert ["Permission denied" in problem.message for problem in (*found.problems, *problems)] == [True] * 2


def test_sources_that_cannot_be_read_are_told_one_by_one_in_order(tmp_path: Path):
    (tmp_path / "log.tgz").write_bytes(
        tarred({"a": b"a\n", "b.gz": gzip.compress(b"b" * 99)[:-9], "c": b"c\n"})
    )
    (tmp_path / "good.tar").write_bytes(
        tarred({"a": b"a\n", "b.gz": gzip.compress(b"b" * 99)[:-9], "c": b"c\n"})
    )
    (tmp_path / "empty").write_bytes(b"")
    base = f"file://{tmp_path}"
    uris = [f"{base}/gone", f"{base}/good.tar!/c", f"{base}/empty", f"{base}/good.tar!/b.gz"]
    uris += [f"{base}/log.tgz!/a", f"{base}/good.tar!/a", f"{base}/good.tar!/gone", f"{base}/good.tar"]
    sources, problems = survey_all(uris)
    assert [source.uri for source in sources] == [uris[1], uris[5]]
    assert [problem.uri for problem in problems] == [uris[at] for at in (0, 2, 3, 4, 6, 7)]
    said = (
        "No such file",
        "is empty",
        "end-of-stream",
        "not a gzip",
        "no such member",
        "is an archive; name",
    )
    for problem, reason in zip(problems, said, strict=True):
        assert problem.uri in problem.message or "log.tgz" in problem.message
        assert reason.lower() in problem.message.lower()


def test_a_source_that_changes_after_its_survey_is_seen(tmp_path: Path):
    uri = as_plain(tmp_path)
    source = survey(uri)
    assert unchanged(source)
    with (tmp_path / "plain").open("ab") as grown:
        grown.write(b"more\n")
    assert not unchanged(source)
    assert survey(uri, prefixes=(source.size,)).prefix_revisions[source.size] == source.revision
    source = survey(uri)
    # Another file of the same size and time in its place.
    (tmp_path / "new").write_bytes((tmp_path / "plain").read_bytes())
    os.utime(tmp_path / "new", ns=(0, source.state.modified_ns if source.state else 0))
    (tmp_path / "new").replace(tmp_path / "plain")
    assert not unchanged(source)
    assert survey(uri) == source
    (tmp_path / "plain").unlink()
    assert not unchanged(source)


def test_a_source_that_shrank_since_its_survey_is_told(tmp_path: Path):
    source = survey(as_plain(tmp_path))
    (tmp_path / "plain").write_bytes(CONTENT[:100])
    with pytest.raises(StorageError, match="it ends at 100; it was changed since"):
        list(stream_blocks(source, source.blocks))
