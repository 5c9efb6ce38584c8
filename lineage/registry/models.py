"""Registered models in MLflow: versions with adapter and pedigree, and the aliases that say which one serves.

    register(settings, name="intents", version=3, ...)     the version that the table `models` already has
    set_alias(settings, name="intents", alias="champion", version=3, mark="3 at ...")

MLflow numbers versions itself. Ours is the number that counts: where the two differ, nothing is registered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.redaction import without_credentials
from infra.settings import Settings
from lineage.registry.connection import RegistryError, connected, resolving_models
from lineage.registry.inputs import link_model
from lineage.registry.tracking import (
    RUN_TAG,
    experiment_of,
    find_run,
    logged_run,
    written,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

VERSION_TAG = (
    "stemma.version"  # name@version, on the logged model: one that was left half made is found by it
)

_ALIAS_MARK = "stemma.alias."  # on the registered model: which move of ours an alias shows


@dataclass(frozen=True)
class IndexedVersion:
    """A model version as MLflow has it."""

    version: int
    run_id: str
    """Stemma's run; empty for a version that somebody else registered."""

    tags: Mapping[str, str]
    source: str
    """`models:/ID` of the logged model that holds the files."""


def register(
    settings: Settings,
    *,
    name: str,
    version: int,
    run_id: str,
    adapter_dir: str,
    tags: Mapping[str, str],
    pedigree: Mapping[str, str],
    step: int = 0,
    evaluations: Sequence[str] = (),
) -> None:
    """Register a version: the files of the local folder `adapter_dir`, the texts of `pedigree` by file name.

    The run must have been logged; `step` is the training step of the checkpoint; `evaluations` are the runs
    that scored it, as far as they were logged. If this version of this run is registered, its tags, pedigree
    and links are brought up to date and nothing else; a tag that is empty is taken away. RegistryError if
    MLflow would give another number, if the number belongs to another run, or if the folder is not there.
    """
    folder = Path(adapter_dir)
    if "://" in adapter_dir:
        raise RegistryError(
            f"adapter '{without_credentials(adapter_dir)}' lies in an object store; expected a local folder: "
            "mount the store"
        )
    if not folder.is_dir() or not any(folder.iterdir()):
        raise RegistryError(
            f"adapter folder '{adapter_dir}' is missing or empty; expected a local folder with files"
        )
    tags = {**{key: str(value) for key, value in tags.items()}, RUN_TAG: run_id}
    with connected(settings) as client:
        standing = {int(found.version): found for found in _versions(client, name)}
        experiment_id = experiment_of(client, settings)
        if version not in standing:
            _check_next(name, version, found=sorted(standing))
        run = find_run(client, experiment_id, run_id)
        if version in standing:
            _require_ours(standing[version], name, run_id, run.info.run_id)
        scored = [
            found.info.run_id for each in evaluations if (found := logged_run(client, experiment_id, each))
        ]
        if version in standing:
            model_id = (standing[version].source or "").removeprefix("models:/")
        else:
            tags = {key: value for key, value in tags.items() if value}
            model_id = _logged_model(client, run.info.experiment_id, run.info.run_id, name, version, tags)
            client.log_model_artifacts(model_id, str(folder))
        _show_pedigree(client, model_id, run.info.run_id, pedigree)
        if version not in standing:
            client.finalize_logged_model(model_id, "READY")
        made_by, known_as = run.info.run_id, (name, version)
        link_model(client, model_id, version=known_as, trained=made_by, evaluated=scored, step=step)
        if version in standing:
            _tag(client, standing[version], tags)
            return
        _ensure_model(client, name)
        # Last: a version that exists is complete.
        with resolving_models(settings):
            made = client.create_model_version(
                name, f"models:/{model_id}", run.info.run_id, tags, await_creation_for=0, model_id=model_id
            )
        if (
            int(made.version) != version
        ):  # versions deleted in MLflow still count there, and no search shows them
            client.delete_model_version(name, str(made.version))
            raise RegistryError(_edited(name, f"it numbered this version {made.version}, expected {version}"))


@dataclass(frozen=True)
class IndexedAlias:
    """An alias as MLflow has it."""

    version: int
    """0: the alias is not there."""

    mark: str
    """What we last wrote beside it; empty where we never did."""


def set_alias(settings: Settings, *, name: str, alias: str, version: int, mark: str) -> None:
    """Point an alias at a version, or with 0 take it away (again, if need be), and write a mark beside it.

    The mark comes last: where it stands, the alias was as we wanted it, and whatever it is now is another's.
    """
    with connected(settings) as client:
        if version:
            client.set_registered_model_alias(name, alias, str(version))
        elif any(alias in model.aliases for model in client.search_registered_models(_named(name))):
            client.delete_registered_model_alias(name, alias)
        client.set_registered_model_tag(name, _ALIAS_MARK + alias, mark)


