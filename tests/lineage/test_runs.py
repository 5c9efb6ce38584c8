from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from infra.code import code_revision, commit, lock
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.runs import (
    Outcome,
    Run,
    RunError,
    carry_out,
    events,
    find,
    identity,
    in_progress,
    latest,
    left_behind,
    unfinished,
)
from lineage.schemas import RUN

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runtime(settings: Settings) -> Runtime:
    return Runtime(settings)


def test_a_finished_job_is_not_carried_out_again(runtime: Runtime):
    calls: list[str] = []

    def work(run: Run) -> Outcome:
        calls.append(run.id)
        return Outcome(counts={"in": 3}, facets={"root": "abc"})

    first = carry_out(runtime, "curate", config={"seed": 0}, inputs=["traces@1"], work=work)
    again = carry_out(runtime, "curate", config={"seed": 0}, inputs=["traces@1"], work=work)
    assert len(calls) == 1
    assert (again.again, again.run_id, again.counts, again.facets) == (
        True,
        first.run_id,
        {"in": 3},
        {"root": "abc"},
    )


def test_another_config_or_input_is_another_run():
    assert len({identity("a", {"seed": s}, i) for s in (0, 1) for i in (["x"], ["y"])}) == 4
    assert identity("a", {"b": 1, "a": 2}, ["x", "y"]) == identity("a", {"a": 2, "b": 1}, ["y", "x"])


def test_a_failed_run_is_on_record_and_its_next_go_is_another_attempt(runtime: Runtime):
    def fails(run: Run) -> Outcome:
        raise ValueError("no disk\nand more")

    with pytest.raises(ValueError, match="no disk"):
        carry_out(runtime, "curate", config={}, inputs=[], work=fails)
    done = carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())
    assert done.run_id.endswith("-2")
    states = [(run["status"], run["error"]) for run in latest(runtime.settings)]
    assert states == [("FAIL", "ValueError: no disk"), ("COMPLETE", None)]


DIES = """
import os
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import carry_out
carry_out(Runtime(Settings({lake!r}, "")), "curate", config={{}}, inputs=[], work=lambda run: os._exit(9))
"""


def test_a_run_whose_process_died_is_marked_when_the_job_comes_again(runtime: Runtime):
    died = subprocess.run(
        [sys.executable, "-c", DIES.format(lake=runtime.settings.lake)], cwd=ROOT, check=False
    )
    assert died.returncode == 9
    carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())
    told = [event["status"] for event in events(runtime.settings, identity("curate", {}, []))]
    assert told == ["START", "ABORT", "START", "COMPLETE"]


def test_a_killed_process_that_nobody_waited_for_is_not_at_work(runtime: Runtime):
    code = DIES.format(lake=runtime.settings.lake)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as died:
        os.waitid(os.P_PID, died.pid, os.WEXITED | os.WNOWAIT)  # dead, and its number still taken
        assert in_progress(runtime.settings) == []
        carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())


def test_another_process_under_a_dead_ones_number_is_not_at_work(runtime: Runtime):
    code = DIES.format(lake=runtime.settings.lake)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    (start,) = tables.read(runtime.settings, RUN).to_pylist()
    who = json.loads(start["agent"])
    living = {**who, "process": os.getppid()}
    tables.record(runtime.settings, [{**start, "agent": json.dumps(living)}], into=RUN)
    assert in_progress(runtime.settings) == []
    del living["started"]  # as runs were recorded once: then the number must do
    tables.record(runtime.settings, [{**start, "agent": json.dumps(living)}], into=RUN)
    assert len(in_progress(runtime.settings)) == 1


def kill(settings: Settings, job: str, config: dict[str, Any]) -> str:
    """The id of a run whose process dies at its work."""
    script = f"""
import os
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import Run, carry_out
def dies(run):
    os.write(1, run.id.encode())
    os._exit(9)
carry_out(
    Runtime(Settings({settings.lake!r}, "")), {job!r}, config={config!r}, inputs=["a"], work=dies,
    parent=Run("5ea7c4", 1, "search"),
)
"""
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout


