"""Whatever a source holds or does, no record is lost, none is stored twice, and nothing is half committed."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.runtime import Runtime
from infra.storage import StorageError, first_record, read_span, survey
from lineage import tables
from lineage.rows import origin_of
from lineage.runs import Run
from lineage.schemas import QUARANTINE, TRACE
from lineage.stamp import Source
from pipelines.ingest import IngestError
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.runner import RunnerError, Work, read_sources
from tests.pipelines.log_lake import Lake

ROOT = Path(__file__).parents[2]


def test_of_a_file_of_odd_lines_each_is_stored_or_in_quarantine_with_its_bytes(
    lake: Lake, toys: SimpleNamespace
):
    good = [json.dumps(toys.exchange(f"q{n}", "ünï")).encode() for n in range(3)]
    bad = {
        "NUL bytes": b'{"messages": \x00\x00}',
        "latin-1": '{"messages": [{"role": "user", "content": "für"}]}'.encode("latin-1"),
        "nested too deeply": b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "cut": good[0][:-30],
        "no object": b"[1]",
        "a number of a million digits": b'{"messages": ' + b"9" * 1_000_000 + b"}",
    }
    said = toys.exchange("odd", "a")
    said["response"]["usage"] = {"prompt_tokens": "12", "completion_tokens": "x"}
    said["temperature"] = "NOT"
    odd = {
        "NaN, and numbers as strings": json.dumps(said).replace('"NOT"', "NaN").encode(),
        "a key twice": good[0].replace(b'"id":', b'"id": "first", "id":', 1),
        "an escaped NUL": good[0].replace(b"q0", b"q\\u00000"),
    }
    path = lake.folder / "log.jsonl"
    lines = [b"\xef\xbb\xbf" + good[0] + b"\r", *bad.values(), b"", b" \t ", *odd.values(), *good[1:]]
    path.write_bytes(b"\n".join(lines))
    counts = lake.ingest(path).counts
    assert counts["in"] == len(good) + len(bad) + len(odd)
    assert counts["records_stored"] + counts["quarantined"] == counts["in"]
    lost = tables.read(lake.settings, QUARANTINE).to_pylist()
    assert set(bad.values()) <= {row["record"] for row in lost}
    assert {row["record"] for row in lost} <= set(bad.values()) | set(odd.values())
    for row in (*lost, *lake.rows()):
        first, end = row["source_span"].removeprefix("bytes:").split("-")
        assert read_span(row["source_uri"], int(first), int(end)) in {*lines, lines[0][:-1]}
    assert {"q0", "q1", "q2"} <= set(lake.questions())


def test_a_line_of_50_mb_is_a_row_and_its_neighbours_are(lake: Lake):
    log = lake.log("log.jsonl", "a", "x" * 50_000_000, "b")
    assert lake.ingest(log).counts["records_stored"] == 3
    assert max(len(question) for question in lake.questions()) == 50_000_000


def test_what_cannot_be_read_of_a_folder_is_told_and_the_others_go_on(lake: Lake):
    lake.log("good.jsonl", "a")
    lake.write("empty.jsonl", end="")
    lake.write("unknown.jsonl", {"neither": "this nor that"})
    whole = gzip.compress(lake.log("other.jsonl", "b").read_bytes() * 100)
    (lake.folder / "cut.jsonl.gz").write_bytes(whole[:-30])
    (lake.folder / "gone.jsonl").symlink_to(lake.folder / "nowhere.jsonl")
    (lake.folder / "loop").symlink_to(lake.folder, target_is_directory=True)
    with zipfile.ZipFile(lake.folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("bomb.jsonl", b"\n" * 120_000_000)
    with tarfile.open(lake.folder / "escape.tar", "w") as archive:
        for name in ("../../escape.jsonl", "inside.jsonl"):
            info = tarfile.TarInfo(name)
            content = (
                (lake.folder / "good.jsonl")
                .read_bytes()
                .replace(b'"a"', name[-12:].encode().join([b'"'] * 2))
            )
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    problems = lake.ingest(lake.folder).facets["problems"]
    named = {uri.rpartition("/logs/")[2] for uri in problems}
    assert named == {
        "empty.jsonl",
        "unknown.jsonl",
        "cut.jsonl.gz",
        "gone.jsonl",
        "bomb.zip",
        "escape.tar!/../../escape.jsonl",
    }
    words = " ".join(problems.values())
    for sentence in ("is empty", "--field-map", "to its end", "bomb", "leads out of the archive"):
        assert sentence in words
    assert len(lake.questions()) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read_is_told(lake: Lake):
    lake.log("good.jsonl", "a")
    lake.log("secret.jsonl", "b").chmod(0)
    assert "denied" in str(lake.ingest(lake.folder).facets["problems"])
    assert lake.questions() == ["a"]


def test_a_source_that_changes_while_it_is_read_stores_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    log = lake.log("log.jsonl", "a", "b")
    whole = log.read_bytes()
    meanwhile(monkeypatch, lambda: log.write_bytes(whole.replace(b"chatcmpl-a", b"chatcmpl-A")))
    with pytest.raises(StorageError, match="changed while it was read, so nothing was stored; run it again"):
        lake.ingest(log)
    assert (lake.rows(), tables.read(lake.settings, QUARANTINE).num_rows) == ([], 0)
    assert lake.added(log) == 2


def test_a_log_that_is_written_to_while_it_is_read_gives_what_it_had(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    log, more = lake.log("log.jsonl", "a", "b"), lake.log("more.txt", "c").read_bytes()
    meanwhile(monkeypatch, lambda: log.write_bytes(log.read_bytes() + more))
    assert lake.added(log) == 2
    assert lake.added(log) == 1


def test_a_source_that_is_gone_while_it_is_read_stores_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    log = lake.log("log.jsonl", "a", "b")
    meanwhile(monkeypatch, log.unlink)
    with pytest.raises(Exception, match=r"log\.jsonl"):
        lake.ingest(log)
    assert lake.rows() == []


def test_a_full_disk_leaves_nothing_half_committed(lake: Lake, toys: SimpleNamespace):
    """A file may grow to 300 kB here, and the rows need more: what a full disk says, EFBIG says, too."""
    noise = random.Random(7)
    words = [noise.randbytes(2000).hex() for _ in range(300)]
    log = lake.log("log.jsonl", *words)
    log.write_bytes(log.read_bytes() + b"{1\n")
    script = (
        "import resource, signal, sys\n"
        "from infra.settings import settings_from_environment\n"
        "from pipelines.ingest import IngestConfig, ingest\n"
        "from infra.cli import explain\n"
        "from tests.lineage.in_process import RuntimeHere\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "runtime = RuntimeHere(settings_from_environment(sys.argv[1]))\n"
        "try:\n"
        "    ingest(runtime, IngestConfig(sources=(sys.argv[2],)))\n"
        "except Exception as error:\n"
        "    sys.exit(f'stemma: {explain(error)}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, lake.settings.lake, str(log)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "too large" in done.stderr
    tables.forget()
    assert (lake.rows(), tables.read(lake.settings, QUARANTINE).num_rows) == ([], 0)
    lake.require_sound()
    assert lake.added(log) == 300


class Deadly(ChatCompletions):
    """Ends the worker that reads with it, as the system does that runs out of memory."""

    read_columns = None

    def read(self, record: Any) -> list[dict[str, Any]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


@pytest.mark.timeout(240)
def test_a_worker_that_dies_again_and_again_fails_the_job_and_commits_nothing(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    log = toys.write_lines(tmp_path / "log.jsonl", [toys.exchange("a", "b"), b"{1"])
    source = survey(log.as_uri())
    known_by = Source(log.as_uri(), source.revision, origin_of(first_record(source.uri)))
    work = Work(source, known_by, Deadly(), "lines", key="log")
    with pytest.raises(RunnerError, match="a worker died 3 times while it read the same part"):
        read_sources(runtime, [work], run=Run("ab", 1, "ingest"))
    for spec in (TRACE, QUARANTINE):
        assert tables.read(runtime.settings, spec).num_rows == 0


def test_nothing_but_bad_sources_is_one_sentence(lake: Lake):
    with pytest.raises(IngestError, match=r"empty\.jsonl' is empty"):
        lake.ingest(lake.write("empty.jsonl", end=""))


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Have something change once the sources were surveyed, and before they are read to their end."""
    reserve = tables.reserve

    def late(*args: Any, **kwargs: Any) -> int:
        monkeypatch.setattr(tables, "reserve", reserve)
        change()
        return reserve(*args, **kwargs)

    monkeypatch.setattr(tables, "reserve", late)
