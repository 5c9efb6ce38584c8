"""A project folder of Great Expectations with our suites and results, for notebooks and its own tools.

    import great_expectations as gx
    context = gx.get_context(mode="file", project_root_dir="expectations")
    context.suites.all(), context.validation_results_store.list_keys()

The repository carries one whose suites are suites/snapshots/; `python -m expectations.reports.project` writes
its configuration. `stemma reports --gx DIR` writes one with a lake's newest results.
"""

from __future__ import annotations

import json
from pathlib import Path

from expectations.gx import quiet
from expectations.reports.docs import content_of, stored_results
from expectations.suites.__main__ import snapshots
from infra.settings import Settings, SettingsError

HERE = Path(__file__).parents[1]
"""The folder whose project the repository carries."""

NEWEST = 1_000
"""Results that are copied."""

_CONFIG = """\
# Great Expectations' view of Stemma's suites; written by `python -m expectations.reports.project`.
config_version: 4.0
analytics_enabled: false
expectations_store_name: expectations_store
validation_results_store_name: validation_results_store
checkpoint_store_name: checkpoint_store

stores:
  expectations_store:
    module_name: expectations.registered  # importing it makes our expectations known
    class_name: ExpectationsStore
    store_backend:
      class_name: TupleFilesystemStoreBackend
      base_directory: {suites}
      suppress_store_backend_id: true
  validation_results_store:
    class_name: ValidationResultsStore
    store_backend:
      class_name: TupleFilesystemStoreBackend
      base_directory: uncommitted/validations/
      suppress_store_backend_id: true
  checkpoint_store:
    class_name: CheckpointStore
    store_backend:
      class_name: TupleFilesystemStoreBackend
      base_directory: uncommitted/checkpoints/
      suppress_store_backend_id: true
  validation_definition_store:
    class_name: ValidationDefinitionStore
    store_backend:
      class_name: TupleFilesystemStoreBackend
      base_directory: uncommitted/validation_definitions/
      suppress_store_backend_id: true

data_docs_sites:
  local_site:
    class_name: SiteBuilder
    show_how_to_buttons: false
    store_backend:
      class_name: TupleFilesystemStoreBackend
      base_directory: uncommitted/data_docs/
    site_index_builder:
      class_name: DefaultSiteIndexBuilder
      validation_results_limit: 100
"""


def config(*, suites: str = "expectations/") -> str:
    """great_expectations.yml; `suites` is the folder of the suites, seen from it."""
    return _CONFIG.format(suites=suites)


def write_project(settings: Settings, folder: Path, *, newest: int = NEWEST) -> int:
    """Write folder/gx: configuration, suites, the lake's newest results; how many those are.

    Into the folder whose project the repository carries only the results are written. Raises SettingsError
    for a folder that cannot be written.
    """
    root = folder.absolute() / "gx"
    try:
        if folder.resolve() != HERE:
            _put(root / "great_expectations.yml", config())
            for name, content in snapshots().items():
                _put(root / "expectations" / name, content)
        results = stored_results(settings, newest)
        for stored in results:
            content = content_of(settings, stored)
            _put(root / "uncommitted" / "validations" / _key(stored.batch, content), json.dumps(content))
    except OSError as error:
        raise SettingsError(
            f"no project can be written to '{root}' ({error.strerror}); choose another folder with --gx"
        ) from error
    return len(results)


def _key(batch: str, content: dict) -> Path:
    """Where Great Expectations looks for a result: suite, run's name, run's time, batch."""
    with quiet():
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
            ValidationResultIdentifier,
        )

        key = ValidationResultIdentifier(
            expectation_suite_identifier=ExpectationSuiteIdentifier(content["suite_name"]),
            run_id=RunIdentifier(**content["meta"]["run_id"]),
            batch_identifier=batch,
        )
        return Path(*(str(part) for part in key.to_tuple())).with_suffix(".json")


def _put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def main() -> None:
    """Write the configuration of the project that the repository carries."""
    place = HERE / "gx" / "great_expectations.yml"
    _put(place, config(suites="../suites/snapshots/"))
    print(place)


if __name__ == "__main__":
    main()
