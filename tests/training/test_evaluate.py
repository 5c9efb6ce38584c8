"""What a number about a model rests on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from infra.cli import run
from infra.runtime import Runtime
from lineage import report, tables, verdicts
from lineage.fsck import fsck
from training import answering
from training.evaluate import evaluate
from training.recipe import TrainingError


@pytest.fixture
def lake(trained_lake, tmp_path, ray_session) -> Runtime:
    return Runtime(trained_lake.copied(tmp_path / "lake"))


@dataclass
class Says:
    """A classifier that has one answer."""

    label: str
    confidence: float = 0.9

    def predict(self, texts):
        return [self] * len(texts)


def test_a_number_rests_on_predictions_that_passed_the_gate(lake, trained_lake):
    made = evaluate(lake, trained_lake.trained, split="gate", seed=3)
    verdict = verdicts.latest(lake.settings, tables.resolve(lake.settings, made.outputs[0]))
    assert verdict is not None
    assert (verdict.outcome, verdict.suite, verdict.rows) == ("pass", "predictions", made.counts["rows"])
    assert [check.found for check in fsck(lake.settings) if check.found] == []


def test_what_no_model_of_ours_can_say_gives_no_number(lake, trained_lake, monkeypatch, capsys):
    before = report.reports_of(lake.settings, trained_lake.trained)
    monkeypatch.setattr(answering, "load_predictor", lambda runtime, checkpoint: Says("of another model"))
    with pytest.raises(TrainingError, match=r"the gate refused predictions@\d+ \(prediction_known\)") as told:
        evaluate(lake, trained_lake.trained, split="gate", seed=3)
    batch = str(told.value).split()[3]
    assert run("reports", [batch, "--lake", lake.settings.lake]) == 0
    said = capsys.readouterr().out
    assert "FAILED prediction_known" in said
    assert "evaluation.jsonl" in said  # where the examples come from that were asked
    assert report.reports_of(lake.settings, trained_lake.trained) == before
    monkeypatch.undo()
    again = evaluate(
        lake, trained_lake.trained, split="gate", seed=3
    )  # the same work, and no trace of the first
    assert tables.read(lake.settings, report.PREDICTION).num_rows == 2 * again.counts["rows"]
    assert [check.found for check in fsck(lake.settings) if check.found] == []
