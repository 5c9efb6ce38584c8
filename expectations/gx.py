"""Great Expectations as we start it: late, because importing it costs seconds, and quietly.

Every use of the library stands inside `with quiet():`, its import included.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infra.settings import prepare_environment

if TYPE_CHECKING:
    from great_expectations.data_context import EphemeralDataContext


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of the library off the screen: what it says comes back as a result."""
    prepare_environment()
    log = logging.getLogger("great_expectations")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def open_context(sites: Mapping[str, Any] | None = None) -> EphemeralDataContext:
    """A context in memory that knows our expectations and shows no progress bars; `sites` are its Data Docs.

    Opening one costs milliseconds. A shared one would keep every result of a long search.
    """
    from great_expectations import get_context
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    import expectations.custom  # noqa: F401  registers them

    return get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            data_docs_sites=dict(sites or {}),
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        ),
    )


def columns_of(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that an expectation with these arguments reads, in their order."""
    listed = [kwargs.get(name) for name in ("column", "column_A", "column_B")]
    many = [name for key in ("column_list", "column_set") for name in kwargs.get(key) or ()]
    return tuple(name for name in (*listed, *many) if name)
