"""Run a generated program against its test where it can do no harm, and believe only a finished test.

Every program gets new namespaces (mounts, processes, network, IPC, users), a root that holds the interpreter
and its libraries and nothing else, read-only, one small folder to write to, no network but its own empty one,
no rights, no environment, limits of time, memory, files and processes, and a filter of system calls; when it
is over the kernel ends whatever it started. That needs Linux 5.12 on x86_64 or aarch64, and either root or
user namespaces for everyone. Where a part of it cannot be had nothing is run: `isolation()` says what is
missing, `run` raises.

    __init__.py  what is asked and answered; this process's side
    enter.py     builds the sandbox and goes into it
    judge.py     the program, then the test, inside

*Passed* means: a random number that the interpreter reads from a descriptor after the last line of the test
came back. Printing "passed", sys.exit(0), os._exit(0), replacing builtins or check() do not bring it. A
program that looks through its own process for open descriptors can read it, and one whose answers say that
they equal anything needs not: program and test share one interpreter, as in every harness for HumanEval. That
costs a wrong score, never the machine; whoever trains against the score should look at what gains it.

Errors: SandboxError (a TrainingError): nothing was run.
"""

from __future__ import annotations

import marshal
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from training.recipe import TrainingError

Reason = Literal["passed", "failed", "timeout", "memory", "exited", "crashed"]

TAIL = 2000
"""Most characters of output that are kept: the last."""


class SandboxError(TrainingError):
    """A program was not run, for it would not have been confined; the message says what is missing."""


@dataclass(frozen=True)
class Program:
    """A program and the test of it; both are Python."""

    source: str
    test: str
    """Runs after the program and sees its names. Whatever it raises is a failure."""

    entry_point: str = ""
    """What of the program the test's `check` is called with, as in HumanEval; empty: the test alone runs."""


@dataclass(frozen=True)
class Limits:
    """What a program may use up."""

    cpu_s: int = 5
    """Computing time of each process: what a busy machine does not use up for it."""

    wall_s: float = 20.0
    """From the start to the end, for those that wait rather than compute."""

    memory_mb: int = 512
    """Address space of each process."""

    files_mb: int = 4
    """Everything that it writes to its folder; one file, and what it prints, may be a quarter of that."""

    processes: int = 4
    """Processes and threads at a time, its own first one included."""


@dataclass(frozen=True)
class Ran:
    """How a program fared."""

    passed: bool
    reason: Reason
    """`failed`: it or its test raised. `exited`: it ended before its test. `crashed`: a signal ended it."""

    output: str
    """The end of what it printed, tracebacks included; data, never to be trusted."""


def run(program: Program, *, limits: Limits | None = None) -> Ran:
    """Run one program against its test. Raises SandboxError where it would not have been confined."""
    if not program.test.strip():
        raise TrainingError("the test of a program is empty; nothing would fail it")
    if missing := isolation():
        raise SandboxError(missing)
    return _run(program, limits or Limits())


def run_all(
    programs: Iterable[Program], *, limits: Limits | None = None, workers: int | None = None
) -> list[Ran]:
    """Run many programs, as many at a time as there are cores; in the order given. Raises SandboxError."""
    at_once = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(at_once, thread_name_prefix="sandbox") as pool:
        return list(pool.map(lambda program: run(program, limits=limits), programs))


@cache
def isolation() -> str:
    """What is missing for programs to be confined here, as a sentence; empty where nothing is.

    Found out once per process, by a program of ours that tries to get out.
    """
    try:
        ran = _run(Program("", _ESCAPES), Limits())
    except SandboxError as error:
        return str(error)
    return "" if ran.passed else _missing(f"a trial of it {ran.reason}: {ran.output.strip()}")


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Chance that one of k programs passes, from `passed` of n that did: unbiased (Chen et al. 2021, section
    2.1).

    1 - C(n - passed, k) / C(n, k). Raises TrainingError unless 1 <= k <= n and 0 <= passed <= n.
    """
    if not 1 <= k <= n or not 0 <= passed <= n:
        raise TrainingError(
            f"pass@{k} of {passed} passed among {n}; expected 1 <= k <= n and 0 <= passed <= n"
        )
    return 1 - math.comb(n - passed, k) / math.comb(n, k)


_ESCAPES = """
import ctypes, os, signal, socket

library = ctypes.CDLL(None)

