"""Somebody's own trainer: what it fed to its model is on record as of our own trainings, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from infra.runtime import Runtime
from lineage import fsck, models, queries, tables
from lineage.consumption import eaten_by, find_checkpoint, is_offer
from lineage.curricula import load
from lineage.impact import impact
from lineage.recall import recall
from lineage.runs import latest
from lineage.schemas import CONSUMPTION, PLAN, RUN
from lineage.selectors import Selector
from training.recipe import TrainingError
from training.tiny import bases

transformers = pytest.importorskip("transformers")
pytest.importorskip("datasets", reason="curriculum_dataset gives a datasets.Dataset: pip install stemma[trl]")

from training.callback import CallbackError, ConsumptionCallback, curriculum_dataset  # noqa: E402

pytestmark = pytest.mark.cluster  # its lake is made on Ray


@pytest.fixture
def settings(trained_lake, tmp_path):
    return trained_lake.copied(tmp_path / "copy")


@pytest.fixture
def root(settings, trained_lake):
    return find_checkpoint(settings, trained_lake.trained).curriculum


def llama():
    import torch

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=1,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


def tokenized(rows):
    """Characters as tokens; the prompt is not learnt."""

    def encode(row):
        prompt, completion = ([ord(c) % 120 + 2 for c in row[name]] for name in ("prompt", "completion"))
        return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}

    return rows.map(encode, remove_columns=["prompt", "completion"])


def padded(rows):
    """A collator that knows nothing of row numbers, and drops what it does not know."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    pad = {"input_ids": 0, "labels": -100}
    return {
        name: torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])
        for name, fill in pad.items()
    }


def trainer(settings, root, tmp_path, *, callback=None, rows=None, model=None, **changes):
    arguments = {
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "remove_unused_columns": False,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    } | changes
    callback = callback or ConsumptionCallback(settings, root)
    made = transformers.Trainer(
        model or llama(),
        transformers.TrainingArguments(**arguments),
        train_dataset=tokenized(curriculum_dataset(settings, root)) if rows is None else rows,
        data_collator=padded,
        callbacks=[callback],
    )
    made.callback = callback
    return made


def fed_by(made):
    """What really goes through the model: texts by step, from the token ids of each forward pass."""
    steps, now = [], []

    def listen(model, positional, named):
        if model.training:
            now.extend(tuple(token for token in row if token) for row in named["input_ids"].tolist())

    class Steps(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            steps.append(list(now))
            now.clear()

    made.model.register_forward_pre_hook(listen, with_kwargs=True)
    made.add_callback(Steps())
    return steps


def eaten_texts(settings, run_id):
    """What the record says went through the model: texts by step, in order."""
    checkpoint = find_checkpoint(settings, run_id)
    rows = queries.lineage(settings, checkpoint).rows.to_pylist()
    texts = {row["row_no"]: tuple(ord(c) % 120 + 2 for c in row["text"] + row["answer"]) for row in rows}
    found = [[] for _ in range(checkpoint.step)]
    for row in eaten_by(settings, checkpoint).to_pylist():
        found[row["step"]].append(texts[row["row_no"]])
    return found


def test_what_went_through_the_model_is_on_record_in_order_and_per_optimiser_step(settings, root, tmp_path):
    made = trainer(settings, root, tmp_path, dataloader_num_workers=1)
    steps = fed_by(made)
    made.train()
    run_id = made.callback.run_id
    assert eaten_texts(settings, run_id) == steps
    assert [len(step) for step in steps][:3] == [8, 8, 8]
    checkpoint = find_checkpoint(settings, run_id)
    answers = {r["row_no"]: r["answer"] for r in queries.lineage(settings, checkpoint).rows.to_pylist()}
    ledger = eaten_by(settings, checkpoint).to_pylist()
    assert all(row["loss_tokens"] == len(answers[row["row_no"]]) for row in ledger)
    assert [check.found for check in fsck.fsck(settings) if check.found] == []


def test_lineage_impact_and_recall_work_on_it_as_on_our_own(settings, root, tmp_path):
    made = trainer(settings, root, tmp_path)
    made.train()
    checkpoint, _ = models.resolve(settings, made.callback.run_id)
    found = queries.lineage(settings, checkpoint)
    assert found.slices == load(settings, root).slices
    row = found.rows["row_id"][0].as_py().hex()
    reached = impact(settings, Selector(rows=(row,)))
    assert checkpoint.run_id in {each.run_id for each in reached.checkpoints}
    recall(Runtime(settings), Selector(rows=(row,)), reason="wrong", anyway=True)
    assert found.rows["row_no"][0].as_py() in {
        n
        for n, gone in zip(
            *(queries.lineage(settings, checkpoint).rows[c].to_pylist() for c in ("row_no", "recalled")),
            strict=True,
        )
        if gone
    }
    with pytest.raises(TrainingError, match="are stored and admitted"):
        curriculum_dataset(settings, root)


def test_mlflow_shows_it_as_it_shows_our_own(settings, root, tmp_path):
    from mlflow.tracking import MlflowClient

    made = trainer(settings, root, tmp_path)
    made.train()
    client = MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name("stemma").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`stemma.run_id` = '{made.callback.run_id}'")
    contexts = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}
    assert contexts["training"].digest == root[:36]
    assert run.data.params["seed"] == "3"
    assert run.data.metrics["loss"] > 0


