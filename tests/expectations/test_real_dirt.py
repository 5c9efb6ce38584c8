"""What is known to be wrong with published data sets, found by the gate: real rows through the real jobs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from expectations.gate import admit
from expectations.reports import as_text
from expectations.thresholds import Thresholds
from infra.runtime import Runtime
from infra.settings import settings_from_environment
from lineage import tables, verdicts
from lineage.schemas import TRACE
from lineage.verdicts import Rule, Verdict
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, ingest

pytestmark = pytest.mark.data

ROOT = Path(__file__).parents[2]
LABELLED = """
[map]
input = "text"
response = "label"
[constant]
verdict = "pass"
scorer = "annotators"
scorer_revision = "1"
"""


@pytest.fixture
def lake(tmp_path: Path, ray_session: None) -> Runtime:
    return Runtime(settings_from_environment(str(tmp_path / "lake")))


def gated(lake: Runtime, source: Path, field_map: Path) -> Verdict:
    made = ingest(lake, IngestConfig(sources=(str(source),), field_map=str(field_map)))
    return admit(lake, made.outputs[0])


def labelled(lake: Runtime, source: Path, pairs: Iterable[tuple[str, str]]) -> Verdict:
    """Texts and labels, as traces."""
    source.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs))
    (source.parent / "map.toml").write_text(LABELLED)
    return gated(lake, source, source.parent / "map.toml")


def curated(lake: Runtime, source: str, **config: str) -> Verdict:
    wanted = {"sources": (f"*/{source}",), "scorer_base_model": None, **config}
    return admit(lake, curate(lake, CurateConfig.model_validate(wanted)).outputs[0])


def broken(verdict: Verdict) -> dict[str, Rule]:
    return {rule.name: rule for rule in verdict.rules if rule.outcome != "pass"}


def test_the_sms_collection_repeats_288_messages_and_is_mostly_ham(lake, data, tmp_path):
    lines = gzip.decompress((data / "sms_spam" / "SMSSpamCollection_first80.tsv.gz").read_bytes()).decode()
    pairs = [line.split("\t", 1) for line in lines.split("\r\n") if line]
    verdict = labelled(lake, tmp_path / "sms.jsonl", ((text, label) for label, text in pairs))
    assert (verdict.passed, verdict.rows) == (True, 4459)
    assert broken(verdict)["few_repeated"].failing == 288
    assert "few_repeated" in as_text(verdict, lake.settings)
    examples = curated(lake, "sms.jsonl")
    assert examples.rows < 4459 - 200  # duplicates are merged there
    assert set(broken(examples)) == {"training_labels_balanced"}
    assert broken(examples)["training_labels_balanced"].observed == pytest.approx(6.84, abs=0.01)


def test_the_test_set_of_clinc150_nearly_repeats_its_training_set(lake, data, tmp_path):
    sets = json.loads(gzip.decompress((data / "clinc150_dev75" / "data_dev75.json.gz").read_bytes()))
    assert labelled(lake, tmp_path / "train.jsonl", sets["train"]).passed
    assert set(broken(curated(lake, "train.jsonl"))) == {"few_near_duplicates"}
    assert labelled(lake, tmp_path / "test.jsonl", sets["test"]).passed
    refused = curated(lake, "test.jsonl", split="gate", condition="clean")
    assert refused.outcome == "fail"
    rule = broken(refused)["little_nearly_on_two_splits"]
    assert 230 <= rule.failing <= 280  # of 2,242: MinHash finds nearly all that are alike by 0.8


def test_of_the_gsm8k_solutions_29_go_round_in_circles_and_nearly_all_of_those_were_judged_wrong(lake, data):
    source = data / "gsm8k_model_solutions" / "example_model_solutions_first660.jsonl.gz"
    verdict = gated(lake, source, ROOT / "examples" / "gsm8k" / "field_map.toml")
    assert (verdict.outcome, verdict.rows, broken(verdict)) == ("pass", 2640, {})
    strict = admit(lake, verdict.batch, thresholds=Thresholds(max_repeating=0.01))
    assert broken(strict)["response_does_not_repeat"].failing == 29
    rows = verdicts.unexpected(lake.settings, strict, rule="response_does_not_repeat")["row_id"]
    where = pads.field("row_id").isin(rows.combine_chunks())
    said = tables.read(lake.settings, TRACE, columns=["verdict"], where=where)["verdict"].to_pylist()
    assert (said.count("fail"), said.count("pass")) == (28, 1)
    examples = curated(lake, "*first660.jsonl.gz", task="generation")
    assert broken(examples)["few_near_duplicates"].failing > 900  # four models were asked the same
