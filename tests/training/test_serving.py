"""An alias over HTTP: what may be asked, who answers, what is logged, and what a promotion changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from infra.cli import run
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables
from lineage.consumption import find_checkpoint
from lineage.runs import Run
from lineage.schemas import CHECKPOINT, QUARANTINE, TRACE
from pipelines.ingest import IngestConfig, ingest
from training.answering import load_predictor

ROOT = Path(__file__).parents[2]
WAIT = 60.0
KEY = "s3cr3t-Bearer-77"


def asked(**keys: Any) -> dict[str, Any]:
    return {"model": "champion", "messages": [{"role": "user", "content": "hello"}], **keys}


@dataclass(frozen=True)
class Running:
    """`stemma serve` as a process."""

    url: str
    lake: str
    process: subprocess.Popen[str]
    key: str = ""

    def call(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """(status, parsed body)."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        told = {"Content-Type": "application/json"} | (headers or {})
        if self.key:
            told = {"Authorization": f"Bearer {self.key}"} | told
        request = urllib.request.Request(f"{self.url}{path}", data=raw, headers=told)
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                text, status = answer.read().decode(), answer.status
        except urllib.error.HTTPError as error:
            with error:
                text, status = error.read().decode(), error.code
        return status, json.loads(text) if text.startswith("{") else text

    def ask(self, text: str, **keys: Any) -> dict[str, Any]:
        status, body = self.call(
            "/v1/chat/completions", asked(messages=[{"role": "user", "content": text}], **keys)
        )
        assert status == 200, body
        return body

    def files(self) -> list[Path]:
        return sorted(Path(self.lake, "traffic").glob("*.jsonl"))


