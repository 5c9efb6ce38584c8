"""A registry that was edited by hand: fsck names it, and what it tells to do mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import mirror, models
from lineage.consumption import find_checkpoint
from lineage.fsck import fsck, repair
from lineage.recall import recall
from lineage.selectors import Selector
from training.finetune import FinetuneConfig, finetune
from training.recipe import TrainingConfig

pytestmark = pytest.mark.cluster


@pytest.fixture
def lake(trained_lake, tmp_path: Path) -> Settings:
    return trained_lake.copied(tmp_path / "lake")


@pytest.fixture
def client(lake: Settings) -> MlflowClient:
    return MlflowClient(lake.tracking_uri, lake.tracking_uri)


def found(settings: Settings) -> list[str]:
    """What fsck finds, all of it in the registry."""
    broken = {check.name: check.found for check in fsck(settings) if check.found}
    assert broken.keys() <= {"mirrored"}
    return list(broken.get("mirrored", ()))


def mended_by_repair(settings: Settings) -> None:
    assert repair(settings).done == ("the tags of router@1 in MLflow say again what the lake says",)


def mended_by_sync(settings: Settings) -> None:
    assert list(mirror.sync(settings)) == ["shown: what is new of router@1"]


@pytest.mark.parametrize("mend", [mended_by_repair, mended_by_sync])
def test_tags_of_a_version_that_were_edited_are_named_and_set_right(
    mend, lake: Settings, client: MlflowClient, shown
):
    recall(Runtime(lake), Selector(where="row_no >= 0"), reason="wrong", anyway=True)
    before = shown(lake)
    client.delete_model_version_tag("router", "1", "stemma.recalled_by")
    client.set_model_version_tag("router", "1", "stemma.root", "0" * 64)
    client.set_model_version_tag("router", "1", "stemma.run_id", "0123456789abcdef-1")
    (sentence,) = found(lake)
    assert sentence == (
        "MLflow says otherwise of router@1 than the lake, in stemma.run_id, stemma.root, stemma.recalled_by; "
        "set it right with: stemma fsck --repair"
    )
    mend(lake)
    assert found(lake) == []
    assert shown(lake) == before


def test_a_version_deleted_in_mlflow_comes_back_with_its_whole_model(
    lake: Settings, client: MlflowClient, shown
):
    before = shown(lake)
    client.delete_registered_model_alias("router", "candidate")
    client.delete_model_version("router", "1")
    broken = {check.name: check.found for check in fsck(lake) if check.found}
    assert broken["mirrored"][0].startswith("router@1 is not in MLflow; show it with: stemma mlflow-sync")
    said = [sentence for sentence in mirror.sync(lake) if sentence.startswith("not shown, version router@1")]
    assert "in MLflow delete the registered model 'router' as a whole" in said[0]
    assert "stemma mlflow-sync" in said[0]
    client.delete_registered_model("router")
    list(mirror.sync(lake))
    assert found(lake) == []
    assert shown(lake) == before


def test_of_a_version_deleted_before_others_it_is_said_that_no_number_is_given_twice(
    lake: Settings, client: MlflowClient, shown
):
    training = TrainingConfig(num_train_epochs=1, train_batch_size=8, seed=5)
    checkpoint = find_checkpoint(lake, finetune(Runtime(lake), FinetuneConfig(training=training)).run_id)
    mirror.show_version(lake, models.register(Runtime(lake), checkpoint, name="router"))
    before = shown(lake)
    client.delete_model_version("router", "1")
    broken = {check.name: check.found for check in fsck(lake) if check.found}
    (sentence,) = broken["mirrored"]
    assert sentence.startswith("router@1 is not in MLflow, which has later versions of 'router'")
    assert "delete the registered model 'router' as a whole" in sentence
    client.delete_registered_model("router")
    list(mirror.sync(lake))
    assert found(lake) == []
    assert shown(lake) == before
