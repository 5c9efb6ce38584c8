"""The tiny decoder: its problems, its tokens, its pretraining, and the folder that it is kept in."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.inference import Generator
from infra.models import BaseModel, ModelError
from infra.runtime import Runtime
from infra.settings import Settings, settings_from_environment
from lineage import runs
from training.assignment import assign
from training.fit import fit
from training.recipe import TrainingConfig, TrainingError
from training.tiny import bases
from training.tiny.bases import TINY, VERY_TINY, pretrained, resolve_base
from training.tiny.problems import MOST_DIGITS, TENTHS, WORDINGS, Problem, draw, side_of, stated
from training.tiny.tokenizer import BOS, CHAT_TEMPLATE, EOS, PAD, ROLES, make_tokenizer

NAME = "toy"


def test_both_answers_state_the_right_number():
    problem = Problem(958, 67)
    assert problem.direct == "#### 1025"
    assert problem.steps == "ones 8+7=15, tens 5+6+1=12, hundreds 9+0+1=10 #### 1025"
    assert [stated(answer) for answer in (problem.direct, problem.steps)] == [1025, 1025]


@given(first=st.integers(0, 10**MOST_DIGITS - 1), second=st.integers(0, 10**MOST_DIGITS - 1))
def test_every_step_is_true_and_together_they_give_the_total(first: int, second: int):
    answer = Problem(first, second).steps
    steps = re.findall(r"([\d+]+)=(\d\d)", answer)
    assert len(steps) == len(str(max(first, second)))
    assert all(sum(map(int, terms.split("+"))) == int(result) for terms, result in steps)
    digits = "".join(result[1] for _, result in reversed(steps))
    assert int(steps[-1][1][0] + digits) == stated(answer) == first + second


def test_an_answer_without_a_final_number_states_none():
    assert stated("12 and 13 are 25") is None
    assert stated("#### ") is None
    assert stated("#### 1, no: #### -1,025.") == -1025


def test_the_sides_share_no_sum_in_any_order_or_wording():
    drawn = {side: draw(300, side=side, digits=2, seed=0) for side in TENTHS}
    sums = {side: {frozenset((p.first, p.second)) for p in problems} for side, problems in drawn.items()}
    assert [len(each) for each in sums.values()] == [300] * 3
    assert len(set.union(*sums.values())) == 900
    shares = Counter(side_of(first, second) for first in range(100) for second in range(first, 100))
    assert {side: round(count / 505) for side, count in shares.items()} == TENTHS


@given(first=st.integers(0, 10**6), second=st.integers(0, 10**6))
def test_a_sum_has_one_side(first: int, second: int):
    assert side_of(first, second) == side_of(second, first)


def test_drawing_repeats_itself_and_refuses_what_it_cannot_give():
    assert draw(50, side="training", digits=3, seed=1) == draw(50, side="training", digits=3, seed=1)
    assert draw(50, side="training", digits=3, seed=1) != draw(50, side="training", digits=3, seed=2)
    assert draw(0, side="training", digits=3, seed=1) == []
    assert {p.wording for p in draw(200, side="training", digits=3, seed=1)} == set(WORDINGS)
    with pytest.raises(ValueError, match="200 evaluation problems of 1 digits are too many"):
        draw(200, side="evaluation", digits=1, seed=0)
    with pytest.raises(ValueError, match="sums of 9 digits, expected 1 to"):
        draw(1, side="evaluation", digits=9, seed=0)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [f"{p.question} {p.steps}" for p in draw(200, side="pretraining", digits=3, seed=0)]
    return make_tokenizer(texts, vocab_size=340, model_max_length=128)


@given(text=st.text())
@hypothesis_settings(deadline=None)
def test_any_text_comes_back_from_its_tokens(tokenizer, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_digit_is_a_token_and_a_word_of_the_problems_too(tokenizer):
    assert [tokenizer.decode([token]) for token in tokenizer("1234")["input_ids"]] == list("1234")
    assert len(tokenizer(" hundreds")["input_ids"]) == 1


def test_padding_and_end_are_two_tokens_and_no_text_holds_them(tokenizer):
    special = [PAD, BOS, EOS, *(f"<{role}>" for role in ROLES)]
    assert len({tokenizer.convert_tokens_to_ids(token) for token in special}) == 7
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == (PAD, BOS, EOS)
    assert not set(tokenizer("What is 3 + 4?")["input_ids"]) & set(tokenizer.all_special_ids)


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 3 + 4?"},
    {"role": "assistant", "content": "#### 7"},
    {"role": "tool", "content": "7"},
    {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]},
]


def test_the_template_writes_one_beginning_and_ends_each_answer_within_what_is_learnt(tokenizer):
    told = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    tokens = tokenizer.convert_ids_to_tokens(told["input_ids"])
    assert (tokens[0], tokens.count(BOS), tokens.count(EOS)) == (BOS, 1, 2)
    learnt = [token for token, mask in zip(told["input_ids"], told["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(learnt) == f'#### 7{EOS}[{{"name": "add"}}]{EOS}'


def test_the_prompt_of_an_answer_is_the_beginning_of_the_whole(tokenizer):
    prompt = tokenizer.apply_chat_template(TALK[:2], add_generation_prompt=True, tokenize=False)
    assert prompt == f"{BOS}<system>Be brief.<user>What is 3 + 4?<assistant>"
    assert tokenizer.apply_chat_template(TALK[:3], tokenize=False) == f"{prompt}#### 7{EOS}"
    assert tokenizer.chat_template == CHAT_TEMPLATE


@pytest.fixture(scope="module")
def toy_lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake in which the toy was pretrained."""
    settings = settings_from_environment(str(tmp_path_factory.mktemp("tiny") / "lake"))
    pretrained(Runtime(settings), NAME, VERY_TINY)
    return settings


