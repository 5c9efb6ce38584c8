"""Asks a chat model behind an OpenAI-compatible endpoint: a judge, a teacher. A question has an end, always.

    Endpoint (where, which model) + messages -> ask() -> Answer (text, what it cost, whether it was kept)

    what the server does                   what becomes of it
    429, 5xx, cannot be reached, hangs     asked again after pauses that double, `retries` times
    sends a byte a second                  ended `timeout_s` after the try began, however much has come
    another status, no chat completion     EndpointError at once
    sends without end                      EndpointError after max_bytes

The key is read when a question is sent and goes nowhere else: not into an Endpoint, the kept answers, errors.

Errors: EndpointError.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from ssl import SSLCertVerificationError
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from infra.redaction import HIDDEN, redacted
from infra.screen import one_line
from infra.settings import named_secret

_TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_LONGEST_PAUSE_S = 60.0  # also where a server asks for a longer one
_SHOWN = 200  # characters of what a server said
_CHUNK = 65536  # bytes
_LEAST_KEY = 8  # characters: a shorter one may stand in an answer by chance


class EndpointError(Exception):
    """An endpoint gave no answer; the message says what it did instead."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind a URL. Raises EndpointError where the URL is none, or holds a password."""

    url: str
    """The base, as OpenAI's clients take it: http://host:8000/v1; with /chat/completions it is the same."""
    model: str
    key_variable: str | None = None
    """Name of the environment variable that holds the key; None sends none."""
    timeout_s: float = 60.0
    """Wall clock of one try, from its first byte sent to its last received."""
    retries: int = 3
    """Further tries after the first."""
    pause_s: float = 10.0
    """Before the second try; doubles with each, up to a minute."""
    max_bytes: int = 1 << 20
    """Longest answer that is read."""

    def __post_init__(self) -> None:
        """Refuse what is no endpoint."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EndpointError(
                f"'{redacted(self.url)}' is no endpoint, expected one like http://host:8000/v1"
            )
        if "@" in parts.netloc:
            raise EndpointError(
                "the endpoint's URL holds a password; take it out, and name the variable that holds the key"
            )
        if parts.query or parts.fragment:
            raise EndpointError(
                f"'{redacted(self.url)}' has a query or a fragment; expected a base like http://host:8000/v1"
            )

    @property
    def completions(self) -> str:
        """Where questions are sent."""
        base = self.url.rstrip("/").removesuffix("/chat/completions")
        return f"{base}/chat/completions"


@dataclass(frozen=True)
class Cost:
    """What questions cost; costs add up with +."""

    calls: int = 0
    """Requests sent, failed ones included; a kept answer takes none."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    wall_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(*(mine + theirs for mine, theirs in zip(_values(self), _values(other), strict=True)))


@dataclass(frozen=True)
class Answer:
    """What the model said to one question."""

    text: str
    served: str
    """The model that answered, by its own word; '' where it does not say."""
    cost: Cost = field(default_factory=Cost)
    kept: bool = False
    """Was it given before, and read from the cache? Then it cost nothing now."""


