"""Who carries out a run, with what, and whether that process still lives.

A process of this machine is told by its number and its start; of another machine's nothing is ever said.
"""

from __future__ import annotations

import getpass
import os
import resource
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.code import code_revision, commit, lock


@dataclass(frozen=True)
class Agent:
    """Who ran it: user, host, process; and with what: digest and commit of the code, digest of what else."""

    user: str
    host: str
    process: int
    code: str
    started: int | None
    """When the process began, in clock ticks since the machine did: with it, a number given again is told."""

    commit: str
    """Git commit of the code, `+dirty` where it was changed since; empty where it is not under git."""

    lock: str
    """Digest over name and version of everything installed."""


def agent() -> Agent:
    """This process."""
    process = os.getpid()
    who = (getpass.getuser(), socket.gethostname(), process)
    return Agent(*who, code_revision(), _started(process), commit(), lock())


def is_here(who: Mapping[str, Any]) -> bool:
    """Was it a process of this machine?"""
    return who["host"] == socket.gethostname()


def lives(who: Mapping[str, Any]) -> bool:
    """Is it the very process that was recorded that goes on here, and not another under its number?"""
    since = _started(who["process"])
    return since is not None and who.get("started", since) == since


def is_dead(who: Mapping[str, Any]) -> bool:
    """Is it known to be over: a process of this machine, which tells of its processes, that lives no more?"""
    return is_here(who) and _started(os.getpid()) is not None and not lives(who)


def peak_mb() -> float:
    """The most memory that this process ever had at a time."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kilobytes; on macOS in bytes
    return round(most / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def _started(process: int) -> int | None:
    """When a process of this machine began, in clock ticks since the machine did; None where none goes on.

    One that was killed and that nobody waited for keeps its number: a zombie, which works no more.
    """
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    state, *fields = told.rpartition(")")[2].split()  # before it: the program's name, whatever that holds
    return None if state in "ZX" else int(fields[18])  # the 22nd of proc_pid_stat(5); these begin at the 4th