def indexed_aliases(settings: Settings, name: str) -> dict[str, IndexedAlias]:
    """The aliases of a model that stand in MLflow or once did, by name; none for a model it does not know."""
    with connected(settings) as client:
        page = client.search_registered_models(_named(name))
        if not page:
            return {}
        marks = {
            key.removeprefix(_ALIAS_MARK): mark
            for key, mark in page[0].tags.items()
            if key.startswith(_ALIAS_MARK)
        }
        standing = {alias: int(version) for alias, version in page[0].aliases.items()}
    names = sorted(marks.keys() | standing.keys())
    return {alias: IndexedAlias(standing.get(alias, 0), marks.get(alias, "")) for alias in names}


def tag_version(settings: Settings, *, name: str, version: int, tags: Mapping[str, str]) -> None:
    """Write tags on a registered version; one that is empty is taken away."""
    with connected(settings) as client:
        _tag(client, client.get_model_version(name, str(version)), tags)


def link_evaluation(
    settings: Settings, *, name: str, version: int, run_id: str, evaluation: str, step: int = 0
) -> None:
    """Show an evaluation that came after its model was registered on that model. Both must be in MLflow."""
    with connected(settings) as client:
        experiment_id = experiment_of(client, settings)
        source = client.get_model_version(name, str(version)).source or ""
        trained, scored = (find_run(client, experiment_id, each).info.run_id for each in (run_id, evaluation))
        model_id = source.removeprefix("models:/")
        link_model(client, model_id, version=(name, version), trained=trained, evaluated=[scored], step=step)


def model_versions(settings: Settings, name: str) -> list[IndexedVersion]:
    """The versions of a model in ascending order; none for a model that MLflow does not know."""
    with connected(settings) as client:
        found = [
            IndexedVersion(int(each.version), each.tags.get(RUN_TAG, ""), dict(each.tags), each.source or "")
            for each in _versions(client, name)
        ]
    return sorted(found, key=lambda each: each.version)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    found, token = [], None
    while True:
        page = client.search_model_versions(_named(name), max_results=1_000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _named(name: str) -> str:
    if not name or set(name) & set("'\"/:.%"):  # MLflow refuses the rest in the name of a logged model
        raise RegistryError(
            f"model name {name!r} cannot be registered; expected letters, digits, dashes, underscores"
        )
    return f"name = '{name}'"


def _check_next(name: str, version: int, found: list[int]) -> None:
    following = max(found, default=0) + 1
    if version == following:
        return
    if version > following:
        raise RegistryError(
            f"the next version of '{name}' in MLflow is {following}, expected {version}; "
            f"register {_span(following, version - 1)} first"
        )
    raise RegistryError(
        _edited(name, f"its latest version there is {following - 1}, and version {version} is gone")
    )


def _span(first: int, last: int) -> str:
    return f"version {first}" if first == last else f"versions {first} to {last}"


def _edited(name: str, what: str) -> str:
    return f"'{name}' was edited in MLflow behind our back: {what}; {register_again(name)}"


def register_again(name: str) -> str:
    """What a person does where MLflow cannot give a version its number any more: numbers there only grow."""
    return (
        f"in MLflow delete the registered model '{name}' as a whole (what people wrote there of it goes, "
        "too), then show its versions again: stemma mlflow-sync"
    )


def _require_ours(standing: ModelVersion, name: str, run_id: str, mlflow_run: str) -> None:
    """By its tag or, for a tag can be edited, by the run that MLflow itself has it from."""
    theirs = standing.tags.get(RUN_TAG)
    if theirs != run_id and standing.run_id != mlflow_run:
        owner = f"run {theirs}" if theirs else "somebody else"
        raise RegistryError(
            _edited(name, f"version {standing.version} belongs to {owner}, expected run {run_id}")
        )


def _tag(client: MlflowClient, standing: ModelVersion, tags: Mapping[str, str]) -> None:
    for key in sorted(tags):
        if tags[key] and standing.tags.get(key) != tags[key]:
            client.set_model_version_tag(standing.name, str(standing.version), key, tags[key])
        elif not tags[key] and key in standing.tags:
            client.delete_model_version_tag(standing.name, str(standing.version), key)


def _show_pedigree(client: MlflowClient, model_id: str, mlflow_run: str, pedigree: Mapping[str, str]) -> None:
    """The pedigree on the logged model and on the run that made it."""
    with written(pedigree) as texts:
        if texts:
            client.log_model_artifacts(model_id, texts)
            client.log_artifacts(mlflow_run, texts)


def _logged_model(
    client: MlflowClient,
    experiment_id: str,
    mlflow_run: str,
    name: str,
    version: int,
    tags: Mapping[str, str],
) -> str:
    """The logged model for this version: the one that an interrupted call left, or a new one."""
    mark = f"{name}@{version}"
    left = client.search_logged_models([experiment_id], f"tags.`{VERSION_TAG}` = '{mark}'", max_results=10)
    for model in left:
        if model.source_run_id == mlflow_run:
            return model.model_id
    made = client.create_logged_model(
        experiment_id, name, mlflow_run, tags={**tags, VERSION_TAG: mark}, model_type="adapter"
    )
    return made.model_id


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
