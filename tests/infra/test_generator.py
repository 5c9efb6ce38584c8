"""A decoder answers conversations, with an adapter or without, the same alone and in company."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, DynamicCache

from infra.chat import prompt_ids, stop_token_ids, template_digest
from infra.inference import AdapterRecord, Generator, load_tuned
from infra.models import (
    BaseModel,
    ModelError,
    Quantization,
    adapter_digest,
    load_causal,
    load_tokenizer,
    resolve,
    without_rename_warning,
)
from tests.infra.toys import CHATML, write_decoder

WORDS = ["what", "is", "the", "capital", "of", "France", "Paris", "user", "system"]
ASKED = [
    [{"role": "user", "content": " ".join(WORDS[n % 9 : n % 9 + 1 + n % 4]), "extra": None}]
    for n in range(12)
]
TERSE = CHATML.replace("assistant\n", "assistant: ")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> BaseModel:
    return resolve(str(write_decoder(tmp_path_factory.mktemp("llama"))))


@pytest.fixture(scope="module")
def generator(base) -> Generator:
    return Generator.of_base(base, Quantization())


def test_four_bits_are_in_force_but_not_in_the_output_layer(base):
    model, in_force = load_causal(base, quantization=Quantization(), seed=0)
    expected = {
        "quantized_modules": 14,  # 2 layers of q, k, v, o and gate, up, down
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "dtype": "float32",
        "dropout": 0.0,
        "use_cache": False,
        "tied_embeddings": False,
    }
    assert {key: in_force[key] for key in expected} == expected
    assert model.lm_head.weight.dtype == torch.float32
    assert not model.training


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_embeddings_tied_to_the_output_layer_stay_tied_and_unquantised(kind, tmp_path):
    tied = resolve(str(write_decoder(tmp_path, kind, tie_word_embeddings=True)))
    model, in_force = load_causal(tied, quantization=Quantization(), seed=0, dtype="bfloat16")
    assert in_force["tied_embeddings"]
    assert in_force["dtype"] == "bfloat16"
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert len(Generator.of_base(tied, Quantization()).generate(ASKED[:2], max_new_tokens=3)) == 2


def test_a_decoder_that_lacks_weights_is_refused_not_drawn_at_random(base, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in Path(base.path).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights of a LlamaForCausalLM, first lm_head\.weight"):
        load_causal(resolve(str(tmp_path)), quantization=None, seed=0)


def test_an_encoder_is_no_decoder():
    with pytest.raises(ModelError, match=r"lacks .* weights of a BertLMHeadModel"):
        Generator.of_base(resolve("all-MiniLM-L6-v2"))


def test_a_training_step_after_an_eval_pass_still_has_its_gradient(base):
    model, _ = load_causal(base, quantization=Quantization(), seed=0)
    ids = torch.tensor([[5, 6, 7, 8]])
    gradients = []
    for _ in range(2):
        model.zero_grad()
        embeddings = model.get_input_embeddings().weight.requires_grad_()
        model.train()(input_ids=ids, labels=ids).loss.backward()
        gradients.append(embeddings.grad.clone())
        with torch.no_grad():
            model.eval()(input_ids=ids)
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)


def test_an_answer_is_the_same_alone_and_in_company(generator):
    together = generator.generate(ASKED, max_new_tokens=12, batch_size=5)
    alone = [generator.generate([asked], max_new_tokens=12)[0] for asked in ASKED]
    assert [each.token_ids for each in alone] == [each.token_ids for each in together]
    assert [each.text for each in alone] == [each.text for each in together]
    for one, other in zip(alone, together, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert 0 < one.confidence <= 1
    assert len({each.text for each in together}) > 3
    turned = generator.generate(ASKED[::-1], max_new_tokens=12)
    assert [each.token_ids for each in turned[::-1]] == [each.token_ids for each in together]
    assert generator.generate([]) == []


def test_an_answer_is_the_likeliest_token_each_time_and_ends_at_a_stop_token(base):
    generator, tokenizer = Generator.of_base(base), load_tokenizer(base)
    model, _ = load_causal(base, quantization=None, seed=0)
    stops = stop_token_ids(tokenizer)
    answers = generator.generate(ASKED, max_new_tokens=30)
    assert {answer.stopped for answer in answers} == {True, False}
    for asked, answer in zip(ASKED, answers, strict=True):
        row, likelihoods = prompt_ids(tokenizer, asked), []
        for token in answer.token_ids:
            with torch.inference_mode():
                each = model(input_ids=torch.tensor([row])).logits[0, -1].softmax(-1)
            assert int(each.argmax()) == token
            likelihoods.append(float(each.max()))
            row.append(token)
        assert answer.confidence == pytest.approx(sum(likelihoods) / len(likelihoods), abs=1e-4)
        assert answer.stopped == (answer.token_ids[-1] in stops)
        assert stops.isdisjoint(answer.token_ids[:-1])
        assert len(answer.token_ids) <= 30
        said = answer.token_ids[:-1] if answer.stopped else answer.token_ids
        assert answer.text == tokenizer.decode(said, skip_special_tokens=True)


def test_an_answer_ends_where_the_models_context_does(base, generator):
    long = [{"role": "user", "content": "x " * 30}]
    longer = [{"role": "user", "content": "x " * 60}]
    within, without = generator.generate([long, longer], max_new_tokens=80)
    tokens = len(prompt_ids(load_tokenizer(base), long))
    assert len(within.token_ids) == 96 - tokens or within.stopped
    assert (without.text, without.token_ids, without.confidence, without.stopped) == ("", [], 0.0, False)


def tuned(base: BaseModel, folder: Path, *, template: str | None = None, **changes) -> AdapterRecord:
    """An adapter with large random weights, as training saves it."""
    from peft import LoraConfig, get_peft_model

    model, _ = load_causal(base, quantization=Quantization(), seed=0)
    with without_rename_warning(), torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(
            r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", init_lora_weights=False
        )
        get_peft_model(model, config).save_pretrained(folder)
    tokenizer = load_tokenizer(base)
    if template:
        tokenizer.chat_template = template
        (folder / "chat_template.jinja").write_text(template)
    record = AdapterRecord(
        labels=(),
        max_length=64,
        base_model=base.name,
        base_digest=base.digest,
        method="qlora",
        quantization=Quantization(),
        adapter_digest=adapter_digest(folder),
        objective="sft",
        template_digest=template_digest(tokenizer),
    )
    record = dataclasses.replace(record, **changes)
    record.write(folder)
    return record


def test_an_adapter_changes_what_its_base_answers_and_knows_its_template(base, generator, tmp_path):
    record = tuned(base, tmp_path, template=TERSE)
    loaded = Generator.load(base, tmp_path)
    assert loaded.record == record == AdapterRecord.read(tmp_path)
    answers = loaded.generate(ASKED, max_new_tokens=8)
    assert [each.token_ids for each in answers] != [
        each.token_ids for each in generator.generate(ASKED, max_new_tokens=8)
    ]
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    with pytest.raises(ModelError, match=r"chat template of .* was changed after training"):
        Generator.load(base, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"chat template of .* was changed after training"):
        Generator.load(base, tmp_path)


def test_a_decoder_trained_whole_comes_from_its_folder(base, tmp_path):
    other = resolve(str(write_decoder(tmp_path, hidden_size=32)))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).unlink()  # the base's serve
    AdapterRecord(
        labels=(),
        max_length=64,
        base_model=base.name,
        base_digest=base.digest,
        method="full",
        quantization=None,
        adapter_digest=adapter_digest(tmp_path),
        objective="dpo",
        dtype="bfloat16",
    ).write(tmp_path)
    model, _, _ = load_tuned(base, tmp_path)
    assert model.config.hidden_size == 32
    assert next(model.parameters()).dtype == torch.bfloat16
    assert len(Generator.load(base, tmp_path).generate(ASKED[:1], max_new_tokens=2)) == 1
    assert other.digest != base.digest


def test_a_record_from_before_there_were_decoders_is_of_a_classifier(tmp_path):
    old = {"labels": ["a", "b"], "max_length": 8, "base_model": "m", "base_digest": "sha256:0"}
    old |= {"method": "lora", "quantization": None, "adapter_digest": "sha256:1"}
    (tmp_path / "stemma.json").write_text(json.dumps(old))
    record = AdapterRecord.read(tmp_path)
    assert (record.objective, record.dtype, record.template_digest) == (
        "sequence_classification",
        "float32",
        None,
    )
    record.write(tmp_path)
    assert AdapterRecord.read(tmp_path) == record


class Parrot(torch.nn.Module):
    """A decoder that says these tokens, whatever it is asked."""

    def __init__(self, tokens: list[int], vocab_size: int):
        super().__init__()
        self.config = AutoConfig.for_model("llama")
        self.logits = torch.nn.Parameter(
            50 * torch.nn.functional.one_hot(torch.tensor(tokens), vocab_size).float()
        )

    def forward(self, input_ids, past_key_values=None, **_):
        cache = past_key_values or DynamicCache()
        step = cache.get_seq_length()
        cache.update(*torch.zeros(2, len(input_ids), 1, 1, 1), 0)
        return SimpleNamespace(logits=self.logits[step].expand(len(input_ids), 1, -1), past_key_values=cache)


@pytest.mark.parametrize(("knows", "said"), [(True, "Paris."), (False, "<think>\nHm.\n</think>\n\nParis.")])
def test_a_thought_is_no_part_of_the_text_where_the_template_knows_thoughts(base, knows, said):
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = "{# <think></think> #}" + CHATML if knows else CHATML
    told = tokenizer("<think>\nHm.\n</think>\n\nParis.<|im_end|>")["input_ids"]
    answers = Generator(Parrot(told, len(tokenizer)), tokenizer).generate(ASKED[:3])
    assert [answer.text for answer in answers] == [said] * 3
    assert all(answer.token_ids == told and answer.stopped for answer in answers)