def test_a_base_is_pretrained_once_and_on_record(toy_lake: Settings):
    base = pretrained(Runtime(toy_lake), NAME, VERY_TINY)
    assert (base.name, Path(base.path).name) == (NAME, f"{NAME}-{VERY_TINY.digest}")
    [(config, outcome)] = runs.completed(toy_lake, "pretrain")
    assert (config["base_model"], config["seed"], config["go"]) == (NAME, VERY_TINY.seed, 1)
    assert outcome.outputs == (f"base:{base.digest}",)
    assert outcome.facets["weights"] == base.digest
    assert outcome.facets["losses"][-1] < outcome.facets["losses"][0]
    assert [path.name for path in Path(base.path).parent.iterdir()] == [Path(base.path).name]


def test_the_same_recipe_gives_the_same_weights_and_another_seed_gives_others(
    toy_lake: Settings, settings: Settings
):
    first = pretrained(Runtime(toy_lake), NAME, VERY_TINY)
    again = pretrained(Runtime(settings), NAME, VERY_TINY)
    other = pretrained(Runtime(settings), NAME, replace(VERY_TINY, seed=1))
    assert first.digest == again.digest != other.digest
    assert again.path != other.path


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_changed_base_is_refused_until_it_is_deleted(settings: Settings, name: str):
    runtime = Runtime(settings)
    base = pretrained(runtime, NAME, VERY_TINY)
    file = Path(base.path) / name
    if name.endswith(".json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"version": "2.0"}))
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(TrainingError, match=r"'toy' in .* is not what run .* wrote.*delete the folder"):
        pretrained(runtime, NAME, VERY_TINY)
    for left in Path(base.path).iterdir():
        left.unlink()
    Path(base.path).rmdir()
    assert pretrained(runtime, NAME, VERY_TINY) == base
    assert [config["go"] for config, _ in runs.completed(settings, "pretrain")] == [1, 2]


def test_what_a_killed_run_left_is_made_again(toy_lake: Settings, settings: Settings):
    """Neither a half-written folder nor one whose run came to no end is taken for a base."""
    folder = Path(settings.path("bases", f"{NAME}-{VERY_TINY.digest}"))
    partial = folder.with_name(f".{folder.name}-abc")
    for each in (folder, partial):
        each.mkdir(parents=True)
        (each / "config.json").write_text("{}")
    assert (
        pretrained(Runtime(settings), NAME, VERY_TINY).digest
        == pretrained(Runtime(toy_lake), NAME, VERY_TINY).digest
    )
    assert not partial.exists()


def test_a_lake_without_folders_keeps_no_base():
    store = Runtime(Settings(lake="s3://bucket/lake", tracking_uri=""))
    with pytest.raises(TrainingError, match="is an object store, and base 'stemma-arithmetic'"):
        resolve_base(store, "stemma-arithmetic")


def test_a_name_that_is_no_tiny_one_is_resolved_as_ever(
    settings: Settings, toy_lake: Settings, monkeypatch: pytest.MonkeyPatch
):
    toy = pretrained(Runtime(toy_lake), NAME, VERY_TINY)
    runtime = Runtime(settings)
    assert resolve_base(runtime, toy.path).digest == toy.digest
    with pytest.raises(ModelError, match=r"neither one of .*'stemma-arithmetic'"):
        resolve_base(runtime, "no such model")
    monkeypatch.setattr(bases, "TINY", {NAME: VERY_TINY})
    assert resolve_base(runtime, NAME).digest == toy.digest


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """The real one, pretrained once: two to three minutes of one core."""
    lake = settings_from_environment(str(tmp_path_factory.mktemp("arithmetic") / "lake"))
    return resolve_base(Runtime(lake), "stemma-arithmetic")


def share_right(generator: Generator, problems: Sequence[Problem]) -> float:
    asked = [[{"role": "user", "content": problem.question}] for problem in problems]
    answers = generator.generate(asked, max_new_tokens=80)
    right = [stated(answer.text) == p.total for answer, p in zip(answers, problems, strict=True)]
    return sum(right) / len(right)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tuned_to_answer_in_steps_it_is_right_more_often_than_tuned_to_answer_directly(
    arithmetic: BaseModel, tmp_path: Path
):
    digits = TINY[arithmetic.name].digits
    lessons = draw(1500, side="training", digits=digits, seed=0)
    rows = pa.table(
        {
            "row_no": range(len(lessons)),
            "row_id": pa.array([f"{p.first}+{p.second}".encode() for p in lessons], pa.binary()),
            "messages": [[{"role": "user", "content": p.question}] for p in lessons],
            "answer": [p.steps for p in lessons],
            "answer_tool_calls": pa.nulls(len(lessons), pa.string()),
        }
    )
    held_out = draw(300, side="evaluation", digits=digits, seed=0)
    right = {}
    for in_steps in (True, False):
        config = TrainingConfig(
            base_model=arithmetic.name,
            objective="sft",
            chain_of_thought=in_steps,
            learning_rate=2e-3,
            num_train_epochs=1,
            max_length=128,
            seed=0,
        )
        folder = tmp_path / str(in_steps)
        where = {"work": str(folder / "work"), "out_dir": str(folder / "model")}
        made = fit(
            assign(rows, config, arithmetic), run_id="run-1", storage_path=str(folder / "ray"), **where
        )
        right[in_steps] = share_right(Generator.load(arithmetic, made.adapter_dir), held_out)
    print(f"right on 300 held-out sums: in steps {right[True]:.1%}, directly {right[False]:.1%}")
    assert right[True] > 0.9
    assert right[True] > right[False] + 0.1
