"""Decoders, scored by what they say when asked as in training, and by how likely they hold what is right."""

from __future__ import annotations

from math import exp

import pyarrow.compute as pc
import pytest

from expectations.gate import admit
from infra.runtime import Runtime
from lineage import report, tables
from lineage.curricula import DataRecipe
from lineage.fsck import fsck
from lineage.schemas import PREDICTION
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, ingest
from training import answering
from training.evaluate import Asking, evaluate
from training.finetune import FinetuneConfig, finetune
from training.recipe import TrainingConfig, TrainingError
from training.tiny import bases

TAUGHT = [(a, b) for a in range(11, 23) for b in (2, 5, 95)]
ASKED = [(a, b) for a in range(31, 39) for b in (3, 6)]


@pytest.fixture
def taught(runtime: Runtime, toys, tmp_path, monkeypatch) -> Runtime:
    """A lake with sums to learn and other sums to be asked; of both also the better of two answers."""
    monkeypatch.setattr(bases, "TINY", {**bases.TINY, "very-tiny": bases.VERY_TINY})
    for name, sums in (("train", TAUGHT), ("gate", ASKED)):
        log = [
            toys.exchange(
                f"What is {a} + {b}?", f"#### {a + b + 1}", verdict="fail", correction=f"#### {a + b}"
            )
            for a, b in sums
        ]
        lines = toys.write_lines(tmp_path / f"{name}.jsonl", log)
        stored = ingest(runtime, IngestConfig(sources=(str(lines),)))
        assert admit(runtime, stored.outputs[0]).passed
        for task in ("generation", "preference"):
            condition = "not_applicable" if name == "train" else "clean"
            config = CurateConfig(sources=(f"*/{name}.jsonl",), task=task, split=name, condition=condition)
            assert admit(runtime, curate(runtime, config).outputs[0]).passed
    return runtime


def trained(runtime: Runtime, objective: str, task: str) -> str:
    given = {"base_model": "very-tiny", "objective": objective, "r": 4, "num_train_epochs": 1}
    config = FinetuneConfig(
        data=DataRecipe(tasks=(task,)),
        training=TrainingConfig(**given, learning_rate=1e-3, train_batch_size=8),
    )
    return finetune(runtime, config).run_id


def test_a_decoder_is_scored_by_the_rule_that_its_answers_are_written_for(taught):
    run_id = trained(taught, "sft", "generation")
    made = evaluate(taught, run_id, split="gate", asking=Asking(max_new_tokens=12))
    assert {name.partition(".")[0] for name in made.facets} == {"number", "perplexity", "ece"}
    stored = report.predictions_of(taught.settings, run_id, split="gate")
    assert (stored.num_rows, set(stored["scorer"].to_pylist())) == (len(ASKED), {"number@1"})
    assert made.facets["number.clean"][0] == report.scores(stored).mean()
    sums, tokens = (pc.sum(stored[name]).as_py() for name in ("log_likelihood", "tokens"))
    assert made.facets["perplexity.clean"][0] == pytest.approx(exp(-sums / tokens))
    assert [check.found for check in fsck(taught.settings) if check.found] == []
    # a seed moves intervals and nothing else; another rule is another evaluation
    other = evaluate(taught, run_id, split="gate", asking=Asking(max_new_tokens=12, scorer="exact"))
    assert "exact.clean" in other.facets
    assert other.facets["perplexity.clean"] == made.facets["perplexity.clean"]
    with pytest.raises(TrainingError, match="scorer 'label' does not fit task 'generation'; choose from"):
        evaluate(taught, run_id, split="gate", asking=Asking(scorer="label"))


def test_a_preference_model_is_scored_on_what_it_prefers_and_on_what_it_says(taught):
    run_id = trained(taught, "dpo", "preference")
    made = evaluate(taught, run_id, split="gate", asking=Asking(max_new_tokens=12))
    stored = report.predictions_of(taught.settings, run_id, split="gate")
    assert sorted(set(stored["scorer"].to_pylist())) == ["number@1", "preferred@1"]
    preferred = stored.filter(pc.equal(stored["scorer"], "preferred@1"))
    assert preferred.num_rows == made.facets["preferred.clean"][3] == len(ASKED)
    pairs = zip(preferred["answer"].to_pylist(), preferred["prediction"].to_pylist(), strict=True)
    assert all(int(said[5:]) - int(right[5:]) in (0, 1) for right, said in pairs)
    assert [check.found for check in fsck(taught.settings) if check.found] == []


def test_rows_that_ask_with_another_system_prompt_are_refused_unless_they_are_meant(taught, toys, tmp_path):
    run_id = trained(taught, "sft", "generation")
    told = {"role": "system", "content": "Answer as a pirate."}
    line = toys.exchange("What is 41 + 2?", "#### 43")
    line["request"]["messages"].insert(0, told)
    stored = ingest(taught, IngestConfig(sources=(str(toys.write_lines(tmp_path / "pirate.jsonl", [line])),)))
    assert admit(taught, stored.outputs[0]).passed
    config = CurateConfig(sources=("*/pirate.jsonl",), task="generation", split="gate", condition="clean")
    assert admit(taught, curate(taught, config).outputs[0]).passed
    with pytest.raises(TrainingError, match=r"1 of 17 rows ask with the system prompt 'Answer as a p"):
        evaluate(taught, run_id, split="gate")
    asking = Asking(max_new_tokens=4, other_system_prompts=True)
    assert evaluate(taught, run_id, split="gate", asking=asking).counts["rows"] == 17


def test_a_decoder_that_says_nothing_has_said_so(taught, monkeypatch):
    run_id = trained(taught, "sft", "generation")

    class Silent:
        def generate(self, conversations, *, max_new_tokens):
            return [Said()] * len(conversations)

    class Said:
        text, confidence = "", 0.0

    real = answering.load_generator
    monkeypatch.setattr(answering, "load_generator", lambda *given: silenced(real(*given)))

    def silenced(generator):
        generator.generate = Silent().generate
        return generator

    made = evaluate(taught, run_id, split="gate")
    assert made.facets["number.clean"][:3] == [0.0, 0.0, 0.0]
    assert set(tables.read(taught.settings, PREDICTION)["prediction"].to_pylist()) == {""}
