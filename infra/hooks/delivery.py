"""Run hooks, all of an event's at once, each within its time, and write down what came of each.

    command   the event on standard input; a process group of its own, ended with all that is still in it
    webhook   the event as the body of a POST; a redirect is not followed; 2xx is success

A hook that hangs, fails, forks, says megabytes or cannot be started is an Outcome, never an error.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPException
from typing import IO, Any

from infra.hooks.config import Hook, check_url
from infra.hooks.outcomes import Outcome, Outcomes
from infra.redaction import HIDDEN, redacted
from infra.settings import named_secret, secret_values

KEPT = 2048  # characters of what a hook said
_READ_BYTES = 64 * 1024  # of it, before secrets are taken out: a cut through one would leave its half
_GRACE_S = 2.0  # between the request to end and the end
_LATE_S = 15.0  # how long after its time a hook is surely over: the grace, and a busy machine


def main() -> None:
    """The process that `fire` starts: its order comes on standard input."""
    order = json.load(sys.stdin)
    hooks = [Hook.model_validate(each) for each in order["hooks"]]
    deliver(hooks, order["event"], outcomes=Outcomes(order["lake"]))
    os._exit(0)  # a request that was given up may still hang in its thread


def deliver(hooks: Sequence[Hook], event: Mapping[str, Any], *, outcomes: Outcomes) -> list[Outcome]:
    """Tell each hook of the event, wait for all, store and return what came of them, in the hooks' order."""
    body = json.dumps(event, ensure_ascii=False).encode()
    found: dict[str, Outcome] = {}

    def tell(hook: Hook) -> None:
        begun = _begun(hook, event)
        _store(outcomes, begun)
        since = time.monotonic()
        try:
            came = _run(hook, body) if hook.command else _post(hook, body, event)
        except Exception as error:  # of this one hook; the others go on
            came = {"status": "failed", "output": f"{type(error).__name__}: {error}"}
        told = _without_values(came.pop("output", ""), hooks)
        seconds = round(time.monotonic() - since, 3)
        found[hook.name] = replace(begun, **came, ended=_iso(_now()), seconds=seconds, output=told)
        _store(outcomes, found[hook.name])

    threads = [threading.Thread(target=tell, args=(hook,), name=hook.name) for hook in hooks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[hook.name] for hook in hooks]


def _begun(hook: Hook, event: Mapping[str, Any]) -> Outcome:
    now = _now()
    until = now + dt.timedelta(seconds=hook.timeout_s + _LATE_S)
    about = (event["id"], event["kind"], event["name"])
    return Outcome(*about, hook.name, hook.target, "running", started=_iso(now), until=_iso(until))


def _store(outcomes: Outcomes, outcome: Outcome) -> None:
    with suppress(OSError):  # a full disk: the hook runs all the same
        outcomes.write(outcome)


def _run(hook: Hook, body: bytes) -> dict[str, Any]:
    with tempfile.TemporaryFile() as stdin:
        stdin.write(body)
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                hook.command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=os.path.expanduser(hook.cwd) if hook.cwd else None,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return {"status": "not_started", "output": f"it could not be started: {error}"}
    assert process.stdout is not None
    said = bytearray()
    reader = threading.Thread(target=_keep_last, args=(process.stdout, said), daemon=True)
    reader.start()
    is_late = False
    try:
        process.wait(timeout=hook.timeout_s)
    except subprocess.TimeoutExpired:
        is_late = True
        _end(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
    _end(process, signal.SIGKILL)  # what it left behind, too: nothing outlives its hook unnoticed
    code = process.wait()
    reader.join(timeout=1.0)  # who left the group may hold the pipe open
    output = bytes(said).decode(errors="replace")
    if is_late:
        output += f"\nended after {hook.timeout_s:g} s"
    status = "timeout" if is_late else "ok" if code == 0 else "failed"
    return {"status": status, "exit_code": code, "output": output}


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _keep_last(stream: IO[bytes], kept: bytearray) -> None:
    with suppress(OSError, ValueError):
        while piece := os.read(stream.fileno(), 65536):
            kept += piece
            del kept[:-_READ_BYTES]


def _post(hook: Hook, body: bytes, event: Mapping[str, Any]) -> dict[str, Any]:
    headers: dict[str, str] = {}
    for header, name in hook.headers.items():
        value = named_secret(name)
        if not value:
            return _not_started(f"environment variable {name}, of header {header}, is not set")
        if not value.isascii() or not value.isprintable():
            return _not_started(f"environment variable {name} holds what header {header} cannot")
        headers[header] = value
    url = hook.url or named_secret(hook.url_from)
    try:
        check_url(url)
    except ValueError as error:
        return _not_started(f"environment variable {hook.url_from}: {error}")
    request = urllib.request.Request(url, data=body, method="POST")
    told = {"Content-Type": "application/json", "User-Agent": "stemma", "Idempotency-Key": event["id"]}
    for header, value in {**told, **headers}.items():
        request.add_unredirected_header(header, value)
    answered: list[dict[str, Any]] = []
    # In a thread, for a socket's timeout counts from the last byte, and a server may send one at a time.
    asking = threading.Thread(
        target=lambda: answered.append(_ask(request, hook.timeout_s)), name=f"{hook.name}-post", daemon=True
    )
    asking.start()
    asking.join(timeout=hook.timeout_s)
    if not answered:
        return {"status": "timeout", "output": f"given up after {hook.timeout_s:g} s"}
    return answered[0]


def _ask(request: urllib.request.Request, timeout_s: float) -> dict[str, Any]:
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s) as answer:
            said = answer.read(_READ_BYTES).decode(errors="replace")
            return {"status": "ok", "http_status": answer.status, "output": said}
    except urllib.error.HTTPError as error:
        with error, suppress(OSError, HTTPException):
            said = error.read(_READ_BYTES).decode(errors="replace")
            return {"status": "failed", "http_status": error.code, "output": said}
        return {"status": "failed", "http_status": error.code}
    except urllib.error.URLError as error:
        is_late = isinstance(error.reason, TimeoutError)
        return {"status": "timeout" if is_late else "failed", "output": f"not reached: {error.reason}"}
    except TimeoutError:
        return {"status": "timeout", "output": f"given up after {timeout_s:g} s"}
    except (OSError, HTTPException, ValueError) as error:
        return {"status": "failed", "output": f"it broke off: {error or type(error).__name__}"}


def _not_started(why: str) -> dict[str, Any]:
    return {"status": "not_started", "output": why}


def _without_values(said: str, hooks: Sequence[Hook]) -> str:
    """What was said, without the environment's secrets and what any of the hooks takes from there."""
    names = [name for hook in hooks for name in (*hook.headers.values(), hook.url_from) if name]
    values = {value for name in names if (value := named_secret(name))} | secret_values()
    for value in sorted(values, key=len, reverse=True):
        said = said.replace(value, HIDDEN)
    return redacted(said)[-KEPT:]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _iso(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET, and its headers would go to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirect is the answer."""
        return
