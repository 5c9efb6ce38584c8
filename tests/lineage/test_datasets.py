"""What a run was fed, in MLflow: which rows, from which version, and the rows themselves, without us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.settings import Settings
from lineage import mirror, models, queries, tables
from lineage.consumption import find_checkpoint
from lineage.curricula import load
from lineage.fed import FedError, of_curriculum
from lineage.recall import recall
from lineage.registry import prepare
from lineage.registry.datasets import LakeSource
from lineage.schemas import EXAMPLE
from lineage.selectors import Selector

ROOT = Path(__file__).parents[2]


@pytest.fixture
def look():
    """MLflow as somebody else would look at it."""
    from mlflow.tracking import MlflowClient

    return lambda settings: MlflowClient(settings.tracking_uri, settings.tracking_uri)


def run_of(client, run_id):
    experiment = client.get_experiment_by_name("stemma").experiment_id
    (found,) = client.search_runs([experiment], f"tags.`stemma.run_id` = '{run_id}'")
    return client.get_run(found.info.run_id)  # a search leaves out the models


def evaluation_of(client, run_id):
    experiment = client.get_experiment_by_name("stemma").experiment_id
    asked = f"tags.`stemma.job` = 'evaluate' AND tags.`stemma.parent_run` = '{run_id}'"
    (found,) = client.search_runs([experiment], asked)
    return client.get_run(found.info.run_id)


def fed_with(run):
    """Context -> dataset, of the run's inputs."""
    return {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}


def test_a_training_shows_its_table_version_its_root_and_its_rows_by_slice(trained_lake, look):
    settings = trained_lake.settings
    checkpoint = find_checkpoint(settings, trained_lake.trained)
    curriculum = load(settings, checkpoint.curriculum)
    shown = fed_with(run_of(look(settings), trained_lake.trained))
    assert shown["training"].name == str(curriculum.version)
    assert shown["training"].digest == curriculum.root[:36]
    profile = json.loads(shown["training"].profile)
    assert profile["slices"] == curriculum.slices
    assert profile["curriculum"] == curriculum.root
    assert profile["table_version"] == str(curriculum.version)
    assert shown["eaten"].digest == checkpoint.consumption_root[:36]


