"""An alias over HTTP: what may be asked, who answers, what is logged, and what a promotion changes."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.runtime import Runtime
from infra.settings import Settings, settings_from_environment
from lineage import models, tables
from lineage.models import ModelVersion
from lineage.runs import Run
from lineage.schemas import QUARANTINE, TRACE
from pipelines.ingest import IngestConfig, ingest
from training.serving import Answer, Desk, Limits, Question, Refused, ServingError, TrafficLog
from training.serving.requests import understood

ROOT = Path(__file__).parents[2]
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WAIT = 60.0
KEY = "s3cr3t-Bearer-77"


def asked(**keys: Any) -> dict[str, Any]:
    return {"model": "champion", "messages": [{"role": "user", "content": "hello"}], **keys}


def read(body: Any, limits: Limits | None = None) -> Question:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return understood(raw, id="t1", created=0, limits=limits or Limits())


def test_a_question_is_its_last_user_message_and_all_of_its_texts():
    parts = [{"type": "text", "text": "how "}, {"type": "text", "text": "are you?"}]
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "fine", "tool_call_id": "1"},
    ]
    question = read(asked(messages=messages, max_completion_tokens=7, stream=True, temperature=0.0))
    assert question.text == "how are you?"
    assert [m["content"] for m in question.messages] == ["be kind", "how are you?", "", "fine"]
    assert (question.max_new_tokens, question.is_stream) == (7, True)
    assert question.request["messages"] == messages


REFUSED = {
    b"{": "is not JSON",
    b"[1]": "expected an object",
    b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}': "is not JSON",
    b"[" * 100_000: "is not JSON",
    b'{"messages": []}': "'model' is missing",
    json.dumps(asked(tools=[])).encode(): "unknown field 'tools'; known: model, messages",
    json.dumps(asked(messages=[])).encode(): "'messages': List should have at least 1 item",
    json.dumps(asked(messages=[{"role": "robot", "content": "x"}])).encode(): "'messages.0.role'",
    json.dumps(asked(messages=[{"role": "system", "content": "x"}])).encode(): "no message is a user's",
    json.dumps(asked(messages=[*asked()["messages"], {"role": "assistant", "content": "x"}])).encode(): (
        "the last message is the assistant's"
    ),
    json.dumps(asked(messages=[{"role": "user"}])).encode(): "a message of the user has no content",
    json.dumps(asked(messages=[{"role": "user", "content": [{"type": "image_url"}]}])).encode(): "messages.0",
    json.dumps(asked(temperature=0.7)).encode(): "answers are greedy and single",
    json.dumps(asked(n=2)).encode(): "answers are greedy and single",
    json.dumps(asked(max_tokens="12")).encode(): "'max_tokens': Input should be a valid integer",
    json.dumps(asked(max_tokens=0)).encode(): "'max_tokens'",
    json.dumps(asked(max_tokens=5000)).encode(): "at most 1024 are given",
    json.dumps(asked(max_tokens=1, max_completion_tokens=1)).encode(): "give one",
    json.dumps(asked(metadata={"a": 1})).encode(): "'metadata.a'",
    json.dumps(asked(messages=asked()["messages"] * 257)).encode(): "257 messages, at most 256",
}


@pytest.mark.parametrize("body", REFUSED, ids=[*REFUSED.values()])
def test_what_cannot_be_answered_is_refused_with_what_is_wrong(body: bytes):
    with pytest.raises(Refused) as error:
        read(body)
    assert REFUSED[body] in str(error.value)
    assert error.value.status == 400


def test_lines_are_whole_in_files_of_a_size_and_no_file_is_made_before_the_first(tmp_path: Path):
    log = TrafficLog(tmp_path / "traffic", "router@champion", began=AT, max_bytes=100)
    assert list(log.folder.iterdir()) == []
    lines = [json.dumps({"n": n, "text": "x" * 20}).encode() + b"\n" for n in range(12)]

    def append(line: bytes) -> None:
        log.append([line])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, lines))
    log.close()
    files = sorted(log.folder.iterdir())
    assert len(files) == 6
    assert all(re.fullmatch(r"router-champion-20260101T000000Z-\d+-\d{4}\.jsonl", f.name) for f in files)
    written = b"".join(file.read_bytes() for file in files).splitlines(keepends=True)
    assert sorted(written) == sorted(lines)


def test_of_lines_that_do_not_fit_the_disk_no_part_is_left(tmp_path: Path):
    # In a process of its own: a limit on the size of files stays with the process.
    script = """
import datetime as dt, resource, signal, sys
from pathlib import Path
from training.serving.traffic import TrafficLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log = TrafficLog(Path(sys.argv[1]), "m", began=dt.datetime(2026, 1, 1))
log.append([b"a" * 899 + b"\\n"])
try:
    log.append([b"b" * 899 + b"\\n"])
except OSError:
    log.append([b"c" * 49 + b"\\n"])
log.close()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=True, timeout=WAIT)
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == b"a" * 899 + b"\n" + b"c" * 49 + b"\n"


@dataclass
class Echo:
    """A model of three lines: says each text back, in capitals; may be held up, and fails at 'fail'."""

    version: ModelVersion
    may_go: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    is_closed: bool = False

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        assert not self.is_closed
        self.began.set()
        assert self.may_go.wait(WAIT)
        self.batches.append(len(questions))
        if any(question.text == "fail" for question in questions):
            raise ValueError("a model's own mistake")
        return [Answer(f"{question.text.upper()} {self.version}") for question in questions]

    def close(self) -> None:
        self.is_closed = True


def version(number: int) -> ModelVersion:
    return ModelVersion("echo", number, "run-1", 1, "")


