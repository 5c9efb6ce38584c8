"""A checkpoint is trained again from its record, and whatever was changed in the record shows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pytest

from infra.cli import run
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.consumption import Checkpoint, checkpoints, steps_of
from lineage.schemas import PLAN, RUN, STEP
from training import rebuild as rebuilding
from training.ledger import STEPS_SCHEMA
from training.reproduce import first_difference, reproduced


@pytest.fixture(scope="module")
def lake(trained_lake, tmp_path_factory) -> Settings:
    """A copy that nobody changes."""
    return trained_lake.copied(tmp_path_factory.mktemp("reproduced") / "lake")


def champion(settings: Settings) -> Checkpoint:
    return checkpoints(settings)[0]


def test_the_champion_is_identical_in_a_fresh_process(lake, capfd):
    assert run("reproduce", ["champion", "--lake", lake.lake, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["identical"]
    assert found["same_order"]
    assert found["adapter_digest"] == champion(lake).adapter_digest
    assert found["steps"] == champion(lake).step
    assert found["environment"] == {}


def test_a_swapped_row_in_the_plan_is_named_with_its_slot(trained_lake, tmp_path):
    settings = trained_lake.copied(tmp_path / "lake")
    checkpoint = champion(settings)
    plan = tables.read(settings, PLAN).sort_by([("step", "ascending"), ("slot", "ascending")]).to_pylist()
    for name in ("row_id", "row_no"):
        plan[2][name], plan[9][name] = plan[9][name], plan[2][name]
    changed = pa.Table.from_pylist(plan, schema=PLAN.schema)
    tables.replace(settings, changed, into=PLAN, run_id=checkpoint.run_id)
    found = reproduced(Runtime(settings), checkpoint, tmp_path)
    assert not found.identical
    assert (
        f"step {plan[2]['step']} slot {plan[2]['slot']} was to eat {plan[2]['row_id'].hex()[:12]}"
        in found.sentence
    )


def test_another_seed_in_the_record_gives_another_order(trained_lake, tmp_path):
    settings = trained_lake.copied(tmp_path / "lake")
    checkpoint = champion(settings)
    events = tables.read(settings, RUN).to_pylist()
    mine = [event for event in events if event["run_id"] == checkpoint.run_id]
    for event in mine:
        config = json.loads(event["config"])
        config["training"]["seed"] += 1
        event["config"] = json.dumps(config)
    tables.replace(
        settings, pa.Table.from_pylist(mine, schema=RUN.schema), into=RUN, run_id=checkpoint.run_id
    )
    found = reproduced(Runtime(settings), checkpoint, tmp_path)
    assert not found.same_order
    assert "other rows: step 0 slot 0" in found.sentence


def test_another_base_is_named_before_anything_is_trained(lake, tmp_path, monkeypatch):
    real = rebuilding.resolve_base
    other = "sha256:" + "0" * 64
    monkeypatch.setattr(
        rebuilding, "resolve_base", lambda *given: dataclasses.replace(real(*given), digest=other)
    )
    found = reproduced(Runtime(lake), champion(lake), tmp_path)
    assert not found.identical
    assert f"another base: 'all-MiniLM-L6-v2' has digest {other}" in found.sentence
    assert list(Path(tmp_path).iterdir()) == []


def test_a_row_whose_text_was_changed_shows_at_the_step_that_ate_it(lake, tmp_path, monkeypatch):
    checkpoint = champion(lake)
    real = rebuilding._rows

    def swapped(*given) -> pa.Table:
        rows = real(*given)
        texts = rows["text"].to_pylist()
        texts[3] = texts[3][:-1] + chr(ord(texts[3][-1]) ^ 1)
        return rows.set_column(rows.column_names.index("text"), "text", pa.array(texts))

    monkeypatch.setattr(rebuilding, "_rows", swapped)
    found = reproduced(Runtime(lake), checkpoint, tmp_path)
    assert not found.identical
    if found.same_order:  # the same number of tokens: another word
        assert found.first_difference == "other tokens were fed"
        eaten = tables.read(lake, PLAN).to_pylist()
        row_no = sorted(eaten, key=lambda row: row["row_id"])
        ids = sorted({row["row_id"] for row in row_no})
        assert found.first_step == min(row["step"] for row in eaten if row["row_id"] == ids[3])


def test_the_first_step_that_differs_is_told_with_the_distance(lake):
    recorded = steps_of(lake, champion(lake)).select(STEPS_SCHEMA.names)
    assert first_difference(recorded, recorded) == (None, "")
    losses = recorded["loss"].to_pylist()
    losses[1] += 0.25
    place = recorded.column_names.index("loss")
    other = recorded.set_column(place, "loss", pa.array(losses))
    step, difference = first_difference(recorded, other)
    assert step == 1
    assert difference.endswith("(2.5e-01 apart)")
    assert first_difference(recorded, recorded.slice(0, 2)) == (2, "it was not taken again")


def test_every_step_is_on_record_with_what_it_fed(lake):
    told = tables.read(lake, STEP)
    plan = tables.read(lake, PLAN)
    assert pa.compute.sum(told["rows"]).as_py() == plan.num_rows
    assert pa.compute.sum(told["tokens"]).as_py() == pa.compute.sum(plan["n_tokens"]).as_py()
    assert not any(told["lost"].to_pylist())
