"""What may bear a version."""

from __future__ import annotations

import pytest

from lineage import models, tables
from lineage.consumption import find_checkpoint
from lineage.models import ModelError
from lineage.schemas import RUN
from tests.lineage.conftest import AT, blank


def test_a_checkpoint_of_a_training_that_was_cut_off_gets_no_version_until_the_training_ends(small):
    small.traces([1])
    small.examples({11: (1,)})
    run_id = small.train(11)

    def told(status: str):
        event = blank(RUN) | {"run_id": run_id, "job": "finetune", "status": status, "at": AT}
        tables.record(small.settings, [event], into=RUN)

    told("START")
    checkpoint = find_checkpoint(small.settings, run_id)
    with pytest.raises(ModelError, match=f"{run_id}/1 is of a training that did not come to its end"):
        models.register(small.runtime, checkpoint, name="router")
    assert models.versions(small.settings) == []
    told("COMPLETE")
    assert models.register(small.runtime, checkpoint, name="router").version == 1


def test_one_checkpoint_may_be_the_first_version_of_two_names(small):
    small.traces([1])
    small.examples({11: (1,)})
    checkpoint = find_checkpoint(small.settings, small.train(11))
    for name in ("router", "other"):
        models.register(small.runtime, checkpoint, name=name)
    assert [str(each) for each in models.versions(small.settings)] == ["other@1", "router@1"]
