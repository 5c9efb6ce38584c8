"""Where memory does not suffice less goes through the model at once; what is learnt stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from infra.models import BaseModel
from tests.training.toys import decoder, sums, trained
from training.assignment import Assignment, assign
from training.guards import MethodError
from training.ledger import step_digests, steps_table
from training.loop import Trained
from training.recipe import TrainingConfig, TrainingError

CONFIG = TrainingConfig(
    objective="sft", method="lora", r=4, lora_alpha=8, train_batch_size=8, num_train_epochs=1, max_length=128
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> BaseModel:
    return decoder(tmp_path_factory.mktemp("llama"))


@contextmanager
def memory_for(fits: Callable[[torch.nn.Module, int], bool]) -> Iterator[list[int]]:
    """A device on which a forward pass of so many rows fits or does not; gives the sizes that did."""
    passes: list[int] = []

    def allocate(module: torch.nn.Module, given: tuple) -> None:
        if type(module).__name__ != "LlamaDecoderLayer" or module.self_attn.layer_idx:
            return
        rows, length, _ = given[0].shape
        if length > 3:  # more than the model is asked about its head
            if not fits(module, rows):
                raise torch.OutOfMemoryError(f"tried to allocate {rows} GiB")
            passes.append(rows)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(allocate)
    try:
        yield passes
    finally:
        hook.remove()


def assigned(base: BaseModel, **changes) -> Assignment:
    return assign(sums(16), TrainingConfig(**CONFIG.model_dump() | changes), base)


def micro_batches(found: Trained, folder) -> list[int]:
    return steps_table(folder / "work", found.fed)["micro_batch_size"].to_pylist()


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def roomy(llama, tmp_path_factory) -> tuple[Trained, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("roomy")
    return trained(assigned(llama), folder), weights(folder)


def assert_learnt_the_same(found: Trained, folder, roomy) -> None:
    expected, expected_weights = roomy
    assert step_digests(found.fed) == step_digests(expected.fed)
    assert [fed.slots for fed in found.fed] == [fed.slots for fed in expected.fed]
    assert [fed.loss for fed in found.fed] == pytest.approx([fed.loss for fed in expected.fed], rel=1e-4)
    for name, tensor in weights(folder).items():
        torch.testing.assert_close(tensor, expected_weights[name], rtol=0.01, atol=2e-5, msg=name)


def test_rows_that_do_not_fit_together_go_in_halves_and_on_record(llama, roomy, tmp_path):
    with memory_for(lambda _, rows: rows <= 3) as passes:
        found = trained(assigned(llama), tmp_path)
    assert max(passes) == 2
    assert micro_batches(found, tmp_path) == [2, 2]
    assert found.in_force["micro_batch_size"] == 2
    assert found.in_force["gradient_checkpointing"] is False
    assert [fed.micro_batch_size for fed in roomy[0].fed] == [8, 8]
    assert_learnt_the_same(found, tmp_path, roomy)


def not_the_second() -> Callable[[torch.nn.Module, int], bool]:
    """What does not fit is the second pass: the first has left a gradient, and drawn its dropout."""
    begun: list[int] = []

    def fits(_: torch.nn.Module, rows: int) -> bool:
        begun.append(rows)
        return len(begun) != 2

    return fits


def test_what_a_step_had_summed_before_it_ran_out_of_memory_is_not_counted_twice(llama, roomy, tmp_path):
    with memory_for(not_the_second()) as passes:
        found = trained(assigned(llama, per_device_train_batch_size=2), tmp_path)
    assert passes[:2] == [2, 1]
    assert micro_batches(found, tmp_path) == [1, 1]
    assert_learnt_the_same(found, tmp_path, roomy)


def test_dropout_is_drawn_as_if_the_smaller_passes_had_been_asked_for(llama, tmp_path):
    asked = trained(assigned(llama, lora_dropout=0.2, per_device_train_batch_size=1), tmp_path / "asked")
    with memory_for(not_the_second()):
        found = trained(assigned(llama, lora_dropout=0.2, per_device_train_batch_size=2), tmp_path / "found")
    assert found.adapter_digest == asked.adapter_digest


def test_then_activations_are_computed_again(llama, roomy, tmp_path):
    with memory_for(lambda layer, rows: rows == 1 and layer.gradient_checkpointing):
        found = trained(assigned(llama), tmp_path)
    assert micro_batches(found, tmp_path) == [1, 1]
    assert found.in_force["gradient_checkpointing"] is True
    assert_learnt_the_same(found, tmp_path, roomy)


@pytest.mark.parametrize("asked", [None, True, False])
def test_what_never_fits_ends_in_a_sentence(llama, tmp_path, asked):
    never = memory_for(lambda *_: False)
    sentence = r"one row at a time does not fit into memory \(tried to allocate 1 GiB\); lower max_length"
    with never as passes, pytest.raises(TrainingError, match=sentence):
        trained(assigned(llama, gradient_checkpointing=asked), tmp_path)
    assert passes == []
    assert not (tmp_path / "model").exists()


def test_the_reference_of_dpo_finds_room_too(llama, tmp_path):
    config = TrainingConfig(objective="dpo", method="lora", r=4, train_batch_size=8, num_train_epochs=1)
    assignment = assign(sums(8), config, llama)
    expected = trained(assignment, tmp_path / "roomy", cache=tmp_path / "one")
    with memory_for(lambda _, rows: rows <= 3) as passes:
        found = trained(assignment, tmp_path / "narrow", cache=tmp_path / "two")
    assert max(passes) == 2
    assert found.fed[0].loss == pytest.approx(expected.fed[0].loss, rel=1e-5)
    assert found.fed[0].grad_norm == pytest.approx(expected.fed[0].grad_norm, rel=1e-4)


def test_another_fault_is_not_taken_for_a_lack_of_memory(llama, tmp_path):
    def fail(_: torch.nn.Module, rows: int) -> bool:
        raise RuntimeError("a shape does not fit")

    with memory_for(fail), pytest.raises(MethodError, match="a shape does not fit"):
        trained(assigned(llama), tmp_path)
