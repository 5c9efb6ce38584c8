"""The index in MLflow that people look at, and the only package that imports mlflow; Delta stays the truth.

    connection  the way there; every failure as one sentence
    tracking    one Stemma run is one MLflow run, found again by its tag
    models      registered models, their versions, their aliases
    inputs      rows among a run's inputs; a logged model tied to the runs that made and scored it
    datasets    the rows as MLflow's own Dataset and DatasetSource; MLflow imports it, by entry point
    traces      the traces that a tracking server holds, as lines for the reader of MLflow's traces
    pedigree/   the pedigree of a model version or a row as a page and as JSON; knows nothing of MLflow

Callers write Delta first and then call here; every call may be repeated. Importing this package imports no
mlflow. One error family: RegistryError, always one sentence.
"""

import logging
from collections.abc import Callable
from typing import ParamSpec

from lineage.registry.connection import RegistryError
from lineage.registry.inputs import SHOWN_ROWS
from lineage.registry.models import (
    IndexedAlias,
    IndexedVersion,
    indexed_aliases,
    link_evaluation,
    model_versions,
    register,
    register_again,
    set_alias,
    tag_version,
)
from lineage.registry.pedigree import Pedigree, RowPedigree, pedigree_html, pedigree_json, row_pedigree_html
from lineage.registry.traces import exported_traces
from lineage.registry.tracking import (
    EXPERIMENT,
    SHOWN,
    SHOWN_TAG,
    Ending,
    close_run,
    is_shown,
    log_progress,
    log_run,
    open_run,
    open_runs,
    prepare,
    shown_runs,
)

__all__ = [
    "EXPERIMENT",
    "SHOWN",
    "SHOWN_ROWS",
    "SHOWN_TAG",
    "Ending",
    "IndexedAlias",
    "IndexedVersion",
    "Pedigree",
    "RegistryError",
    "RowPedigree",
    "close_run",
    "exported_traces",
    "if_reachable",
    "indexed_aliases",
    "is_shown",
    "link_evaluation",
    "log_progress",
    "log_run",
    "model_versions",
    "open_run",
    "open_runs",
    "pedigree_html",
    "pedigree_json",
    "prepare",
    "register",
    "register_again",
    "row_pedigree_html",
    "set_alias",
    "shown_runs",
    "tag_version",
]

log = logging.getLogger("stemma.registry")
P = ParamSpec("P")


def if_reachable(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Make one of the calls above; a tracking server that is away costs the picture, not the job.

    The Delta record is complete before anything is mirrored, so what failed here can be mirrored later.
    Returns whether it was mirrored.
    """
    try:
        call(*args, **kwargs)
    except RegistryError as error:
        log.warning("not mirrored to MLflow: %s; to show it later: stemma mlflow-sync", error)
        return False
    return True