def test_the_sources_give_the_very_rows_in_a_process_that_has_only_mlflow(trained_lake, look, tmp_path):
    settings = trained_lake.settings
    installed = tmp_path / "installed"
    code = tmp_path / "code"
    shutil.copytree(ROOT, code, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "docs"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    pip += ["--disable-pip-version-check", "--no-index", "--target", str(installed), str(code)]
    subprocess.run(pip, check=True, timeout=120)
    client = look(settings)
    runs = (run_of(client, trained_lake.trained), evaluation_of(client, trained_lake.trained))
    asked = [run.info.run_id for run in runs]
    script = """
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
found = {}
for run in sys.argv[2:]:
    for each in mlflow.get_run(run).inputs.dataset_inputs:
        rows = mlflow.data.get_source(each).load()
        found[each.tags[0].value] = rows[["row_id", "text", "answer"]].to_dict("list")
print(json.dumps(found))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEMMA")}
    done = subprocess.run(
        [sys.executable, "-c", script, settings.tracking_uri, *asked],
        env=environment | {"PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout)
    curriculum = load(settings, find_checkpoint(settings, trained_lake.trained).curriculum)
    assert sorted(found["training"]["row_id"]) == [i.hex() for i in curriculum.members["row_id"].to_pylist()]
    assert sorted(found["eaten"]["text"]) == sorted(curriculum.members["text"].to_pylist())
    gate = tables.read(settings, EXAMPLE, columns=["split", "text"]).to_pylist()
    assert sorted(found["eval"]["text"]) == sorted(row["text"] for row in gate if row["split"] == "gate")


def test_the_table_of_eaten_rows_says_of_each_where_it_comes_from_and_when_it_was_fed(trained_lake, look):
    client, settings = look(trained_lake.settings), trained_lake.settings
    run = run_of(client, trained_lake.trained)
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "eaten_rows.json")).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    eaten = queries.lineage(settings, find_checkpoint(settings, trained_lake.trained)).rows
    assert [row["row_id"] for row in rows] == [row_id.hex() for row_id in eaten["row_id"].to_pylist()]
    assert {row["times"] for row in rows} == {2}
    assert {row["source_uri"] for row in rows} == {trained_lake.log.as_uri()}
    assert {row["prompt_version"] for row in rows} == {"1"}
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "eaten_rows.json", "type": "table"}
    ]
    assert run.data.tags["stemma.eaten_rows"].startswith(f"{len(rows)}, all of them")


def test_a_logged_model_is_an_output_of_its_training_and_an_input_of_what_scored_it(trained_lake, look):
    client = look(trained_lake.settings)
    (version,) = client.search_model_versions("name = 'router'")
    model = version.source.removeprefix("models:/")
    trained = run_of(client, trained_lake.trained)
    assert [each.model_id for each in trained.outputs.model_outputs] == [model]
    scored = evaluation_of(client, trained_lake.trained)
    assert [each.model_id for each in scored.inputs.model_inputs] == [model]
    measured = {each.key: each for each in client.get_logged_model(model).metrics}
    assert measured["accuracy.clean"].value == scored.data.metrics["accuracy.clean"]
    assert measured["accuracy.clean"].dataset_name == fed_with(scored)["eval"].name
    assert measured["loss"].dataset_digest == fed_with(trained)["training"].digest
    names = {file.path for file in client.list_artifacts(trained.info.run_id)}
    assert {"pedigree.html", "pedigree.json", "eaten_rows.json"} <= names


def test_two_trainings_on_one_curriculum_keep_their_own_sources(trained_lake, look, tmp_path, ray_session):
    from infra.runtime import Runtime
    from training.finetune import FinetuneConfig, finetune
    from training.recipe import TrainingConfig

    settings = own_tracking(trained_lake.copied(tmp_path / "copy"))
    mirror.show_run(settings, trained_lake.trained)
    other = finetune(
        Runtime(settings), FinetuneConfig(training=TrainingConfig(num_train_epochs=1, train_batch_size=8))
    ).run_id
    client = look(settings)
    mine, theirs = (fed_with(run_of(client, run)) for run in (trained_lake.trained, other))
    assert mine["training"].digest == theirs["training"].digest
    assert json.loads(mine["eaten"].source)["run"] == trained_lake.trained
    assert json.loads(theirs["eaten"].source)["run"] == other
    assert set(LakeSource.from_json(theirs["eaten"].source).load()["times"]) == {1}
    assert set(LakeSource.from_json(mine["eaten"].source).load()["times"]) == {2}


def test_two_lakes_on_one_server_keep_their_own_sources(trained_lake, look, tmp_path):
    first = own_tracking(trained_lake.copied(tmp_path / "copy"))
    mirror.show_run(first, trained_lake.trained)
    client = look(first)
    run = run_of(client, trained_lake.trained)
    client.set_tag(run.info.run_id, "stemma.run_id", "of another lake")
    second = trained_lake.copied(tmp_path / "second")
    mirror.show_run(replace(second, tracking_uri=first.tracking_uri), trained_lake.trained)
    shown = fed_with(run_of(client, trained_lake.trained))["training"]
    assert json.loads(shown.source)["lake"] == second.lake
    assert shown.digest == fed_with(client.get_run(run.info.run_id))["training"].digest


def test_a_recall_leaves_the_rows_loadable_and_marks_every_touched_version(trained_lake, look, tmp_path):
    from infra.runtime import Runtime

    settings = own_tracking(trained_lake.copied(tmp_path / "copy"))
    list(mirror.sync(settings))
    before = LakeSource.from_json(
        fed_with(run_of(look(settings), trained_lake.trained))["eaten"].source
    ).load()
    row = before["row_id"][0]
    outcome = recall(Runtime(settings), Selector(rows=(row,)), reason="wrong", anyway=True)
    client = look(settings)
    wanted = f"tags.`stemma.recalled_by` = '{outcome.facets['recall']}'"
    assert [(v.name, int(v.version)) for v in client.search_model_versions(wanted)] == [("router", 1)]
    after = LakeSource.from_json(fed_with(run_of(client, trained_lake.trained))["eaten"].source).load()
    assert list(after["row_id"]) == list(before["row_id"])
    assert list(after[after["recalled"] != ""]["row_id"]) == [row]


def test_a_version_says_how_its_promotion_came_out(trained_lake, look):
    (version,) = look(trained_lake.settings).search_model_versions("tags.`stemma.verdict` = 'promoted'")
    checkpoint = find_checkpoint(trained_lake.settings, trained_lake.trained)
    assert version.tags["stemma.curriculum"] == checkpoint.curriculum
    assert version.tags["stemma.root"] == checkpoint.consumption_root
    assert "stemma.recalled_by" not in version.tags


def test_a_source_survives_its_json_also_at_version_0():
    sources = [
        LakeSource("/lake", "curricula@0", curriculum="c0ffee"),
        LakeSource("/lake", "consumption@0", run="ab-1", step=0),
        LakeSource("s3://lake", "examples@0", rows="c0ffee"),
    ]
    for source in sources:
        assert LakeSource.from_json(source.to_json()).to_dict() == source.to_dict()
        assert source.to_dict()["table"].endswith("@0")
    assert sources[1].to_dict()["step"] == 0


def test_no_password_of_a_lake_gets_into_a_source():
    source = LakeSource("s3://key:secret@bucket/lake?token=secret", "curricula@1", curriculum="c0ffee")
    assert source.to_dict()["lake"] == "s3://bucket/lake"
    assert "secret" not in source.to_json()


def test_no_password_of_a_lake_gets_into_what_a_run_was_fed(small):
    small.examples({11: ()})
    small.reign(11, scored=[11])
    checkpoint, _ = models.resolve(small.settings, "champion")
    curriculum = load(small.settings, checkpoint.curriculum)
    elsewhere = replace(small.settings, lake="s3://key:se@cret@bucket/lake?token=secret")
    assert of_curriculum(elsewhere, curriculum).source["lake"] == "s3://bucket/lake"


def test_rows_that_are_not_those_that_were_logged_are_refused(trained_lake, tmp_path):
    settings = trained_lake.copied(tmp_path / "copy")
    checkpoint = find_checkpoint(settings, trained_lake.trained)
    version = str(load(settings, checkpoint.curriculum).version)
    with pytest.raises(FedError, match="does not hash to its root"):
        LakeSource(settings.lake, version, curriculum="ab" * 32).load()
    with pytest.raises(FedError, match="no evaluation of rows"):
        LakeSource(settings.lake, "examples@1", rows="ab" * 32).load()
    with pytest.raises(FedError, match="there is no lake at"):
        LakeSource(str(tmp_path / "nowhere"), version, curriculum=checkpoint.curriculum).load()


def own_tracking(settings: Settings) -> Settings:
    """The settings of a copied lake with an MLflow of its own, empty."""
    for file in Path(settings.lake).glob("mlflow.db*"):
        file.unlink()
    shutil.rmtree(settings.path("mlartifacts"))
    prepare(settings)
    assert models.versions(settings)
    return settings
