"""The loop closes on one machine: users ask the champion over HTTP; what it logged comes back as traces."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples import making
from examples.helpdesk.files import ROLLOUT
from examples.helpdesk.generator import helpdesk
from examples.serving import ask, serving
from examples.story import DemoError, Story
from expectations.gate import admit
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.schemas import TRACE
from pipelines.ingest import IngestConfig, ingest


def parsed(path: Path) -> list[dict[str, Any]]:
    """The lines that can be read; the demo plants some that cannot."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found += [record] if isinstance(record, dict) and record else []
    return found


@pytest.mark.cluster
def test_traffic_over_http_is_answered_as_without_it_and_its_log_is_admitted(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    runtime, pools = Runtime(settings), helpdesk(seed=0, scale="tiny")
    logs = []
    for over_http in (False, True):
        folder = tmp_path / f"http-{over_http}"
        folder.mkdir()
        story = Story(pools, "tiny", over_http, facts={"m0": trained_lake.trained})
        making.send_traffic(runtime, story, folder, seed=0)
        logs.append(parsed(folder / "traffic.jsonl"))
    alone, over = logs
    for one, other in zip(alone, over, strict=True):
        (choice,), (same) = one["response"].pop("choices"), other["response"].pop("choices")[0]
        (sure,), (as_sure,) = choice.pop("logprobs")["content"], same.pop("logprobs")["content"]
        assert as_sure["logprob"] == pytest.approx(sure["logprob"], abs=1e-5)
        assert (one, choice) == (other, same)

    (file,) = Path(settings.lake, "traffic").iterdir()
    asked = len(file.read_bytes().splitlines())
    stored = ingest(runtime, IngestConfig(sources=(str(file),)))
    assert admit(runtime, stored.outputs[0]).passed
    rows = [row for row in tables.read(settings, TRACE).to_pylist() if row["run_id"] == stored.run_id]
    assert len(rows) == asked == stored.counts["in"] > 100
    assert {(row["generator"], row["generator_revision"]) for row in rows} == {("router", "1")}
    versions = Counter((row["prompt_name"], row["prompt_version"]) for row in rows)
    assert sorted(versions) == [("router", version) for _, version in ROLLOUT]


def test_a_server_that_does_not_start_or_refuses_is_an_error_of_the_demo_s(tmp_path: Path, capfd):
    Path(tmp_path, "tables").mkdir()
    with (
        pytest.raises(DemoError, match="stemma serve champion did not start"),
        serving(Settings(lake=str(tmp_path), tracking_uri=""), "champion"),
    ):
        pytest.fail("it serves")
    assert "'champion' is no alias" in capfd.readouterr().err
    with pytest.raises(OSError, match="refused"):
        ask("http://127.0.0.1:1/v1", {})
