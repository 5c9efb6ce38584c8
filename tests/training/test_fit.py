"""A fine-tuning eats its plan, is the same every time, and does not depend on how a step is divided."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from infra.inference import Predictor
from infra.models import ModelError, adapter_digest, resolve
from training import feeding
from training.assignment import Assignment, assign
from training.feeding import accumulate
from training.fit import Fitted, fit
from training.guards import GuardError
from training.plan import PlanError
from training.recipe import TrainingConfig, TrainingError
from training.schedule import rate_at
from training.tunable import load_tunable

TEXTS = {
    "greeting": ["hello", "hi there", "good morning to you my dear old friend", "hey"],
    "timer": [
        "set a timer",
        "start a timer for ten minutes please",
        "timer",
        "cancel the timer I set before",
    ],
    "translate": [
        "translate cat",
        "how do you say dog in french",
        "what is bread in spanish",
        "say it in thai",
    ],
}
LABELS = tuple(TEXTS)
CONFIG = TrainingConfig(r=4, lora_alpha=8, num_train_epochs=2, train_batch_size=11, seed=0)


@pytest.fixture(scope="module")
def base():
    return resolve("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    pairs = [(text, label) for label, texts in TEXTS.items() for text in texts]
    ids = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text, _ in pairs]
    return pa.table(
        {
            "row_no": range(100, 100 + len(pairs)),
            "row_id": pa.array(ids, pa.binary()),
            "text": [text for text, _ in pairs],
            "answer": [label for _, label in pairs],
        }
    )


def fitted(rows, base, folder: Path, config=CONFIG, *, on_step=None, **given) -> Fitted:
    assignment = assign(rows, config, base, **given)
    return run(assignment, folder, on_step=on_step)


def run(assignment: Assignment, folder: Path, *, run_id: str = "run-1", on_step=None) -> Fitted:
    return fit(
        assignment,
        run_id=run_id,
        work=str(folder / "work"),
        out_dir=str(folder / "adapter"),
        storage_path=str(folder / "ray"),
        on_step=on_step,
    )


@pytest.fixture(scope="module")
def first(rows, base, tmp_path_factory) -> Fitted:
    return fitted(rows, base, tmp_path_factory.mktemp("first"))


def test_training_learns_and_records_what_it_ate(first, rows, base):
    plan = assign(rows, CONFIG, base).plan
    eaten = first.consumption
    assert plan.steps == len(first.losses) == first.steps.num_rows == 4
    assert first.losses[-2] < first.losses[0]  # both full steps; the last of an epoch has one row
    assert first.trained.first_grad_norm > 0
    assert eaten.select(["step", "slot", "row_no"]).equals(plan.table.select(["step", "slot", "row_no"]))
    assert set(eaten["rank"].to_pylist()) == {0}
    assert first.trained.in_force["bnb_4bit_quant_type"] == "nf4"
    assert first.trained.in_force["torch_threads"] == 1
    assert first.adapter_digest != first.trained.adapter_digest_before


def test_the_adapter_folder_says_all_that_an_answer_needs(first, base):
    record = json.loads((Path(first.adapter_dir) / "stemma.json").read_text())
    assert record["labels"] == list(LABELS)
    assert record["base_digest"] == base.digest
    assert record["adapter_digest"] == first.adapter_digest == adapter_digest(first.adapter_dir)
    assert not list(Path(first.adapter_dir).glob("rank-*"))
    assert {path.name for path in Path(first.adapter_dir).parent.iterdir()} == {"adapter", "work"}


def test_the_same_rows_renumbered_and_reordered_give_the_same_adapter(first, rows, base, tmp_path):
    shuffled = rows.take(pa.array(range(rows.num_rows - 1, -1, -1)))
    renumbered = shuffled.set_column(0, "row_no", pa.array(range(rows.num_rows), pa.int64()))
    assert fitted(renumbered, base, tmp_path).adapter_digest == first.adapter_digest


def test_another_seed_gives_another_adapter(first, rows, base, tmp_path):
    other = fitted(rows, base, tmp_path, CONFIG.model_copy(update={"seed": 1}))
    assert other.adapter_digest != first.adapter_digest
    assert other.trained.adapter_digest_before != first.trained.adapter_digest_before


def test_training_leaves_threads_and_random_state_of_the_process_alone(rows, base, tmp_path):
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    seen = []
    fitted(rows, base, tmp_path, on_step=lambda fed, steps: seen.append((fed.step, steps)))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert seen == [(step, 4) for step in range(4)]


def gradient(rows, base, *, micro: int, world_size: int) -> dict[str, torch.Tensor]:
    """The first step's gradient, summed over the ranks of a world."""
    config = CONFIG.model_copy(update={"train_batch_size": 8, "bnb_4bit_compute_dtype": "float32"})
    assignment = assign(rows, config, base)
    model, _ = load_tunable(base, LABELS, config)
    model.train()
    slots = []
    for rank in range(world_size):
        mine = assignment.packs_of(0, rank=rank, world_size=world_size)
        given = {"loss_tokens": assignment.loss_tokens_of(0), "most": micro}
        slots += accumulate(model, assignment, mine, **given).slots
    assert sorted(slots) == list(range(8))
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_one_batch_two_minibatches_and_two_ranks_have_the_same_gradient(rows, base):
    whole = gradient(rows, base, micro=8, world_size=1)
    assert sum(g.abs().sum() for g in whole.values()) > 0
    for micro, world_size in [(4, 1), (3, 1), (8, 2), (2, 3)]:
        parts = gradient(rows, base, micro=micro, world_size=world_size)
        assert parts.keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(parts[name], expected, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
def test_two_workers_eat_the_plan_together_even_where_a_step_has_one_row(
    first, rows, base, tmp_path, ray_session
):
    pair = fitted(rows, base, tmp_path, CONFIG.model_copy(update={"num_workers": 2}))
    ranks = pair.consumption["rank"].to_pylist()
    assert ranks == [slot % 2 for slot in pair.consumption["slot"].to_pylist()]
    assert pair.consumption.drop_columns("rank").equals(first.consumption.drop_columns("rank"))
    assert pair.trained.in_force["world_size"] == 2
    assert pair.trained.adapter_digest_before == first.trained.adapter_digest_before
    np.testing.assert_allclose(pair.losses, first.losses, rtol=0.05)
    assert adapter_digest(pair.adapter_dir) == pair.adapter_digest


def test_a_loss_that_is_not_finite_stops_and_leaves_no_model(rows, base, tmp_path):
    wild = CONFIG.model_copy(update={"learning_rate": 1e30, "classifier_learning_rate": 1e30})
    with pytest.raises(GuardError, match=r"the loss of step \d is .*(nan|inf).*lower learning_rate"):
        fitted(rows, base, tmp_path, wild)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_layers_that_do_not_exist_are_refused(rows, base, tmp_path):
    with pytest.raises(GuardError, match="adapters do not fit"):
        fitted(rows, base, tmp_path, CONFIG.model_copy(update={"target_modules": ("q_proj",)}))


def test_rows_that_cannot_be_learnt_are_refused_before_a_model_is_loaded(rows, base):
    with pytest.raises(TrainingError, match="labels of the rows are not among"):
        assign(rows, CONFIG, base, labels=LABELS[:2])
    with pytest.raises(TrainingError, match=r"lack the columns \['answer'\]"):
        assign(rows.drop_columns("answer"), CONFIG, base)
    with pytest.raises(PlanError, match="got none"):
        assign(rows.slice(0, 0), CONFIG, base)


def test_a_gpu_that_is_not_there_is_refused(rows, base, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingError, match="use_gpu = true, and this machine has no GPU"):
        fitted(rows, base, tmp_path, CONFIG.model_copy(update={"use_gpu": True}))


def test_long_rows_are_cut_and_eaten_or_dropped_or_refused_as_asked(rows, base, tmp_path):
    short = CONFIG.model_copy(update={"max_length": 4, "num_train_epochs": 1})
    cut = assign(rows, short, base)
    assert (cut.encoded.n_cut > 0).sum() == 7
    assert cut.plan.table.num_rows == rows.num_rows
    assert not cut.dropped
    dropped = assign(rows, short.model_copy(update={"excess_length_strategy": "drop"}), base)
    assert set(dropped.dropped.values()) == {"longer_than_max_length"}
    assert len(dropped.dropped) == 7
    assert sorted([*dropped.dropped, *dropped.row_no]) == rows["row_no"].to_pylist()
    with pytest.raises(PlanError, match="7 rows are longer than max_length = 4 tokens"):
        assign(rows, short.model_copy(update={"excess_length_strategy": "raise"}), base)


def test_a_new_fit_replaces_the_old_folder_whole(rows, base, tmp_path):
    stale = tmp_path / "adapter" / "stale.txt"
    stale.parent.mkdir()
    stale.write_text("from an attempt that was never committed")
    fitted(rows, base, tmp_path)
    assert not stale.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "work"}


