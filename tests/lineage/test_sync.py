"""MLflow was away: the jobs went on, and afterwards it shows what it would have shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.cli import main
from infra.runtime import Runtime
from lineage import mirror, models, queries
from lineage.recall import recall
from lineage.selectors import Selector
from training.finetune import FinetuneConfig, finetune
from training.promote import promote
from training.recipe import TrainingConfig

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
AWAY = "http://127.0.0.1:9"  # the discard port: nobody answers


@pytest.fixture
def forgotten(trained_lake, tmp_path):
    """A lake whose MLflow was lost."""
    settings = trained_lake.copied(tmp_path / "copy")
    for file in Path(settings.lake).glob("mlflow.db*"):
        file.unlink()
    shutil.rmtree(settings.path("mlartifacts"))
    return settings


def test_what_a_sync_shows_is_what_the_jobs_themselves_showed(trained_lake, forgotten, shown):
    done = list(mirror.sync(forgotten))
    assert [sentence for sentence in done if not sentence.startswith("shown: ")] == []
    assert shown(forgotten) == shown(trained_lake.settings)
    assert {"router", "router@1", trained_lake.trained} <= shown(forgotten).keys()
    assert shown(forgotten)["router"] == {"candidate": 1, "champion": 1}


def test_a_second_sync_does_nothing(forgotten, shown):
    list(mirror.sync(forgotten))
    before = shown(forgotten)
    assert list(mirror.sync(forgotten)) == []
    assert shown(forgotten) == before


def test_jobs_go_on_while_mlflow_is_away_and_a_sync_shows_them(forgotten, shown):
    away = replace(forgotten, tracking_uri=AWAY)
    runtime = Runtime(away)
    training = TrainingConfig(num_train_epochs=2, train_batch_size=8, seed=5)
    trained = finetune(runtime, FinetuneConfig(training=training)).run_id
    version = promote(runtime, trained, name="other").facets["version"]
    row = queries.lineage(away, models.resolve(away, trained)[0]).rows["row_id"][0].as_py().hex()
    called_back = recall(runtime, Selector(rows=(row,)), reason="wrong", anyway=True).facets["recall"]
    list(mirror.sync(forgotten))
    found = shown(forgotten)
    assert found[trained]["ended"] == "FINISHED"
    assert found[trained]["files"] == ["eaten_rows.json", "pedigree.html", "pedigree.json", "verdict"]
    assert found[f"other@{version}"]["tags"]["stemma.recalled_by"] == called_back
    assert found["router@1"]["tags"]["stemma.recalled_by"] == called_back
    standing = {name: moved for name, moved in models.aliases(forgotten).items()}
    assert {name: found[name] for name in ("router", "other")} == {
        name: standing.get(name, {}) for name in ("router", "other")
    }


def test_an_alias_that_a_person_moved_there_is_named_and_left(forgotten):
    from mlflow.tracking import MlflowClient

    list(mirror.sync(forgotten))
    client = MlflowClient(forgotten.tracking_uri, forgotten.tracking_uri)
    client.delete_registered_model_alias("router", "champion")
    (sentence,) = mirror.sync(forgotten)
    assert "was moved by hand in MLflow" in sentence
    assert "champion" not in client.get_registered_model("router").aliases


def test_the_command_says_what_it_did_and_ends_with_0_then_nothing_is_left(forgotten, capsys):
    for said in (f"shown: run {models.versions(forgotten)[0].run_id} (finetune)", "MLflow shows all"):
        with pytest.raises(SystemExit) as ended:
            main(["mlflow-sync", "--lake", forgotten.lake])
        assert ended.value.code == 0
        assert said in capsys.readouterr().out


def test_a_server_that_is_away_is_one_sentence_and_exit_code_1(forgotten, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with pytest.raises(SystemExit) as ended:
        main(["mlflow-sync", "--lake", forgotten.lake])
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert "does not answer" in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


@pytest.mark.timeout(120)  # MLflow itself would try for 102 s, in each of them
def test_a_database_that_cannot_be_opened_costs_no_verb_more_than_a_server_that_is_away(forgotten, shown):
    broken = Path(forgotten.lake, "mlflow.db")
    broken.mkdir()
    (version,) = models.versions(forgotten)
    said = {
        verb: command(forgotten, verb, *words)
        for verb, *words in (("fsck",), ("promote", version.run_id, "--name", "other"), ("mlflow-sync",))
    }
    assert {verb: code for verb, (code, _) in said.items()} == {"fsck": 0, "promote": 0, "mlflow-sync": 1}
    for verb, (_, told) in said.items():
        (sentence,) = [line for line in told.splitlines() if "unable to open database file" in line]
        assert "mlflow.db cannot be opened" in sentence
        assert ("stemma mlflow-sync" in sentence) == (verb != "mlflow-sync")
    assert models.aliases(forgotten)["other"]["champion"] == 1
    broken.rmdir()
    list(mirror.sync(forgotten))
    assert shown(forgotten)["other"] == {"candidate": 1, "champion": 1}


def command(settings, *words: str) -> tuple[int, str]:
    """One command as a process of its own: exit code, and what it complained of."""
    ended = subprocess.run(
        [sys.executable, "-m", "infra.cli", *words, "--lake", settings.lake],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        timeout=100,
    )
    return ended.returncode, ended.stderr


def test_a_version_whose_files_are_gone_is_named_and_the_rest_is_shown(forgotten, shown):
    (version,) = models.versions(forgotten)
    checkpoint, _ = models.resolve(forgotten, str(version))
    shutil.rmtree(checkpoint.uri)
    done = list(mirror.sync(forgotten))
    (missing,) = [sentence for sentence in done if sentence.startswith("not shown, version router@1")]
    assert "missing or empty" in missing
    assert checkpoint.run_id in shown(forgotten)
