"""A training goes on from its latest whole state as if it had never stopped; a full disk costs none."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors import safe_open

from infra.models import BaseModel
from tests.training.toys import decoder, sums, trained
from training import states
from training.assignment import Assignment, assign
from training.ledger import steps_table
from training.recipe import TrainingConfig, TrainingError

CONFIG = TrainingConfig(
    objective="sft",
    method="lora",
    r=4,
    lora_alpha=8,
    train_batch_size=2,
    num_train_epochs=1,
    max_length=128,
    save_steps=2,
    learning_rate=0.01,
)
KINDS = {
    "dropout": {"lora_dropout": 0.2},
    "packed": {"packing": True, "train_batch_size": 1, "max_length": 96, "lora_dropout": 0.2},
    "full": {"method": "full", "learning_rate": 1e-3},
    "dpo": {"objective": "dpo"},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> BaseModel:
    return decoder(tmp_path_factory.mktemp("llama"))


def assigned(base: BaseModel, **changes) -> Assignment:
    config = TrainingConfig(objective=changes.get("objective", "sft"), method=changes.get("method", "lora"))
    wanted = CONFIG.model_dump() | changes
    known = config.model_dump()  # what this objective and method do not ignore
    return assign(sums(16), TrainingConfig(**{k: v for k, v in wanted.items() if k in known}), base)


def stopped(assignment: Assignment, folder: Path, *, after: int, **given) -> Path:
    """The folder of a training that was broken off when `after` steps were done."""

    def stop(fed, steps: int) -> None:
        if fed.step + 1 == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(assignment, folder, on_step=stop, **given)
    return folder / "work"


def lost_steps(work: Path, found) -> list[int]:
    return [row["step"] for row in steps_table(work, found.fed).to_pylist() if row["lost"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_was_broken_off_ends_as_an_undisturbed_one(llama, tmp_path, kind):
    assignment = assigned(llama, **KINDS[kind])
    assert assignment.steps > 5
    undisturbed = trained(assignment, tmp_path / "undisturbed")
    work = stopped(assignment, tmp_path / "again", after=5)
    for kept in work.parent.glob("*.npy"):
        kept.unlink()  # the reference is computed anew, of the start and not of the state
    found = trained(assignment, tmp_path / "again", run_id="run-2")
    assert found.adapter_digest == undisturbed.adapter_digest
    assert [fed.loss for fed in found.fed] == [fed.loss for fed in undisturbed.fed]
    assert [fed.grad_norm for fed in found.fed] == [fed.grad_norm for fed in undisturbed.fed]
    assert {fed.step for fed in found.fed if fed.run_id == "run-2"} == set(range(4, assignment.steps))
    assert lost_steps(work, found) == [4]


def test_a_damaged_state_is_passed_over_for_the_one_before(llama, tmp_path):
    """Both are there where a crash came between the new one and the removal of the old."""
    assignment = assigned(llama)
    undisturbed = trained(assignment, tmp_path / "undisturbed")
    folder = tmp_path / "again"
    work = stopped(assignment, folder, after=3)
    shutil.copytree(work / "step-00000002", tmp_path / "kept")
    stopped(assignment, folder, after=5, run_id="run-2")
    assert [path.name for path in work.glob("step-*")] == ["step-00000004"]
    shutil.copytree(tmp_path / "kept", work / "step-00000002")
    assert states.latest(work).step == 4
    newest = work / "step-00000004" / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert states.latest(work).step == 2
    found = trained(assignment, folder, run_id="run-3")
    assert found.adapter_digest == undisturbed.adapter_digest
    assert min(fed.step for fed in found.fed if fed.run_id == "run-3") == 2


def test_with_no_whole_state_it_begins_anew(llama, tmp_path):
    assignment = assigned(llama)
    work = stopped(assignment, tmp_path, after=3)
    (work / "step-00000002" / "state.json").write_text("{")
    assert states.latest(work) is None
    found = trained(assignment, tmp_path, run_id="run-2")
    assert {fed.run_id for fed in found.fed} == {"run-2"}
    assert lost_steps(work, found) == [0, 1, 2]


def test_a_state_of_another_training_is_refused(llama, tmp_path):
    stopped(assigned(llama), tmp_path, after=3)
    with pytest.raises(TrainingError, match=r"is of another training.*remove the folder"):
        trained(assigned(llama, target_modules=("q_proj",)), tmp_path)


def test_what_a_killed_process_left_half_written_is_taken_away(llama, tmp_path):
    half = tmp_path / "work" / ".step-00000002-abc"
    half.mkdir(parents=True)
    (half / "trained.safetensors").write_bytes(b"half")
    trained(assigned(llama), tmp_path)
    assert not half.exists()


@contextmanager
def small_files(most_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes: it fails where a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_state_before_and_nothing_half(llama, tmp_path):
    assignment = assigned(llama)
    undisturbed = trained(assignment, tmp_path / "undisturbed")
    folder = tmp_path / "again"
    work = stopped(assignment, folder, after=3)
    with small_files(16_000), pytest.raises(TrainingError, match=r"the state after step 4 .*make room"):
        trained(assignment, folder, run_id="run-2")
    assert sorted(path.name for path in work.iterdir() if path.is_dir()) == ["step-00000002"]
    assert trained(assignment, folder, run_id="run-3").adapter_digest == undisturbed.adapter_digest


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_model_that_finds_no_room_is_told_in_a_sentence(llama, tmp_path, method):
    assignment = assigned(llama, method=method, save_steps=100)
    with small_files(16_000), pytest.raises(TrainingError, match="the trained model cannot be written"):
        trained(assignment, tmp_path)


def test_a_state_holds_no_pickle(llama, tmp_path):
    work = stopped(assigned(llama), tmp_path, after=3)
    files = {path.name: path for path in (work / "step-00000002").iterdir()}
    assert len(files) == 5
    for name, path in files.items():
        if name.endswith(".safetensors"):
            with safe_open(path, "pt") as file:
                assert file.keys()
        else:
            lines = path.read_text().splitlines()
            assert all(json.loads(line) for line in lines)
            assert lines