def test_a_prediction_does_not_depend_on_its_company(first, base):
    predictor = Predictor.load(base, first.adapter_dir, batch_size=3)
    texts = ["set a timer", "", "hello", "how do you say good night in italian", "hi", "a timer for one hour"]
    together = predictor.probabilities(texts)
    alone = np.concatenate([predictor.probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)
    predictions = predictor.predict(texts)
    assert [p.label for p in predictions] == [LABELS[i] for i in together.argmax(1)]
    assert [p.confidence for p in predictions] == together.max(1).tolist()
    assert predictor.predict([]) == []


def test_a_prediction_does_not_depend_on_the_number_of_threads(first, base):
    predictor = Predictor.load(base, first.adapter_dir, batch_size=2)
    texts = ["set a timer", "hello", "how do you say good night in italian", "hi", "", "bye", "good morning"]
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(predictor.probabilities(texts))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (answers[0] == answers[1]).all()
    assert (answers[0] == answers[2]).all()


def test_an_adapter_is_refused_on_another_base_or_with_changed_tensors(first, base, tmp_path):
    with pytest.raises(ModelError, match="was trained on all-MiniLM-L6-v2"):
        Predictor.load(dataclasses.replace(base, digest="sha256:00"), first.adapter_dir)
    with pytest.raises(ModelError, match=r"holds no stemma\.json"):
        Predictor.load(base, tmp_path)
    for path in Path(first.adapter_dir).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="files were changed after training"):
        Predictor.load(base, tmp_path)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_rises_once_and_no_step_is_without_effect(schedule):
    config = TrainingConfig(lr_scheduler_type=schedule, warmup_ratio=0.25)
    rates = [rate_at(step, 8, config) for step in range(8)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert min(rates) > 0


def test_a_key_that_the_method_ignores_is_refused_and_not_dumped():
    with pytest.raises(ValueError, match="would ignore bnb_4bit_use_double_quant"):
        TrainingConfig(method="lora", bnb_4bit_use_double_quant=True)
    plain = TrainingConfig(method="lora", r=8)
    assert plain.quantization is None
    assert TrainingConfig(**plain.model_dump()) == plain
    assert TrainingConfig(**json.loads(CONFIG.model_dump_json())) == CONFIG


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"r": 0},
        {"lora_dropout": 1.0},
        {"lora_rank": 4},
        {"beta": 0.2},
        {"objective": "sft", "modules_to_save": ("classifier",)},
        {"objective": "dpo", "packing": True},
        {"method": "full", "r": 8},
        {"objective": "sft", "assistant_only_loss": True},
        {"num_workers": 1, "min_workers": 2},
        {"train_batch_size": 4, "per_device_train_batch_size": 8},
        {"train_batch_size": 1, "num_workers": 2},
    ],
)
def test_values_that_cannot_train_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