def test_any_job_marks_the_runs_whose_process_died_and_what_a_resume_goes_by_stays(runtime: Runtime):
    settings = runtime.settings
    died = kill(settings, "finetune", {"seed": 7})
    (start,) = left_behind(settings)
    before = unfinished(settings, "finetune")
    carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())
    first, marked = events(settings, identity("finetune", {"seed": 7}, ["a"]))
    assert (first, marked["status"], marked["error"]) == (start, "ABORT", "the process ended without a word")
    kept = ("run_id", "job", "attempt", "parent_run", "config", "inputs")
    assert [marked[name] for name in kept] == [start[name] for name in kept]
    assert left_behind(settings) == in_progress(settings) == []
    assert unfinished(settings, "finetune") == before == [start]
    assert json.loads(find(settings, died)["config"]) == {"seed": 7}
    again = carry_out(runtime, "finetune", config={"seed": 7}, inputs=["a"], work=lambda run: Outcome())
    assert (again.run_id, again.again) == (f"{start['run_id'].rpartition('-')[0]}-2", False)
    assert [e["status"] for e in events(settings, identity("finetune", {"seed": 7}, ["a"]))] == [
        "START",
        "ABORT",
        "START",
        "COMPLETE",
    ]


def test_a_part_of_a_job_leaves_the_runs_of_others_to_the_job(runtime: Runtime):
    kill(runtime.settings, "finetune", {})
    part = {"config": {}, "inputs": [], "work": lambda run: Outcome(), "parent": Run("5ea7c4", 1, "search")}
    carry_out(runtime, "curriculum", **part)
    assert len(left_behind(runtime.settings)) == 1


def test_a_run_of_another_machine_or_of_a_living_process_is_never_judged(runtime: Runtime, another_process):
    settings = runtime.settings
    kill(settings, "finetune", {})
    (start,) = left_behind(settings)
    agent = {**json.loads(start["agent"]), "host": "elsewhere"}
    tables.record(settings, [{**start, "run_id": "ab-1", "agent": json.dumps(agent)}], into=RUN)
    with another_process(settings, "ingest") as living:
        carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())
        state = {run["run_id"]: run["status"] for run in latest(settings)}
    assert (state.pop("ab-1"), state.pop(living)) == ("START", "START")
    assert sorted(state.values()) == ["ABORT", "COMPLETE"]


def test_what_a_run_cost_is_on_record_and_no_part_of_its_outcome(runtime: Runtime):
    def fails(run: Run) -> Outcome:
        raise ValueError(f"no disk of {sum(range(10**6))}")  # some milliseconds

    def work(run: Run) -> Outcome:
        sum(range(10**6))
        return Outcome(facets={"root": "abc"})

    with pytest.raises(ValueError, match="no disk"):
        carry_out(runtime, "curate", config={}, inputs=[], work=fails)
    for _ in range(2):
        assert carry_out(runtime, "curate", config={}, inputs=[], work=work).facets == {"root": "abc"}
    told = {e["status"]: json.loads(e["facets"]) for e in tables.read(runtime.settings, RUN).to_pylist()}
    assert told["START"] == {}
    assert told["COMPLETE"]["root"] == "abc"
    for status in ("COMPLETE", "FAIL"):
        cost = told[status]["cost"]
        assert 0 < cost["wall_s"] < 60
        assert 20 < cost["peak_mb"] < 100_000


def test_a_run_names_its_commit_and_what_was_installed_and_old_ones_do_without(runtime: Runtime):
    carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())
    (_, done) = tables.read(runtime.settings, RUN).to_pylist()
    who = json.loads(done["agent"])
    assert (who["code"], who["commit"], who["lock"]) == (code_revision(), commit(), lock())
    old = {name: who[name] for name in ("user", "host", "process", "code")}
    rows = [{**done, "run_id": "ab-1", "status": "START", "agent": json.dumps(old)}]
    tables.record(runtime.settings, rows, into=RUN)
    carry_out(runtime, "curate", config={"seed": 1}, inputs=[], work=lambda run: Outcome())
    assert find(runtime.settings, "ab-1")["status"] == "START"


