"""What a number about a model rests on."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable

from expectations.gate import admit
from infra.cli import run
from infra.runtime import Runtime
from lineage import models, report, tables, verdicts
from lineage.consumption import find_checkpoint
from lineage.fsck import fsck
from lineage.runs import completed
from lineage.schemas import EXAMPLE
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, ingest
from training import answering
from training.evaluate import evaluate
from training.finetune import FinetuneConfig, finetune
from training.promote import promote
from training.promotion import Gate
from training.recipe import TrainingConfig, TrainingError
from training.sets import as_frozen


@pytest.fixture
def lake(trained_lake, tmp_path, ray_session) -> Runtime:
    return Runtime(trained_lake.copied(tmp_path / "lake"))


def report_rows(lake: Runtime, toys, folder, *, hello: str = "well,") -> int:
    """Admit rows to the report: what the gate split asks, opened in another way. Gives their number."""
    lines = [toys.exchange(f"{hello} {words}", topic) for topic, words in toys.asked()]
    name = hello.strip(",")
    stored = ingest(lake, IngestConfig(sources=(str(toys.write_lines(folder / f"{name}.jsonl", lines)),)))
    assert admit(lake, stored.outputs[0]).passed
    config = {"sources": (f"*/{name}.jsonl",), "split": "report", "condition": "clean"}
    made = curate(lake, CurateConfig.model_validate(config | {"scorer_base_model": None}))
    assert admit(lake, made.outputs[0]).passed
    return made.counts["out"]


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


def test_an_edited_prediction_is_named_by_its_row(lake, trained_lake):
    predictions = report.predictions_of(lake.settings, trained_lake.trained, split="gate")
    row_no, row_id = predictions["row_no"][0].as_py(), predictions["row_id"][0].as_py()
    edited = DeltaTable(lake.settings.path("tables", "predictions"))
    edited.update(updates={"confidence": "0.123"}, predicate=f"row_no = {row_no}")
    tables.forget()
    (found,) = [check.found for check in fsck(lake.settings) if check.name == "reports"]
    assert [sentence.split(" is ")[0].split(" on ")[1] for sentence in found] == [row_id.hex()]


def test_the_report_is_opened_once_for_a_promoted_model_and_each_reading_is_on_record(lake, toys, tmp_path):
    asked = report_rows(lake, toys, tmp_path)
    other = finetune(lake, FinetuneConfig(training=TrainingConfig(num_train_epochs=1, seed=9))).run_id
    with pytest.raises(TrainingError, match="was never champion, and split 'report' tells of promoted"):
        evaluate(lake, other, split="report")
    # nor is it opened by a name of one's own, under which there is no champion to beat
    gate = Gate(least_items=1)
    if promote(lake, other, name="my-own", gate=gate).facets["promoted"]:
        with pytest.raises(TrainingError, match=r"first champion of 'my-own' and beat none, while router@1"):
            evaluate(lake, other, split="report")
    first = evaluate(lake, "router@champion", split="report")
    second = evaluate(lake, "router@champion", split="report", seed=5)
    assert (first.counts["rows"], second.again) == (asked, True)
    assert second.run_id == first.run_id
    readings = [config["reading"] for config, _ in completed(lake.settings, "open-report")]
    assert readings == [1, 2]
    assert [check.found for check in fsck(lake.settings) if check.found] == []


def test_what_came_to_the_report_after_a_training_does_not_count_for_its_model(lake, toys, tmp_path):
    first = report_rows(lake, toys, tmp_path)
    config = FinetuneConfig(training=TrainingConfig(num_train_epochs=2, train_batch_size=8, seed=3))
    made = finetune(lake, config)
    assert made.facets["sets"]["report"]["rows"] == first
    later = report_rows(lake, toys, tmp_path, hello="so,")
    stored = verdicts.read_admitted(lake.settings, EXAMPLE, where=pads.field("split") == "report")
    assert stored.num_rows == first + later
    checkpoint = find_checkpoint(lake.settings, made.run_id)
    assert as_frozen(lake.settings, checkpoint, stored, split="report").num_rows == first
    fewer = stored.slice(1).filter(pc.less_equal(stored.slice(1)["row_no"], made.facets["sets"]["last"]))
    assert as_frozen(lake.settings, checkpoint, fewer, split="report").num_rows == fewer.num_rows
    place = stored.schema.get_field_index("row_id")
    changed = stored.set_column(place, "row_id", pa.array([b"x" * 16] * stored.num_rows, pa.binary()))
    with pytest.raises(TrainingError, match="is not the one that was frozen before"):
        as_frozen(lake.settings, checkpoint, changed, split="report")


def test_a_threshold_is_fitted_on_the_gate_and_told_on_the_report(lake, toys, tmp_path, capsys):
    n = report_rows(lake, toys, tmp_path)
    words = ["evaluate", "champion", "--lake", lake.settings.lake, "--wrong-cost", "0.1", "--json"]
    assert run(words[0], words[1:]) == 2  # the split is the gate
    assert "fitted on gate and told on report" in capsys.readouterr().err
    assert run(words[0], [*words[1:], "--split", "report"]) == 0
    told = json.loads(capsys.readouterr().out)["reliance"]
    assert (told["n"], told["fitted_n"], told["fitted_on"].split(":")[0]) == (n, n, "gate")
    said = report.predictions_of(lake.settings, find_champion(lake).run_id, split="report")
    kept = [sure >= told["threshold"] for sure in said["confidence"].to_pylist()]
    right = [good for good, is_kept in zip(report.passed(said), kept, strict=True) if is_kept]
    assert (told["kept"], told["right"]) == (sum(kept), sum(right))


def test_a_prediction_that_stands_twice_for_one_that_is_missing_is_named(lake, trained_lake):
    predictions = report.predictions_of(lake.settings, trained_lake.trained, split="gate")
    first, second = predictions.slice(0, 1), predictions.slice(1, 1)
    twice = pa.concat_tables([first, first, predictions.slice(2)])
    run_id = first["run_id"][0].as_py()
    tables.replace(
        lake.settings, twice.select(report.PREDICTION.schema.names), into=report.PREDICTION, run_id=run_id
    )
    (found,) = [check.found for check in fsck(lake.settings) if check.name == "reports"]
    row_id = first["row_id"][0].as_py().hex()
    assert f"run {run_id} holds 2 predictions on {row_id}, expected one" in found
    assert second["row_id"][0].as_py().hex() not in " ".join(found)


def test_a_score_that_a_prediction_does_not_earn_is_named_though_it_is_sealed(lake, trained_lake):
    predictions = report.predictions_of(lake.settings, trained_lake.trained, split="gate")
    place = predictions.schema.get_field_index("prediction")
    said = ["another", *predictions["prediction"].to_pylist()[1:]]
    changed = report.sealed(predictions.set_column(place, "prediction", pa.array(said, pa.string())))
    run_id = changed["run_id"][0].as_py()
    tables.replace(
        lake.settings, changed.select(report.PREDICTION.schema.names), into=report.PREDICTION, run_id=run_id
    )
    (found,) = [check.found for check in fsck(lake.settings) if check.name == "reports"]
    assert any("has a score of 1.0, and is not worth that" in sentence for sentence in found)
    with pytest.raises(TrainingError, match="its stored predictions give"):
        evaluate(lake, trained_lake.trained, split="gate")


def find_champion(lake: Runtime):
    return models.resolve(lake.settings, "champion")[0]
