"""Gives a `stemma` command again and again, each time in a process that kills itself at another point.

    killed.py OUT WORD...     points as JSON lines on stdin; on stdout one JSON line per process

A point is {"call": "module:name", "when": "before" or "after", "nth": 1, "about": null}: the process dies by
SIGKILL before or after the nth call of that function whose arguments name `about` (a table, a stage, a job).
An empty point lets the command run to its end. The product knows nothing of this: the function is wrapped in
the place where its callers look it up.

The processes are forks of this one, which has imported what the command needs and has done nothing else: so
fifty of them cost the imports once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

READING = ("pipelines.commands", "deltalake", "ray.data")
TRAINING = ("examples.demo", "ray.tune", "ray.train", "torch", "transformers", "peft", "mlflow")
TRAINING += ("great_expectations", "sklearn.linear_model", "optuna", "search.searcher")


def main() -> None:
    """Carry out each point in a process of its own, and say how it ended."""
    from infra.settings import prepare_environment

    out, *words = sys.argv[1:]
    prepare_environment()
    for name in READING if words[0] == "ingest" else (*READING, *TRAINING):
        import_module(name)
    for number, line in enumerate(sys.stdin):
        started = time.monotonic()
        process = os.fork()
        if process == 0:
            become(Path(out, f"{number:02d}"), json.loads(line), words)
        _, status, used = os.wait4(process, 0)
        code = os.waitstatus_to_exitcode(status)  # -9: died by SIGKILL
        cpu_s = round(used.ru_utime + used.ru_stime, 2)
        told = {"code": code, "cpu_s": cpu_s, "wall_s": round(time.monotonic() - started, 2)}
        print(json.dumps(told), flush=True)


def become(told: Path, point: Mapping[str, Any], words: list[str]) -> None:
    """Be the command, with its output in files and death at the point. Never returns."""
    from infra.cli import main as stemma

    for stream, suffix in ((1, "out"), (2, "err")):
        opened = os.open(told.with_suffix(f".{suffix}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, stream)
    if point:
        die_at(**point)
    code = 70
    try:
        stemma(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_at(call: str, when: str = "before", nth: int = 1, about: str | None = None) -> None:
    """Wrap the function so that its nth call about something is this process's last."""
    module, _, path = call.partition(":")
    owner: Any = import_module(module)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    function: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        counts = about is None or about in named(args, kwargs)
        calls += counts
        if counts and calls == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = function(*args, **kwargs)
        if counts and calls == nth and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, name, wrapped)


def named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[str]:
    """What a call is about: its arguments that are words, and the names of those that have one."""
    for value in (*args, *kwargs.values()):
        name = value if isinstance(value, str) else getattr(value, "name", None)
        if isinstance(name, str):
            yield name


if __name__ == "__main__":
    main()