@contextmanager
def serving(settings: Settings, *words: str, key: str = "", **variables: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "infra.cli", "serve", "--port", "0", "--lake", settings.lake, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    log = Path(settings.lake, "serve.err")
    with (
        log.open("a") as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environment, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " answers at http" in line, log.read_text()
            yield Running(line.split()[-1].removesuffix("/v1"), settings.lake, process, key)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=WAIT)
            except subprocess.TimeoutExpired:
                process.kill()


TWO = ("reset my password", "the wifi is broken")


@pytest.mark.cluster
def test_what_serves_is_what_is_scored_and_its_traffic_names_it(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    checkpoint, _ = models.resolve(settings, "champion")
    texts = [f"{hello} {words}" for hello in ("hello,", "well,") for words in TWO * 6]
    alone = load_predictor(Runtime(settings), checkpoint).predict(texts)
    with serving(settings, "--api-key-env", "SERVE_KEY", key=KEY, SERVE_KEY=KEY) as server:
        metadata = {"prompt_name": "router", "prompt_version": "7"}
        one = server.ask(texts[0], metadata=metadata)
        assert one["model"] == "router@1"
        assert one["choices"][0]["message"]["content"] == alone[0].label
        with ThreadPoolExecutor(12) as pool:
            many = list(pool.map(server.ask, texts))
        assert [b["choices"][0]["message"]["content"] for b in many] == [p.label for p in alone]
        assert len({body["id"] for body in many}) == len(texts)

        # As a stream, and what clients ask besides.
        status, events = server.call("/v1/chat/completions", asked(stream=True))
        assert status == 200
        chunks = [json.loads(e.removeprefix("data: ")) for e in events.strip().split("\n\n")[:-1]]
        assert events.endswith("data: [DONE]\n\n")
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert [m["id"] for m in server.call("/v1/models")[1]["data"]] == ["champion", "router@1"]
        assert server.call("/health")[0] == 200

        # What is wrong is said in OpenAI's shape, and is no traffic.
        wrong = {
            400: [("/v1/chat/completions", b"{", {}), ("/v1/chat/completions", asked(tools=[]), {})],
            401: [("/v1/chat/completions", asked(), {"Authorization": "Bearer nonsense"})],
            403: [("/v1/chat/completions", asked(), {"Host": "evil.example"})],
            404: [("/v1/chat/completions", asked(model="gpt-4"), {}), ("/nothing", None, {})],
            405: [("/v1/chat/completions", None, {})],
            413: [
                (
                    "/v1/chat/completions",
                    asked(user="x", messages=[{"role": "user", "content": "x" * 2**20}]),
                    {},
                )
            ],
            415: [("/v1/chat/completions", asked(), {"Content-Type": "text/plain"})],
        }
        for expected, calls in wrong.items():
            for path, body, headers in calls:
                status, said = server.call(path, body, headers)
                assert (status, sorted(said["error"])) == (expected, ["code", "message", "param", "type"])
        (file,) = server.files()
    with file.open("ab") as torn:
        torn.write(b'{"id": "chatcmpl-torn", "request": {"mod')  # as a crash leaves it
    everything = file.read_text() + Path(settings.lake, "serve.err").read_text()
    assert KEY not in everything

    stored = ingest(Runtime(settings), IngestConfig(sources=(str(file),)))
    assert (stored.counts["in"], stored.counts["quarantined"]) == (len(texts) + 3, 1)
    rows = tables.read(settings, TRACE).to_pylist()
    mine = {
        row["trace_key"]: row
        for row in rows
        if row["generator"] == "router" and row["run_id"] == stored.run_id
    }
    assert mine.keys() == {one["id"], *(b["id"] for b in many), *(c["id"] for c in chunks[:1])}
    row = mine[one["id"]]
    assert (row["generator"], row["generator_revision"]) == ("router", "1")
    assert (row["prompt_name"], row["prompt_version"]) == ("router", "7")
    assert (row["response"], row["model_answered"]) == (alone[0].label, "router@1")
    assert row["happened_at"] is not None
    assert row["input_tokens"] > 0
    assert tables.read(settings, QUARANTINE).num_rows >= 1


@pytest.mark.cluster
def test_a_move_changes_what_serves_drops_nothing_and_a_kill_loses_no_answer_that_was_seen(
    trained_lake, tmp_path: Path
):
    settings = trained_lake.copied(tmp_path / "lake")
    runtime = Runtime(settings)
    second = second_version(settings)
    with serving(settings, "--poll-s", "0.05") as server:
        seen: dict[str, str] = {}
        is_killed = threading.Event()

        def ask_on() -> None:
            try:
                while True:
                    answer = server.ask("reset my password")
                    seen[answer["id"]] = answer["model"]
            except (OSError, HTTPException):
                assert is_killed.is_set()

        asking = [threading.Thread(target=ask_on) for _ in range(3)]
        for thread in asking:
            thread.start()
        wait_for(server, "router@1")
        move(runtime, {"champion": second, "previous": 1}, kind="promotion")
        wait_for(server, "router@2")
        move(runtime, {"champion": 1, "previous": 0}, kind="rollback")
        wait_for(server, "router@1")
        # A version whose folder is broken does not take its place.
        folder = Path(models.resolve(settings, "router@2")[0].uri)
        (folder / "adapter_model.safetensors").write_bytes(b"broken")
        move(runtime, {"champion": second}, kind="promotion")
        log = Path(settings.lake, "serve.err")
        until(lambda: "router@1 goes on" in log.read_text())
        assert server.ask("reset my password")["model"] == "router@1"
        before = len(seen)
        until(lambda: len(seen) > before)  # nobody was turned away
        is_killed.set()
        server.process.kill()
        for thread in asking:
            thread.join(WAIT)
        (file,) = server.files()
    assert set(seen.values()) == {"router@1", "router@2"}
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    logged = {line["id"]: line["response"]["model"] for line in lines}
    assert seen.items() <= logged.items()


def second_version(settings: Settings) -> int:
    """The champion's checkpoint once more, as a second run's in a folder of its own."""
    first, _ = models.resolve(settings, "champion")
    folder = Path(settings.lake, "checkpoints", "second")
    shutil.copytree(first.uri, folder)
    (row,) = [r for r in tables.read(settings, CHECKPOINT).to_pylist() if r["run_id"] == first.run_id]
    other = row | {"run_id": f"{'f' * 16}-1", "uri": str(folder)}
    tables.record(settings, [other], into=CHECKPOINT)
    made = models.register(Runtime(settings), find_checkpoint(settings, other["run_id"]), name="router")
    return made.version


def move(runtime: Runtime, moves: dict[str, int], *, kind: Any) -> None:
    run = Run("ff", 1, kind)
    models.move_aliases(runtime, moves, name="router", kind=kind, reason="", evidence=[], run=run)


def until(is_so: Callable[[], bool]) -> None:
    """Look until it is so, as often as it takes, for a minute."""
    pause = threading.Event()
    for _ in range(1200):
        if is_so():
            return
        pause.wait(0.05)
    pytest.fail("it never came to be")


def wait_for(server: Running, model: str) -> None:
    until(lambda: server.call("/health")[1].get("model") == model)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["router@9"], "does not exist"),
        (["challenger"], "is no alias, version or run"),
        (["--engine", "vllm"], "needs its program, which is not installed"),
        (["--engine", "ollama"], "is not one of: own, vllm, transformers"),
        (["--host", "0.0.0.0"], "asks for a token"),
        (["--api-key-env", "NOT_SET_AT_ALL"], "is not set"),
        (["--device", "tpu"], "is not one of"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(words, sentence, trained_lake, capsys):
    assert run("serve", [*words, "--port", "0", "--lake", trained_lake.settings.lake]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.cluster
def test_a_taken_port_is_named(trained_lake, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("serve", ["--port", str(port), "--lake", trained_lake.settings.lake]) == 2
    assert f"127.0.0.1:{port} cannot be served" in capsys.readouterr().err


def test_a_lake_that_is_no_folder_needs_a_place_for_its_traffic(capsys):
    assert run("serve", ["--lake", "s3://bucket/lake"]) == 2
    assert "name a folder with --traffic" in capsys.readouterr().err
