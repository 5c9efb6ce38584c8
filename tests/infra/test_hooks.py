"""Hooks hang, fail, fork and shout: each is an outcome on record, and none delays its verb."""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.hooks import Hook, HookError, Outcome, Outcomes, deliver, find_hooks, fire, heard
from infra.runtime import Runtime
from infra.settings import Settings

EVENT = {"id": "e1", "kind": "recall", "name": "router", "moves": [], "reason": "über; $(touch x)"}
SECRET = "s3cr3t-Value-41"
PYTHON = sys.executable
FREE = 25.0  # seconds that a test waits for what comes at once; a busy machine may need some of them


@dataclass
class Server:
    """What it was sent, and what it answers."""

    url: str = ""
    status: int = 200
    answer: bytes = b"thank you"
    location: str = ""
    sent: queue.Queue[tuple[dict[str, str], Any]] = field(default_factory=queue.Queue)


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(told.status)
            if told.location:
                self.send_header("Location", told.location)
            self.end_headers()
            self.wfile.write(told.answer)
            told.sent.put((dict(self.headers), json.loads(body)))

        def log_message(self, *_: Any):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        told.url = f"http://127.0.0.1:{running.server_address[1]}/told"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield told
        running.shutdown()


def hook(**keys: Any) -> Hook:
    return Hook.model_validate({"name": "deploy", "on": ["recall"], **keys})


def took(settings: Settings, **keys: Any) -> Outcome:
    """What comes of one hook; what is on record of it is the same."""
    outcomes = Outcomes(settings.lake)
    (outcome,) = deliver([hook(**keys)], EVENT, outcomes=outcomes)
    assert outcomes.read("e1", "deploy") == outcome
    return outcome


def python(script: str, **keys: Any) -> dict[str, Any]:
    return {"command": [PYTHON, "-c", script], **keys}


def test_a_command_is_given_the_event_on_its_standard_input_and_nothing_in_its_arguments(settings, tmp_path):
    script = (
        f"import sys, json; json.dump([json.load(sys.stdin), sys.argv], open({str(tmp_path / 'x')!r}, 'w'))"
    )
    outcome = took(settings, **python(script))
    assert (outcome.status, outcome.exit_code) == ("ok", 0)
    event, argv = json.loads((tmp_path / "x").read_text())
    assert event == EVENT
    assert argv == ["-c"]


def test_the_arguments_are_no_shell_s(settings, tmp_path):
    outcome = took(settings, command=["echo", "$(id)", "; touch x", "*"], cwd=str(tmp_path))
    assert outcome.output == "$(id) ; touch x *\n"
    assert list(tmp_path.glob("x")) == []


@pytest.mark.parametrize(
    ("keys", "status", "said"),
    [
        (python("import sys; print('no room', file=sys.stderr); sys.exit(3)"), "failed", "no room"),
        (python("import os; os.kill(os.getpid(), 9)"), "failed", ""),
        ({"command": ["no-such-program-here"]}, "not_started", "No such file or directory"),
        ({"command": ["true"], "cwd": "/no/such/folder"}, "not_started", "/no/such/folder"),
    ],
)
def test_a_command_that_fails_is_an_outcome_that_says_why(keys, status, said, settings):
    outcome = took(settings, **keys)
    assert outcome.status == status
    assert said in outcome.output


