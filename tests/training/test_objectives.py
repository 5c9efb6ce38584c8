"""Each objective learns what it says and nothing else, however its rows are put together and divided."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import cross_entropy

from infra.inference import Generator, Tagger, load_tuned
from infra.models import BaseModel, load_causal, load_tokenizer, resolve
from lineage.spans import Span, write_spans
from tests.training.toys import assert_same, decoder, gradients, rows_of, shaken, sums, trained
from training.assignment import Assignment, assign
from training.encoded import NO_LOSS, Batch, batch
from training.fit import fit
from training.guards import MethodError
from training.memory import Room
from training.objectives import OBJECTIVES, Minibatch, causal
from training.objectives.causal import target_losses
from training.plan import PlanError
from training.recipe import TrainingConfig, TrainingError
from training.reference import reference_of
from training.tunable import digest_of, load_tunable, trained_of
from training.world import World

SFT = TrainingConfig(
    objective="sft", method="lora", r=4, lora_alpha=8, train_batch_size=8, num_train_epochs=1, max_length=128
)
DPO = TrainingConfig(
    objective="dpo", method="lora", r=4, lora_alpha=8, train_batch_size=8, num_train_epochs=1, max_length=128
)
TAGS = TrainingConfig(
    objective="token_classification", method="lora", r=4, train_batch_size=8, num_train_epochs=1
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> BaseModel:
    return decoder(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> BaseModel:
    return decoder(tmp_path_factory.mktemp("qwen"), "qwen2")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> BaseModel:
    """Its logits are capped, and every other layer sees the last eight tokens alone."""
    caps = {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0}
    return decoder(tmp_path_factory.mktemp("gemma"), "gemma2", sliding_window=8, **caps)


@pytest.fixture(params=["llama", "qwen", "gemma"])
def base(request) -> BaseModel:
    return request.getfixturevalue(request.param)


def changed(config: TrainingConfig, **changes) -> TrainingConfig:
    return TrainingConfig(**config.model_dump() | changes)


def plain(base: BaseModel) -> torch.nn.Module:
    return load_causal(base, quantization=None, seed=0, attn_implementation=attention(base))[0]


def attention(base: BaseModel) -> str:
    return "eager" if "gemma" in base.path else "sdpa"  # the other has no place for a cap


def learnt(assignment: Assignment) -> list[str]:
    """The text of each row that the loss looks at."""
    tokenizer = load_tokenizer(assignment.base)
    (sequences,) = assignment.encoded.sequences
    found = (sequences.row(index)[1] for index in range(assignment.encoded.rows))
    return [tokenizer.decode(targets[targets != NO_LOSS].tolist()) for targets in found]


def alone(assignment: Assignment, row: int) -> Batch:
    (sequences,) = assignment.encoded.sequences
    return batch(sequences, [[row]], pad_token_id=assignment.encoded.pad_token_id)


# --- what is learnt


def test_only_the_answer_and_its_stop_token_are_learnt(llama):
    rows = rows_of([{"asked": "What is 3 + 4?", "answer": "#### 7"}, {"asked": "Hi", "answer": "<eos>"}])
    assignment = assign(rows, SFT, llama)
    # what a message says stays text, so the second answer has a stop token in words, and one that stops
    assert learnt(assignment) == ["#### 7<eos>", "<eos><eos>"]
    assert load_tokenizer(llama).eos_token_id in assignment.encoded.sequences[0].row(0)[1]
    assert assignment.encoded.n_loss_tokens.tolist() == [
        (assignment.encoded.sequences[0].row(row)[1] != NO_LOSS).sum() for row in range(2)
    ]


def test_every_turn_of_the_assistant_or_everything_is_learnt_where_asked(llama):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "#### 2"},
        {"role": "user", "content": "And 2 + 2?"},
    ]
    rows = rows_of([{"asked": turns, "answer": "#### 4"}])
    every_turn = changed(SFT, completion_only_loss=False, assistant_only_loss=True)
    assert learnt(assign(rows, SFT, llama)) == ["#### 4<eos>"]
    assert learnt(assign(rows, every_turn, llama)) == ["#### 2<eos>#### 4<eos>"]
    assert learnt(assign(rows, changed(SFT, completion_only_loss=False), llama)) == [
        "<system>Be brief.<user>What is 1 + 1?<assistant>#### 2<eos><user>And 2 + 2?<assistant>#### 4<eos>"
    ]


def test_without_its_chain_of_thought_an_answer_is_what_follows_the_last_mark(llama):
    rows = rows_of(
        [
            {
                "asked": "What is 3 + 4?",
                "answer": "#### 6, no: ones 3+4=07 #### 7",
                "rejected": "ones #### 8",
            },
            {"asked": "Hi", "answer": "hello", "rejected": "bye"},
        ]
    )
    assert learnt(assign(rows, changed(SFT, chain_of_thought=False), llama)) == ["#### 7<eos>", "hello<eos>"]
    answers, rejected = assign(rows, changed(DPO, chain_of_thought=False), llama).encoded.sequences
    said = [load_tokenizer(llama).decode(each.row(0)[0].tolist()) for each in (answers, rejected)]
    assert said == [f"<bos><user>What is 3 + 4?<assistant>#### {number}<eos>" for number in (7, 8)]


def test_tool_calls_are_read_and_learnt(llama):
    def call(city: str) -> str:
        arguments = json.dumps({"city": city})
        return json.dumps([{"type": "function", "function": {"name": "weather", "arguments": arguments}}])

    turns = [
        {"role": "user", "content": "Weather in Rome and Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": call("Rome")},
        {"role": "tool", "content": "sunny"},
    ]
    rows = rows_of([{"asked": turns, "answer": "", "calls": call("Oslo")}])
    assignment = assign(rows, changed(SFT, max_length=256), llama)
    (said,) = learnt(assignment)
    assert json.loads(said.removesuffix("<eos>"))[0]["function"] == {
        "name": "weather",
        "arguments": {"city": "Oslo"},
    }
    fed = load_tokenizer(llama).decode(assignment.encoded.sequences[0].row(0)[0].tolist())
    assert '"city": "Rome"' in fed
    assert fed.endswith(f"<tool>sunny<assistant>{said}")


def test_a_tool_call_is_preferred_to_words(llama):
    call = json.dumps([{"type": "function", "function": {"name": "weather", "arguments": "{}"}}])
    rows = rows_of([{"asked": "Weather?", "answer": "", "calls": call, "rejected": "I cannot know."}])
    answers, rejected = assign(rows, DPO, llama).encoded.sequences
    said = [load_tokenizer(llama).decode(each.row(0)[0].tolist()) for each in (answers, rejected)]
    assert '"name": "weather"' in said[0]
    assert said[1].endswith("<assistant>I cannot know.<eos>")


def test_a_long_answer_is_cut_and_one_without_a_token_left_is_dropped_with_the_reason(llama):
    rows = rows_of(
        [
            {"asked": "Hi", "answer": "1 2 3 4 5 6 7 8 9"},
            {"asked": "one two three four five six seven", "answer": "#### 1"},
            {"asked": "Hi", "answer": "1"},
        ]
    )
    config = changed(SFT, max_length=10)
    assignment = assign(rows, config, llama)
    assert dict(assignment.dropped) == {101: "no_loss_token"}
    assert assignment.encoded.n_cut[0] > 0
    assert assignment.encoded.n_cut[2] == 0
    assert "1 2 3 4 5 6 7 8 9".startswith(learnt(assignment)[0])
    assert sorted(assignment.row_no) == [100, 102]
    dropping = assign(rows, changed(config, excess_length_strategy="drop"), llama)
    assert dict(dropping.dropped) == {100: "longer_than_max_length", 101: "longer_than_max_length"}
    with pytest.raises(PlanError, match="none of 1 rows can be trained on: no_loss_token"):
        assign(rows.slice(1, 1), config, llama)


def test_the_loss_is_the_one_that_transformers_computes(base):
    assignment = assign(sums(3), SFT, base)
    model = plain(base)
    for row in range(3):
        fed = alone(assignment, row)
        expected = model(input_ids=fed.input_ids, labels=fed.targets).loss
        found = OBJECTIVES["sft"].loss_sum(model, Minibatch((fed,)), SFT)
        torch.testing.assert_close(found / assignment.encoded.n_loss_tokens[row], expected)


# --- packing


def packed(assignment: Assignment, packs: list[list[int]]) -> Batch:
    (sequences,) = assignment.encoded.sequences
    return batch(sequences, packs, pad_token_id=assignment.encoded.pad_token_id, packed=True)


PACKS = [[0, 1, 2], [3], [5, 4]]
"""Of unequal length: two of them are filled up."""


def test_a_packed_row_has_the_loss_and_gradient_that_it_has_alone(base):
    assignment = assign(sums(6), changed(SFT, packing=True), base)
    model = plain(base).requires_grad_(True)
    order = [row for pack in PACKS for row in pack]
    each = [target_losses(model, alone(assignment, row))[0] for row in order]
    sum(losses.sum() for losses in each).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    losses, lines = target_losses(model, packed(assignment, PACKS))
    torch.testing.assert_close(losses, torch.cat(each), rtol=1e-5, atol=1e-5)
    n_loss = assignment.encoded.n_loss_tokens
    assert lines.bincount().tolist() == [n_loss[pack].sum() for pack in PACKS]
    losses.sum().backward()
    assert_same({name: p.grad for name, p in model.named_parameters()}, expected)


def test_packed_lines_end_to_end_in_one_line_have_the_same_losses(base):
    assignment = assign(sums(6), changed(SFT, packing=True), base)
    model, lines = plain(base), packed(assignment, PACKS)
    with torch.no_grad():
        apart, together = (target_losses(model, each)[0] for each in (lines, lines.in_one_line()))
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def test_a_mask_of_ones_would_let_packed_rows_see_each_other(base):
    """The trap that the test above would notice."""
    assignment = assign(sums(6), changed(SFT, packing=True), base)
    model = plain(base)
    fed = packed(assignment, PACKS)
    mixed = dataclasses.replace(fed, attention_mask=torch.ones_like(fed.input_ids))
    right, wrong = (target_losses(model, each)[0] for each in (fed, mixed))
    first = int(assignment.encoded.n_loss_tokens[0])
    torch.testing.assert_close(wrong[:first], right[:first], rtol=1e-5, atol=1e-5)  # nothing comes before it
    assert (wrong[first:] - right[first:]).abs().max() > 0.01


def test_a_packed_training_takes_every_row_once_an_epoch(llama, tmp_path):
    config = changed(SFT, packing=True, max_length=64, train_batch_size=2, num_train_epochs=2)
    assignment = assign(sums(9), config, llama)
    eaten = trained(assignment, tmp_path)
    assert assignment.plan.table["offset"].to_numpy().max() > 0
    assert sorted(assignment.row_no) == sorted([*range(100, 109)] * 2)
    assert sum(fed.tokens for fed in eaten.fed) == 2 * assignment.encoded.n_tokens.sum()


# --- how a step is divided


def entities() -> pa.Table:
    names, cities = ("Ann", "Bob", "Eve", "Max"), ("Rome", "Oslo", "Paris", "Berlin")
    told = []
    for name in names:
        for number, city in enumerate(cities):
            text = (f"{name} lives in {city}", f"in {city} I met {name} and her old friends")[number % 2]
            spans = [(name, "person"), (city, "city")]
            found = [Span(text.index(said), text.index(said) + len(said), label) for said, label in spans]
            told.append({"text": text, "answer": write_spans(found)})
    told.append({"text": "nobody was there", "answer": write_spans([])})
    numbered = [row | {"row_no": n, "row_id": row["text"].encode()} for n, row in enumerate(told)]
    return pa.Table.from_pylist(numbered)


@pytest.mark.parametrize(
    "config",
    [SFT, changed(SFT, packing=True, max_length=96, train_batch_size=4), DPO, TAGS],
    ids=["sft", "packed", "dpo", "tags"],
)
def test_the_gradient_does_not_depend_on_passes_and_ranks(llama, config):
    decodes = config.decodes
    base = llama if decodes else resolve("all-MiniLM-L6-v2")
    assignment = assign(sums(8) if decodes else entities().slice(8, 8), config, base)
    model, _ = load_tunable(base, assignment.labels, config)
    reference = None
    if config.objective == "dpo":
        reference = np.zeros((8, 2), np.float32)  # any numbers: the gradient shall not be that of ln 2
        reference[:, 0] = np.arange(8)
    shaken(model)
    packs = len(assignment.packs_of(0, rank=0, world_size=1))
    assert packs == (8 if not config.packing else 4)
    assert config.objective == "dpo" or len(set(assignment.encoded.n_loss_tokens.tolist())) > 1
    loss, whole = gradients(model, assignment, most=packs, reference=reference)
    for most, world_size in [(2, 1), (packs, 2), (1, 3)]:
        other, parts = gradients(model, assignment, most=most, world_size=world_size, reference=reference)
        assert other == pytest.approx(loss, rel=1e-5)
        assert_same(parts, whole)


# --- preference


def test_loss_and_gradient_are_those_of_trl(llama, tmp_path):
    """At step 0, where the policy is its reference, and after it has moved."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install stemma[trl]")
    datasets = pytest.importorskip("datasets")
    rows = sums(6)
    assignment = assign(rows, DPO, llama)
    model, _ = load_tunable(llama, (), DPO)
    room = Room(model, DPO)
    reference = reference_of(model, digest_of(model), assignment, room=room, cache=tmp_path, world=World())
    other, _ = load_tunable(llama, (), DPO)
    told = [
        {
            "prompt": [{"role": m["role"], "content": m["content"]} for m in row["messages"]],
            "chosen": [{"role": "assistant", "content": row["answer"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows.to_pylist()
    ]
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=DPO.beta,
        max_length=DPO.max_length,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(
        model=other,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(told),
        processing_class=load_tokenizer(llama),
    )
    fed = trainer.data_collator(list(trainer.train_dataset))
    counted = fed["completion_mask"].sum().item()
    assert counted == sum((each.targets != NO_LOSS).sum() for each in assignment.encoded.sequences)
    expected = {}
    for is_moved in (False, True):
        if is_moved:
            shaken(model)
            shaken(trainer.model)
        trainer.model.zero_grad()
        trainer.model.train()
        wanted = trainer.compute_loss(trainer.model, fed)
        wanted.backward()
        expected = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
        loss, found = gradients(model, assignment, most=8, reference=reference)
        assert loss == pytest.approx(wanted.item(), rel=1e-5)
        assert (loss == pytest.approx(math.log(2), abs=1e-6)) is not is_moved
    assert_same(found, expected)


def test_the_reference_is_the_start_and_stays_it(llama, tmp_path):
    """Summed over the answer's tokens, prompts not counted; made once, from whatever training starts from."""
    rows = sums(6)
    warm = trained(assign(rows, changed(SFT, learning_rate=0.02), llama), tmp_path / "sft")
    adapter = (str(tmp_path / "sft" / "model"), warm.adapter_digest)
    cache = tmp_path / "cache"
    config = changed(DPO, learning_rate=0.01, num_train_epochs=3)
    assignment = assign(rows, config, llama, adapter=adapter)
    gone_on = trained(assignment, tmp_path / "dpo", cache=cache)
    losses = [fed.loss for fed in gone_on.fed]
    assert gone_on.adapter_digest_before == warm.adapter_digest
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < losses[0] - 0.01

    (kept,) = cache.glob("*.npy")
    numbers, written = np.load(kept), kept.stat().st_mtime_ns
    assert numbers == pytest.approx(by_hand(rows, llama, adapter[0]), abs=1e-4)
    assert np.abs(numbers - by_hand(rows, llama, None)).max() > 0.1

    again = trained(assignment, tmp_path / "again", cache=cache)
    assert again.adapter_digest == gone_on.adapter_digest
    assert [path.stat().st_mtime_ns for path in cache.glob("*.npy")] == [written]
    trained(assign(rows, config, llama), tmp_path / "other", cache=cache)
    assert len(list(cache.glob("*.npy"))) == 2


def by_hand(rows: pa.Table, base: BaseModel, adapter: str | None) -> np.ndarray:
    """Log-probabilities of each row's two answers, by transformers and peft alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(base)
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    model = (PeftModel.from_pretrained(model, adapter) if adapter else model).eval()
    found = []
    for row in rows.to_pylist():
        asked = tokenizer.encode(
            f"<bos><user>{row['messages'][0]['content']}<assistant>", add_special_tokens=False
        )
        for name in ("answer", "rejected"):
            said = tokenizer.encode(f"{row[name]}<eos>", add_special_tokens=False)
            with torch.no_grad():
                logits = model(torch.tensor([asked + said])).logits[0].log_softmax(-1)
            found.append(
                sum(logits[len(asked) + place - 1, token].item() for place, token in enumerate(said))
            )
    return np.array(found).reshape(-1, 2)


def test_a_row_without_a_rejected_answer_is_refused(llama):
    with pytest.raises(TrainingError, match="1 of 2 rows have no rejected answer"):
        assign(
            rows_of([{"asked": "Hi", "answer": "a", "rejected": "b"}, {"asked": "Ho", "answer": "a"}]),
            DPO,
            llama,
        )


# --- the head


def test_logits_that_a_model_caps_are_capped_in_the_loss(gemma, tmp_path):
    config = changed(SFT, attn_implementation="eager")
    assignment = assign(sums(2), config, gemma)
    model = plain(gemma)
    fed = alone(assignment, 0)
    outputs = model(input_ids=fed.input_ids, output_hidden_states=True)
    wanted = fed.targets[0, 1:]
    counts = wanted != NO_LOSS

    def losses_of(logits: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits[0, :-1][counts], wanted[counts], reduction="none")

    torch.testing.assert_close(target_losses(model, fed)[0], losses_of(outputs.logits))
    uncapped = losses_of(model.get_output_embeddings()(outputs.hidden_states[-1]))
    assert (uncapped - losses_of(outputs.logits)).abs().max() > 0.1
    assert trained(assignment, tmp_path).first_grad_norm > 0


def test_attention_that_a_model_cannot_have_is_refused_with_the_one_it_can(gemma, tmp_path):
    with pytest.raises(MethodError, match="eager"):
        trained(assign(sums(2), SFT, gemma), tmp_path)


def test_logits_in_parts_give_the_same_loss_and_gradient(base, monkeypatch):
    config = changed(SFT, attn_implementation=attention(base))
    assignment = assign(sums(8), config, base)
    model = shaken(load_tunable(base, (), config)[0])
    loss, whole = gradients(model, assignment, most=8)
    width = model.get_output_embeddings().out_features
    monkeypatch.setattr(causal, "_MOST_LOGITS", 3 * width + 1)  # three targets at a time
    parts_loss, parts = gradients(model, assignment, most=8)
    assert parts_loss == pytest.approx(loss, rel=1e-6)
    assert_same(parts, whole)


def test_finding_out_about_the_head_draws_no_random_number(llama):
    """Or dropout would differ between a training and one that goes on from its middle."""
    config = changed(SFT, lora_dropout=0.3)
    assignment = assign(sums(4), config, llama)
    losses = []
    for _ in range(2):
        model = shaken(load_tunable(llama, (), config)[0])
        if losses:
            target_losses(model, alone(assignment, 0))
        torch.manual_seed(0)
        losses.append(gradients(model, assignment, most=8)[0])
    assert losses[0] == losses[1]


# --- methods


@pytest.mark.parametrize(
    ("method", "changes", "is_tied"),
    [
        ("full", {}, True),
        ("full", {"bf16": True}, False),
        ("lora", {}, True),
        ("lora", {"bf16": True}, False),
        ("qlora", {}, False),
    ],
)
def test_what_is_saved_is_what_was_trained_and_answers(tmp_path, method, changes, is_tied):
    base = decoder(tmp_path / "base", hidden_size=64, head_dim=32, tie_word_embeddings=is_tied)
    adapters = {} if method == "full" else {"r": 4, "lora_alpha": 8}
    config = TrainingConfig(
        objective="sft", method=method, train_batch_size=3, num_train_epochs=2, **adapters, **changes
    )
    found = fit(
        assign(sums(6), config, base),
        run_id="run-1",
        work=str(tmp_path / "work"),
        out_dir=str(tmp_path / "model"),
        storage_path=str(tmp_path / "ray"),
    )
    assert found.losses[-1] < found.losses[0]
    assert found.trained.in_force["method"] == method
    assert found.trained.in_force["tied_embeddings"] == is_tied
    assert found.trained.in_force["dtype"] == ("bfloat16" if method == "lora" and changes else "float32")
    model, _, record = load_tuned(base, found.adapter_dir)
    assert digest_of(model) == found.adapter_digest == record.adapter_digest
    (said,) = Generator.load(base, found.adapter_dir).generate(
        [[{"role": "user", "content": "What is 1 + 1?"}]], max_new_tokens=2
    )
    assert said.token_ids


def test_what_is_trained_is_float32_whatever_the_base_is_held_in(llama):
    model, in_force = load_tunable(llama, (), changed(SFT, bf16=True))
    assert in_force["dtype"] == "bfloat16"
    assert {p.dtype for p in trained_of(model).values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


# --- tags


def test_entities_are_learnt_and_found_in_new_sentences(tmp_path):
    base = resolve("all-MiniLM-L6-v2")
    config = changed(TAGS, num_train_epochs=8, train_batch_size=6, r=8)
    found = fit(
        assign(entities(), config, base),
        run_id="run-1",
        work=str(tmp_path / "work"),
        out_dir=str(tmp_path / "model"),
        storage_path=str(tmp_path / "ray"),
    )
    tagger = Tagger.load(base, Path(found.adapter_dir))
    texts = ["Bob lives in Madrid", "in London I met Eve", "there was nobody"]
    told = [
        [(text[span.start : span.end], span.label) for span in spans]
        for text, spans in zip(texts, tagger.tag(texts), strict=True)
    ]
    assert told == [[("Bob", "person"), ("Madrid", "city")], [("London", "city"), ("Eve", "person")], []]
