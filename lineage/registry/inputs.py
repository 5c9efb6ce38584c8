"""What goes into a run and comes out of it, in MLflow: datasets, tables of rows, and logged models.

show_fed       rows that a run was fed, among its inputs
table_text     rows as the JSON that MLflow's UI draws as a table
link_model     a logged model: output of its training, input of its evaluations, with their numbers
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.entities import DatasetInput, Metric, Run
    from mlflow.tracking import MlflowClient

    from lineage.fed import Fed
    from lineage.registry.datasets import CurriculumDataset

SHOWN_ROWS = 10_000  # of a table; the browser loads it whole, and 10,000 rows are some 8 MB


def show_fed(client: MlflowClient, run: Run, fed: Sequence[Fed]) -> None:
    """Put rows among a run's inputs, each set once, with its context as MLflow's tag."""
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    inputs = [
        DatasetInput(
            _under_its_own_name(client, run, _dataset(each))._to_mlflow_entity(),
            [InputTag(MLFLOW_DATASET_CONTEXT, each.context)],
        )
        for each in fed
    ]
    if inputs:
        client.log_inputs(run.info.run_id, datasets=inputs)


def table_text(rows: pa.Table) -> str:
    """The first rows as MLflow writes a table: columns, and values as text, number or null."""
    few = rows.slice(0, SHOWN_ROWS)
    columns = [[_cell(value) for value in few[name].to_pylist()] for name in few.column_names]
    data = [list(row) for row in zip(*columns, strict=True)]
    return json.dumps({"columns": few.column_names, "data": data}, ensure_ascii=False)


def tables_tag(run: Run | None, names: Sequence[str]) -> dict[str, str]:
    """The tag by which MLflow's UI knows the tables among a run's artifacts."""
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    known = json.loads(run.data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]")) if run else []
    added = [{"path": name, "type": "table"} for name in names]
    wanted = known + [each for each in added if each not in known]
    return {MLFLOW_LOGGED_ARTIFACTS: json.dumps(wanted)} if names else {}


def link_model(
    client: MlflowClient,
    model_id: str,
    *,
    version: tuple[str, int],
    trained: str,
    evaluated: Sequence[str],
    step: int,
) -> None:
    """Tie a logged model to its registered version, to the MLflow run that made it, to those that scored it.

    Their numbers stand on the model, each beside the dataset that it was measured on; those that stand there
    are left alone.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelOutput
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    registered = [{"name": version[0], "version": version[1]}]
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(registered)})
    made = client.get_run(trained)
    if made.outputs is None or model_id not in {each.model_id for each in made.outputs.model_outputs}:
        client.log_outputs(trained, [LoggedModelOutput(model_id, step)])
    standing = {(each.run_id, each.key) for each in client.get_logged_model(model_id).metrics or ()}
    _show_numbers(client, made, model_id, standing, keys={"loss"})
    for mlflow_run in evaluated:
        run = client.get_run(mlflow_run)
        if run.inputs is None or model_id not in {each.model_id for each in run.inputs.model_inputs}:
            client.log_inputs(mlflow_run, models=[LoggedModelInput(model_id)])
        _show_numbers(client, run, model_id, standing, keys=set(run.data.metrics))


def _dataset(fed: Fed) -> CurriculumDataset:
    from lineage.registry.datasets import CurriculumDataset, LakeSource

    source = LakeSource.from_dict(dict(fed.source))
    return CurriculumDataset(source, name=fed.name, root=fed.root, profile=fed.profile, columns=fed.columns)


def _under_its_own_name(client: MlflowClient, run: Run, dataset: CurriculumDataset) -> CurriculumDataset:
    """The dataset, or under a longer name where another lake has logged an equal one with its own source.

    MLflow would show this run with that other lake's source: of one name and digest the first writer's stays.
    """
    wanted = f"dataset.name = '{dataset.name}' AND dataset.digest = '{dataset.digest}'"
    others = client.search_runs([run.info.experiment_id], wanted, max_results=1)
    for each in _inputs(others[0]) if others else ():
        theirs = each.dataset
        if (theirs.name, theirs.digest) == (dataset.name, dataset.digest):
            if theirs.source == dataset.source.to_json():
                return dataset
            lake = hashlib.sha256(dataset.source.to_dict()["lake"].encode()).hexdigest()[:8]
            return dataset.under(f"{dataset.name} in lake {lake}")
    return dataset


def _inputs(run: Run) -> Sequence[DatasetInput]:
    return run.inputs.dataset_inputs if run.inputs else ()


def _show_numbers(
    client: MlflowClient, run: Run, model_id: str, standing: set[tuple[str | None, str]], *, keys: set[str]
) -> None:
    """Give the model a run's newest numbers, as points that the run itself has already."""
    from mlflow.entities import Metric

    fed_with = next((each.dataset for each in _inputs(run)), None)
    points: list[Metric] = []
    for key in sorted(keys & run.data.metrics.keys()):
        if (run.info.run_id, key) not in standing:
            last = max(
                client.get_metric_history(run.info.run_id, key), key=lambda each: (each.step, each.timestamp)
            )
            points.append(
                Metric(
                    key,
                    last.value,
                    last.timestamp,
                    last.step,
                    model_id=model_id,
                    dataset_name=fed_with.name if fed_with else None,
                    dataset_digest=fed_with.digest if fed_with else None,
                    run_id=run.info.run_id,
                )
            )
    if points:
        client.log_batch(run.info.run_id, metrics=points)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return value.isoformat() if isinstance(value, dt.datetime) else value
