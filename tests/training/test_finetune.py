"""Where a training may not begin."""

from __future__ import annotations

import pytest

from infra.runtime import Runtime
from infra.settings import Settings
from training.finetune import FinetuneConfig, finetune
from training.recipe import TrainingError


def test_a_lake_in_an_object_store_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(lake="s3://key:secret@bucket/lake", tracking_uri="")
    with pytest.raises(TrainingError, match="lake 's3://bucket/lake' is an object store"):
        finetune(Runtime(settings), FinetuneConfig())
    assert list(tmp_path.iterdir()) == []
