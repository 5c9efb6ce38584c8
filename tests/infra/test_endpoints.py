"""A question to an endpoint ends, whatever the server does, and nobody else learns the key."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from infra.endpoints import Cost, Endpoint, EndpointError, ask
from tests.infra.completions import Request, serving

KEY = "sk-4b1d-not-for-you"
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 + 4? <&> é"}]


class Pauses(list):
    """A clock's border: takes down how long it was to wait, and does not."""

    def __call__(self, pause_s: float) -> None:
        self.append(pause_s)


@pytest.fixture
def key(monkeypatch) -> str:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    return KEY


def test_a_question_is_sent_as_openai_takes_it_and_its_cost_is_told(key):
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    with serving(lambda request: request.say("7", usage=usage)) as server:
        endpoint = Endpoint(server.url, "m", key_variable="JUDGE_KEY")
        answer = ask(endpoint, ASKED, temperature=0.3, max_tokens=5)
        [request] = server.requests
    assert (answer.text, answer.served, answer.kept) == ("7", "judge-2026-01", False)
    assert (answer.cost.calls, answer.cost.prompt_tokens, answer.cost.completion_tokens) == (1, 12, 3)
    assert 0 < answer.cost.wall_s < 30
    assert request.asked == {"model": "m", "messages": ASKED, "temperature": 0.3, "max_tokens": 5}
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert answer.cost + Cost(1, 1, 1, 1.0) == Cost(2, 13, 4, answer.cost.wall_s + 1.0)


def test_the_url_may_name_the_path_and_without_a_variable_no_key_is_sent(key):
    with serving(lambda request: request.say("7", served=None, usage="many")) as server:
        answer = ask(Endpoint(f"{server.url}/chat/completions/", "m"), ASKED)
        [request] = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] is None
    assert (answer.served, answer.cost.prompt_tokens) == ("", 0)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_two_failures_and_an_answer_are_three_calls_after_doubling_pauses(status: int):
    pauses = Pauses()

    def behave(request: Request) -> None:
        if request.number < 3:
            request.send(status, b"later")
        else:
            request.say("7")

    with serving(behave) as server:
        answer = ask(Endpoint(server.url, "m"), ASKED, wait=pauses)
    assert (answer.text, answer.cost.calls) == ("7", 3)
    assert pauses == [10.0, 20.0]


def test_a_server_may_ask_for_a_longer_pause_but_not_for_ever():
    pauses = Pauses()
    asked = {1: "17", 2: "86400", 3: "Wed, 21 Oct 2026 07:28:00 GMT"}

    def behave(request: Request) -> None:
        if request.number in asked:
            request.send(429, b"", Retry_After=asked[request.number])
        else:
            request.say("7")

    with serving(behave) as server:
        ask(Endpoint(server.url, "m", pause_s=1.0), ASKED, wait=pauses)
    assert pauses == [17.0, 60.0, 4.0]


def test_a_server_that_fails_always_is_left_after_its_tries():
    pauses = Pauses()
    with (
        serving(lambda request: request.send(500, b"<h1>Oops</h1>\x1b[2J")) as server,
        pytest.raises(EndpointError, match=r"gave no answer in 3 tries: HTTP 500 .*<h1>Oops</h1>") as told,
    ):
        ask(Endpoint(server.url, "m", retries=2), ASKED, wait=pauses)
    assert len(server.requests) == 3
    assert pauses == [10.0, 20.0]
    assert "\x1b" not in str(told.value)


def test_a_refusal_is_not_asked_again():
    with (
        serving(lambda request: request.send(401, b"who are you?")) as server,
        pytest.raises(EndpointError, match=r"gave no answer: HTTP 401 .*who are you"),
    ):
        ask(Endpoint(server.url, "m"), ASKED, wait=Pauses())
    assert len(server.requests) == 1


def hang(request: Request) -> None:
    request.server.over.wait(60)