def question(text: str) -> Question:
    said = [{"role": "user", "content": text}]
    return Question(f"chatcmpl-{text}", 1_760_000_000, asked(messages=said), said, 5)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    log = TrafficLog(tmp_path / "traffic", "echo", began=AT)
    made = Desk(log, Limits(max_waiting=8, batch_size=4))
    yield made
    made.close()
    log.close()


def said(future: Any) -> str:
    return future.result(timeout=WAIT)["choices"][0]["message"]["content"]


def logged(tmp_path: Path) -> list[dict[str, Any]]:
    files = sorted((tmp_path / "traffic").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def test_questions_that_wait_are_answered_together_and_one_too_many_is_told_to_come_again(desk, tmp_path):
    model = Echo(version(1))
    desk.swap(model)
    first = desk.ask(question("first"))
    assert model.began.wait(WAIT)  # at work on the first: from now on they wait
    others = [desk.ask(question(f"q{n}")) for n in range(8)]
    with pytest.raises(Refused) as error:
        desk.ask(question("one more"))
    assert (error.value.status, error.value.code) == (429, "overloaded")
    model.may_go.set()
    assert said(first) == "FIRST echo@1"
    assert [said(future) for future in others] == [f"Q{n} echo@1" for n in range(8)]
    assert model.batches == [1, 4, 4]
    assert [line["id"] for line in logged(tmp_path)] == [
        "chatcmpl-first",
        *(f"chatcmpl-q{n}" for n in range(8)),
    ]


def test_a_swap_waits_for_the_batch_at_work_and_drops_no_question(desk):
    old, new = Echo(version(1)), Echo(version(2))
    new.may_go.set()
    desk.swap(old)
    first = desk.ask(question("first"))
    assert old.began.wait(WAIT)
    waiting = [desk.ask(question(f"q{n}")) for n in range(3)]
    swapping = threading.Thread(target=desk.swap, args=(new,))
    swapping.start()
    old.may_go.set()
    assert said(first) == "FIRST echo@1"
    swapping.join(WAIT)
    assert {said(future).split()[1] for future in waiting} <= {"echo@1", "echo@2"}
    assert said(desk.ask(question("last"))) == "LAST echo@2"
    assert old.is_closed


def test_what_a_model_fails_at_spoils_no_other_answer_and_is_a_trace_without_one(desk, tmp_path, caplog):
    model = Echo(version(1))
    desk.swap(model)
    first = desk.ask(question("first"))
    assert model.began.wait(WAIT)
    futures = [desk.ask(question(text)) for text in ("good", "fail", "fine")]
    model.may_go.set()
    assert said(first) == "FIRST echo@1"
    assert (said(futures[0]), said(futures[2])) == ("GOOD echo@1", "FINE echo@1")
    with pytest.raises(ValueError, match="a model's own mistake"):
        said(futures[1])
    failed = next(line for line in logged(tmp_path) if line["id"] == "chatcmpl-fail")
    assert failed.keys() == {"id", "request", "error"}
    assert "mistake" not in json.dumps(failed)


def test_without_a_model_nobody_answers_and_it_is_said_why(desk):
    with pytest.raises(Refused, match="no model has been loaded") as error:
        desk.ask(question("x"))
    assert error.value.status == 503
    desk.swap(None, why_none="it was recalled")
    with pytest.raises(Refused, match="it was recalled"):
        desk.ask(question("x"))


# ------------------------------------------------------------------ the real thing


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
    from training.answering import load_predictor

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
def test_a_promotion_and_a_rollback_change_what_serves_and_drop_nothing(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    runtime = Runtime(settings)
    second = second_version(settings)
    with serving(settings, "--poll-s", "0.05") as server:
        seen: list[str] = []
        done = threading.Event()

        def ask_on() -> None:
            while not done.is_set():
                seen.append(server.ask("reset my password")["model"])

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
        done.set()
        for thread in asking:
            thread.join(WAIT)
        (file,) = server.files()
        assert set(seen) == {"router@1", "router@2"}
    logged_models = [json.loads(line)["response"]["model"] for line in file.read_bytes().splitlines()]
    assert len(logged_models) > len(seen)
    assert set(logged_models) == {"router@1", "router@2"}


def second_version(settings: Settings) -> int:
    """The champion's checkpoint once more, as a second run's in a folder of its own."""
    from lineage.schemas import CHECKPOINT

    first, _ = models.resolve(settings, "champion")
    folder = Path(settings.lake, "checkpoints", "second")
    shutil.copytree(first.uri, folder)
    (row,) = [r for r in tables.read(settings, CHECKPOINT).to_pylist() if r["run_id"] == first.run_id]
    other = row | {"run_id": f"{'f' * 16}-1", "uri": str(folder)}
    tables.record(settings, [other], into=CHECKPOINT)
    from lineage.consumption import find_checkpoint

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
    from infra.cli import run

    assert run("serve", [*words, "--port", "0", "--lake", trained_lake.settings.lake]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.cluster
def test_a_taken_port_is_named(trained_lake, capsys):
    import socket

    from infra.cli import run

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("serve", ["--port", str(port), "--lake", trained_lake.settings.lake]) == 2
    assert f"127.0.0.1:{port} cannot be served" in capsys.readouterr().err


def test_a_lake_that_is_no_folder_needs_a_place_for_its_traffic(capsys):
    from infra.cli import run

    assert run("serve", ["--lake", "s3://bucket/lake"]) == 2
    assert "name a folder with --traffic" in capsys.readouterr().err
    assert settings_from_environment("s3://bucket/lake").is_local is False
    assert issubclass(Refused, ServingError)