def test_other_rows_than_planned_are_found_out_whatever_the_slots_say(rows, base, tmp_path):
    assignment = assign(rows, CONFIG, base)
    row = assignment.row.copy()
    row[[0, 1]] = row[[1, 0]]
    with pytest.raises(TrainingError, match="or other rows; nothing was saved"):
        run(dataclasses.replace(assignment, row=row), tmp_path / "other rows")


def test_other_tokens_than_the_rows_have_are_found_out(rows, base, tmp_path, monkeypatch):
    real = feeding.batch

    def with_another_token(*given, **named):
        made = real(*given, **named)
        made.input_ids[0, 1] += 1
        return made

    monkeypatch.setattr(feeding, "batch", with_another_token)
    with pytest.raises(TrainingError, match="first step 0, other tokens went through the model"):
        fitted(rows, base, tmp_path)


def test_two_trainings_do_not_work_in_one_folder(rows, base, tmp_path):
    assignment = assign(rows, CONFIG, base)

    def again(fed, steps: int) -> None:
        run(assignment, tmp_path)

    with pytest.raises(TrainingError, match="another process is at the same training"):
        run(assignment, tmp_path, on_step=again)


def test_rows_longer_than_the_base_has_places_for_are_refused(rows, base):
    long = rows.set_column(2, "text", pa.array(["word " * 900] * rows.num_rows))
    with pytest.raises(PlanError, match="a row has 902 tokens, and all-MiniLM-L6-v2 reads 512 at most"):
        assign(long, CONFIG.model_copy(update={"max_length": 1024}), base)