def trickle_body(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    while not request.server.over.wait(0.05):
        request.wfile.write(b" ")


def trickle_header(request: Request) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not request.server.over.wait(0.05):
        request.wfile.write(b"a")


def trickle_error(request: Request) -> None:
    request.send_response(400)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    while not request.server.over.wait(0.05):
        request.wfile.write(b" ")


@pytest.mark.parametrize("behave", [hang, trickle_body, trickle_header, trickle_error])
def test_a_server_that_hangs_or_trickles_is_left_at_the_deadline_and_so_is_its_thread(behave):
    began = time.monotonic()
    with serving(behave) as server:
        with pytest.raises(EndpointError, match=r"in 2 tries: no whole answer within 0\.5 s"):
            ask(Endpoint(server.url, "m", timeout_s=0.5, retries=1), ASKED, wait=Pauses())
        assert time.monotonic() - began < 10
        assert len(server.requests) == 2
        mine = [each for each in threading.enumerate() if each.name == "endpoint"]
        for each in mine:
            each.join(5)
        assert [each for each in mine if each.is_alive()] == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html>not here</html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": ["7"]}}]}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
)
def test_what_is_no_completion_is_told_as_such_and_not_asked_again(body: bytes):
    with (
        serving(lambda request: request.send(200, body)) as server,
        pytest.raises(EndpointError, match="no chat completion with a text") as told,
    ):
        ask(Endpoint(server.url, "m"), ASKED, wait=Pauses())
    assert len(server.requests) == 1
    assert len(str(told.value)) < 500


def test_an_answer_without_end_is_cut_off():
    def behave(request: Request) -> None:
        request.send_response(200)
        request.end_headers()
        while not request.server.over.is_set():
            request.wfile.write(b"7" * 65536)

    with (
        serving(behave) as server,
        pytest.raises(EndpointError, match="longer than 100,000 bytes"),
    ):
        ask(Endpoint(server.url, "m", max_bytes=100_000), ASKED, wait=Pauses())
    assert len(server.requests) == 1


def test_an_answer_that_breaks_off_is_asked_for_again():
    whole = json.dumps({"choices": [{"message": {"content": "7"}}]}).encode()

    def behave(request: Request) -> None:
        if request.number == 1:
            request.send(200, whole[:-5], Content_Length=str(len(whole)))
        else:
            request.send(200, whole)

    with serving(behave) as server:
        assert ask(Endpoint(server.url, "m"), ASKED, wait=Pauses()).cost.calls == 2


def test_nobody_at_home_is_said():
    with serving(lambda request: request.say("7")) as server:
        gone = server.url
    with pytest.raises(EndpointError, match="in 2 tries: it cannot be reached"):
        ask(Endpoint(gone, "m", retries=1), ASKED, wait=Pauses())


def test_a_handshake_that_never_ends_is_left_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint(f"https://127.0.0.1:{silent.getsockname()[1]}/v1", "m", timeout_s=0.5, retries=0)
        began = time.monotonic()
        with pytest.raises(EndpointError, match=r"no whole answer within|timed out"):
            ask(endpoint, ASKED)
        assert time.monotonic() - began < 10


def test_where_https_is_asked_for_nothing_is_sent_in_the_clear(key):
    with serving(lambda request: request.say("7")) as server:
        endpoint = Endpoint(
            server.url.replace("http:", "https:"), "m", key_variable="JUDGE_KEY", timeout_s=5.0, retries=0
        )
        with pytest.raises(EndpointError, match="cannot be reached"):
            ask(endpoint, ASKED)
        assert server.requests == []


def test_a_redirect_is_not_followed(key):
    with serving(lambda request: request.say("7")) as other:

        def behave(request: Request) -> None:
            request.send(302, b"", Location=f"{other.url}/chat/completions")

        with (
            serving(behave) as server,
            pytest.raises(EndpointError, match="HTTP 302"),
        ):
            ask(Endpoint(server.url, "m", key_variable="JUDGE_KEY"), ASKED, wait=Pauses())
        assert other.requests == []


