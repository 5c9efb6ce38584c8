"""A server of chat completions on this machine that does what a test tells it to, well or badly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

Behaviour = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One question; a behaviour answers it by `say`, `send` or in its own way."""

    server: Server
    number: int
    """From 1, in the order in which questions came."""
    asked: dict[str, Any]

    def do_POST(self) -> None:
        self.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(self)
        self.number = len(self.server.requests)
        self.server.behave(self)

    def say(self, text: Any, *, served: Any = "judge-2026-01", usage: Any = None) -> None:
        """A completion."""
        told = {"choices": [{"message": {"role": "assistant", "content": text}}], "model": served}
        self.send(200, json.dumps(told | ({"usage": usage} if usage is not None else {})).encode())

    def send(self, status: int, body: bytes, *, reason: str | None = None, **headers: str) -> None:
        """Any answer."""
        self.send_response(status, reason)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Where it listens, and what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, behave: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.behave = behave
        self.requests: list[Request] = []
        self.over = Event()
        """Set when the test is: whatever hangs can end."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


@contextmanager
def serving(behave: Behaviour) -> Iterator[Server]:
    """The server, in a thread."""
    server = Server(behave)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
