"""A verdict in MLflow: its page and its text on the run of its gate."""

from __future__ import annotations

import logging
from pathlib import Path

from mlflow.tracking import MlflowClient

from expectations import reports
from expectations.gate import admit
from infra.settings import Settings
from lineage import mirror
from lineage.schemas import TRACE
from lineage.tables import TableVersion


def with_mlflow(lake, uri: str | None = None) -> MlflowClient:
    settings = Settings(lake.settings.lake, uri or f"sqlite:///{lake.settings.lake}/mlflow.db")
    lake.settings = lake.runtime.settings = settings
    return MlflowClient(settings.tracking_uri, settings.tracking_uri)


def shown(client: MlflowClient) -> list:
    experiment = client.get_experiment_by_name("stemma")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def artifacts(client: MlflowClient, run_id: str, tmp_path: Path) -> dict[str, str]:
    names = [each.path for each in client.list_artifacts(run_id)]
    return {name: Path(client.download_artifacts(run_id, name, str(tmp_path))).read_text() for name in names}


def test_page_and_text_hang_on_the_run_of_the_gate(lake, toy, tmp_path):
    client = with_mlflow(lake)
    batch = lake.store(toy.traces(scorer="unstated"), TRACE, key="a")
    admit(lake.runtime, batch)
    reports.attach(lake.runtime, batch)
    (run,) = shown(client)
    assert run.info.status == "FINISHED"
    tags = {"stemma.batch": "traces@1", "stemma.verdict": "fail", "stemma.reason": "judgement_whole"}
    assert tags.items() <= run.data.tags.items()
    assert (run.data.metrics["rows"], run.data.metrics["rows_admitted"]) == (6, 0)
    found = artifacts(client, run.info.run_id, tmp_path)
    assert found.keys() == {"traces@1.html", "traces@1.txt"}
    assert found["traces@1.txt"].startswith("traces@1: REFUSED, withdrawn")
    assert "judgement_whole" in found["traces@1.html"]


def test_what_mlflow_missed_while_it_was_away_it_is_shown_later(lake, toy, tmp_path, caplog):
    with_mlflow(lake, "http://127.0.0.1:9")
    batch = lake.store(toy.traces(), TRACE, key="a")
    admit(lake.runtime, batch)
    admit(lake.runtime, lake.store(toy.traces(source="log-b"), TRACE, key="b"))
    with caplog.at_level(logging.WARNING):
        reports.attach(lake.runtime, batch)
    assert [record.message for record in caplog.records if "does not answer" in record.message]
    client = with_mlflow(lake)
    (said,) = mirror.sync(lake.settings)
    assert said.startswith("shown: run ")
    assert said.endswith(" (gate)")
    (run,) = shown(client)
    assert artifacts(client, run.info.run_id, tmp_path).keys() == {"traces@1.html", "traces@1.txt"}
    assert list(mirror.sync(lake.settings)) == []


def test_a_commit_without_a_verdict_has_nothing_to_hang_up(lake, toy):
    client = with_mlflow(lake)
    batch = lake.store(toy.traces(), TRACE, key="a")
    reports.attach(lake.runtime, TableVersion("traces", batch.version))
    assert shown(client) == []
