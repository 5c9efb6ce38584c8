"""The demo's traffic over HTTP: the helpdesk's users ask `stemma serve`, and it logs what it answered."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from examples.helpdesk.files import Request, asked, prompt_version
from examples.helpdesk.generator import Pools
from examples.story import DemoError
from infra.settings import Settings

_AT_A_TIME = 8  # users who wait for an answer
_ANSWER_S = 60.0
_END_S = 30.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine


@contextmanager
def serving(settings: Settings, reference: str, *options: str) -> Iterator[str]:
    """`stemma serve` in a process of its own; the URL of its API. Ended afterwards. Raises DemoError."""
    command = [sys.executable, "-m", "infra.cli", "serve", reference, "--port", "0", *options]
    command += ["--lake", settings.lake]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " answers at http" not in line:
                raise DemoError(f"stemma serve {reference} did not start; what it said stands above")
            yield line.split()[-1]
        finally:
            process.terminate()
            try:
                process.wait(timeout=_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One chat completion. Raises DemoError where it is refused."""
    request = urllib.request.Request(
        f"{url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with _OPENER.open(request, timeout=_ANSWER_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise DemoError(f"{url} refused: HTTP {error.code}, {error.read(500).decode()}") from error


def send(url: str, requests: Sequence[Request], pools: Pools, *, model: str) -> list[dict[str, Any]]:
    """What is answered to each request, in their order; the users ask several at a time.

    Each asks as the log says that it was asked: under the prompt that was in force at its place.
    """
    bodies = [
        {**asked(request, pools, version=prompt_version(place, of=len(requests))), "model": model}
        for place, request in enumerate(requests)
    ]
    with ThreadPoolExecutor(_AT_A_TIME) as users:
        return list(users.map(lambda body: ask(url, body), bodies))


def label(answer: Mapping[str, Any]) -> tuple[str, float]:
    """The label that a classifier answered, and its confidence."""
    (choice,) = answer["choices"]
    (token,) = choice["logprobs"]["content"]
    return choice["message"]["content"], math.exp(token["logprob"])
