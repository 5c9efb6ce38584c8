"""The same against a tracking server that keeps its books in PostgreSQL."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from infra.runtime import Runtime
from lineage import mirror, models
from lineage.recall import recall
from lineage.registry.datasets import LakeSource
from lineage.selectors import Selector
from training.finetune import FinetuneConfig, finetune
from training.promote import promote
from training.recipe import TrainingConfig

pytest.importorskip("psycopg2", reason="no driver for PostgreSQL: pip install psycopg2-binary")
pytestmark = [pytest.mark.slow, pytest.mark.cluster]

PASSWORD = "not-to-be-told"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The URL of a tracking server on PostgreSQL, both started here."""
    folder = Path(tempfile.mkdtemp(prefix="stemma-postgres-"))  # where another user than root may go
    try:
        with started(postgres(folder), folder / "postgres.log", ready=lambda: answers(folder)):
            port = free_port()
            store = (
                f"postgresql+psycopg2://stemma:{PASSWORD}@127.0.0.1:{(folder / 'port').read_text()}/postgres"
            )
            artifacts = tmp_path_factory.mktemp("artifacts")
            command = [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--backend-store-uri",
                store,
                "--workers",
                "1",
            ]
            command += ["--artifacts-destination", str(artifacts), "--host", "127.0.0.1", "--port", str(port)]
            url = f"http://127.0.0.1:{port}"
            with started(command, folder / "mlflow.log", ready=lambda: is_healthy(url)):
                yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def settings(trained_lake, server, tmp_path):
    return replace(trained_lake.copied(tmp_path / "copy"), tracking_uri=server)


def test_what_jobs_show_on_a_server_with_postgresql(settings, server, shown):
    from mlflow.tracking import MlflowClient

    runtime = Runtime(settings)
    training = TrainingConfig(num_train_epochs=2, train_batch_size=8, seed=5)
    trained = finetune(runtime, FinetuneConfig(training=training)).run_id
    assert promote(runtime, trained, name="served").facets["promoted"]
    client = MlflowClient(server, server)
    found = shown(settings)
    assert found["served"] == {"candidate": 1, "champion": 1}
    assert found["served@1"]["tags"]["stemma.verdict"] == "promoted"
    assert [context for context, _, _ in found[trained]["fed"]] == ["eaten", "training"]
    assert found[trained]["files"] == ["eaten_rows.json", "pedigree.html", "pedigree.json", "verdict"]

    experiment = client.get_experiment_by_name("stemma").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`stemma.run_id` = '{trained}'")
    sources = [LakeSource.from_json(each.dataset.source) for each in run.inputs.dataset_inputs]
    eaten = next(source for source in sources if source.run == trained).load()
    assert set(eaten["times"]) == {2}

    selector = Selector(rows=(eaten["row_id"][0],))
    called_back = recall(runtime, selector, reason="wrong", anyway=True).facets["recall"]
    touched = client.search_model_versions(f"tags.`stemma.recalled_by` = '{called_back}'")
    assert [(each.name, int(each.version)) for each in touched] == [("served", 1)]
    assert client.get_registered_model("served").aliases == {}
    assert models.aliases(settings)["served"] == {}
    told = json.dumps(found) + json.dumps([source.to_dict() for source in sources])
    assert PASSWORD not in told


def test_a_sync_to_a_server_shows_what_the_embedded_store_shows(trained_lake, settings, shown):
    assert [each for each in mirror.sync(settings) if not each.startswith("shown: ")] == []
    there, here = shown(settings), shown(trained_lake.settings)
    renamed = {
        which: {**each, "fed": [(context, digest) for context, _, digest in each["fed"]]}
        for found, which in ((there, "there"), (here, "here"))
        for each in [found[trained_lake.trained]]
    }
    assert renamed["there"] == renamed["here"]  # another test's lake may have the plain names already
    assert there["router"] == here["router"]
    assert there["router@1"]["tags"] == here["router@1"]["tags"]
    assert list(mirror.sync(settings)) == []


def postgres(folder: Path) -> list[str]:
    """The command that serves an empty database in a folder, for whoever may: PostgreSQL refuses root."""
    program = shutil.which("postgres") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), None
    )
    if program is None:
        pytest.skip("PostgreSQL is not installed; make services")
    binaries = Path(program).resolve().parent
    user: list[str] = []
    if os.geteuid() == 0:
        try:
            known = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
        os.chown(folder, known.pw_uid, known.pw_gid)
        user = ["setpriv", f"--reuid={known.pw_uid}", f"--regid={known.pw_gid}", "--clear-groups"]
    data = folder / "data"
    made = [*user, str(binaries / "initdb"), "-D", str(data), "-U", "stemma", "-A", "trust", "--no-sync"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60)
    port = free_port()
    (folder / "port").write_text(str(port))
    serve = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-F"]
    return [*user, *serve, "-c", "listen_addresses=127.0.0.1"]


class started:
    """A process of ours while the block goes on, and nothing of it afterwards."""

    def __init__(self, command: Sequence[str], log: Path, *, ready) -> None:
        self.command, self.log, self.ready = command, log, ready

    def __enter__(self) -> None:
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                self.command, stdout=out, stderr=out, cwd="/", start_new_session=True
            )
        until = time.monotonic() + 300  # a server starts slowly on a machine that is busy
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                pytest.fail(f"{self.command[0]} did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)  # the group that it leads
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=20)


def answers(folder: Path) -> bool:
    import psycopg2

    port = (folder / "port").read_text()
    try:
        psycopg2.connect(host="127.0.0.1", port=port, user="stemma", dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
