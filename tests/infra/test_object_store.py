from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from infra.storage import (
    StorageError,
    expand,
    first_record,
    read_span,
    stream_blocks,
    survey,
    survey_all,
    unchanged,
)

CONTENT = b"".join(b'{"n": %d}\n' % n for n in range(500))


def test_an_object_gives_what_a_file_gives(object_store, tmp_path):
    (tmp_path / "log.jsonl").write_bytes(CONTENT)
    uri = object_store.put("logs/log.jsonl", CONTENT)
    plain, found = survey((tmp_path / "log.jsonl").as_uri(), block_bytes=700), survey(uri, block_bytes=700)
    assert (found.revision, found.size, found.lines) == (plain.revision, len(CONTENT), 500)
    assert read_span(uri, 10, 30) == CONTENT[10:30]
    assert first_record(uri) == b'{"n": 0}'
    assert b"".join(content for _, content in stream_blocks(found, found.blocks)) == CONTENT


def test_prefixes_and_globs_of_keys_are_expanded(object_store):
    keys = ("logs/a.jsonl", "logs/b.jsonl.gz", "logs/day=1/c.jsonl", "logs/.hidden/d", "logsmith", "other/e")
    uris = {
        key: object_store.put(key, gzip.compress(b"x\n") if key.endswith("gz") else b"x\n") for key in keys
    }
    base = f"s3://{object_store.bucket}"

    def found(*sources: str) -> list[str]:
        return [uri.removeprefix(f"{base}/") for uri in expand(sources)]

    assert (
        found(f"{base}/logs/")
        == found(f"{base}/logs")
        == ["logs/a.jsonl", "logs/b.jsonl.gz", "logs/day=1/c.jsonl"]
    )
    assert found(f"{base}/logs/*.jsonl*") == ["logs/a.jsonl", "logs/b.jsonl.gz"]
    assert found(f"{base}/**/*.jsonl") == ["logs/a.jsonl", "logs/day=1/c.jsonl"]
    assert found(f"{base}/*/e", f"{base}/logsmith") == ["logsmith", "other/e"]
    assert len(found(base)) == len(found(f"{base}/")) == 5
    sources, problems = survey_all(expand([base]))
    assert ({source.revision for source in sources}, problems) == ({survey(uris["other/e"]).revision}, [])


def test_odd_keys_lead_back_to_their_bytes(object_store):
    object_store.put("odd!/a %20 ü#?.jsonl", b"x\n")
    (uri,) = expand([f"s3://{object_store.bucket}/"])
    assert "!" not in uri
    assert read_span(uri, 0, 9) == b"x\n"
    assert list(expand([uri])) == [uri]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_an_archived_object_are_sources(object_store, method):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("a/log.jsonl", CONTENT)
        archive.writestr("b.jsonl", b"b\n")
    uri = object_store.put("all.zip", packed.getvalue())
    assert list(expand([uri])) == [f"{uri}!/a/log.jsonl", f"{uri}!/b.jsonl"]
    (source, _), problems = survey_all(expand([uri]))
    assert problems == []
    assert source.size == len(CONTENT)
    assert read_span(source.uri, 100, 120) == CONTENT[100:120]


def test_an_object_that_changes_after_its_survey_is_seen(object_store):
    uri = object_store.put("log", b"old\n")
    source = survey(uri)
    assert unchanged(source)
    object_store.put("log", b"new\n")
    assert not unchanged(source)
    object_store.files.delete_file(f"{object_store.bucket}/log")
    assert not unchanged(source)


def test_an_object_that_is_not_there_is_named(object_store):
    base = f"s3://{object_store.bucket}"
    for source in (f"{base}/gone", f"{base}/gone/", f"{base}/*.gone"):
        with pytest.raises(StorageError, match="names no file"):
            expand([source])
    uri = object_store.put("log", b"x\n")
    sources, problems = survey_all([f"{base}/gone", uri])
    assert [source.uri for source in sources] == [uri]
    assert f"source '{base}/gone' cannot be read" in problems[0].message
