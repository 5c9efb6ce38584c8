"""Every job is a Run: what it read, with which config and code, what it wrote, how it ended.

    outcome = carry_out(runtime, "curate", config=..., inputs=[...], work=lambda run: Outcome(...))

A run's identity is the digest of job, config, inputs and code. A job that was carried out to its end, and
whose outputs still stand, is not carried out again: its recorded outcome is returned. A job that died is
carried out once more under the same identity and the next attempt number, and whatever it committed is found
by that identity.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as pads

from infra.code import code_revision
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.agents import agent, is_dead, is_here, lives, peak_mb
from lineage.rows import LEAST_PREFIX, canonical_json
from lineage.schemas import NOT_APPLICABLE, RUN, TABLES

_ORPHANS_LIVE_S = (
    30  # Ray's workers were gone 2 to 3 s after their driver, with ten busy processes on two cores
)

COST = "cost"
"""The facet of a run that ended: `wall_s` and `peak_mb`, which no two goes at the same work share."""

Status = Literal["START", "COMPLETE", "FAIL", "ABORT"]


class RunError(Exception):
    """A run is not as it must be; the message says what was found."""


@dataclass(frozen=True)
class Run:
    """One go at a job."""

    identity: str
    """Digest of job, config, inputs and code: 16 hex digits."""

    attempt: int
    job: str
    parent: str = NOT_APPLICABLE

    @property
    def id(self) -> str:
        """Identity and attempt: what rows carry."""
        return f"{self.identity}-{self.attempt}"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the table versions it wrote, what it counted, what else it measured."""

    outputs: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    facets: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""
    again: bool = False
    """True when the job had been carried out before and nothing was done now."""


def carry_out(
    runtime: Runtime,
    job: str,
    *,
    config: Mapping[str, Any],
    inputs: Sequence[str],
    work: Callable[[Run], Outcome],
    parent: Run | None = None,
) -> Outcome:
    """Carry out a job as a Run, or return the outcome of the same job carried out before.

    See the module's sentence.
    """
    settings = runtime.settings
    run_identity = identity(job, config, inputs)
    earlier = _once_others_are_done(settings, run_identity, parent)
    for event in reversed(earlier):
        if event["status"] == "COMPLETE" and _still_stands(settings, json.loads(event["outputs"])):
            return _outcome(event)
    run = _begin(runtime, run_identity, job, earlier, config=config, inputs=inputs, parent=parent)
    since = time.monotonic()
    try:
        outcome = work(run)
    except BaseException as error:
        status: Status = "FAIL" if isinstance(error, Exception) else "ABORT"
        failed = Outcome(facets=_cost(since))
        _write(runtime, run, status, error=_sentence(error), config=config, inputs=inputs, outcome=failed)
        raise
    return _complete(runtime, run, outcome, config=config, inputs=inputs, since=since)


@dataclass(frozen=True)
class Going:
    """A job whose work somebody else's code does: begun here, ended by `complete` or `fail`."""

    run: Run
    config: Mapping[str, Any]
    inputs: Sequence[str]
    since: float
    """When it began, by the clock that never goes back."""

    def complete(self, runtime: Runtime, outcome: Outcome) -> Outcome:
        """Put its end on record."""
        return _complete(runtime, self.run, outcome, config=self.config, inputs=self.inputs, since=self.since)

    def fail(self, runtime: Runtime, error: BaseException) -> None:
        """Put on record that it failed, and of what."""
        _write(
            runtime,
            self.run,
            "FAIL",
            config=self.config,
            inputs=self.inputs,
            outcome=Outcome(facets=_cost(self.since)),
            error=_sentence(error),
        )


def begin(runtime: Runtime, job: str, *, config: Mapping[str, Any], inputs: Sequence[str]) -> Going:
    """Put the beginning of a job on record, of which `carry_out` cannot be in charge.

    Where the same job was carried out to its end before, this is another run: its config counts them, as
    `go`, from 1. One that came to no end is tried again under the same identity. Raises RunError while
    another process is at it.
    """
    done = [dict(known) for known, _ in completed(runtime.settings, job)]
    same = sum({name: known[name] for name in known if name != "go"} == dict(config) for known in done)
    numbered = {**config, "go": same + 1}
    run_identity = identity(job, numbered, inputs)
    earlier = events(runtime.settings, run_identity)
    run = _begin(runtime, run_identity, job, earlier, config=numbered, inputs=inputs)
    return Going(run, numbered, inputs, time.monotonic())


def completed(settings: Settings, job: str) -> list[tuple[dict[str, Any], Outcome]]:
    """Config and outcome of each run of a job that came to its end, oldest first."""
    mine = (pads.field("job") == job) & (pads.field("status") == "COMPLETE")
    found = tables.read(settings, RUN, where=mine).sort_by("at").to_pylist()
    return [(json.loads(event["config"]), _outcome(event)) for event in found]


def in_progress(settings: Settings) -> list[dict[str, Any]]:
    """The runs that other processes of this machine are at right now: their START events, oldest first."""
    return _going_on(tables.read(settings, RUN).sort_by("at").to_pylist())


