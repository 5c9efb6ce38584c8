"""What may be asked, who answers it, what is logged, and where an alias leads: part by part."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.cli import run
from infra.inference import AdapterRecord, Generator
from infra.models import adapter_digest, bio_labels, load_classifier, resolve
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.consumption import Checkpoint
from lineage.models import ModelVersion
from lineage.recall import recall
from lineage.selectors import Selector
from lineage.spans import parse_spans, write_spans
from tests.lineage.conftest import SmallLake
from tests.training.toys import decoder
from training.serving import (
    Answer,
    Desk,
    Follower,
    Limits,
    Question,
    Refused,
    ServingError,
    TrafficLog,
    load_served,
)
from training.serving.app import make_app
from training.serving.engines import Engines
from training.serving.requests import understood
from training.serving.served import Words

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


def test_who_gave_up_waiting_is_left_out_and_the_others_are_answered(desk, tmp_path):
    model = Echo(version(1))
    desk.swap(model)
    first = desk.ask(question("first"))
    assert model.began.wait(WAIT)
    gone, stays = desk.ask(question("gone")), desk.ask(question("stays"))
    assert gone.cancel()
    assert not first.cancel()
    model.may_go.set()
    assert said(stays) == "STAYS echo@1"
    assert [line["id"] for line in logged(tmp_path)] == ["chatcmpl-first", "chatcmpl-stays"]


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


def followed(small, desk: Desk, reference: str = "champion", **keys: Any) -> tuple[Follower, list[str]]:
    """A follower whose models say who they are; and what it loaded."""
    loaded: list[str] = []

    def load(_: Any, version: ModelVersion) -> Echo:
        loaded.append(str(version))
        if str(version) in keys.get("broken", ()):
            raise ServingError("its folder is broken")
        made = Echo(version)
        made.may_go.set()
        return made

    return Follower(small.settings, reference, desk, load, clock=keys.get("clock", lambda: 0.0)), loaded


@pytest.fixture
def small(tmp_path: Path) -> SmallLake:
    lake = SmallLake(Settings(lake=str(tmp_path / "small"), tracking_uri=""))
    lake.traces([1, 2, 3])
    lake.examples({11: (1,), 12: (2,), 13: (3,)})
    return lake


def test_an_alias_is_followed_and_nothing_is_loaded_while_it_stands(small, desk):
    small.promote(small.train(11))
    follower, loaded = followed(small, desk)
    assert str(follower.begin()) == "router@1"
    for _ in range(3):
        follower.look()
    small.promote(small.train(12))
    follower.look()
    follower.look()
    assert loaded == ["router@1", "router@2"]
    assert said(desk.ask(question("who?"))) == "WHO? router@2"


def test_another_model_with_the_same_alias_does_not_lead_astray(small, desk):
    small.promote(small.train(11))
    follower, loaded = followed(small, desk)
    follower.begin()
    small.promote(small.train(12), name="other")
    follower.look()
    small.promote(small.train(13))
    follower.look()
    assert loaded == ["router@1", "router@2"]


def test_a_recall_takes_its_model_off_though_no_other_can_be_put_there(small, desk):
    small.promote(small.train(11))
    follower, _ = followed(small, desk)
    follower.begin()
    recall(small.runtime, Selector(rows=("0001",)), reason="wrong")
    follower.look()
    with pytest.raises(Refused, match="router@1 was recalled"):
        desk.ask(question("who?"))
    small.promote(small.train(12))
    follower.look()
    assert said(desk.ask(question("who?"))) == "WHO? router@2"


def test_a_version_that_is_named_is_taken_off_by_a_recall_too_and_no_longer_begun(small, desk):
    small.promote(small.train(11))
    small.promote(small.train(12))
    follower, _ = followed(small, desk, "router@1")
    follower.begin()
    recall(small.runtime, Selector(rows=("0001",)), reason="wrong")
    follower.look()
    assert desk.served is None
    with pytest.raises(ServingError, match="ate rows that were recalled"):
        followed(small, desk, "router@1")[0].begin()


def test_what_does_not_load_is_tried_again_later_and_the_old_one_goes_on(small, desk):
    small.promote(small.train(11))
    now, broken = [0.0], {"router@2"}
    follower, loaded = followed(small, desk, broken=broken, clock=lambda: now[0])
    follower.begin()
    small.promote(small.train(12))
    for _ in range(3):
        follower.look()
    assert loaded == ["router@1", "router@2"]
    assert said(desk.ask(question("who?"))) == "WHO? router@1"
    broken.clear()
    now[0] = 31.0
    follower.look()
    assert said(desk.ask(question("who?"))) == "WHO? router@2"


def test_a_checkpoint_without_a_version_is_not_served(small, desk):
    run_id = small.train(11)
    with pytest.raises(ServingError, match=f"stemma promote {run_id} --name MODEL"):
        followed(small, desk, run_id)[0].begin()


def test_the_port_opens_when_the_model_is_loaded(small, monkeypatch, capsys):
    small.promote(small.train(11))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused: list[bool] = []

    def load(*_: Any, **__: Any) -> Echo:
        with socket.socket() as client:
            refused.append(client.connect_ex(("127.0.0.1", port)) != 0)
        raise ServingError("its folder is broken")

    monkeypatch.setattr("training.serving.load_served", load)
    assert run("serve", ["--port", str(port), "--lake", small.settings.lake]) == 2
    assert "its folder is broken" in capsys.readouterr().err
    assert refused == [True]


def test_health_tells_no_other_site_and_nobody_without_the_token_who_answers(small, desk):
    desk.swap(Echo(version(1)))
    app = make_app(small.runtime, desk, reference="echo", limits=Limits(), api_key="token-of-41")

    def health(**headers: str) -> tuple[int, Any]:
        found = TestClient(app, base_url="http://127.0.0.1").get("/health", headers=headers)
        return found.status_code, found.json()

    assert health(Host="evil.example")[0] == 403
    assert health() == (200, {"status": "ok"})
    assert health(Authorization="Bearer token-of-41")[1]["model"] == "echo@1"
    desk.swap(None, why_none="it was recalled")
    assert health() == (503, {"status": "no_model"})


def conversation(text: str, most: int) -> Question:
    said = [{"role": "user", "content": text}]
    return Question(f"chatcmpl-{text}", 0, asked(messages=said), said, most)


def test_a_decoder_s_answers_do_not_depend_on_their_company(tmp_path: Path):
    words = Words(version(1), Generator.of_base(decoder(tmp_path / "base")))
    texts = ["What is 3 + 4?", "Add 20 and 5.", "ones", "What is 3 + 4? Add 20 and 5. tens"]
    questions = [conversation(text, most) for text in texts for most in (3, 9)]
    together = words.answer(questions)
    assert together == [words.answer([question])[0] for question in questions]
    assert all(0 < a.completion_tokens <= q.max_new_tokens for a, q in zip(together, questions, strict=True))
    assert all(answer.finish_reason == "length" or answer.completion_tokens < 9 for answer in together)
    with pytest.raises(Refused, match="fill the model's context") as error:
        words.answer([conversation("ones " * 300, 3)])
    assert error.value.code == "context_length_exceeded"


ENGINE = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
assert sys.argv[1] == "serve", sys.argv
if "broken" in sys.argv[2]:
    sys.exit("no room on the device")
class Handler(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.answer({{}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = asked["messages"][-1]["content"][: asked["max_tokens"]].upper()
        choice = {{"message": {{"content": text}}, "finish_reason": "length"}}
        self.answer({{"choices": [choice], "usage": {{"prompt_tokens": 5, "completion_tokens": 2}}}})
    def log_message(self, *_):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def vllm(settings, tmp_path, monkeypatch) -> Engines:
    """A program of that name, which answers in capitals; the real one needs a GPU."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(ENGINE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return Engines(Runtime(settings), "vllm", start_s=WAIT)


