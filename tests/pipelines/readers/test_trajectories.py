"""The readers of whole trajectories and of pi's sessions: where they cut, and what real files hold."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from pipelines.readers.openhands import OpenHands, OpenHandsEvents
from pipelines.readers.pi_session import PiSession
from pipelines.readers.swe_agent import SweAgent
from pipelines.readers.tau_bench import TauBench


def test_a_last_step_that_is_not_in_the_history_is_the_answer():
    history = [{"role": "user", "content": "Issue", "agent": "main"}]
    step = {"response": "I submit", "thought": "", "action": "submit", "observation": "diff"}
    (row,) = SweAgent().read({"history": history, "trajectory": [step]})
    assert row["response"] == "I submit"
    assert [message["content"] for message in row["messages"]] == ["Issue"]


def test_a_last_step_without_words_is_no_answer():
    history = [{"role": "user", "content": "Issue"}, {"role": "assistant", "content": "I look"}]
    steps = [{"response": "I look"}, {"response": "", "action": "exit_cost"}]
    (row,) = SweAgent().read({"history": history, "trajectory": steps})
    assert row["response"] == "I look"


def test_answers_of_a_demonstration_are_not_counted_among_the_steps():
    history = [
        {"role": "assistant", "content": "Shown", "is_demo": True},
        {"role": "user", "content": "Issue"},
    ]
    (row,) = SweAgent().read({"history": history, "trajectory": [{"response": "My own"}]})
    assert row["response"] == "My own"


@pytest.mark.parametrize(
    ("reward", "verdict"), [(1.0, "pass"), (0, "fail"), (0.5, "unstated"), (True, "unstated")]
)
def test_only_a_full_or_no_reward_is_a_verdict(reward: float, verdict: str):
    (row,) = TauBench().read(
        {"task_id": 1, "reward": reward, "traj": [{"role": "assistant", "content": "Hi"}]}
    )
    assert row["verdict"] == verdict
    assert "scorer" not in row


def test_who_judged_a_resolved_issue_is_not_made_up():
    history = [{"action": "finish", "thought": "Done."}]
    (row,) = OpenHands().read({"history": history, "success": False})
    assert row["verdict"] == "fail"
    assert not {"scorer", "score"} & row.keys()


def test_lines_of_a_pi_session_that_name_their_parents_make_branches():
    def said(own: str, parent: str | None, role: str, words: str) -> str:
        message = {"role": role, "content": [{"type": "text", "text": words}]}
        return json.dumps({"type": "message", "id": own, "parentId": parent, "message": message})

    lines = [
        json.dumps({"type": "session", "id": "p", "cwd": "/demo"}),
        said("1", None, "user", "Hello"),
        said("2", "1", "assistant", "Hi"),
        said("3", "1", "assistant", "Good day"),
    ]
    parts = PiSession().read_document("x", "\n".join(lines).encode())
    assert [row["response"] for part in parts for row in part.rows] == ["Hi", "Good day"]
    assert [row["trace_key"] for part in parts for row in part.rows] == ["p/2", "p/3"]


@pytest.mark.data
def test_real_trajectories_of_swe_agent_are_read(data: Path):
    found = {}
    with tarfile.open(data / "swe_agent_trajectories" / "traj.tar.gz") as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                record = json.loads(file.read())
                assert SweAgent().recognises(record)
                assert not OpenHands().recognises(record)
                (found[member.name],) = SweAgent().read(record)
    assert len(found) == 13
    assert Counter(row["model_requested"] for row in found.values()) == {
        "unstated": 7,
        "gpt-4o": 5,
        "replay": 1,
    }
    (row,) = [row for row in found.values() if row["trace_key"] == "SWE-agent__test-repo-i1"]
    assert row["response"].startswith("The script `missing_colon.py` ran successfully")
    assert json.loads(row["extra"])["record"]["info"]["exit_status"] == "submitted"


@pytest.mark.data
def test_real_events_and_results_of_openhands_are_read(data: Path):
    folder, models = data / "openhands_events", []
    with tarfile.open(folder / "runtime_trajs.tar.gz") as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                content = file.read()
                assert OpenHandsEvents().recognises_document(member.name, content[:65536])
                (part,) = OpenHandsEvents().read_document(member.name, content)
                (row,) = part.rows
                models.append(row["model_answered"])
    assert sorted(models) == ["claude-3-5-sonnet-20241022"] * 2 + ["gpt-4o-2024-08-06", "unstated"]
    results = [json.loads(line) for line in unpacked(folder / "resolver_output.jsonl.gz").splitlines()]
    rows = [row for result in results if OpenHands().recognises(result) for row in OpenHands().read(result)]
    assert [(row["trace_key"], row["verdict"]) for row in rows] == [
        ("neubig/pr-viewer#5", "pass"),
        ("neubig/pr-viewer#1", "pass"),
    ]
    assert [len(row["messages"]) for row in rows] == [7, 43]


@pytest.mark.data
def test_real_runs_of_tau_bench_are_read(data: Path):
    folder = data / "tau_bench_airline_sample"
    runs = json.loads(unpacked(folder / "gpt-4o-airline_task_mod5_eq0.json.gz"))
    rows = [row for run in runs for row in TauBench().read(run)]
    assert len(rows) == len({row["trace_key"] for row in rows}) == 40
    assert Counter(row["verdict"] for row in rows) == {"fail": 22, "pass": 18}
    lines = unpacked(folder / "MockRetailDomainEnv-few_shot.jsonl.gz").splitlines()
    shown = [row for line in lines for row in TauBench().read(json.loads(line))]
    assert len(shown) == 69
    assert shown[0]["response"].startswith("The payment method for your order #W4923227")


@pytest.mark.data
def test_a_real_session_of_pi_is_one_row(data: Path):
    content = unpacked(data / "pi_agent_session" / "large-session.jsonl.gz")
    (part,) = PiSession().read_document("x", content)
    (row,) = part.rows
    roles = Counter(message["role"] for message in row["messages"])
    assert (roles["user"], roles["tool"]) == (88, 373)
    assert row["model_requested"] == row["model_answered"] == "claude-sonnet-4-5"
    assert row["response"].startswith("Oh wait, these errors look like we have API mismatches!")


def unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())