def test_the_offer_is_on_record_before_the_first_step_and_fsck_finds_tampering(settings, root, tmp_path):
    class Dies(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            raise KeyboardInterrupt

    cut_off = trainer(settings, root, tmp_path)
    cut_off.add_callback(Dies())
    with pytest.raises(KeyboardInterrupt):
        cut_off.train()
    begun = [run for run in latest(settings) if run["job"] == "train"]
    assert [run["status"] for run in begun] == ["START"]
    plan = tables.read(settings, PLAN).to_pylist()
    offered = {row["row_no"] for row in plan if row["run_id"] == begun[0]["run_id"]}
    assert offered == set(load(settings, root).members["row_no"].to_pylist())

    made = trainer(settings, root, tmp_path)
    made.train()
    run_id = made.callback.run_id
    assert run_id == begun[0]["run_id"].replace("-1", "-2")
    assert is_offer(tables.read(settings, PLAN, where=pads.field("run_id") == run_id))
    assert fsck.ledger(settings)[1] == []
    ledger = tables.read(settings, CONSUMPTION).to_pylist()
    mine = [row for row in ledger if row["run_id"] == run_id]
    swapped = [dict(row) for row in mine]
    swapped[0]["row_no"], swapped[-1]["row_no"] = mine[-1]["row_no"], mine[0]["row_no"]
    missing = [row for row in mine if row["step"] != 1]
    stranger = [*mine[:-1], mine[-1] | {"row_no": 9_999_999}]
    broken = {"no longer hashes": swapped, "ate nothing": missing, "not offered": stranger}
    for said, tampered in broken.items():
        tables.replace(
            settings, pa.Table.from_pylist(tampered, CONSUMPTION.schema), into=CONSUMPTION, run_id=run_id
        )
        found = [*fsck.ledger(settings)[1], *fsck.roots(settings)[1]]
        assert any(said in sentence for sentence in found), said


def test_after_a_training_was_broken_off_its_model_trains_again_and_nothing_stays_open(
    settings, root, tmp_path
):
    class Breaks(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            raise KeyboardInterrupt

    model = llama()
    broken = trainer(settings, root, tmp_path, model=model)
    broken.add_callback(Breaks())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            broken.train()
    made = trainer(settings, root, tmp_path, model=model)
    made.train()
    assert all(eaten_texts(settings, made.callback.run_id))
    ended = {run["run_id"][-2:]: run["status"] for run in latest(settings) if run["job"] == "train"}
    assert ended == {"-1": "FAIL", "-2": "FAIL", "-3": "COMPLETE"}


def test_a_training_that_was_given_up_is_on_record_as_failed_at_once(settings, root, tmp_path):
    class Breaks(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            raise KeyboardInterrupt

    made = trainer(settings, root, tmp_path)
    made.add_callback(Breaks())
    with pytest.raises(KeyboardInterrupt):
        made.train()
    for _ in range(2):
        made.callback.give_up()
    assert [run["status"] for run in latest(settings) if run["job"] == "train"] == ["FAIL"]
    events = [row["status"] for row in tables.read(settings, RUN).to_pylist() if row["job"] == "train"]
    assert sorted(events) == ["FAIL", "START"]


def test_the_same_training_again_is_another_run_and_leaves_the_first_as_it_was(settings, root, tmp_path):
    first, second = (trainer(settings, root, tmp_path) for _ in range(2))
    first.train()
    before = eaten_texts(settings, first.callback.run_id)
    second.train()
    assert first.callback.run_id != second.callback.run_id
    assert eaten_texts(settings, first.callback.run_id) == before
    assert eaten_texts(settings, second.callback.run_id) == before


def test_adapters_are_stored_and_proven_like_our_own(settings, root, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    made = trainer(settings, root, tmp_path, model=model)
    made.train()
    checkpoint = find_checkpoint(settings, made.callback.run_id)
    assert fsck.roots(settings)[1] == []
    held = Path(checkpoint.uri, "adapter_model.safetensors")
    changed = bytearray(held.read_bytes())
    changed[-1] ^= 1
    held.write_bytes(changed)
    assert any("is not the one that was committed" in sentence for sentence in fsck.roots(settings)[1])
    changed[-1] ^= 1
    held.write_bytes(changed)
    config = Path(checkpoint.uri, "adapter_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 800}))
    assert ["the config beside the adapter" in sentence for sentence in fsck.roots(settings)[1]] == [True]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"remove_unused_columns": True}, "remove_unused_columns=False"),
        ({"load_best_model_at_end": True, "eval_strategy": "no"}, "load_best_model_at_end=False"),
    ],
)
def test_what_makes_the_record_wrong_is_refused_at_once(settings, root, tmp_path, changes, sentence):
    rows = tokenized(curriculum_dataset(settings, root))
    made = trainer(settings, root, tmp_path, rows=rows)
    for name, value in changes.items():
        setattr(made.args, name, value)
    with pytest.raises(CallbackError, match=sentence):
        made.train()
    assert "train" not in {run["job"] for run in latest(settings)}


def test_rows_that_nobody_knows_are_refused(settings, root, tmp_path):
    rows = tokenized(curriculum_dataset(settings, root))
    with pytest.raises(CallbackError, match="has no column row_no"):
        trainer(settings, root, tmp_path, rows=rows.remove_columns(["row_no"])).train()
    strangers = rows.map(lambda row: {"row_no": row["row_no"] + 1_000_000})
    with pytest.raises(CallbackError, match="not the curriculum's"):
        trainer(settings, root, tmp_path, rows=strangers).train()


def test_flattened_rows_are_refused_and_the_run_is_on_record_as_failed(settings, root, tmp_path):
    made = trainer(settings, root, tmp_path)

    def flat(rows):
        import torch

        ids = [token for row in rows for token in row["input_ids"]]
        return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([ids])}

    made.data_collator = flat
    with pytest.raises(CallbackError, match="4 rows came to the model as 1 sequences"):
        made.train()
    (run,) = [run for run in latest(settings) if run["job"] == "train"]
    assert run["status"] == "FAIL"
    assert "packing=False" in run["error"]