LEAVES_A_WORKER = """
import os, subprocess, sys
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import carry_out
lake, worker = sys.argv[1:]
def leave(run):
    left = subprocess.Popen([sys.executable, "-c", worker, lake, run.identity], stdout=subprocess.PIPE)
    left.stdout.readline()
    os._exit(9)
carry_out(Runtime(Settings(lake, "")), "search", config={}, inputs=[], work=leave)
"""
WORKS_UNTIL_ITS_INPUT_ENDS = """
import os, sys
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import Run, carry_out
lake, identity = sys.argv[1:]
def work(run):
    os.write(1, b"begun\\n")
    sys.stdin.read()
    os._exit(9)
parent = Run(identity, 1, "search")
carry_out(Runtime(Settings(lake, "")), "finetune", config={}, inputs=[], work=work, parent=parent)
"""


def test_a_worker_that_outlives_its_driver_for_a_moment_is_waited_for(runtime: Runtime):
    words = [LEAVES_A_WORKER, runtime.settings.lake, WORKS_UNTIL_ITS_INPUT_ENDS]
    with subprocess.Popen([sys.executable, "-c", *words], cwd=ROOT, stdin=subprocess.PIPE) as driver:
        os.waitid(os.P_PID, driver.pid, os.WEXITED | os.WNOWAIT)
        assert [event["job"] for event in in_progress(runtime.settings)] == ["finetune"]
        assert driver.stdin is not None
        Timer(1.0, driver.stdin.close).start()
        done = carry_out(runtime, "finetune", config={}, inputs=[], work=lambda run: Outcome())
    assert done.run_id.endswith("-2")


def test_an_unknown_prefix_is_named(runtime: Runtime):
    carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())
    with pytest.raises(RunError, match="no run starts with 'zzzz'"):
        find(runtime.settings, "zzzz")


def test_the_first_attempt_is_named_by_its_id_though_that_starts_the_tenths(runtime: Runtime):
    carry_out(runtime, "curate", config={}, inputs=[], work=lambda run: Outcome())
    (_, done) = tables.read(runtime.settings, RUN).to_pylist()
    ids = ("0123456789abcdef-1", "0123456789abcdef-10")
    tables.record(runtime.settings, [{**done, "run_id": each} for each in ids], into=RUN)
    assert [find(runtime.settings, each)["run_id"] for each in ids] == [*ids]
    with pytest.raises(RunError, match="could be any of"):
        find(runtime.settings, "0123456789abcdef")


WORKS_A_WHILE = """
import os, sys
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import Outcome, Run, carry_out
def work(run):
    os.write(1, b"begun\\n")
    sys.stdin.read()
    return Outcome(counts={"out": 7})
parent = Run("5ea7c4", 1, "search")
carry_out(Runtime(Settings(sys.argv[1], "")), "curriculum", config={}, inputs=[], work=work, parent=parent)
"""


def test_what_a_sibling_is_making_is_waited_for_and_not_made_twice(runtime: Runtime):
    words = [WORKS_A_WHILE, runtime.settings.lake]
    with subprocess.Popen(
        [sys.executable, "-c", *words], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sibling:
        assert sibling.stdout is not None
        assert sibling.stdin is not None
        sibling.stdout.readline()
        with pytest.raises(RunError, match="in progress"):  # whoever is not of the family
            carry_out(runtime, "curriculum", config={}, inputs=[], work=lambda run: Outcome())
        Timer(1.0, sibling.stdin.close).start()
        parent = Run("5ea7c4", 1, "search")
        done = carry_out(
            runtime, "curriculum", config={}, inputs=[], work=lambda run: Outcome(), parent=parent
        )
    assert (done.again, done.counts) == (True, {"out": 7})
