"""A decoder behind a server of vLLM's or transformers': started on the merged model, asked over HTTP, ended.

What it holds is the adapter merged into its base (`stemma merge`), as far from the model that the gates saw
as the merge's record says. The next model's server starts before the last one's ends, so both are in memory.

Errors: ServingError, where the program is not installed, a model is no decoder, or the server does not start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from infra.inference import AdapterRecord
from infra.runtime import Runtime
from lineage.consumption import Checkpoint
from lineage.models import ModelVersion
from training.serving.requests import Question, Refused, ServingError
from training.serving.served import Answer, probe

START_S = 600.0  # a large model is read from a slow disk
ANSWER_S = 600.0
_LOOK_S = 0.2
_END_S = 10.0
_HEALTHY = "/health"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine


@dataclass(frozen=True)
class Engines:
    """Starts servers of one kind."""

    runtime: Runtime
    kind: str
    """vllm or transformers."""
    start_s: float = START_S

    def program(self) -> str:
        """The program's path. Raises ServingError where it is not installed."""
        beside = Path(sys.executable).with_name(self.kind)
        found = str(beside) if os.access(beside, os.X_OK) else shutil.which(self.kind)
        if found is None:
            package = {"vllm": "vllm", "transformers": "'transformers[serving]'"}[self.kind]
            raise ServingError(
                f"--engine {self.kind} needs its program, which is not installed: pip install {package}; "
                "or leave --engine out"
            )
        return found

    def load(self, checkpoint: Checkpoint, version: ModelVersion) -> Engine:
        """A server of this model that answers. Raises ServingError."""
        program = self.program()
        folder = self._folder(checkpoint)
        port = _free_port()
        argv = {
            "vllm": [program, "serve", folder, "--served-model-name", folder],
            "transformers": [program, "serve", folder],
        }[self.kind]
        log = Path(self.runtime.settings.path("serving", f"{self.kind}-{version}-{port}.log"))
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as said:
            process = subprocess.Popen(
                [*argv, "--host", "127.0.0.1", "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        engine = Engine(version, folder, f"http://127.0.0.1:{port}", process)
        try:
            self._wait_for(engine, log)
            engine.answer([probe()])
        except BaseException:
            engine.close()
            raise
        return engine

    def _folder(self, checkpoint: Checkpoint) -> str:
        record = AdapterRecord.read(checkpoint.uri)
        if record.objective not in ("sft", "dpo"):
            raise ServingError(
                f"{checkpoint.name} was trained for {record.objective}, and --engine {self.kind} serves "
                "decoders; leave --engine out"
            )
        if record.method == "full":
            return checkpoint.uri
        from training.merge import merge

        onto = "base" if record.quantization is None else "nf4"
        return merge(self.runtime, checkpoint.run_id, onto=onto).facets["folder"]

    def _wait_for(self, engine: Engine, log: Path) -> None:
        until = time.monotonic() + self.start_s
        pause = threading.Event()
        while time.monotonic() < until:
            if (code := engine.process.poll()) is not None:
                raise ServingError(f"{self.kind} ended with exit code {code} before it served: {_last(log)}")
            with suppress(OSError, HTTPException), _OPENER.open(engine.url + _HEALTHY, timeout=5):
                return
            pause.wait(_LOOK_S)
        raise ServingError(f"{self.kind} does not answer after {self.start_s:g} s; see {log}")


@dataclass(frozen=True)
class Engine:
    """One server, and the model that it holds."""

    version: ModelVersion
    folder: str
    url: str
    process: subprocess.Popen[bytes]

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """All at once: the server makes batches of its own."""
        with ThreadPoolExecutor(len(questions)) as pool:
            return list(pool.map(self._ask, questions))

    def close(self) -> None:
        """End the server and whatever it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=_END_S)

    def _ask(self, question: Question) -> Answer:
        asked = {"model": self.folder, "messages": question.messages, "temperature": 0}
        asked["max_tokens"] = question.max_new_tokens
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            data=json.dumps(asked).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with _OPENER.open(request, timeout=ANSWER_S) as answer:
                return _read(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode(errors="replace")
            if error.code == 400:
                raise Refused(f"the engine refused: {said}") from error
            raise ServingError(f"the engine gave HTTP {error.code}: {said}") from error
        except (OSError, ValueError, HTTPException) as error:
            raise ServingError(f"the engine gave no answer: {error}") from error


def _read(body: dict[str, Any]) -> Answer:
    try:
        (choice, *_), usage = body["choices"], body.get("usage") or {}
        text = choice["message"]["content"] or ""
    except (KeyError, TypeError, ValueError) as error:
        raise ServingError("the engine's answer is no chat.completion") from error
    counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    return Answer(text, "length" if choice.get("finish_reason") == "length" else "stop", *counts)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
