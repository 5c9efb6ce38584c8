"""A verb on a cluster: our code and nothing of the folder it was typed in, its output, its exit code."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray.job_submission import JobSubmissionClient

from infra import PACKAGES
from infra.cli import run
from infra.submit import PACKAGED, build_wheel, carry, follow
from lineage import tables
from lineage.consumption import checkpoints, eaten_by
from lineage.runs import code_revision
from lineage.schemas import EXAMPLE, RUN

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"  # nobody listens on the discard port


@dataclass(frozen=True)
class Cluster:
    """A Ray head of this test's own, with token authentication."""

    url: str
    token: Path
    folder: Path
    """Where it was started and where jobs are submitted: holds packages that are named like ours."""

    def submit(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "infra.cli", "submit", "--address", self.url, *words],
            cwd=self.folder,
            env=plain_environment() | given | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def plain_environment() -> dict[str, str]:
    """This process's environment without what would choose a lake, a cluster or a token."""
    ours = ("RAY_", "STEMMA_", "MLFLOW_TRACKING", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("own")
    for package in ("training", "search", "infra"):
        (folder / package).mkdir()
        hostile = f"open({str(folder / 'imported')!r}, 'w').close()\nraise RuntimeError('not ours')\n"
        for module in ("__init__.py", "finetune.py"):
            (folder / package / module).write_text(hostile)
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    sockets = tempfile.mkdtemp(prefix="stemma-", dir="/tmp")  # the path of a socket has 107 bytes at most
    url, dashboard, client = "http://127.0.0.1", *free_ports(2)
    environment = plain_environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    options = f"""--head --port=0 --dashboard-host=127.0.0.1 --dashboard-port={dashboard}
        --dashboard-agent-listen-port=0 --ray-client-server-port={client} --min-worker-port=0
        --max-worker-port=0 --num-cpus=3 --num-gpus=0 --object-store-memory=200000000 --disable-usage-stats
        --temp-dir={sockets}"""
    head = subprocess.Popen(
        ["ray", "start", *options.split()],
        cwd=folder,
        env=environment,
        stdout=(folder / "head.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        assert head.wait(120) == 0, (folder / "head.log").read_text()
        yield Cluster(f"{url}:{dashboard}", token, folder)
    finally:
        for process in psutil.process_iter():
            if session_of(process.pid) == head.pid:
                process.kill()
        shutil.rmtree(sockets, ignore_errors=True)


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@pytest.mark.cluster
def test_two_workers_train_on_a_cluster_with_our_code_and_the_submitters_config(
    cluster: Cluster, trained_lake, tmp_path: Path
):
    settings = trained_lake.copied(tmp_path / "lake")
    before = {checkpoint.run_id for checkpoint in checkpoints(settings)}
    config = cluster.folder / "training" / "small.toml"
    config.write_text("[training]\nnum_train_epochs = 1\ntrain_batch_size = 8\n")
    job = cluster.submit(
        *("--lake", settings.lake, "--", "finetune", "training/small.toml"),
        *("--set", "training.num_workers=2", "--set", "training.seed=7"),
    )
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, out + err
    [made] = [checkpoint for checkpoint in checkpoints(settings) if checkpoint.run_id not in before]
    assert f"finetune {made.run_id}: " in out
    assert made.step == 4  # the one epoch that small.toml asks for: 25 rows by eight
    assert set(eaten_by(settings, made)["rank"].to_pylist()) == {0, 1}
    [agent] = {row["agent"] for row in tables.read(settings, RUN).to_pylist() if row["run_id"] == made.run_id}
    assert code_revision() in agent
    assert not (cluster.folder / "imported").exists()


@pytest.mark.cluster
def test_a_verb_that_fails_on_the_cluster_ends_here_with_its_sentence_and_its_exit_code(
    cluster: Cluster, trained_lake
):
    lake = trained_lake.settings.lake
    job = cluster.submit("--", "gate", "nonsense@1", STEMMA_LAKE=lake)
    out, err = job.communicate(timeout=120)
    assert job.returncode == 2, out + err
    assert "stemma: 'nonsense@1' names no table" in out
    assert len(err.splitlines()) == 1  # which job it is


@pytest.mark.cluster
def test_a_job_trains_on_nothing_that_no_gate_admitted(cluster: Cluster, trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    for batch in tables.batches(settings, EXAMPLE).values():
        tables.withdraw(settings, batch, run_id="gate-1", reason="wrong")
    before = checkpoints(settings)
    job = cluster.submit("--lake", settings.lake, "--", "finetune")
    out, err = job.communicate(timeout=120)
    assert job.returncode == 2, out + err
    assert "no admitted training examples of classification match" in out
    assert checkpoints(settings) == before


@pytest.mark.cluster
def test_an_interruption_leaves_the_job_running_and_says_how_to_stop_it(cluster: Cluster, tmp_path: Path):
    job = cluster.submit("--lake", str(tmp_path), "--", "fsck")
    assert job.stdout is not None
    assert job.stdout.readline()  # it is being followed
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130
    started, ended = err.splitlines()
    name = started.split()[2]
    assert f"job {name} goes on" in ended
    assert f"`ray job stop --address {cluster.url} {name}`" in ended
    bearer = {"Authorization": f"Bearer {cluster.token.read_text()}"}
    client = JobSubmissionClient(cluster.url, headers=bearer)
    assert follow(client, name, cluster.url) == 2  # it ended as it would have: there is no lake


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "Missing authentication token"),
        ({"RAY_AUTH_TOKEN": secrets.token_hex(32)}, "Invalid authentication token"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "cannot be opened or is empty: /nowhere"),
    ],
)
def test_without_the_clusters_token_a_sentence_says_what_to_set(
    token: dict[str, str], said: str, cluster: Cluster, tmp_path: Path
):
    job = cluster.submit("--lake", str(tmp_path), "--", "status", **token)
    out, err = job.communicate(timeout=60)
    assert (job.returncode, out) == (2, "")
    [line] = err.splitlines()
    assert said in line
    assert "set RAY_AUTH_MODE=token" in line


SCHEMES = {
    (): "no verb to carry; expected: stemma submit -- VERB ARGUMENTS",
    ("--", "finetun"): "unknown verb 'finetun'; known: ingest, ",
    ("--", "submit", "--", "fsck"): "'submit' belongs to this machine",
    ("--", "demo"): "'demo' belongs to this machine",
    ("--", "fsck"): "'./.stemma' would be another folder on each of the cluster's machines; set --lake or",
    ("--lake", "lake", "--", "fsck"): "'lake' would be another folder",
    ("--lake", "/shared", "--", "fsck", "--lake", "lake"): "'lake' would be another folder",
    ("--lake", "/shared", "--", "fsck", "--lake=lake"): "'lake' would be another folder",
    ("--lake", "s3://key:secret@bucket", "--", "fsck"): "--lake or STEMMA_LAKE holds a password",
    ("--lake", "/shared", "--", "ingest", "log.jsonl"): "'log.jsonl' lies in the current folder",
    ("--lake", "/shared", "--address", "auto", "--", "fsck"): "'auto' is no URL of a Ray dashboard",
    ("--lake", "/shared", "--address", NOWHERE, "--", "fsck"): f"no Ray cluster answers at {NOWHERE}",
}


@pytest.mark.parametrize("words", SCHEMES)
def test_what_cannot_be_carried_is_refused_in_a_sentence(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.jsonl").write_text("{}\n")
    for name in ("STEMMA_LAKE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", NOWHERE)
    assert run("submit", words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith(f"stemma: {SCHEMES[words]}")
    assert "secret" not in line


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "mlruns", "https://ann:secret@mlflow.example"])
def test_a_tracking_server_that_the_cluster_cannot_use_is_refused(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert run("submit", ["--lake", "/shared", "--address", NOWHERE, "--", "fsck"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "MLFLOW_TRACKING_URI" in line
    assert "secret" not in line


def test_a_config_keeps_its_name_and_lands_in_the_jobs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here, job, outside = tmp_path / "here", tmp_path / "job", tmp_path / "outside.toml"
    (here / "conf").mkdir(parents=True)
    (here / "conf" / "a.toml").write_text("a = 1\n")
    outside.write_text("b = 2\n")
    monkeypatch.chdir(here)
    words = [
        "conf/a.toml",
        "../outside.toml",
        f"--field-map={outside}",
        "--set",
        "x=y",
        "gone.toml",
        "/s/log.gz",
    ]
    carried = carry(words, job)
    assert carried[0] == "conf/a.toml"
    assert carried[1] == str(outside).lstrip("/")
    assert carried[2] == f"--field-map={carried[1]}"
    assert carried[3:] == words[3:]
    assert {str(path.relative_to(job)): path.read_text() for path in job.rglob("*.toml")} == {
        "conf/a.toml": "a = 1\n",
        carried[1]: "b = 2\n",
    }


def test_the_wheel_takes_the_files_that_the_build_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    data = project["tool"]["setuptools"]["package-data"]["*"]
    assert {".py", *(pattern.removeprefix("*") for pattern in data)} == set(PACKAGED)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of our packages that may be changed."""
    for package in PACKAGES:
        copied = tmp_path / "source" / package
        shutil.copytree(ROOT / package, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "source"


def test_the_same_code_is_the_same_wheel_and_a_change_of_a_byte_is_another(source: Path, tmp_path: Path):
    first = build_wheel(tmp_path)
    content = first.read_bytes()
    (source / "infra" / "README.md").write_text("no code")
    assert build_wheel(tmp_path, source) == first
    assert first.read_bytes() == content
    (source / "training" / "__init__.py").open("a").write("\n")
    assert build_wheel(tmp_path, source).name != first.name


def test_an_installed_wheel_is_the_code_that_it_was_built_from(tmp_path: Path):
    wheel = build_wheel(tmp_path)
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--quiet", "--no-compile"]
    subprocess.run([*install, f"--target={tmp_path / 'there'}", str(wheel)], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from lineage.runs import code_revision as c; print(c())"],
        cwd=tmp_path,
        env=plain_environment() | {"PYTHONPATH": str(tmp_path / "there")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == code_revision()


def test_the_wheel_records_each_file_with_its_digest(tmp_path: Path):
    with zipfile.ZipFile(build_wheel(tmp_path)) as archive:
        [record] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        lines = [line.rsplit(",", 2) for line in archive.read(record).decode().splitlines()]
        assert [name for name, *_ in lines] == archive.namelist()
        assert len(lines) > 90
        for name, digest, size in lines[:-1]:
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={expected}", str(len(content)))