LEAKS = {
    "error": lambda r: r.send(400, f"bad key {KEY}, api_key=abcdefgh123".encode(), reason=f"No {KEY}"),
    "failure": lambda r: r.send(500, f"Authorization: Bearer {KEY}".encode()),
    "garbage": lambda r: r.send(200, f"you said {KEY}".encode()),
}


@pytest.mark.parametrize("behave", LEAKS.values(), ids=LEAKS.keys())
def test_a_key_that_the_server_echoes_is_not_in_the_error(key, behave):
    with serving(behave) as server:
        endpoint = Endpoint(server.url, "m", key_variable="JUDGE_KEY", retries=1)
        with pytest.raises(EndpointError, match=r"\(redacted\)") as told:
            ask(endpoint, ASKED, wait=Pauses())
        assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    chain, error = "", told.value
    while error is not None:
        chain, error = f"{chain} {error!r}", error.__cause__ or error.__context__
    assert KEY not in chain
    assert "abcdefgh123" not in chain
    assert KEY not in repr(endpoint)


def test_a_key_that_the_server_echoes_is_neither_in_the_answer_nor_kept(key, tmp_path: Path):
    with serving(lambda request: request.say(f"the key is {KEY}", served=KEY)) as server:
        endpoint = Endpoint(server.url, "m", key_variable="JUDGE_KEY")
        answer = ask(endpoint, ASKED, cache=tmp_path)
    assert KEY not in repr(answer)
    [kept] = tmp_path.iterdir()
    assert KEY not in kept.read_text() + kept.name


@pytest.mark.parametrize("value", ["", "two words", "tab\tbed", "line\nfeed", "schlüssel"])
def test_a_variable_without_a_key_is_refused_before_anything_is_sent(monkeypatch, value: str):
    monkeypatch.setenv("JUDGE_KEY", value)
    with serving(lambda request: request.say("7")) as server:
        with pytest.raises(EndpointError, match="JUDGE_KEY") as told:
            ask(Endpoint(server.url, "m", key_variable="JUDGE_KEY"), ASKED)
        assert server.requests == []
    assert not value or value not in str(told.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "is no endpoint"),
        ("host:8000", "is no endpoint"),
        ("http://", "is no endpoint"),
        ("http://me:secret1@host/v1", "holds a password"),
        ("http://host/v1?api_key=secret1", "has a query"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, said: str):
    with pytest.raises(EndpointError, match=said) as told:
        Endpoint(url, "m")
    assert "secret1" not in str(told.value)


def test_the_same_question_is_answered_once_and_another_go_asks_again(tmp_path: Path):
    cache = tmp_path / "not" / "there yet"
    with serving(lambda request: request.say(f"answer {request.number}")) as server:
        endpoint = Endpoint(server.url, "m")
        first = ask(endpoint, ASKED, cache=cache)
        again = ask(endpoint, ASKED, cache=cache)
        others = [
            ask(endpoint, ASKED, cache=cache, go=1),
            ask(endpoint, ASKED, cache=cache, temperature=0.1),
            ask(endpoint, ASKED, cache=cache, max_tokens=9),
            ask(replace(endpoint, model="n"), ASKED, cache=cache),
            ask(endpoint, ASKED[:1], cache=cache),
            ask(endpoint, ASKED),
        ]
    assert (first.text, first.kept, first.cost.calls) == ("answer 1", False, 1)
    assert (again.text, again.kept, again.cost) == ("answer 1", True, Cost())
    assert again.served == first.served
    assert [each.text for each in others] == [f"answer {n}" for n in range(2, 8)]


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: text.replace("7", "8")])
def test_a_kept_answer_that_was_damaged_is_asked_for_again(tmp_path: Path, damage):
    with serving(lambda request: request.say("it is 7")) as server:
        endpoint = Endpoint(server.url, "m")
        ask(endpoint, ASKED, cache=tmp_path)
        [kept] = tmp_path.iterdir()
        kept.write_text(damage(kept.read_text()))
        answer = ask(endpoint, ASKED, cache=tmp_path)
        assert (answer.text, answer.kept, len(server.requests)) == ("it is 7", False, 2)
        assert ask(endpoint, ASKED, cache=tmp_path).kept
