"""The index in MLflow, against a real SQLite store."""

import datetime as dt
import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from infra.settings import Settings
from lineage.registry import (
    IndexedAlias,
    RegistryError,
    close_run,
    indexed_aliases,
    log_progress,
    log_run,
    model_versions,
    open_run,
    prepare,
    register,
    set_alias,
)


def embedded(lake: Path) -> Settings:
    return Settings(lake=str(lake), tracking_uri=f"sqlite:///{lake}/mlflow.db")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    made = embedded(tmp_path_factory.mktemp("lake"))
    prepare(made)
    return made


@pytest.fixture(scope="module")
def look(settings):
    """MLflow as somebody else would look at it."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(settings.tracking_uri, settings.tracking_uri)


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text("{}")
    return str(folder)


def log(settings, run_id, **changes):
    given = {"job": "finetune", "params": {"seed": 7}, "metrics": {"accuracy": 0.9}, "tags": {}} | changes
    return log_run(settings, run_id=run_id, **given)


def table(said):
    return pa.table({"said": [said]})


def rows_in(file):
    return json.loads(Path(file).read_text())["data"]


def runs_tagged(look, run_id):
    experiment = look.get_experiment_by_name("stemma").experiment_id
    return look.search_runs([experiment], f"tags.`stemma.run_id` = '{run_id}'")


def enter(settings, adapter, name, version, run_id, **changes):
    given = {"tags": {"stemma.curriculum": "c0ffee"}, "pedigree": {"pedigree.html": "<p>first</p>"}} | changes
    register(settings, name=name, version=version, run_id=run_id, adapter_dir=adapter, **given)


def test_importing_the_registry_does_not_import_mlflow():
    code = "import sys, lineage.registry; sys.exit('mlflow' in sys.modules or 'sqlalchemy' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_logged_run_shows_params_metrics_series_tables_and_times(settings, look):
    began = dt.datetime(2026, 11, 20, 14, 0, tzinfo=dt.UTC)
    found = look.get_run(
        log(
            settings,
            "full-1",
            params={"lora": {"r": 16, "target_modules": ["query", "key"]}, "seed": 7},
            tags={"stemma.curriculum": "c0ffee"},
            series={"loss": [3.0, 2.0, 1.0]},
            tables={"reports/gate.json": table("pass")},
            started=began,
            ended=began + dt.timedelta(minutes=2),
        )
    )
    assert found.data.params == {"lora.r": "16", "lora.target_modules": '["query", "key"]', "seed": "7"}
    assert found.data.metrics == {"accuracy": 0.9, "loss": 1.0}
    history = look.get_metric_history(found.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert found.data.tags["stemma.run_id"] == "full-1"
    assert found.data.tags["stemma.curriculum"] == "c0ffee"
    assert found.info.status == "FINISHED"
    assert found.info.end_time - found.info.start_time == 120_000
    assert rows_in(look.download_artifacts(found.info.run_id, "reports/gate.json")) == [["pass"]]


def test_a_run_that_goes_on_shows_how_far_it_is_and_its_end_completes_that(settings, look):
    told = {"loss": 2.0, "tokens_per_s": 9.0}
    log_progress(settings, run_id="long-1", job="finetune", step=1, metrics=told)
    (going,) = runs_tagged(look, "long-1")
    assert going.info.status == "RUNNING"
    assert going.data.metrics == told
    log(settings, "long-1", series={"loss": [3.0, 2.0, 1.0]})
    (ended,) = runs_tagged(look, "long-1")
    assert ended.info.status == "FINISHED"
    history = look.get_metric_history(ended.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_artifacts_lie_in_the_lake(settings, look):
    found = look.get_run(log(settings, "place-1", tables={"note.json": table("here")}))
    assert found.info.artifact_uri.startswith(f"{settings.lake}/mlartifacts/")
    (kept,) = Path(settings.lake, "mlartifacts", found.info.run_id).rglob("note.json")
    assert rows_in(kept) == [["here"]]


def test_logging_a_run_again_updates_it(settings, look):
    first = log(settings, "again-1", series={"loss": [3.0, 2.0]}, tables={"note.json": table("old")})
    again = log(
        settings,
        "again-1",
        metrics={"accuracy": 0.8, "f1": 0.7},
        series={"loss": [3.0, 1.5, 1.0]},
        params={"seed": 7, "epochs": 2},
        tags={"stemma.verdict": "pass"},
        tables={"note.json": table("new")},
    )
    assert again == first
    assert len(runs_tagged(look, "again-1")) == 1
    found = look.get_run(first)
    assert found.data.metrics == {"accuracy": 0.8, "f1": 0.7, "loss": 1.0}
    assert found.data.params == {"seed": "7", "epochs": "2"}
    assert found.data.tags["stemma.verdict"] == "pass"
    assert rows_in(look.download_artifacts(first, "note.json")) == [["new"]]


def test_logging_the_same_numbers_again_adds_no_point(settings, look):
    for _ in range(3):
        found = log(
            settings, "same-1", metrics={"accuracy": 0.9, "gap": float("nan")}, series={"loss": [2.0, 1.0]}
        )
    assert len(look.get_metric_history(found, "accuracy")) == 1
    assert len(look.get_metric_history(found, "gap")) == 1
    assert len(look.get_metric_history(found, "loss")) == 2


def test_a_changed_param_is_refused(settings):
    log(settings, "param-1")
    with pytest.raises(RegistryError, match="seed = 7, now 8"):
        log(settings, "param-1", params={"seed": 8})


def test_a_name_that_is_metric_and_series_is_refused(settings):
    with pytest.raises(RegistryError, match="'loss' is a metric and a series"):
        log(settings, "both-1", metrics={"loss": 1.0}, series={"loss": [2.0, 1.0]})


def test_params_over_the_limits_are_cut_and_kept_whole_beside(settings, look):
    params = {"text": "x" * 20_000, "key with ünïcode & signs!": 1, "a//b": 2, "k" * 400: 3}
    params |= {f"p{index}": index for index in range(250)}
    found = look.get_run(log(settings, "wordy-1", params=params))
    assert len(found.data.params) == 254
    assert found.data.params["text"].endswith("... (20000 characters)")
    assert "x" * 20_000 in Path(look.download_artifacts(found.info.run_id, "params.json")).read_text()


def test_a_long_series_is_thinned_but_ends_where_it_ended(settings, look):
    found = log(settings, "series-1", series={"loss": [float(step) for step in range(5_000)]})
    steps = [point.step for point in look.get_metric_history(found, "loss")]
    assert len(steps) == 1_000
    assert (min(steps), max(steps)) == (0, 4_999)


def test_an_artifact_cannot_leave_its_folder(settings):
    with pytest.raises(RegistryError, match="leaves its folder"):
        log(settings, "escape-1", tables={"../../escape.json": table("x")})


def test_half_a_surrogate_pair_is_no_error(settings, look):
    found = log(settings, "half-1", params={"last": "cut \ud83d here"})
    assert look.get_run(found).data.params["last"] == "cut ? here"
    assert "cut" in Path(look.download_artifacts(found, "params.json")).read_text()


def test_trials_nest_under_an_open_search(settings, look):
    parent = open_run(settings, run_id="search-1", job="search", tags={})
    assert look.get_run(parent).info.status == "RUNNING"
    child = look.get_run(log(settings, "trial-1", parent_run_id="search-1"))
    assert child.data.tags["mlflow.parentRunId"] == parent
    close_run(settings, run_id="search-1", status="FAIL")
    assert look.get_run(parent).info.status == "FAILED"


def test_a_parent_that_is_logged_after_its_children_finds_them(settings, look):
    child = log(settings, "early-1", parent_run_id="late-1")
    parent = log(settings, "late-1", job="search")
    assert look.get_run(child).data.tags["mlflow.parentRunId"] == parent


def test_an_opened_run_is_finished_by_logging_it(settings, look):
    opened = open_run(settings, run_id="open-1", job="finetune", tags={})
    assert open_run(settings, run_id="open-1", job="finetune", tags={"stemma.host": "a"}) == opened
    assert log(settings, "open-1") == opened
    assert look.get_run(opened).info.status == "FINISHED"
    assert look.get_run(opened).data.tags["stemma.host"] == "a"


def test_closing_a_run_that_was_never_opened_is_refused(settings):
    with pytest.raises(RegistryError, match="ghost-1 is not in MLflow"):
        close_run(settings, run_id="ghost-1", status="COMPLETE")


def test_threads_that_log_one_run_at_once_make_one_run(settings, look):
    threads = [threading.Thread(target=log, args=(settings, "race-1")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs_tagged(look, "race-1")) == 1


def test_registered_version_links_its_run_and_holds_adapter_and_pedigree(settings, look, adapter):
    mlflow_run = log(settings, "model-1")
    enter(settings, adapter, "router", 1, "model-1", step=40)
    (found,) = model_versions(settings, "router")
    assert (found.version, found.run_id, found.tags["stemma.curriculum"]) == (1, "model-1", "c0ffee")
    version = look.get_model_version("router", "1")
    assert (version.run_id, version.status) == (mlflow_run, "READY")
    logged = look.get_logged_model(found.source.removeprefix("models:/"))
    assert (logged.source_run_id, str(logged.status)) == (mlflow_run, "READY")
    (output,) = look.get_run(mlflow_run).outputs.model_outputs
    assert (output.model_id, output.step) == (logged.model_id, 40)
    folder = Path(look.get_model_version_download_uri("router", "1"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "adapter_model.safetensors": b"weights",
        "adapter_config.json": b"{}",
        "pedigree.html": b"<p>first</p>",
    }


def test_registering_leaves_no_trace_outside_the_lake(settings, adapter, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere.else")
    log(settings, "trace-1")
    enter(settings, adapter, "traceless", 1, "trace-1")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert mlflow.get_tracking_uri() == "http://somewhere.else"
    mlflow.set_tracking_uri(None)  # what the test itself set


def test_registering_again_brings_tags_and_pedigree_up_to_date(settings, look, adapter):
    log(settings, "twice-1")
    enter(settings, adapter, "twice", 1, "twice-1")
    enter(
        settings,
        adapter,
        "twice",
        1,
        "twice-1",
        tags={"stemma.root": "r"},
        pedigree={"pedigree.html": "second"},
    )
    (found,) = model_versions(settings, "twice")
    assert (found.tags["stemma.root"], found.tags["stemma.curriculum"]) == ("r", "c0ffee")
    folder = Path(look.get_model_version_download_uri("twice", "1"))
    assert (folder / "pedigree.html").read_text() == "second"


def test_a_version_ahead_of_mlflow_says_which_to_register_first(settings, adapter):
    log(settings, "ahead-1")
    with pytest.raises(RegistryError, match="is 1, expected 3; register versions 1 to 2 first"):
        enter(settings, adapter, "ahead", 3, "ahead-1")
    assert model_versions(settings, "ahead") == []


def test_a_version_that_belongs_to_another_run_is_refused(settings, adapter):
    log(settings, "owner-1")
    log(settings, "other-1")
    enter(settings, adapter, "owned", 1, "owner-1")
    with pytest.raises(RegistryError, match="belongs to run owner-1, expected run other-1"):
        enter(settings, adapter, "owned", 1, "other-1")


def test_a_registry_edited_behind_our_back_is_noticed_and_left_as_it_was(settings, look, adapter):
    log(settings, "edit-1")
    log(settings, "edit-2")
    enter(settings, adapter, "edited", 1, "edit-1")
    look.delete_model_version("edited", "1")
    with pytest.raises(
        RegistryError, match=r"edited in MLflow behind our back.*numbered this version 2, expected 1"
    ):
        enter(settings, adapter, "edited", 1, "edit-2")
    assert model_versions(settings, "edited") == []


def test_registering_an_unlogged_run_or_a_missing_adapter_is_refused(settings, adapter, tmp_path):
    with pytest.raises(RegistryError, match="unlogged-1 is not in MLflow"):
        enter(settings, adapter, "early", 1, "unlogged-1")
    with pytest.raises(RegistryError, match="missing or empty"):
        enter(settings, str(tmp_path / "nowhere"), "early", 1, "unlogged-1")
    assert model_versions(settings, "early") == []


def test_alias_moves_and_is_taken_away(settings, adapter):
    for version in (1, 2):
        log(settings, f"alias-{version}")
        enter(settings, adapter, "served", version, f"alias-{version}")
    set_alias(settings, name="served", alias="champion", version=1, mark="first")
    set_alias(settings, name="served", alias="champion", version=2, mark="second")
    set_alias(settings, name="served", alias="previous", version=1, mark="second")
    assert indexed_aliases(settings, "served") == {
        "champion": IndexedAlias(2, "second"),
        "previous": IndexedAlias(1, "second"),
    }
    for _ in range(2):
        set_alias(settings, name="served", alias="champion", version=0, mark="third")
    assert indexed_aliases(settings, "served") == {
        "champion": IndexedAlias(0, "third"),
        "previous": IndexedAlias(1, "second"),
    }


def test_alias_on_a_version_that_does_not_exist_is_refused_in_one_sentence(settings):
    with pytest.raises(RegistryError) as caught:
        set_alias(settings, name="nobody", alias="champion", version=1, mark="first")
    assert "\n" not in str(caught.value)


def test_an_unknown_model_has_no_versions_and_no_aliases(settings):
    assert model_versions(settings, "unheard") == []
    assert indexed_aliases(settings, "unheard") == {}


@pytest.mark.timeout(60)  # MLflow itself would wait four minutes
def test_an_unreachable_server_is_one_sentence():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    settings = Settings(lake="s3://bucket/lake", tracking_uri=f"http://user:secret@127.0.0.1:{port}")
    with pytest.raises(RegistryError, match="does not answer; start it") as caught:
        prepare(settings)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


class OnlyHealthy(BaseHTTPRequestHandler):
    """A server that says it is well, and hangs up on everything else."""

    def do_GET(self):
        if self.path == "/health":
            self.send_response(200)
            self.end_headers()

    def log_message(self, *_):
        """Not on our screen."""


def test_a_server_that_fails_while_it_is_asked_is_told_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), OnlyHealthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://user:s3@cret@127.0.0.1:{server.server_port}"
        with pytest.raises(
            RegistryError, match=r"MLflow at http://127\.0\.0\.1:\d+: .*API request"
        ) as caught:
            prepare(Settings(lake="s3://bucket/lake", tracking_uri=uri))
        server.shutdown()
    assert "cret" not in str(caught.value)


def test_a_lake_without_any_tracking_server_says_what_to_set():
    with pytest.raises(RegistryError, match="set MLFLOW_TRACKING_URI"):
        prepare(Settings(lake="s3://bucket/lake", tracking_uri=""))


def test_a_store_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database, but long enough to be looked at as one" * 40)
    with pytest.raises(RegistryError) as caught:
        prepare(embedded(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)  # MLflow itself would try for 102 s
@pytest.mark.parametrize("away", ["postgresql+psycopg2://user:{}@127.0.0.1:{}/mlflow", "sqlite:///{0}/{1}"])
def test_a_database_that_is_away_is_one_sentence(away, tmp_path):
    if away.startswith("postgresql"):
        pytest.importorskip("psycopg2", reason="no driver for PostgreSQL: pip install psycopg2-binary")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            uri = away.format("s3cret", closed.getsockname()[1])
    else:
        (tmp_path / "a folder").mkdir()
        uri = away.format(tmp_path, "a folder")
    with pytest.raises(RegistryError, match=r"cannot be opened .*; put it right") as caught:
        prepare(Settings(lake=str(tmp_path), tracking_uri=uri))
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_what_is_no_url_of_a_database_is_one_sentence():
    with pytest.raises(RegistryError, match="is no URL of a database") as caught:
        prepare(
            Settings(lake="s3://bucket/lake", tracking_uri="postgresql+psycopg2://user@there:no-port/mlflow")
        )
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_processes_that_meet_on_a_fresh_lake_share_one_store(tmp_path):
    code = (
        "import sys; from infra.settings import Settings; from lineage.registry import log_run; "
        f"log_run(Settings({str(tmp_path)!r}, 'sqlite:///{tmp_path}/mlflow.db'), "
        "run_id=sys.argv[1], job='x', params={}, metrics={}, tags={})"
    )
    root = Path(__file__).parents[2]
    started = [subprocess.Popen([sys.executable, "-c", code, f"p{index}-1"], cwd=root) for index in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "stemma"]
    assert len(client.search_runs([experiment.experiment_id])) == 2
    assert not list(tmp_path.glob(".mlflow-*"))
