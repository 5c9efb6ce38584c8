from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.runs import Outcome, Run, RunError, carry_out, events, find, identity, in_progress, latest
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
    with pytest.raises(RunError, match="no run starts with 'zz'"):
        find(runtime.settings, "zz")


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
