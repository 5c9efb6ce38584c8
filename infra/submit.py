"""`stemma submit`: carry a verb to a Ray cluster as a Ray job, follow it, and end as it ends.

what runs here ── wheel, named by its content ──┐
TOML files among the arguments ── job's folder ─┼─▶ Ray job: python -m infra.cli VERB ...
STEMMA_LAKE, MLFLOW_TRACKING_URI ───────────────┘

The folder that it is called from stays at home: a `training/` in it cannot hide ours. The job runs in a
folder that holds those TOML files alone; its driver and its workers import from there and the wheel first.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import shlex
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra import PACKAGES
from infra.cli import VERBS
from infra.redaction import redacted, without_credentials
from infra.settings import dashboard_address, insist_on_dashboard, job_environment

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PACKAGED = (".py", ".toml", ".json", ".yaml", ".html")  # as in pyproject.toml's package-data
STAYS = ("submit", "demo", "serve")  # verbs that belong to the machine they are typed on
POLL_S = 0.5
CHATTY = (  # they tell of each upload and of each connection
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)


class SubmitError(Exception):
    """A verb that cannot be carried to the cluster; the message says what was tried and what to do."""


def submit(
    words: Annotated[list[str] | None, typer.Argument(metavar="-- VERB ARGUMENTS...")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="URL of the cluster's dashboard (RAY_API_SERVER_ADDRESS or RAY_ADDRESS, default "
            "http://127.0.0.1:8265)."
        ),
    ] = None,
    lake: Annotated[
        str | None,
        typer.Option(
            help="An absolute path that all of the cluster's machines share, or a URI (STEMMA_LAKE)."
        ),
    ] = None,
) -> int:
    """Run a verb as a Ray job, follow its output and end with its exit code.

    The code that runs here is carried along, uncommitted changes included; the cluster needs only the
    dependencies. TOML files among the arguments are carried too; any other file must lie where the cluster
    sees it, and what a verb writes beside the lake stays there. Ctrl-C ends the following, not the job, and
    says how to follow it again and how to stop it. A cluster with token authentication wants
    RAY_AUTH_MODE=token and its token (~/.ray/auth_token, RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN); tokens and
    credentials never travel with a job.

    Example: stemma submit --lake /mnt/lake -- finetune finetune.toml --set training.num_workers=4
    """
    if not words:
        raise SubmitError("no verb to carry; expected: stemma submit -- VERB ARGUMENTS")
    verb, *arguments = words
    if verb not in VERBS:
        raise SubmitError(f"unknown verb '{verb}'; known: {', '.join(v for v in VERBS if v not in STAYS)}")
    if verb in STAYS:
        raise SubmitError(f"'{verb}' belongs to this machine and is not carried; run: stemma {verb}")
    url = dashboard_address(address)
    variables = job_environment(lake_among(arguments) or lake)
    with tempfile.TemporaryDirectory(prefix="stemma-submit-") as place:
        folder = Path(place, "files")
        folder.mkdir()
        entrypoint = ["python", "-m", "infra.cli", verb, *carry(arguments, folder)]
        environment = {
            "py_modules": [str(build_wheel(Path(place)))],
            "working_dir": str(folder),
            "env_vars": variables,
        }
        client = connect(url)
        try:
            job = client.submit_job(entrypoint=shlex.join(entrypoint), runtime_env=environment)
        except RuntimeError as error:
            at = without_credentials(url)
            raise SubmitError(f"the cluster at {at} took no job: {_brief(error)}") from error
    return follow(client, job, url)


def lake_among(arguments: Sequence[str]) -> str | None:
    """The lake that the verb's own --lake names."""
    for index, word in enumerate(arguments):
        if word == "--lake":
            return next(iter(arguments[index + 1 :]), None)
        if word.startswith("--lake="):
            return word.removeprefix("--lake=")
    return None