def ask(
    endpoint: Endpoint,
    messages: Sequence[Mapping[str, str]],
    *,
    temperature: float = 0.0,
    max_tokens: int = 256,
    go: int = 0,
    cache: Path | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Answer:
    """The answer to a conversation. Raises EndpointError when all tries have failed.

    An answer is kept in the folder `cache` by a digest of all that was asked and of where; the same question
    then costs nothing. `go` tells a question that is asked once more from the first time.
    """
    payload = {
        "model": endpoint.model,
        "messages": [dict(message) for message in messages],
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    place = None if cache is None else cache / f"{_digest([endpoint.completions, payload, go])}.json"
    if place is not None and (known := _read(place)) is not None:
        return known
    answer = _answer(endpoint, payload, wait)
    if place is not None:
        _keep(place, answer)
    return answer


def _answer(endpoint: Endpoint, payload: Mapping[str, Any], wait: Callable[[float], None]) -> Answer:
    key = _key(endpoint)
    began, pause = time.monotonic(), endpoint.pause_s
    for call in range(1, endpoint.retries + 2):
        failure = _Failure("")
        try:
            body = _post(endpoint, json.dumps(payload).encode(), key)
            break
        except _Failure as told:
            failure = told
        if not failure.passes or call > endpoint.retries:
            tries = f" in {call} tries" if call > 1 else ""
            raise EndpointError(
                f"{endpoint.completions} gave no answer{tries}: {_without(str(failure), key)}"
            )
        wait(min(max(pause, failure.asked_pause_s), _LONGEST_PAUSE_S))
        pause *= 2
    text, served, prompt_tokens, completion_tokens = _read_completion(endpoint, body, key)
    wall_s = round(time.monotonic() - began, 3)
    cost = Cost(call, prompt_tokens, completion_tokens, wall_s)
    if len(key) >= _LEAST_KEY:
        text, served = _without(text, key), _without(served, key)
    return Answer(text, served, cost)


def _key(endpoint: Endpoint) -> str:
    if not endpoint.key_variable:
        return ""
    key = named_secret(endpoint.key_variable)
    if not key:
        raise EndpointError(
            f"the environment variable {endpoint.key_variable} is not set; it is to hold the key of "
            f"{endpoint.completions}"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EndpointError(
            f"what {endpoint.key_variable} holds is no key: expected printable ASCII without spaces"
        )
    return key


class _Failure(Exception):
    """One try gave nothing."""

    def __init__(self, said: str, *, passes: bool = False, asked_pause_s: float = 0.0) -> None:
        super().__init__(said)
        self.passes = passes  # may another try help?
        self.asked_pause_s = asked_pause_s


def _post(endpoint: Endpoint, body: bytes, key: str) -> bytes:
    """One try. It is made in a thread of its own, which can be left alone: the deadline holds for all of it,
    the name's look-up and the handshake included, whatever the server sends and when."""
    held: list[socket.socket] = []
    came: list[bytes | BaseException] = []
    until = time.monotonic() + endpoint.timeout_s

    def work() -> None:
        try:
            came.append(_exchange(endpoint, body, key, held, until))
        except BaseException as error:  # it is raised again below, in the thread that asked
            came.append(error)

    thread = Thread(target=work, daemon=True, name="endpoint")
    thread.start()
    thread.join(endpoint.timeout_s)
    if not came:
        for each in held:  # wakes the thread from its wait, so that it ends
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        raise _Failure(f"no whole answer within {endpoint.timeout_s:g} s", passes=True)
    if isinstance(came[0], BaseException):
        raise came[0]
    return came[0]


def _exchange(endpoint: Endpoint, body: bytes, key: str, held: list[socket.socket], until: float) -> bytes:
    request = urllib.request.Request(endpoint.completions, data=body, method="POST")
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(_Plain(held), _Encrypted(held), _NoRedirect)
    try:
        with opener.open(request, timeout=endpoint.timeout_s) as answer:
            return _whole(answer, endpoint.max_bytes, until)
    except urllib.error.HTTPError as error:
        with error, suppress(OSError, HTTPException):
            said = _shown(error.read(4096), key)
            raise _Failure(
                f"HTTP {error.code} {_shown(error.reason.encode(), key)}" + (f", '{said}'" if said else ""),
                passes=error.code in _TRY_AGAIN,
                asked_pause_s=_seconds(error.headers.get("Retry-After")),
            ) from None
        raise _Failure(f"HTTP {error.code}", passes=error.code in _TRY_AGAIN) from None
    except urllib.error.URLError as error:
        passes = not isinstance(error.reason, SSLCertVerificationError)
        raise _Failure(f"it cannot be reached ({error.reason})", passes=passes) from None
    except TimeoutError:  # of the socket, which may come a moment before ours
        raise _Failure(f"no whole answer within {endpoint.timeout_s:g} s", passes=True) from None
    except (OSError, HTTPException, ValueError) as error:
        raise _Failure(f"it broke off ({error or type(error).__name__})", passes=True) from None


def _whole(answer: Any, max_bytes: int, until: float) -> bytes:
    body = bytearray()
    while chunk := answer.read1(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise _Failure(f"its answer is longer than {max_bytes:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError("the time is over")
    if answer.length:  # what Content-Length still promises
        raise _Failure(f"it broke off, {answer.length:,} bytes before the end", passes=True)
    return bytes(body)


def _read_completion(endpoint: Endpoint, body: bytes, key: str) -> tuple[str, str, int, int]:
    """Text, model, and tokens of question and answer. Raises EndpointError for what is no completion."""
    try:
        told = json.loads(body)
        text = told["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise EndpointError(
            f"{endpoint.completions} answered what is no chat completion with a text: "
            f"'{_shown(body, key)}'; is it an OpenAI-compatible endpoint?"
        )
    usage = told.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    served = told.get("model")
    return (
        text,
        served if isinstance(served, str) else "",
        _count(counted.get("prompt_tokens")),
        _count(counted.get("completion_tokens")),
    )


def _count(told: Any) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else 0


def _seconds(told: str | None) -> float:
    """Retry-After in seconds; a date is passed over."""
    try:
        return min(max(float(told or 0), 0.0), _LONGEST_PAUSE_S)
    except ValueError:
        return 0.0


def _shown(said: bytes, key: str) -> str:
    """What a server said, fit for a sentence: on one line, cut, without the key or what looks like one."""
    return one_line(redacted(_without(said[:4096].decode(errors="replace"), key)), _SHOWN)


def _without(text: str, key: str) -> str:
    return text.replace(key, HIDDEN) if key else text


def _digest(asked: Any) -> str:
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _values(cost: Cost) -> list[Any]:
    return list(asdict(cost).values())


def _read(place: Path) -> Answer | None:
    """A kept answer; None where there is none, or only part of one."""
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        kept, digest = told["answer"], told["digest"]
        if _digest(kept) != digest:
            return None
        return Answer(kept["text"], kept["served"], Cost(), kept=True)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _keep(place: Path, answer: Answer) -> None:
    """Put the answer there whole, or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    kept = asdict(replace(answer, kept=True))
    new = place.with_name(f".{place.stem}-{secrets.token_hex(4)}")
    try:
        new.write_text(json.dumps({"digest": _digest(kept), "answer": kept}), encoding="utf-8")
        os.replace(new, place)
    finally:
        new.unlink(missing_ok=True)


class _Plain(urllib.request.HTTPHandler):
    """Opens http:// and tells the socket, which a deadline may have to close."""

    def __init__(self, held: list[socket.socket]) -> None:
        super().__init__()
        self._held = held

    def http_open(self, req: urllib.request.Request) -> Any:
        held = self._held

        class Connection(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                held.append(self.sock)

        return self.do_open(Connection, req)


class _Encrypted(urllib.request.HTTPSHandler):
    """The same for https://."""

    def __init__(self, held: list[socket.socket]) -> None:
        super().__init__()
        self._held = held

    def https_open(self, req: urllib.request.Request) -> Any:
        held = self._held

        class Connection(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                held.append(self.sock)

        return self.do_open(Connection, req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the question, and maybe the key, to a host that nobody named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return