def unfinished(settings: Settings, job: str) -> list[dict[str, Any]]:
    """The START events of a job's runs that no attempt brought to an end, oldest first."""
    history = tables.read(settings, RUN, where=pads.field("job") == job).sort_by("at").to_pylist()
    ended = {identity_of(e["run_id"]) for e in history if e["status"] in ("COMPLETE", "FAIL")}
    return [e for e in history if e["status"] == "START" and identity_of(e["run_id"]) not in ended]


def not_ended(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The START events among these of runs that are not on record as ended."""
    ended = {event["run_id"] for event in history if event["status"] != "START"}
    return [event for event in history if event["run_id"] not in ended]


def left_behind(settings: Settings) -> list[dict[str, Any]]:
    """The START events of runs that ended with their process on this machine, and on record go on."""
    history = tables.read(settings, RUN, columns=["run_id", "status", "agent"]).to_pylist()
    dead = pa.array([event["run_id"] for event in _dead(history)], pa.string())
    if not len(dead):
        return []
    where = pads.field("run_id").isin(dead) & (pads.field("status") == "START")
    return tables.read(settings, RUN, where=where).sort_by("at").to_pylist()


def mark_dead(runtime: Runtime, starts: Sequence[Mapping[str, Any]]) -> None:
    """Put on record that these runs ended with their process, as they began: nothing of their work is judged.

    What a resume goes by stays as it was: the work is still to be carried out, under the next attempt.
    """
    ended = {"status": "ABORT", "error": "the process ended without a word", "agent": _this_process()}
    rows = [{**start, **ended, "at": runtime.now()} for start in starts]
    if rows:
        tables.record(runtime.settings, rows, into=RUN)


def require_idle(
    settings: Settings, *, to: str, jobs: Collection[str] | None = None, run: Run | None = None
) -> None:
    """Raise RunError while another process works on the lake; `to` says what has to wait for it.

    `jobs`: only while it is at one of these. `run`: this process's own, once it is on record: of two that
    began at once the first goes on, and the other sees it.
    """
    began = _began(settings, run) if run is not None else None
    for event in in_progress(settings):
        if jobs is not None and event["job"] not in jobs:
            continue
        if began is not None and (event["at"], _process(event)) > began:
            continue
        raise RunError(
            f"run {event['run_id']} ({event['job']}) is in progress in process {_process(event)}; "
            f"wait for it or stop it, to {to}"
        )


def _began(settings: Settings, run: Run) -> tuple[dt.datetime, int] | None:
    """When this process began its run, and its number; None where it is not on record."""
    mine = [e for e in events(settings, run.identity) if e["run_id"] == run.id and e["status"] == "START"]
    return max(((e["at"], _process(e)) for e in mine if _process(e) == os.getpid()), default=None)


def _begin(
    runtime: Runtime,
    run_identity: str,
    job: str,
    earlier: Sequence[Mapping[str, Any]],
    *,
    config: Mapping[str, Any],
    inputs: Sequence[str],
    parent: Run | None = None,
) -> Run:
    """The next attempt, on record as begun; those before it that ended without a word, as aborted."""
    _refuse_if_in_progress(earlier)
    # A part of a job looks after its own work alone: the job has looked after all others when it began.
    mark_dead(runtime, left_behind(runtime.settings) if parent is None else _dead(earlier))
    attempt = max((event["attempt"] for event in earlier), default=0) + 1
    run = Run(run_identity, attempt, job, parent.id if parent else NOT_APPLICABLE)
    _write(runtime, run, "START", config=config, inputs=inputs)
    return run


def _complete(
    runtime: Runtime,
    run: Run,
    outcome: Outcome,
    *,
    config: Mapping[str, Any],
    inputs: Sequence[str],
    since: float,
) -> Outcome:
    told = replace(outcome, facets={**outcome.facets, **_cost(since)})
    _write(runtime, run, "COMPLETE", config=config, inputs=inputs, outcome=told)
    return Outcome(outcome.outputs, outcome.counts, outcome.facets, run.id)


def _once_others_are_done(settings: Settings, run_identity: str, parent: Run | None) -> list[dict[str, Any]]:
    """What was recorded of all attempts, when neither a sibling nor an orphan is at one of them any more.

    Two trials of one search may need the same curriculum: the second waits for what the first makes. A worker
    whose driver has died dies soon, too; whoever came at once would be refused for it.
    """
    until = time.monotonic() + _ORPHANS_LIVE_S
    while True:
        earlier = events(settings, run_identity)
        going_on = _going_on(earlier)
        siblings = [each for each in going_on if parent is not None and each["parent_run"] == parent.id]
        orphans = time.monotonic() < until and any(_is_orphan(settings, each) for each in going_on)
        if not siblings and not orphans:
            return earlier
        time.sleep(0.2)


def _is_orphan(settings: Settings, event: Mapping[str, Any]) -> bool:
    """Is it part of a run whose process, on this machine, is dead?"""
    for other in events(settings, identity_of(event["parent_run"])):
        if other["run_id"] == event["parent_run"]:
            return is_dead(json.loads(other["agent"]))
    return False


def _refuse_if_in_progress(earlier: Sequence[Mapping[str, Any]]) -> None:
    """Raise RunError when another process of this machine is at the same work right now."""
    for event in _going_on(earlier):
        raise RunError(
            f"run {event['run_id']} is in progress in process {_process(event)}; wait for it or stop it"
        )


def _going_on(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for event in not_ended(history):
        who = json.loads(event["agent"])
        if is_here(who) and who["process"] != os.getpid() and lives(who):
            found.append(dict(event))
    return found


def _dead(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in not_ended(history) if is_dead(json.loads(event["agent"]))]


def _process(event: Mapping[str, Any]) -> int:
    return json.loads(event["agent"])["process"]


def identity(job: str, config: Mapping[str, Any], inputs: Sequence[str], *, code: str | None = None) -> str:
    """What makes two runs the same work: job, config, inputs and code; no clock, host or random number.

    The code is ours as it is now, unless another's digest is given.
    """
    said = [job, dict(config), sorted(inputs), code_revision() if code is None else code]
    return hashlib.sha256(canonical_json(said)).hexdigest()[:16]


def identity_of(run_id: str) -> str:
    """What all attempts at one piece of work share."""
    return run_id.rpartition("-")[0]


def of_any_attempt(run_identity: str) -> pads.Expression:
    """The condition on rows that carry a `run_id`: written by whichever go at this work."""
    run_id = pads.field("run_id")
    return (run_id >= f"{run_identity}-") & (run_id < f"{run_identity}.")  # '.' is the character after '-'


def events(settings: Settings, run_identity: str) -> list[dict[str, Any]]:
    """What was recorded of all attempts of one identity, oldest first."""
    found = tables.read(settings, RUN, where=of_any_attempt(run_identity)).to_pylist()
    return sorted(found, key=lambda event: (event["attempt"], event["at"]))


def find(settings: Settings, prefix: str) -> dict[str, Any]:
    """The last event of the run that an id, or a prefix of only one, names.

    Raises RunError, with the candidates if several.
    """
    events = tables.read(settings, RUN).to_pylist()
    found = [event for event in events if event["run_id"] == prefix]
    found = found or [event for event in events if event["run_id"].startswith(prefix)]
    ids = sorted({event["run_id"] for event in found})
    if len(prefix) < LEAST_PREFIX and prefix not in ids:
        raise RunError(f"'{prefix}' is too short to name a run; expected at least {LEAST_PREFIX} hex digits")
    if not ids:
        raise RunError(f"no run starts with '{prefix}'; `stemma status` lists the runs")
    if len(ids) > 1:
        raise RunError(f"'{prefix}' could be any of: {', '.join(ids[:8])}; give more of it")
    return max(found, key=lambda event: (event["at"], event["status"] != "START"))


def latest(settings: Settings) -> list[dict[str, Any]]:
    """Each run's last word, oldest first: run, job, status, when, counts, error."""
    newest: dict[str, dict[str, Any]] = {}
    for event in tables.read(settings, RUN).sort_by("at").to_pylist():
        newest[event["run_id"]] = event
    shown = ("run_id", "job", "status", "at", "counts", "error")
    return [{name: event[name] for name in shown} for event in newest.values()]


def _still_stands(settings: Settings, outputs: Sequence[str]) -> bool:
    for output in outputs:
        spec = TABLES.get(output.partition("@")[0])
        if spec is not None and output in tables.withdrawn(settings, spec):
            return False
    return True


def _outcome(event: Mapping[str, Any]) -> Outcome:
    return Outcome(
        tuple(json.loads(event["outputs"])),
        json.loads(event["counts"]),
        measured(event),
        event["run_id"],
        again=True,
    )


def measured(event: Mapping[str, Any]) -> dict[str, Any]:
    """The facets that a job measured itself, without what it cost: those are the same whenever it is done."""
    return {name: value for name, value in json.loads(event["facets"]).items() if name != COST}


def _cost(since: float) -> dict[str, Any]:
    """What a run cost: seconds, and the most memory that the driver's process had until now."""
    return {COST: {"wall_s": round(time.monotonic() - since, 3), "peak_mb": peak_mb()}}


def _write(
    runtime: Runtime,
    run: Run,
    status: Status,
    *,
    config: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    outcome: Outcome | None = None,
    error: str | None = None,
) -> None:
    outcome = outcome or Outcome()
    event = {
        "run_id": run.id,
        "job": run.job,
        "attempt": run.attempt,
        "parent_run": run.parent,
        "status": status,
        "at": runtime.now(),
        "inputs": json.dumps(list(inputs)),
        "outputs": json.dumps(list(outcome.outputs)),
        "config": canonical_json(dict(config or {})).decode(),
        "agent": _this_process(),
        "counts": json.dumps(dict(outcome.counts)),
        "facets": json.dumps(dict(outcome.facets)),
        "error": error,
    }
    tables.record(runtime.settings, [event], into=RUN)


def _this_process() -> str:
    return json.dumps(asdict(agent()))


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]