def works(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True

def fork():
    if os.fork() == 0:
        signal.pause()

assert os.getuid() != 0, "it runs as root"
assert not works(lambda: open("/written", "w")), "the root can be written to"
assert not works(lambda: os.listdir("/proc")), "processes can be seen"
assert [name for _, name in socket.if_nameindex()] == ["lo"], "there is a network"
assert library.shmget(0, 4096, 0o1600) < 0, "memory can be shared without a limit"
assert library.unshare(1 << 28) < 0, "namespaces can be made"
assert not all(works(fork) for _ in range(16)), "processes are not limited"
"""

_HERE = Path(__file__).parent
_PYTHON_OPTIONS = ("-S", "-s", "-P", "-B", "-X", "utf8")  # no site-packages, nothing from the working folder
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "HOME": "/box", "TMPDIR": "/box", "LANG": "C.UTF-8"}
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/urandom")


def _run(program: Program, limits: Limits) -> Ran:
    nonce = secrets.token_hex(16).encode()
    with tempfile.TemporaryDirectory(prefix="stemma-") as stage:
        told, said, output = _launch(program, limits, nonce, stage)
    if told.startswith("isolation"):
        raise SandboxError(_missing(told.removeprefix("isolation").strip()))
    reason = _reason(told, said, nonce, limits)
    return Ran(passed=reason == "passed", reason=reason, output=output)


def _launch(program: Program, limits: Limits, nonce: bytes, stage: str) -> tuple[str, bytes, str]:
    """What was told of the end (nothing: it was killed for time), what the judge said, the output's tail."""
    if not hasattr(os, "memfd_create"):
        raise SandboxError(_missing("no Linux"))
    payload, printed = os.memfd_create("payload"), os.memfd_create("output")
    told, tell = os.pipe()
    said, say = os.pipe()
    secret, keep = os.pipe()
    theirs = (payload, secret, say, tell)
    try:
        os.write(keep, nonce)
        with open(payload, "wb", closefd=False) as written:
            marshal.dump((program.source, program.test, program.entry_point), written)
        os.lseek(payload, 0, os.SEEK_SET)
        plan = _plan(limits, stage) | {"told": tell, "inherit": [payload, secret, say]}
        try:
            launcher = subprocess.Popen(
                [_python(), *_PYTHON_OPTIONS, str(_HERE / "enter.py"), marshal.dumps(plan).hex()],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=theirs,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(tell)
            os.close(say)
        end = _last_words(told, limits.wall_s)
        if not end:
            launcher.kill()  # process 1 of the sandbox dies with it, and all that is in it with that
        launcher.wait()
        os.set_blocking(said, False)
        try:
            words = os.read(said, 4096)
        except BlockingIOError:  # still open where it was killed
            words = b""
        size = os.fstat(printed).st_size
        tail = os.pread(printed, TAIL, max(0, size - TAIL)).decode(errors="replace")
    finally:
        for fd in (payload, printed, told, said, secret, keep):
            os.close(fd)
    if end == "isolation":
        end = f"isolation could not start: {tail}"
    return end, words, tail


def _plan(limits: Limits, stage: str) -> dict:
    box = limits.files_mb << 20
    return {
        "stage": stage,
        "binds": _binds(),
        "box_bytes": box,
        "python": _python(),
        "argv": [_python(), *_PYTHON_OPTIONS, "-c", (_HERE / "judge.py").read_text()],
        "env": _ENVIRONMENT,
        "cpu_s": limits.cpu_s,
        "limits": {
            "RLIMIT_AS": limits.memory_mb << 20,
            "RLIMIT_FSIZE": box // 4,
            "RLIMIT_NPROC": limits.processes + 2,  # and the two that are waiting for it
            "RLIMIT_NOFILE": 64,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
        },
    }


def _last_words(told: int, wall_s: float) -> str:
    """What was told by the time that all who could tell are gone; empty where time ran out first."""
    end, words, poll = time.monotonic() + wall_s, b"", select.poll()
    poll.register(told, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            more = os.read(told, 4096)
            if not more:
                return words.decode(errors="replace") or "isolation"
            words += more
    return ""


def _reason(told: str, said: bytes, nonce: bytes, limits: Limits) -> Reason:
    if not told:
        return "timeout"
    if said == nonce:
        return "passed"
    status, used_s = told.split()[1:]
    if int(status) == -signal.SIGXCPU or float(used_s) >= limits.cpu_s:
        return "timeout"
    if int(status) == -signal.SIGKILL:  # nobody in there but the kernel, out of memory
        return "memory"
    if int(status) < 0:
        return "crashed"
    for reason in ("failed", "memory", "exited"):
        if said == reason.encode():
            return reason
    return "exited"


def _missing(what: str) -> str:
    return (
        f"a generated program was not run, for it could not be confined here: {what}; it needs Linux 5.12 on "
        "x86_64 or aarch64 and the right to make namespaces (root, or user namespaces for everyone; in a "
        "container, one that may unshare and mount). Score these rows on such a machine"
    )


@cache
def _python() -> str:
    """The interpreter without its virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


@cache
def _binds() -> list[str]:
    """What of this machine the program can read: interpreter, libraries, devices; of two nested the outer."""
    prefixes = (os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix))
    found: list[str] = []
    for path in sorted({*prefixes, *_LIBRARIES, *_DEVICES}):
        if os.path.exists(path) and not any(path.startswith(outer + "/") for outer in found):
            found.append(path)
    return found
