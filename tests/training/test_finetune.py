"""A fine-tuning as a job: what it puts on record, how it goes on after a kill, and what it falls back to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pytest

from expectations.gate import admit
from infra.cli import run
from infra.models import ModelError
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.consumption import bitmaps, checkpoints, eaten_by, ledger_of, steps_of
from lineage.curricula import DataRecipe
from lineage.fsck import fsck
from lineage.queries import contacts, lineage
from lineage.runs import Outcome, find
from lineage.schemas import PLAN, REJECTED, STEP
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, ingest
from training import tunable
from training.finetune import FinetuneConfig, finetune
from training.guards import GuardError, MethodError
from training.recipe import TrainingConfig, TrainingError
from training.tiny import bases

SUMS = [(a, b) for a in range(11, 31) for b in (2, 5, 95)]


def test_a_lake_in_an_object_store_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(lake="s3://key:secret@bucket/lake", tracking_uri="")
    with pytest.raises(TrainingError, match="lake 's3://bucket/lake' is an object store"):
        finetune(Runtime(settings), FinetuneConfig())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny(monkeypatch) -> str:
    """The name of a decoder that is there in a second."""
    monkeypatch.setattr(bases, "TINY", {**bases.TINY, "very-tiny": bases.VERY_TINY})
    return "very-tiny"


@pytest.fixture
def sums(runtime, toys, tmp_path) -> Runtime:
    """A lake with admitted examples: sums to be learnt, and preferences of right answers over wrong ones."""
    log = [
        toys.exchange(f"What is {a} + {b}?", f"#### {a + b + 1}", verdict="fail", correction=f"#### {a + b}")
        for a, b in SUMS
    ]
    stored = ingest(runtime, IngestConfig(sources=(str(toys.write_lines(tmp_path / "sums.jsonl", log)),)))
    assert admit(runtime, stored.outputs[0]).passed
    for task in ("generation", "preference"):
        made = curate(runtime, CurateConfig(task=task))
        assert admit(runtime, made.outputs[0]).passed
    return runtime


def sft(base: str, **training) -> FinetuneConfig:
    given = {"base_model": base, "objective": "sft", "learning_rate": 1e-3, "train_batch_size": 8, "r": 4}
    return FinetuneConfig(data=DataRecipe(tasks=("generation",)), training=TrainingConfig(**given | training))


def test_a_preference_model_is_made_of_what_its_start_ate_too(sums, tiny):
    first = finetune(sums, sft(tiny))
    given = {"base_model": tiny, "objective": "dpo", "adapter_name_or_path": first.run_id, "r": 4}
    config = FinetuneConfig(
        data=DataRecipe(tasks=("preference",)),
        training=TrainingConfig(**given, num_train_epochs=1, learning_rate=1e-3, train_batch_size=8),
    )
    second = finetune(sums, config)
    assert second.facets["losses"][0] == pytest.approx(0.6931, abs=2e-3)
    made = {each.run_id: each for each in checkpoints(sums.settings)}
    start, after = made[first.run_id], made[second.run_id]
    assert after.started_from == start.name
    ate = bitmaps(sums.settings)
    own = bitmaps(sums.settings, own=True)
    assert len(own[after.run_id, after.step]) == len(SUMS)
    assert ate[after.run_id, after.step] == own[after.run_id, after.step] | own[start.run_id, start.step]
    assert lineage(sums.settings, after).count == 2 * len(SUMS)
    plan = _plan_of(sums, first)
    reached = [contact.checkpoint for contact in contacts(sums.settings, plan["row_id"][0].as_py())]
    assert reached == [start, after]
    whole = ledger_of(sums.settings, after)
    assert len(whole.starts) - 1 == start.step + after.step
    assert [finding for check in fsck(sums.settings) for finding in check.found] == []


def _plan_of(runtime: Runtime, made: Outcome) -> pa.Table:
    return tables.read(runtime.settings, PLAN, where=pads.field("run_id") == made.run_id)


def test_rows_that_the_plan_leaves_out_are_on_record_with_the_reason(sums, tiny):
    longest = pc.max(_plan_of(sums, finetune(sums, sft(tiny, num_train_epochs=1)))["n_tokens"]).as_py()
    limits = {"max_length": longest - 1, "excess_length_strategy": "drop"}
    made = finetune(sums, sft(tiny, num_train_epochs=1, **limits))
    mine = tables.read(sums.settings, REJECTED, where=pads.field("run_id") == made.run_id)
    assert made.counts["dropped"] == mine.num_rows > 0
    assert set(mine["reason"].to_pylist()) == {"longer_than_max_length"}
    assert set(mine["step"].to_pylist()) == {"plan"}
    eaten = set(eaten_by(sums.settings, checkpoints(sums.settings)[1])["row_no"].to_pylist())
    assert eaten.isdisjoint(mine["row_no"].to_pylist())
    assert len(eaten) + mine.num_rows == made.counts["rows"] == len(SUMS)


def test_a_packed_training_is_recorded_by_pack_and_place_and_can_be_reproduced(sums, tiny):
    config = sft(tiny, packing=True, max_length=128, train_batch_size=2, num_train_epochs=1)
    made = finetune(sums, config)
    plan = _plan_of(sums, made)
    assert pc.max(plan["offset"]).as_py() > 0
    assert plan.num_rows == len(SUMS)
    assert [finding for check in fsck(sums.settings) for finding in check.found] == []
    from training.reproduce import reproduced

    again = reproduced(sums, checkpoints(sums.settings)[0], Path(sums.settings.path("again")))
    assert again.identical, again


def test_where_the_base_cannot_be_quantised_it_is_trained_unquantised_and_that_is_on_record(
    sums, tiny, monkeypatch
):
    real = tunable.load_causal

    def unless_quantised(base, *, quantization, **given):
        if quantization is not None:
            raise ModelError("no kernel for this")
        return real(base, quantization=quantization, **given)

    monkeypatch.setattr(tunable, "load_causal", unless_quantised)
    made = finetune(sums, sft(tiny, num_train_epochs=1))
    assert made.facets["method"] == "lora"
    assert made.facets["method_failures"] == {"qlora": "no kernel for this"}
    assert made.facets["in_force"]["quantized_modules"] == 0
    assert json.loads(find(sums.settings, made.run_id)["config"])["training"]["method"] == "qlora"
    with pytest.raises(MethodError, match="no kernel for this"):
        finetune(sums, sft(tiny, num_train_epochs=1, fallback=(), seed=1))


def test_a_training_that_becomes_no_number_leaves_no_checkpoint(sums, tiny):
    with pytest.raises(GuardError, match="lower learning_rate"):
        finetune(sums, sft(tiny, learning_rate=1e30, max_grad_norm=1e30))
    assert checkpoints(sums.settings) == []
    assert list(Path(sums.settings.path("checkpoints")).glob("*")) == []


def test_an_adapter_of_another_base_is_refused(sums, tiny, trained_lake):
    first = finetune(sums, sft(tiny, num_train_epochs=1))
    other = {"base_model": trained_lake.settings.path("checkpoints", trained_lake.trained)}
    with pytest.raises((TrainingError, ModelError)):
        finetune(sums, sft(tiny, adapter_name_or_path=first.run_id, num_train_epochs=1, **other))


def test_after_a_killed_command_the_same_command_goes_on_and_every_row_counts_once(
    trained_lake, tmp_path, capsys
):
    settings = trained_lake.copied(tmp_path / "lake")
    words = ["--lake", settings.lake, "--set", "training.num_train_epochs=12"]
    words += ["--set", "training.train_batch_size=4", "--set", "training.save_steps=7"]
    command = [sys.executable, "-m", "infra.cli", "finetune", *words]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    logs = Path(settings.path("training"))
    try:
        until = time.monotonic() + 300
        while not any(len(log.read_text().splitlines()) > 16 for log in logs.glob("*/*/fed-*.jsonl")):
            assert victim.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert len(checkpoints(settings)) == 1
    assert run("finetune", [*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run_id"].endswith("-2")
    assert told["lost_steps"] > 0
    (made,) = [each for each in checkpoints(settings) if each.run_id == told["run_id"]]
    every = tables.read(settings, STEP, where=pads.field("run_id") == made.run_id).to_pylist()
    killed = {row["step"] for row in every if row["fed_by"].endswith("-1") and not row["lost"]}
    assert killed == set(range(14))
    assert {row["step"] for row in every if row["lost"]} >= {14, 15}
    assert steps_of(settings, made)["step"].to_pylist() == list(range(made.step))
    assert [finding for check in fsck(settings) for finding in check.found] == []
    assert not any(logs.glob("*"))
