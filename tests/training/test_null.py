"""A null retrain is the recipe with another seed and nothing else, trained once."""

from __future__ import annotations

import pytest

from infra.runtime import Runtime
from lineage import models, runs
from training.finetune import config_of
from training.null import churn, retrains
from training.recipe import TrainingError


@pytest.fixture(scope="module")
def runtime(trained_lake, tmp_path_factory, ray_session) -> Runtime:
    return Runtime(trained_lake.copied(tmp_path_factory.mktemp("null") / "lake"))


def test_only_the_seeds_are_others(runtime, trained_lake):
    champion, _ = models.resolve(runtime.settings, trained_lake.trained)
    (null,) = retrains(runtime, champion, number=1, seed=0)
    mine, its = (config_of(runtime, models.resolve(runtime.settings, r)[0]) for r in (champion.run_id, null))
    assert its.training == mine.training.model_copy(update={"seed": mine.training.seed + 1})
    assert its.data == mine.data.model_copy(update={"seed": mine.data.seed + 1})
    again, another = retrains(runtime, champion, number=2, seed=0)
    assert again == null
    assert retrains(runtime, champion, number=1, seed=1) == [another]
    assert len({outcome.run_id for _, outcome in runs.completed(runtime.settings, "finetune")}) == 3


def test_churn_is_told_of_an_alias_and_costs_its_retrains_once(runtime):
    found = churn(runtime, "champion", seeds=1)
    assert [arm.passes + arm.failures for arm in found.arms] == [12]
    lost, low, high = found.lost
    assert 0 <= low <= lost <= high <= 1
    assert found.lines()[0] == "1 null retrain: the recipe unchanged, with other seeds"
    done = len(runs.completed(runtime.settings, "finetune"))
    assert churn(runtime, "champion", seeds=1) == found
    assert len(runs.completed(runtime.settings, "finetune")) == done
    with pytest.raises(TrainingError, match="ask for 1 or more"):
        churn(runtime, "champion", seeds=0)
