"""A merged model answers as the one that was trained, as far as its record says, and the adapter stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli import run
from infra.models import adapter_digest
from infra.runtime import Runtime
from lineage.consumption import checkpoints
from training.merge import merge
from training.recipe import TrainingError


@pytest.fixture(scope="module")
def lake(trained_lake, tmp_path_factory):
    return trained_lake.copied(tmp_path_factory.mktemp("merged") / "lake")


def test_onto_the_nf4_round_trip_it_is_nearer_to_what_was_trained_than_onto_the_base(lake):
    runtime = Runtime(lake)
    onto = {name: merge(runtime, "champion", onto=name).facets for name in ("base", "nf4")}
    assert onto["nf4"]["off_by"] < onto["base"]["off_by"] / 2
    for name, facets in onto.items():
        assert Path(facets["folder"]).name.endswith(f"-{name}")
        assert adapter_digest(facets["folder"]) == facets["digest"]
    assert onto["nf4"]["digest"] != onto["base"]["digest"]


def test_the_adapter_stays_and_a_second_merge_is_the_first(lake):
    checkpoint = checkpoints(lake)[0]
    merge(Runtime(lake), "champion", onto="base")
    assert adapter_digest(checkpoint.uri) == checkpoint.adapter_digest
    assert merge(Runtime(lake), "champion", onto="base").again


def test_merging_onto_something_else_is_refused(lake):
    with pytest.raises(TrainingError, match="is not one of: base, nf4"):
        run_merge(lake, "int8")


def run_merge(lake, onto: str) -> int:
    from training.commands import merge as verb

    return verb("champion", onto=onto, lake=lake.lake)


def test_the_verb_says_where_it_lies_and_how_far_it_is_off(lake, capsys):
    assert run("merge", ["champion", "--lake", lake.lake, "--onto", "nf4"]) == 0
    said = capsys.readouterr().out
    assert "merged onto nf4" in said
    assert "gate it before it serves" in said