def in_full(folder: Path, objective: Any = "sft") -> Checkpoint:
    """A checkpoint that was trained in full: its folder is what an engine is given."""
    folder.mkdir()
    AdapterRecord((), 8, "toy", "", "full", None, "", objective).write(folder)
    return Checkpoint("ab-1", 1, str(folder), "", "toy", "", "", "", "", AT)


def test_an_engine_is_started_asked_and_ended(vllm, tmp_path):
    engine = vllm.load(in_full(tmp_path / "model"), version(3))
    answers = engine.answer([conversation("hello", 2), conversation("you", 9)])
    assert [answer.text for answer in answers] == ["HE", "YOU"]
    assert (answers[0].finish_reason, answers[0].prompt_tokens) == ("length", 5)
    engine.close()
    assert engine.process.poll() is not None
    with pytest.raises(ServingError, match="gave no answer"):
        engine.answer([conversation("hello", 2)])


def test_an_engine_that_does_not_start_and_a_model_it_cannot_hold_are_told(vllm, tmp_path):
    with pytest.raises(ServingError, match="ended with exit code 1 before it served: no room on the device"):
        vllm.load(in_full(tmp_path / "broken"), version(3))
    with pytest.raises(ServingError, match="serves decoders; leave --engine out"):
        vllm.load(in_full(tmp_path / "labels", "sequence_classification"), version(3))


def a_tagger(folder: Path, *, digest: str = "") -> Checkpoint:
    """A checkpoint of a tagger that nobody trained, as training saves one."""
    base, labels = resolve("all-MiniLM-L6-v2"), bio_labels(("name", "place"))
    model, _ = load_classifier(base, labels, quantization=None, seed=3)
    model.save_pretrained(folder)
    found = adapter_digest(folder)
    AdapterRecord(labels, 16, base.name, base.digest, "full", None, found, "token_classification").write(
        folder
    )
    return Checkpoint("ab-1", 1, str(folder), digest or found, base.name, base.digest, "", "", "", AT)


def test_a_tagger_answers_with_spans_as_examples_hold_them(settings, tmp_path):
    served = load_served(Runtime(settings), a_tagger(tmp_path / "tagger"), version(1))
    texts = ["Ann lives in New York", "hello", "Bob and Carla met in Lima, twice."]
    answers = served.answer([conversation(text, 5) for text in texts])
    spans = [parse_spans(answer.text, text) for answer, text in zip(answers, texts, strict=True)]
    assert [answer.text for answer in answers] == [write_spans(each) for each in spans]
    assert any(spans)
    assert all(answer.prompt_tokens > 2 for answer in answers)


def test_a_folder_that_holds_another_model_than_the_checkpoint_is_not_served(settings, tmp_path):
    with pytest.raises(ServingError, match="somebody put another in its place"):
        load_served(Runtime(settings), a_tagger(tmp_path / "tagger", digest="sha256:00"), version(1))