def carry(arguments: Sequence[str], folder: Path) -> list[str]:
    """The arguments as the job will read them; each TOML file that they name is copied into its folder.

    Raises SubmitError for another file of this machine's current folder.
    """
    carried = []
    for word in arguments:
        option, equals, path = word.rpartition("=") if word.startswith("--") else ("", "", word)
        if path.endswith(".toml") and os.path.isfile(path):
            outside = os.path.isabs(path) or ".." in Path(path).parts
            name = os.path.abspath(path).lstrip("/") if outside else os.path.normpath(path)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
            word = f"{option}{equals}{name}"
        elif not os.path.isabs(path) and ("/" in path or Path(path).suffix) and os.path.exists(path):
            raise SubmitError(
                f"'{path}' lies in the current folder, which the cluster does not see; put it on storage "
                "that the cluster shares and give its absolute path"
            )
        carried.append(word)
    return carried


def build_wheel(folder: Path, root: Path = Path(__file__).parents[1]) -> Path:
    """Our packages as they lie in `root`, as a wheel in `folder`.

    Its version is the digest of its content: Ray knows a wheel by its name alone. It names no requirements,
    for pip would look for them on the network.
    """
    files = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*"))
        if path.suffix in PACKAGED and "__pycache__" not in path.parts
    }
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}:{hashlib.sha256(content).hexdigest()}\n".encode())
    version = f"0+sha{digest.hexdigest()[:32]}"
    info = f"stemma-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: stemma\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{name},sha256={_urlsafe(content)},{len(content)}\n" for name, content in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    wheel = folder / f"stemma-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # Dated 1980: the same content gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return wheel


def connect(url: str) -> JobSubmissionClient:
    """Ray's client of the cluster at a dashboard's URL. Raises SubmitError."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    insist_on_dashboard(url)
    place = without_credentials(url)
    try:
        return JobSubmissionClient(url)
    except AuthenticationError as error:
        found = _brief(error).partition(" Token authentication")[0].partition(". ")[0]
        raise SubmitError(
            f"no entry to the cluster at {place}: {found}; set RAY_AUTH_MODE=token, and the cluster's "
            "token in ~/.ray/auth_token, RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN"
        ) from error
    except ConnectionError as error:
        raise SubmitError(
            f"no Ray cluster answers at {place}; start one with ray start --head, or name its dashboard "
            "with --address or RAY_ADDRESS"
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise SubmitError(f"what answers at {place} is no Ray dashboard: {_brief(error)}") from error


def follow(client: JobSubmissionClient, job: str, url: str) -> int:
    """Print the job's output as it comes, and return its driver's exit code, or 1 where there is none."""
    from aiohttp import ClientError
    from ray.job_submission import JobStatus

    place = without_credentials(url)
    again = f"`ray job logs --follow --address {place} {job}`"
    try:
        print(f"stemma: job {job} at {place}", file=sys.stderr)
        asyncio.run(_print_logs(client, job))
        while not (details := client.get_job_info(job)).status.is_terminal():
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        stop = f"`ray job stop --address {place} {job}`"
        print(f"stemma: job {job} goes on; follow it with {again}, stop it with {stop}", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, ClientError) as error:
        raise SubmitError(
            f"lost sight of job {job}, which may go on ({_brief(error)}); follow it with {again}"
        ) from error
    if details.status == JobStatus.SUCCEEDED:
        return 0
    code = details.driver_exit_code
    if code is not None and 0 < code < 256:
        return code  # its sentence is among its output
    reason = "was stopped" if details.status == JobStatus.STOPPED else f"failed: {_brief(details.message)}"
    print(f"stemma: job {job} {reason}", file=sys.stderr)
    return 1


async def _print_logs(client: JobSubmissionClient, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _brief(what: object) -> str:
    """What was said, without the inner lines of tracebacks and without secrets."""
    lines = [line for line in str(what).splitlines() if not line.startswith(" ") and "Traceback" not in line]
    return redacted(" ".join(" ".join(lines).split()))[:400]
