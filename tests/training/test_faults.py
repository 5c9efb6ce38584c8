"""Killed workers, drivers, nodes: what is eaten stays the plan, and training goes on where it was saved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from infra.models import resolve
from infra.settings import environment_but
from training.assignment import Assignment, assign
from training.fit import Fitted, WorkersLost, fit
from training.recipe import TrainingConfig

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CONFIG = TrainingConfig(r=2, lora_alpha=4, num_train_epochs=8, train_batch_size=2, save_steps=5, seed=0)
WORDS = ("timer", "weather", "music", "door", "light", "alarm", "mail", "call", "map", "news")


def toy_rows() -> pa.Table:
    texts = [f"{verb} the {word}" for verb in ("start", "stop") for word in WORDS]
    return pa.table(
        {
            "row_no": range(len(texts)),
            "row_id": pa.array([text.encode()[:16].ljust(16) for text in texts], pa.binary()),
            "text": texts,
            "answer": [text.split()[0] for text in texts],
        }
    )


def assigned(**changes) -> Assignment:
    return assign(toy_rows(), CONFIG.model_copy(update=changes), resolve("all-MiniLM-L6-v2"))


def fitted(assignment: Assignment, folder: Path, *, run_id: str = "run-1", on_step=None) -> Fitted:
    return fit(
        assignment,
        run_id=run_id,
        work=str(folder / "work"),
        out_dir=str(folder / "model"),
        storage_path=str(folder / "ray"),
        on_step=on_step,
    )


def ate_the_plan(found: Fitted, assignment: Assignment) -> bool:
    names = ["step", "slot", "row_no"]
    return found.consumption.select(names).equals(assignment.plan.table.select(names))


def kill_a_worker() -> None:
    """Of this process's Ray, the training worker that was started last."""
    here = {os.getpid(), *(p.pid for p in psutil.Process().children(recursive=True))}
    workers = [
        p
        for p in psutil.process_iter(["name", "cmdline"])
        if "RayTrainWorker" in "".join(p.info["cmdline"] or ())
    ]
    mine = [p for p in workers if here & {parent.pid for parent in p.parents()}]
    max(mine, key=lambda p: p.create_time()).send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(ray_session, tmp_path_factory) -> Fitted:
    return fitted(assigned(num_workers=2), tmp_path_factory.mktemp("undisturbed"))


def test_after_a_killed_worker_the_model_is_the_one_of_an_undisturbed_training(
    undisturbed, ray_session, tmp_path
):
    killed: list[int] = []

    def once(fed, steps: int) -> None:
        if fed.step >= 12 and not killed:
            killed.append(fed.step)
            kill_a_worker()

    assignment = assigned(num_workers=2)
    found = fitted(assignment, tmp_path, on_step=once)
    assert killed
    assert ate_the_plan(found, assignment)
    assert found.adapter_digest == undisturbed.adapter_digest
    assert found.losses == undisturbed.losses
    goes = found.steps.to_pylist()
    assert {row["go"] for row in goes if not row["lost"]} == {1, 2}
    lost = [row["step"] for row in goes if row["lost"]]
    taken_again = [row["step"] for row in goes if row["go"] == 2]
    assert set(lost) <= set(taken_again)


def test_a_worker_that_dies_past_its_retries_leaves_no_model(ray_session, tmp_path):
    def each_time(fed, steps: int) -> None:
        if fed.step in (6, 7):
            kill_a_worker()

    with pytest.raises(WorkersLost, match="after 0 new starts"):
        fitted(assigned(num_workers=2, max_failures=0, num_train_epochs=12), tmp_path, on_step=each_time)
    assert not (tmp_path / "model").exists()


def test_a_state_is_taken_over_by_another_number_of_workers(undisturbed, ray_session, tmp_path):
    """Two workers begin, one goes on: order and ledger are the plan's; the sums are rounded otherwise."""

    def stop(fed, steps: int) -> None:
        if fed.step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(assigned(num_workers=0), tmp_path, on_step=stop)
    assignment = assigned(num_workers=2)
    found = fitted(assignment, tmp_path, run_id="run-2")
    assert ate_the_plan(found, assignment)
    by = {(row["step"], row["world_size"]) for row in found.steps.to_pylist() if not row["lost"]}
    assert by == {(step, 1) for step in range(10)} | {(step, 2) for step in range(10, assignment.steps)}
    lost = [(row["fed_by"], row["step"]) for row in found.steps.to_pylist() if row["lost"]]
    assert lost == [("run-1", step) for step in range(10, 14)]
    assert found.losses == pytest.approx(undisturbed.losses, rel=0.05, abs=0.02)


DRIVER = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
import test_faults as these
found = these.fitted(these.assigned(), Path(sys.argv[1]), run_id=sys.argv[2])
print(found.adapter_digest)
"""


def test_after_a_killed_driver_the_same_command_goes_on_from_the_last_state(tmp_path):
    alone = fitted(assigned(), tmp_path / "alone")
    code = DRIVER.format(tests=str(Path(__file__).parent))
    where = tmp_path / "killed"

    def driver(run_id: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(where), run_id],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path.cwd(),
        )

    first = driver("run-1")
    log = where / "work" / "fed-run-1-001-00000.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 13):
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert not (where / "model").exists()
    second = driver("run-2")
    said, _ = second.communicate(timeout=300)
    assert second.returncode == 0
    assert said.split()[-1] == alone.adapter_digest
    lines = (where / "work" / "fed-run-2-001-00000.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["step"] >= 10


NODE = """
import sys
sys.path[:0] = [{tests!r}]
import threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
import test_faults as these

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
node = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, logging_level="ERROR")
lost = threading.Event()

def lose(fed, steps):
    if fed.step >= 12 and not lost.is_set():
        lost.set()
        cluster.remove_node(node, allow_graceful=False)

assignment = these.assigned(num_workers=2, min_workers=1, num_train_epochs=12)
found = these.fitted(assignment, Path(sys.argv[1]), on_step=lose)
assert lost.is_set()
assert these.ate_the_plan(found, assignment)
print(sorted({{row["world_size"] for row in found.steps.to_pylist() if not row["lost"]}}))
ray.shutdown()  # before the cluster: a driver that outlives its cluster's head ends with status 1
cluster.shutdown()
"""


@pytest.fixture
def rays_own() -> Iterator[dict[str, str]]:
    """A folder for a cluster apart; of a short name, as sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield {"RAY_TMPDIR": folder}


@pytest.mark.slow
def test_after_a_lost_node_the_training_goes_on_with_one_worker(tmp_path, rays_own):
    code = NODE.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=Path.cwd(),
        # workers started while the lost node still counts are waited for in vain, by default a minute
        env=environment_but("RAY_") | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"} | rays_own,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[-2] == "[1, 2]"
