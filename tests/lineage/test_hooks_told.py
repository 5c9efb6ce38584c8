"""Promotion, rollback and recall tell the hooks once each, and `stemma hooks` tells what came of it."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import hooks
from infra.cli import run
from infra.hooks import Outcomes, deliver
from lineage import models
from lineage.recall import recall
from lineage.rollback import roll_back
from lineage.runs import Run
from lineage.selectors import Selector

WAIT = 60.0


class Receiver:
    """A server that is told of moves."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()

    def next(self) -> dict[str, Any]:
        return self.told.get(timeout=WAIT)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(found.status)
            self.end_headers()
            found.told.put(json.loads(body))

        def log_message(self, *_: Any):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


ALL = '["promotion", "rollback", "recall"]'


def write(small, text: str) -> None:
    path = Path(small.settings.lake, "hooks.toml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def told_by(small, receiver: Receiver, *, on: str = ALL) -> None:
    write(small, f'[[hook]]\nname = "team"\non = {on}\nurl = "{receiver.url}"\n')


def make_rows(small) -> None:
    small.traces([1, 2, 9])
    small.examples({11: (1,), 12: (2,), 13: (2,), 19: (9,)})


def moves(event: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {move["alias"]: (move["from"], move["to"]) for move in event["moves"]}


def test_each_verb_that_moves_the_champion_tells_one_event_with_all_its_moves(small, receiver):
    told_by(small, receiver)
    make_rows(small)
    small.reign(11, scored=[19])
    first = receiver.next()
    assert (first["kind"], first["name"]) == ("promotion", "router")
    assert moves(first) == {"candidate": (0, 1), "champion": (0, 1)}
    small.reign(12, scored=[19])
    second = receiver.next()
    assert moves(second) == {"candidate": (1, 2), "champion": (1, 2), "previous": (0, 1)}
    roll_back(small.runtime, reason="worse")
    back = receiver.next()
    assert (back["kind"], back["reason"]) == ("rollback", "worse")
    assert moves(back) == {"champion": (2, 1), "previous": (1, 0)}
    small.reign(13, scored=[19])
    receiver.next()
    recalled = recall(small.runtime, Selector(rows=("0002",)), reason="wrong")
    called = receiver.next()
    assert called["kind"] == "recall"
    assert called["run_id"] == recalled.run_id
    assert moves(called)["champion"] == (3, 1)
    assert receiver.told.empty()
    events = models.announced(models.events(small.settings))
    assert [event["kind"] for event in events] == [
        "promotion",
        "promotion",
        "rollback",
        "promotion",
        "recall",
    ]
    assert len({event["id"] for event in events}) == 5


def test_a_move_without_the_champion_tells_nothing(small, receiver):
    told_by(small, receiver)
    make_rows(small)
    small.reign(11, scored=[19])
    receiver.next()
    small.move({"candidate": 7}, kind="promotion")
    small.move({"champion": 2}, kind="rollback")
    assert receiver.next()["kind"] == "rollback"  # and not the candidate's


def test_a_move_whose_process_died_before_its_hooks_is_told_when_the_verb_comes_again(small, receiver):
    make_rows(small)
    small.reign(11, scored=[19])
    move = {"name": "router", "kind": "promotion", "reason": "", "evidence": []}
    first, again = Run("ab", 1, "promote"), Run("ab", 2, "promote")
    models.move_aliases(small.runtime, {"champion": 5}, run=first, **move)
    told_by(small, receiver)  # only now: the first go told nobody
    models.move_aliases(small.runtime, {"champion": 5}, run=again, **move)
    event = receiver.next()
    assert event["run_id"] == "ab-1"
    assert moves(event) == {"champion": (1, 5)}
    # Told by now, it is not told a third time; another run's move is.
    wait_for_end(small, event["id"])
    models.move_aliases(small.runtime, {"champion": 5}, run=again, **move)
    models.move_aliases(small.runtime, {"champion": 6}, run=Run("cd", 1, "promote"), **move)
    assert moves(receiver.next()) == {"champion": (5, 6)}


def wait_for_end(small, event: str) -> None:
    """Deliver it here as well: who comes second waits for nobody, and its outcome is on record."""
    (hook,) = hooks.find_hooks(small.settings)
    silent = hook.model_copy(update={"url": "", "command": ("true",)})
    deliver(
        [silent], {"id": event, "kind": "promotion", "name": "router"}, outcomes=Outcomes(small.settings.lake)
    )


@pytest.mark.parametrize(
    "text",
    ['command = ["no-such-program"]', 'command = ["false"]', 'url = "http://127.0.0.1:1/"', "broken = "],
)
def test_a_hook_that_fails_or_is_broken_does_not_fail_the_move(text: str, small):
    make_rows(small)
    small.reign(11, scored=[19])
    write(small, f'[[hook]]\nname = "bad"\non = ["promotion"]\n{text}\n')
    small.move({"champion": 2}, kind="promotion")
    assert small.standing["champion"] == 2


def test_a_hook_that_hangs_does_not_hold_up_the_move(small, tmp_path: Path):
    make_rows(small)
    small.reign(11, scored=[19])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    write(
        small, f'[[hook]]\nname = "slow"\non = ["promotion"]\ncommand = ["cat", "{pipe}"]\ntimeout_s = 120\n'
    )
    since = time.monotonic()
    small.move({"champion": 2}, kind="promotion")
    seconds = time.monotonic() - since
    with pipe.open("wb"):  # only now does the hook end
        pass
    assert seconds < WAIT
    assert small.standing["champion"] == 2


def test_the_verb_lists_tries_and_tells_again(small, receiver, capsys):
    make_rows(small)
    small.reign(11, scored=[19])
    told_by(small, receiver)
    lake = ["--lake", small.settings.lake]
    receiver.status = 503
    assert run("hooks", ["--resend", *lake]) == 1
    assert receiver.next()["kind"] == "promotion"
    assert run("hooks", lake) == 0
    listed = capsys.readouterr().out
    assert "team" in listed
    assert "failed HTTP 503" in listed
    receiver.status = 200
    assert run("hooks", ["--resend", *lake]) == 0
    assert moves(receiver.next())["champion"] == (0, 1)
    assert run("hooks", ["--resend", *lake]) == 0
    assert "every hook has taken" in capsys.readouterr().out
    assert run("hooks", ["--test", "team", *lake]) == 0
    assert receiver.next()["kind"] == "test"
    assert receiver.told.empty()
    assert run("hooks", ["--test", "tem", *lake]) == 2
    assert "no hook is named 'tem'; known: team" in capsys.readouterr().err
