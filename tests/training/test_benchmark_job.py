"""A benchmark as a job: what it asks of which model, what it puts on record, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expectations.gate import admit
from infra.cli import run
from infra.runtime import Runtime
from lineage.fsck import fsck
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, ingest
from tests.infra.completions import Request, serving
from training.benchmarks.job import benchmark, recorded
from training.finetune import FinetuneConfig, finetune
from training.recipe import TrainingError
from training.tiny import bases

HEAD = '[benchmark]\nname = "mine"\nrevision = 1\n[floors]\noverall = 0.5\neach = 0.3\n'
RIGHT = {
    "hey, reset my password": "password",
    "hey, the wifi is broken": "outage",
    "hey, book the room": "room",
}
KEY = "sk-not-for-the-lake"


def category(name: str, scorer: str, prompts: dict[str, str]) -> str:
    asked = [
        f'[[category.prompt]]\nid = "p{n}"\nprompt = {json.dumps(prompt)}\nanswer = {json.dumps(answer)}\n'
        for n, (prompt, answer) in enumerate(prompts.items())
    ]
    return f'[[category]]\nname = "{name}"\nscorer = "{scorer}"\n' + "".join(asked)


def written(folder: Path, *categories: str) -> str:
    path = folder / "mine.toml"
    path.write_text(HEAD + "".join(categories), encoding="utf-8")
    return str(path)


@pytest.fixture
def lake(trained_lake, tmp_path, ray_session) -> Runtime:
    return Runtime(trained_lake.copied(tmp_path / "lake"))


def test_a_classifier_is_asked_and_its_numbers_are_on_record(lake, tmp_path, capsys):
    asked = written(tmp_path, category("topics", "label", RIGHT))
    assert run("benchmark", ["champion", asked, "--lake", lake.settings.lake]) == 0
    said = capsys.readouterr().out
    assert "topics" in said
    assert "100.0 %  n=3" in said
    made = benchmark(lake, "champion", asked)
    assert made.again
    assert made.counts == {"prompts": 3, "counted": 3}
    again = recorded(lake.settings, made.run_id, asked)
    assert {row.prediction for row in again.rows} == set(RIGHT.values())
    assert made.facets["overall"] == [again.overall, again.low, again.high, 3]
    assert [check.found for check in fsck(lake.settings) if check.found] == []
    with pytest.raises(TrainingError, match="is no finished run of a benchmark"):
        recorded(lake.settings, "0123456789abcdef-1", asked)


def test_below_a_floor_it_ends_with_1_and_names_the_category(lake, tmp_path, capsys):
    wrong = dict.fromkeys(["hello, the wifi is gone", "hello, my login is lost", "hello, any room?"], "none")
    asked = written(tmp_path, category("topics", "label", RIGHT), category("others", "label", wrong))
    assert run("benchmark", ["champion", asked, "--lake", lake.settings.lake]) == 1
    said = capsys.readouterr().out
    assert "FAIL  In category 'others' it scores 0.0 % of 3 prompts, below the floor of 30 %." in said
    assert run("benchmark", ["champion", asked, "--lake", lake.settings.lake, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == [
        "In category 'others' it scores 0.0 % of 3 prompts, below the floor of 30 %.",
    ]
    assert [(each["name"], each["quota"]) for each in told["weak"]] == [("others", 100)]
    assert [row["prediction"] in ("password", "room", "outage") for row in told["rows"]] == [True] * 6


def test_a_prompt_that_was_trained_on_is_refused_and_named(lake, tmp_path, capsys):
    learnt = {"Please help,  RESET my password": "password"}  # as `please help, reset my password`
    asked = written(tmp_path, category("topics", "label", RIGHT), category("learnt", "label", learnt))
    assert run("benchmark", ["champion", asked, "--lake", lake.settings.lake]) == 2
    said = capsys.readouterr().err
    assert "was trained on 1 of the 4 prompts of mine@1" in said
    assert "learnt/p0" in said


def test_a_classifier_is_not_asked_what_it_cannot_answer(lake, capsys):
    assert run("benchmark", ["champion", "nine", "--lake", lake.settings.lake]) == 2
    said = capsys.readouterr().err
    assert "is a model for classification" in said
    assert "reasoning (number)" in said
    assert "architecture (judge)" in said
    assert "scorers for classification are: label, exact" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge", "http://127.0.0.1:1/v1"], "needs both --judge URL and --judge-model"),
        (["--judge-model", "m"], "needs both --judge URL and --judge-model"),
        (["--judge-key", "KEY"], "--judge-key goes with them"),
        (["--judge", "ftp://x/v1", "--judge-model", "m"], "is no endpoint"),
    ],
)
def test_a_judge_that_is_told_by_half_is_refused(tmp_path, capsys, words: list[str], said: str):
    assert run("benchmark", ["champion", "nine", "--lake", str(tmp_path / "lake"), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def decoders(runtime, toys, tmp_path, monkeypatch) -> tuple[Runtime, list[str]]:
    """A lake with two decoders that were tuned on sums, one longer than the other; neither can add."""
    monkeypatch.setattr(bases, "TINY", {**bases.TINY, "very-tiny": bases.VERY_TINY})
    log = [toys.exchange(f"What is {a} + {b}?", f"#### {a + b}") for a in range(11, 31) for b in (2, 5)]
    stored = ingest(runtime, IngestConfig(sources=(str(toys.write_lines(tmp_path / "sums.jsonl", log)),)))
    assert admit(runtime, stored.outputs[0]).passed
    made = curate(runtime, CurateConfig(task="generation"))
    assert admit(runtime, made.outputs[0]).passed
    given = {"base_model": "very-tiny", "objective": "sft", "method": "full", "train_batch_size": 8}
    configs = [
        FinetuneConfig.model_validate({"data": {"tasks": ["generation"]}, "training": given | more})
        for more in (
            {"num_train_epochs": 1, "learning_rate": 1e-4},
            {"num_train_epochs": 8, "learning_rate": 3e-3},
        )
    ]
    return runtime, [finetune(runtime, config).run_id for config in configs]


def test_decoders_are_asked_judged_and_compared(decoders, tmp_path, capsys, monkeypatch):
    runtime, (candidate, champion) = decoders
    lake = runtime.settings.lake
    asked = written(
        tmp_path,
        category("sums", "number", {"What is 3 + 4?": "#### 7", "What is 3 + 5?": "#### 8"}),
        category("taste", "judge", {"What is 4 + 7?": "eleven", "What is 6 + 8?": "fourteen"}),
    )
    assert run("benchmark", [candidate, asked, "--lake", lake, "--max-new-tokens", "8"]) == 1
    assert "taste                        not measured: it needs a judge" in capsys.readouterr().out

    # By the words alone, against the other model's answers.
    made = benchmark(runtime, candidate, asked, against=champion, max_new_tokens=8)
    judged = [row for row in made.facets["rows"] if row["category"] == "taste"]
    alone = benchmark(runtime, champion, asked, max_new_tokens=8)
    assert alone.again
    assert {row["prediction"].strip() for row in judged} != {""}
    theirs = [row["prediction"] for row in alone.facets["rows"] if row["category"] == "taste"]
    assert [row["opponent"] for row in judged] == theirs
    assert {row["scorer"].partition("@")[0] for row in judged} == {"overlap"}
    assert {"gain", "regressed", "judge", "judge_settings"} <= made.facets.keys()
    assert recorded(runtime.settings, made.run_id, asked).n == 4

    # By a chat model that prefers the champion, and is told nothing but data.
    monkeypatch.setenv("JUDGE_KEY", KEY)

    def behave(request: Request) -> None:
        pair = json.loads(request.asked["messages"][1]["content"])
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        request.say("A" if pair["answer_a"] in theirs else "B")

    with serving(behave) as server:
        words = [candidate, asked, "--lake", lake, "--max-new-tokens", "8", "--against", champion]
        words += ["--judge", server.url, "--judge-model", "m", "--judge-key", "JUDGE_KEY", "--json"]
        assert run("benchmark", words) == 1
        told = json.loads(capsys.readouterr().out)
        assert len(server.requests) == 2 * sum(
            row["prediction"].strip() != row["opponent"].strip() for row in judged
        )
    assert told["judge"].startswith("pairwise@")
    assert told["judge_settings"]["model"] == "m"
    assert told["judge_cost"]["calls"] == len(server.requests) > 0
    lost = [row for row in told["rows"] if row["category"] == "taste" and row["score"] == 0.0]
    assert {row["served"] for row in lost} == {"judge-2026-01"}
    assert "taste" in [each["name"] for each in told["regressed"]]
    kept = [path for path in Path(lake).rglob("*") if path.is_file()]
    assert any(path.parent.name == "judged" for path in kept)
    assert [path for path in kept if KEY.encode() in path.read_bytes()] == []
    assert [check.found for check in fsck(runtime.settings) if check.found] == []
