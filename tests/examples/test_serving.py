"""The loop closes on one machine: users ask the champion over HTTP; what it logged comes back as traces."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.helpdesk.files import render_log, traffic
from examples.helpdesk.generator import helpdesk
from examples.serving import label, send, serving
from expectations.gate import admit
from infra.runtime import Runtime
from lineage import models, tables
from lineage.schemas import TRACE
from pipelines.ingest import IngestConfig, ingest
from training.answering import load_predictor


@pytest.mark.cluster
def test_the_helpdesk_s_traffic_over_http_is_answered_as_without_it_and_is_ingested(
    trained_lake, tmp_path: Path
):
    settings = trained_lake.copied(tmp_path / "lake")
    runtime, pools = Runtime(settings), helpdesk(seed=0, scale="tiny")
    requests, truth = traffic(pools, seed=0)
    requests, truth = requests[:60], truth[:60]
    with serving(settings, "champion") as url:
        answers = send(url, requests, pools, model="champion")
    assert {answer["model"] for answer in answers} == {"router@1"}
    checkpoint, _ = models.resolve(settings, "champion")
    alone = load_predictor(runtime, checkpoint).predict([request.text for request in requests])
    labels = [label(answer) for answer in answers]
    assert [said for said, _ in labels] == [p.label for p in alone]
    assert [sure for _, sure in labels] == pytest.approx([p.confidence for p in alone], abs=1e-5)
    assert len(render_log(requests, labels, truth, pools, model="router@1", seed=0)) == 60

    (file,) = Path(settings.lake, "traffic").iterdir()
    stored = ingest(runtime, IngestConfig(sources=(str(file),)))
    assert admit(runtime, stored.outputs[0]).passed
    rows = [row for row in tables.read(settings, TRACE).to_pylist() if row["run_id"] == stored.run_id]
    assert len(rows) == 60
    assert {(row["generator"], row["generator_revision"]) for row in rows} == {("router", "1")}
    assert {row["prompt_name"] for row in rows} == {"router"}
    assert sorted(row["prompt_version"] for row in rows) == sorted(
        version for version, count in (("1", 18), ("2", 24), ("3", 18)) for _ in range(count)
    )