def test_a_command_that_hangs_is_ended_with_all_that_it_started(settings, tmp_path):
    # Both ignore the request to end, and hold the pipe.
    script = 'trap "" TERM; sleep 600 & echo $! > child; wait; sleep 600'
    outcome = took(settings, command=["sh", "-c", script], cwd=str(tmp_path), timeout_s=3)
    assert outcome.status == "timeout"
    assert "ended after 3 s" in outcome.output
    child = int((tmp_path / "child").read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


def test_a_child_that_left_the_group_and_holds_the_pipe_delays_nothing(settings, tmp_path):
    script = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
"""
    outcome = took(settings, **python(script, timeout_s=30))
    os.kill(int((tmp_path / "child").read_text()), 9)
    assert outcome.status == "ok"
    assert outcome.seconds < FREE


def test_of_megabytes_the_last_2_kilobytes_are_kept(settings):
    outcome = took(settings, **python("print('x' * 5_000_000 + 'the end', end='')"))
    assert outcome.status == "ok"
    assert len(outcome.output) == 2048
    assert outcome.output.endswith("xthe end")


def test_a_webhook_is_posted_the_event_with_its_id_and_its_headers(settings, server, monkeypatch):
    monkeypatch.setenv("TEAM_TOKEN", f"Bearer {SECRET}\n")
    outcome = took(settings, url=server.url, headers={"Authorization": "TEAM_TOKEN"})
    assert (outcome.status, outcome.http_status, outcome.output) == ("ok", 200, "thank you")
    headers, body = server.sent.get(timeout=FREE)
    assert body == EVENT
    assert headers["Idempotency-Key"] == "e1"
    assert headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [200, 500])
def test_no_value_from_the_environment_is_written_down_though_the_server_repeats_it(
    status, settings, server, monkeypatch
):
    monkeypatch.setenv("TEAM_TOKEN", SECRET)
    server.status, server.answer = status, b"you said " + SECRET.encode() + b"."
    outcome = took(settings, url=server.url, headers={"X-Key": "TEAM_TOKEN"})
    assert outcome.output == "you said (redacted)."
    monkeypatch.setenv("HIDDEN_URL", f"http://127.0.0.1:1/{SECRET}")
    assert took(settings, url_from="HIDDEN_URL").status == "failed"
    stored = [path.read_text() for path in Path(settings.lake, "hooks").iterdir()]
    assert len(stored) == 1
    assert SECRET not in "".join(stored)


def test_secrets_that_a_command_prints_are_not_written_down_and_only_the_owner_reads_the_rest(
    settings, monkeypatch
):
    monkeypatch.setenv("JUDGE_KEY", "judge-of-41")
    monkeypatch.setenv("my_token", f" {SECRET}")
    monkeypatch.setenv("SHORT_KEY", "of")
    monkeypatch.setenv("PLACE", "Lima-of-Peru")
    folder = Path(settings.lake, "hooks")
    folder.mkdir(parents=True)
    (folder / "e1-deploy.json").touch(mode=0o644)
    outcome = took(settings, command=["sh", "-c", 'echo "$JUDGE_KEY$my_token $PLACE"'])
    assert outcome.output == "(redacted) (redacted) Lima-of-Peru\n"
    (stored,) = folder.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (folder, stored)] == [0o700, 0o600]


@pytest.mark.parametrize(("held", "said"), [("", "is not set"), (f"{SECRET}\nX-Other: 1", "cannot")])
def test_a_header_without_a_value_or_with_two_lines_is_not_sent(held, said, settings, server, monkeypatch):
    monkeypatch.setenv("TEAM_TOKEN", held)
    outcome = took(settings, url=server.url, headers={"X-Key": "TEAM_TOKEN"})
    assert outcome.status == "not_started"
    assert said in outcome.output
    assert SECRET not in outcome.output
    assert server.sent.empty()


def test_a_redirect_is_not_followed(settings, server):
    server.status, server.location = 302, server.url
    assert took(settings, url=server.url).http_status == 302
    assert server.sent.qsize() == 1


def test_a_server_that_is_away_or_never_answers_or_drips_is_given_up(settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert took(settings, url=url, timeout_s=0.3).status == "timeout"

        def drip():
            connection, _ = silent.accept()
            with connection:
                while True:
                    try:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nX: 1\r\n"[:1])
                    except OSError:
                        return
                    if stopped.wait(0.1):
                        return

        stopped = threading.Event()
        silent.accept()[0].close()  # the first one's
        threading.Thread(target=drip, daemon=True).start()
        assert took(settings, url=url, timeout_s=0.5).status == "timeout"
        stopped.set()
    outcome = took(settings, url=url, timeout_s=5)
    assert outcome.status == "failed"
    assert "refused" in outcome.output


@contextmanager
def hanging(tmp_path: Path) -> Iterator[Hook]:
    """A hook that hangs until the block is left."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    try:
        yield hook(name="slow", command=["cat", str(pipe)], timeout_s=60)
    finally:
        with pipe.open("wb"):  # which waits until the hook has begun
            pass


def test_one_that_hangs_holds_up_no_other(settings, server, tmp_path):
    found: list[Outcome] = []

    def tell(hooks: list[Hook]) -> None:
        found.extend(deliver(hooks, EVENT, outcomes=Outcomes(settings.lake)))

    with hanging(tmp_path) as slow:
        telling = threading.Thread(target=tell, args=([slow, hook(name="quick", url=server.url)],))
        telling.start()
        assert server.sent.get(timeout=FREE)[1] == EVENT
        assert found == []
    telling.join(FREE)
    assert [(outcome.hook, outcome.status) for outcome in found] == [("slow", "ok"), ("quick", "ok")]


def test_fire_waits_for_no_hook_and_the_event_arrives(settings, server, tmp_path):
    with hanging(tmp_path) as slow:
        since = time.monotonic()
        fire(Runtime(settings), [slow, hook(name="quick", url=server.url)], EVENT)
        assert time.monotonic() - since < FREE  # and the hook hangs for longer than that
        assert server.sent.get(timeout=60)[1] == EVENT


def test_who_had_an_event_is_not_told_again_and_who_was_cut_off_is(settings, server):
    (outcome,) = deliver([hook(url=server.url)], EVENT, outcomes=Outcomes(settings.lake))
    server.sent.get(timeout=FREE)
    cut_off = {"status": "running", "hook": "other", "until": "2020-01-01T00:00:00+00:00"}
    Outcomes(settings.lake).write(Outcome(**{**vars(outcome), **cut_off}))
    fire(Runtime(settings), [hook(url=server.url), hook(name="other", url=server.url)], EVENT)
    assert server.sent.get(timeout=60)[1] == EVENT
    again = {**EVENT, "id": "e2"}
    fire(Runtime(settings), [hook(url=server.url)], again)
    assert server.sent.get(timeout=60)[1] == again  # and none of e1 in between


def written(settings: Settings, text: str) -> Path:
    path = Path(settings.lake, "hooks.toml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


BASE = '[[hook]]\nname = "deploy"\non = ["recall"]\n'
BROKEN = {
    "[[hook]]\nname = ": "is not TOML",
    "hooks = 1": "unknown key 'hooks'; known: hook",
    "[[hook]]\n": "key 'hook[0].name' is missing",
    BASE: "found none of them, expected one of command, url and url_from",
    BASE + 'command = ["a"]\nurl = "http://x"': "found command and url",
    BASE + f'command = ["a"]\nshell = "{SECRET}"': "unknown key 'hook[0].shell'; known: name, on, command",
    BASE + f'url = "http://me:{SECRET}@host/x"': "url holds a password",
    BASE + f'url = "ftp://{SECRET}"': "url is none, expected one like https://host/path",
    BASE
    + f'url = "http://x"\nheaders = {{ Authorization = "Bearer {SECRET}" }}': "no name of an environment",
    BASE + 'command = ["a"]\ntimeout_s = 0': "'hook[0].timeout_s': Input should be greater than 0",
    BASE + 'command = ["a"]\nheaders = { A = "B" }': "headers belong to a webhook",
    BASE + 'url = "http://x"\ncwd = "/"': "cwd belongs to a command",
    BASE.replace("recall", "demotion") + 'command = ["a"]': "is none of 'promotion', 'rollback' or 'recall'",
    BASE.replace("deploy", "../up") + 'command = ["a"]': "'hook[0].name'",
    (BASE + 'command = ["a"]\n') * 2: "two hooks are named deploy",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_named_with_its_key_and_without_its_values(text, settings):
    path = written(settings, text)
    with pytest.raises(HookError) as error:
        find_hooks(settings)
    assert str(path) in str(error.value)
    assert BROKEN[text] in str(error.value)
    assert SECRET not in str(error.value)


def test_a_broken_file_is_a_warning_at_the_move(settings, caplog):
    written(settings, "hooks = 1")
    assert heard(settings, "recall") == ()
    assert "no hook is told of this recall" in caplog.text


def test_a_hook_is_told_of_what_it_asked_for(settings):
    written(settings, BASE + 'command = ["a"]')
    assert [hook.name for hook in heard(settings, "recall")] == ["deploy"]
    assert heard(settings, "promotion") == ()


def test_without_a_file_there_are_no_hooks(settings):
    assert find_hooks(settings) == ()
    assert find_hooks(Settings(lake="s3://bucket/lake", tracking_uri="")) == ()


def test_a_file_that_others_may_write_runs_nothing_unless_it_is_named(settings, monkeypatch):
    path = written(settings, BASE + 'command = ["a"]')
    path.chmod(0o666)
    with pytest.raises(HookError, match="can be written by others"):
        find_hooks(settings)
    monkeypatch.setenv("STEMMA_HOOKS", str(path))
    assert len(find_hooks(settings)) == 1
    monkeypatch.setenv("STEMMA_HOOKS", str(path) + "x")
    with pytest.raises(HookError, match="which STEMMA_HOOKS names, does not exist"):
        find_hooks(settings)


def test_a_lake_in_an_object_store_holds_its_outcomes(object_store, server):
    outcomes = Outcomes(f"s3://{object_store.bucket}/lake")
    assert outcomes.last() == []
    (outcome,) = deliver([hook(url=server.url)], EVENT, outcomes=outcomes)
    assert outcomes.read("e1", "deploy") == outcome
    assert outcomes.last() == [outcome]