def test_no_token_of_the_hub_gets_into_the_record(settings, root, tmp_path):
    made = trainer(settings, root, tmp_path, hub_token="hf_secret")
    made.train()
    told = json.dumps(tables.read(settings, RUN).to_pylist(), default=str)
    assert "hf_secret" not in told


def test_trl_fine_tunes_and_is_recorded(settings, root, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install stemma[trl]")
    callback = ConsumptionCallback(settings, root)
    made = trl.SFTTrainer(
        llama(),
        trl.SFTConfig(**sft(tmp_path)),
        train_dataset=curriculum_dataset(settings, root),
        processing_class=words(settings, root),
        callbacks=[callback],
    )
    made.train()
    rows = queries.lineage(settings, find_checkpoint(settings, callback.run_id)).rows
    assert sorted(rows["row_no"].to_pylist()) == sorted(load(settings, root).members["row_no"].to_pylist())
    assert set(rows["times"].to_pylist()) == {1}
    # the answer is one word, and an end token follows it
    ledger = eaten_by(settings, find_checkpoint(settings, callback.run_id))
    assert set(ledger["loss_tokens"].to_pylist()) == {2}
    assert [check.found for check in fsck.fsck(settings) if check.found] == []


def test_lineage_and_impact_of_what_trl_fine_tuned_are_those_of_our_own(
    settings, root, trained_lake, tmp_path, monkeypatch
):
    """Held against what really went through the model, on a decoder with adapters."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install stemma[trl]")
    import peft

    monkeypatch.setattr(bases, "TINY", {"toy": bases.VERY_TINY})
    base = bases.resolve_base(Runtime(settings), "toy")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base.path)
    callback = ConsumptionCallback(settings, root, base_model="toy")
    rows = curriculum_dataset(settings, root)
    made = trl.SFTTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(base.path),
        trl.SFTConfig(**sft(tmp_path) | {"num_train_epochs": 2, "gradient_accumulation_steps": 2}),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(r=4, target_modules="all-linear"),
        callbacks=[callback],
    )
    fed = fed_by(made)
    made.train()

    numbers = {
        tuple(tokenizer.encode(row["prompt"] + row["completion"] + tokenizer.eos_token)): row["row_no"]
        for row in rows
    }
    steps = [[numbers[tuple(text)] for text in step] for step in fed]
    assert len(numbers) == len(rows)
    assert sorted(row_no for step in steps for row_no in step) == sorted([*rows["row_no"]] * 2)
    checkpoint, _ = models.resolve(settings, callback.run_id)
    assert (checkpoint.base_model, checkpoint.base_digest) == ("toy", base.digest)
    ledger = eaten_by(settings, checkpoint).to_pylist()
    assert [(row["step"], row["row_no"]) for row in ledger] == [
        (step, row_no) for step, eaten in enumerate(steps) for row_no in eaten
    ]
    told = {row["row_no"]: row for row in queries.lineage(settings, checkpoint).rows.to_pylist()}
    assert told.keys() == set(rows["row_no"])
    for row in rows:
        found = told[row["row_no"]]
        assert (found["text"], found["answer"], found["times"]) == (row["prompt"], row["completion"], 2)
        assert found["first_step"] == next(n for n, step in enumerate(steps) if row["row_no"] in step)
        learnt = len(tokenizer.encode(row["completion"])) + 1  # and the end token
        assert found["loss_tokens"] == 2 * learnt

    (revision,) = {row["source_revision"] for row in told.values()}
    reached = {each.run_id: each for each in impact(settings, Selector(source_revision=revision)).checkpoints}
    ours, theirs = reached[trained_lake.trained], reached[callback.run_id]
    assert (theirs.rows, theirs.of, theirs.step) == (ours.rows, ours.of, len(steps))
    assert (theirs.slots, theirs.of_slots, theirs.first_contact) == (len(ledger), len(ledger), 0)
    late = max(told.values(), key=lambda row: row["first_step"])
    (one,) = [
        each
        for each in impact(settings, Selector(rows=(late["row_id"].hex(),))).checkpoints
        if each.run_id == callback.run_id
    ]
    assert (one.rows, one.slots, one.first_contact) == (1, 2, late["first_step"])
    assert one.first_contact > 0
    assert one.loss_tokens == late["loss_tokens"]


def test_packed_by_trl_is_refused(settings, root, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install stemma[trl]")
    made = trl.SFTTrainer(
        llama(),
        trl.SFTConfig(**sft(tmp_path), packing=True, max_length=64),
        train_dataset=curriculum_dataset(settings, root),
        processing_class=words(settings, root),
        callbacks=[ConsumptionCallback(settings, root)],
    )
    with pytest.raises(CallbackError, match="packing=False"):
        made.train()


def sft(tmp_path):
    return {
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "remove_unused_columns": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
    }


def words(settings, root):
    """A tokenizer of the curriculum's words, made here."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds

    rows = curriculum_dataset(settings, root)
    known = sorted({word for row in rows for word in f"{row['prompt']} {row['completion']}".split()})
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[EOS]", "[UNK]", *known])}
    assert len(vocabulary) <= 128
    made = Tokenizer(kinds.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]"
    )
