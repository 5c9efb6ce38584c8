"""The way to MLflow: one client per store, made ready quickly, and every failure as one sentence.

Errors: RegistryError, the registry's family.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from infra.redaction import redacted, without_credentials
from infra.settings import Settings, prepare_environment

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

lock = threading.RLock()  # a store is made ready once, and finding or creating a run is one act


class RegistryError(Exception):
    """MLflow did not do what was asked, or holds something else than the lake."""


@contextmanager
def connected(settings: Settings) -> Iterator[MlflowClient]:
    """A client of the tracking store; whatever MLflow raises inside becomes one sentence of RegistryError."""
    if not settings.tracking_uri:
        raise RegistryError(
            f"no tracking server is named, and lake {settings.shown_lake} is no folder of this machine that "
            "could hold its file; set MLFLOW_TRACKING_URI"
        )
    prepare_environment()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with lock:
            if is_server(settings):
                _knock(settings.tracking_uri)
            elif _is_database(settings.tracking_uri):
                _open_once(settings.tracking_uri)
            client = _client(settings.tracking_uri)
        yield client
    except (MlflowException, SQLAlchemyError, OSError) as error:  # those of requests are OSErrors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        said = redacted(lines[0])[:400]
        raise RegistryError(f"MLflow at {without_credentials(settings.tracking_uri)}: {said}") from error


@contextmanager
def resolving_models(settings: Settings) -> Iterator[None]:
    """While MLflow resolves `models:/ID`, let its process-wide store be ours; afterwards it is what it was.

    Its SQL registry looks the id up there, not in its own store, and would
    make an empty `mlflow.db` in the working folder to look in.
    """
    from mlflow import set_tracking_uri
    from mlflow.environment_variables import MLFLOW_TRACKING_URI

    with lock:
        before = (
            MLFLOW_TRACKING_URI.get()
        )  # set_tracking_uri keeps this variable in step, and unsets it with None
        set_tracking_uri(settings.tracking_uri)
        try:
            yield
        finally:
            set_tracking_uri(before)  # pyright: ignore[reportArgumentType]  None is how MLflow itself takes it back


def is_server(settings: Settings) -> bool:
    """Is it a server that keeps the books, and not a file that we open ourselves?"""
    return settings.tracking_uri.startswith(("http://", "https://"))


@cache
def _client(tracking_uri: str) -> MlflowClient:
    import mlflow  # noqa: F401  its own import sets up the logging that is turned down next
    from mlflow.environment_variables import (
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
        MLFLOW_HTTP_REQUEST_TIMEOUT,
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
    )

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It prints tracebacks of what it raises anyway; we pass that on as a sentence.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # MLflow waits four minutes for a server that is gone, and prints links. What the user has set stays.
    for variable, value in (
        (MLFLOW_HTTP_REQUEST_MAX_RETRIES, 2),
        (MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, 1),
        (MLFLOW_HTTP_REQUEST_TIMEOUT, 30),
        (MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT, True),
    ):
        if not variable.is_set():
            variable.set(value)
    _lay_sqlite_file(tracking_uri)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri, tracking_uri)


def _knock(tracking_uri: str) -> None:
    """Raise RegistryError within three seconds if no server answers; any answer will do."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        http_request(
            get_default_host_creds(tracking_uri),
            "/health",
            "GET",
            max_retries=0,
            timeout=3,
            raise_on_status=False,
        )
    except MlflowException:
        raise RegistryError(
            f"tracking server {without_credentials(tracking_uri)} does not answer; start it, or set "
            "MLFLOW_TRACKING_URI to one that runs (unset, it is a file in the lake)"
        ) from None


def _is_database(tracking_uri: str) -> bool:
    from mlflow.store.db.db_types import DATABASE_ENGINES

    return tracking_uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


def _open_once(tracking_uri: str) -> None:
    """Raise RegistryError within a few seconds if the database cannot be opened, whatever the reason.

    MLflow itself tries ten times and waits 102 s between (create_sqlalchemy_engine_with_retry in
    mlflow/store/db/utils.py, which nothing configures), also for a wrong password or a file of garbage.
    """
    from sqlalchemy import NullPool, create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError

    shown = without_credentials(tracking_uri)
    try:
        place = make_url(tracking_uri)
    except (SQLAlchemyError, ValueError):  # its words may hold a part of a password
        raise RegistryError(f"'{shown}' is no URL of a database; put MLFLOW_TRACKING_URI right") from None
    try:
        if place.get_backend_name() == "sqlite" and not Path(place.database or "").exists():
            return  # opening it would make an empty one; it is laid whole
        waits = _CONNECT_TIMEOUT.get(place.get_driver_name())
        given = {waits: _CONNECT_S} if waits and waits not in place.query else {}
        engine = create_engine(place, poolclass=NullPool, connect_args=given)
        with engine.connect() as connection:
            if place.get_backend_name() == "sqlite":
                connection.exec_driver_sql("PRAGMA schema_version")  # reads the file; a connect does not
    except (SQLAlchemyError, ImportError) as error:  # ImportError: a driver that is not installed
        said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        raise RegistryError(
            f"MLflow's database {shown} cannot be opened ({redacted(said[0])[:400]}); put it right, "
            "or set MLFLOW_TRACKING_URI to another (unset, it is a file in the lake)"
        ) from error


_CONNECT_S = 3
_CONNECT_TIMEOUT = {  # driver -> its own name for how long a connect may take
    "psycopg2": "connect_timeout",
    "psycopg": "connect_timeout",
    "pymysql": "connect_timeout",
    "mysqldb": "connect_timeout",
    "pymssql": "login_timeout",
    "pyodbc": "timeout",
}


def _lay_sqlite_file(tracking_uri: str) -> None:
    """Make a fresh SQLite store beside its place and put it there whole.

    MLflow itself does this in place: it waits for the disk after each of a hundred changes of the schema, and
    a process that dies meanwhile leaves half of one. A draft need not wait.
    """
    if not tracking_uri.startswith("sqlite:///"):
        return
    from sqlalchemy import create_engine, event, make_url

    try:
        from mlflow.store.db.utils import _initialize_tables
    except ImportError:  # not public: where a newer MLflow has moved it, MLflow makes its tables itself
        return
    place = make_url(tracking_uri).database
    if not place or place.startswith((":memory:", "file:")) or Path(place).exists():
        return
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path(place).parent, prefix=".mlflow-") as folder:
        draft = Path(folder, "draft.db")
        engine = create_engine(f"sqlite:///{draft}")
        event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
        _initialize_tables(engine)
        with engine.connect() as connection:
            # Stays with the file: a write waits less for the disk, and `mlflow ui` never waits for a write.
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        engine.dispose()
        try:
            Path(place).hardlink_to(draft)  # refuses an existing file: of two processes the first one stays
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            draft.rename(place)
