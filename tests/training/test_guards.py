"""Each guard trips where its fault is really there, and nothing is left of such a training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from infra.chat import ChatError
from infra.models import BaseModel
from tests.training.toys import decoder, sums, trained
from training import guards
from training.assignment import assign
from training.guards import GuardError
from training.recipe import TrainingConfig
from training.tiny.tokenizer import CHAT_TEMPLATE
from training.tunable import load_tunable, trained_of

SFT = TrainingConfig(
    objective="sft", method="lora", r=4, lora_alpha=8, train_batch_size=4, num_train_epochs=1, max_length=128
)

DPO = TrainingConfig(objective="dpo", method="lora", r=4, lora_alpha=8, train_batch_size=4, max_length=128)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> BaseModel:
    return decoder(tmp_path_factory.mktemp("llama"), hidden_size=64, head_dim=32)


def changed(**changes) -> TrainingConfig:
    return TrainingConfig(**SFT.model_dump() | changes)


def refused(config: TrainingConfig, base: BaseModel, folder, **given) -> str:
    """What a training is stopped with; nothing of it is kept."""
    with pytest.raises(GuardError) as stopped:
        trained(assign(sums(8), config, base), folder, **given)
    assert not (folder / "model").exists()
    return str(stopped.value)


def test_a_sound_training_trips_none(llama, tmp_path):
    trained(assign(sums(8), SFT, llama), tmp_path)
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def test_an_optimiser_that_does_not_hold_all_that_is_trained(llama):
    learns = trained_of(load_tunable(llama, (), SFT)[0])
    names = list(learns)
    guards.require_trainable(learns, torch.optim.AdamW(learns.values()))
    some = torch.optim.AdamW([learns[name] for name in names[:3] + names[4:]])
    with pytest.raises(GuardError, match=f"does not hold 1 trained tensors, first {names[3]}"):
        guards.require_trainable(learns, some)
    with pytest.raises(GuardError, match="no parameter is trainable"):
        guards.require_trainable({}, some)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_one_frozen_number_that_changes_in_training(llama, tmp_path, method):
    config = TrainingConfig(**SFT.model_dump() | {"method": method})
    changes = []

    def change(module: torch.nn.Module, _: object) -> None:
        if module.training and hasattr(module, "base_layer") and not changes:
            raw = module.base_layer.weight.data.view(torch.uint8).reshape(-1)
            raw[5] ^= 1
            changes.append(module)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(change)
    try:
        said = refused(config, llama, tmp_path)
    finally:
        hook.remove()
    assert changes
    assert "the frozen weights of the base changed in training" in said


def test_a_rate_at_which_nothing_moves(llama, tmp_path):
    said = refused(changed(learning_rate=1e-60), llama, tmp_path)
    assert said.startswith("2 steps did not change the adapter")


def test_a_base_with_a_weight_that_is_no_number(tmp_path):
    def spoil(model: torch.nn.Module) -> None:
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan

    base = decoder(tmp_path / "base", change=spoil)
    said = refused(SFT, base, tmp_path)
    assert "the loss of step 0 is nan" in said
    assert "this rank had fed rows [10" in said


def test_layers_that_no_gradient_reaches(tmp_path):
    """The output layer is zero, so whatever comes before it makes no difference."""

    def mute(model: torch.nn.Module) -> None:
        model.lm_head.weight.zero_()

    base = decoder(tmp_path / "base", change=mute)
    assert "the gradient of the first step has norm 0.0" in refused(SFT, base, tmp_path)


def test_a_reference_that_is_another_models(llama, tmp_path):
    cache = tmp_path / "cache"
    trained(assign(sums(8), DPO, llama), tmp_path / "first", cache=cache)
    (kept,) = cache.glob("*.npy")
    numbers = np.load(kept)
    numbers[:, 0] += 1.0
    np.save(kept, numbers)
    said = refused(DPO, llama, tmp_path / "second", cache=cache)
    assert "the loss of dpo at step 0 is 0.74" in said
    assert "expected ln 2 = 0.6931" in said


def test_all_weights_trained_from_an_adapter(llama, tmp_path):
    """They would begin at the base, and for dpo be held against it."""
    before = trained(assign(sums(8), SFT, llama), tmp_path / "first")
    adapter = (str(tmp_path / "first" / "model"), before.adapter_digest)
    gone_on = assign(sums(8), SFT, llama, adapter=adapter)
    with pytest.raises(GuardError, match='method = "full" trains no adapter'):
        trained(gone_on.by("full"), tmp_path / "second")
    assert trained(gone_on, tmp_path / "third").adapter_digest_before == before.adapter_digest


def test_an_adapter_of_another_shape_than_the_config_says(llama, tmp_path):
    before = trained(assign(sums(8), SFT, llama), tmp_path / "first")
    adapter = (str(tmp_path / "first" / "model"), before.adapter_digest)
    for key, value in {"r": 8, "lora_alpha": 16, "target_modules": ("q_proj",)}.items():
        gone_on = assign(sums(8), changed(**{key: value}), llama, adapter=adapter)
        with pytest.raises(GuardError, match=f"has {key} = .* and the config says {key} = .*; set {key}"):
            trained(gone_on, tmp_path / key)


def test_dropout_is_the_configs_and_not_that_of_the_adapter_gone_on_from(llama, tmp_path):
    before = trained(assign(sums(8), changed(lora_dropout=0.5, learning_rate=0.05), llama), tmp_path / "sft")
    adapter = (str(tmp_path / "sft" / "model"), before.adapter_digest)
    found = trained(assign(sums(8), DPO, llama, adapter=adapter), tmp_path / "dpo")
    assert found.fed[0].loss == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("found", "put", "sentence"),
    [
        ("{{- eos_token -}}", "", "would not learn to stop"),
        ("{{- bos_token -}}", "{{- bos_token + bos_token -}}", "begins with <bos> twice"),
    ],
)
def test_a_template_of_the_config_that_does_not_end_or_begins_twice(llama, tmp_path, found, put, sentence):
    """Found while rows are encoded, before a model is loaded."""
    template = tmp_path / "template.jinja"
    assert CHAT_TEMPLATE.count(found) == 1
    template.write_text(CHAT_TEMPLATE.replace(found, put))
    with pytest.raises(ChatError, match=sentence):
        assign(sums(2), changed(chat_template_path=str(template)), llama)
