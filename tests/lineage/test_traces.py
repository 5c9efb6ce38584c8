"""Traces of a real tracking store come back as lines, and the reader of MLflow's traces takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import sources, tables
from lineage.ancestry import source_bytes
from lineage.registry import RegistryError, exported_traces
from lineage.schemas import TRACE
from pipelines.ingest import IngestConfig, ingest
from pipelines.readers.mlflow_traces import MlflowTraces

# A process of its own: MLflow's tracer, its store and its experiment belong to the whole process.
MAKE = """
import sys
import mlflow
from mlflow.entities import AssessmentSource, SpanType

mlflow.set_tracking_uri(sys.argv[1])
mlflow.genai.register_prompt("rooms", "Answer: {{question}}")
asked = {"model": "gpt-4o", "messages": [{"role": "system", "content": "Be brief."},
                                         {"role": "user", "content": "Is room 4 free?"}]}
reply = {"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06",
         "choices": [{"index": 0, "finish_reason": "stop",
                      "message": {"role": "assistant", "content": "Room 4 is free."}}]}
mlflow.set_experiment("rooms")
with mlflow.start_span("agent", span_type=SpanType.AGENT) as root:
    mlflow.genai.load_prompt("prompts:/rooms/1")
    with mlflow.start_span("ChatCompletion", span_type=SpanType.CHAT_MODEL) as call:
        call.set_inputs(asked)
        call.set_outputs(reply)
        call.set_attribute("mlflow.chat.tokenUsage",
                           {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17})
    root.set_outputs("Room 4 is free.")
mlflow.flush_trace_async_logging()
judge, person = AssessmentSource("LLM_JUDGE", "openai:/gpt-4o"), AssessmentSource("HUMAN", "ann")
trace = root.trace_id
mlflow.log_feedback(trace_id=trace, name="correctness", value=True, source=judge, span_id=call.span_id)
mlflow.log_feedback(trace_id=trace, name="correctness", value=False, source=person)
mlflow.log_expectation(trace_id=trace, name="expected_response", value="It is taken.", source=person)

mlflow.set_experiment("many")
for number in range(104):
    with mlflow.start_span("echo", span_type=SpanType.LLM) as span:
        span.set_inputs(f"ping {number}")
        span.set_outputs(f"pong {number}")
mlflow.flush_trace_async_logging()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose tracking store holds one judged trace and 104 others."""
    folder = tmp_path_factory.mktemp("store")
    settings = Settings(str(folder / "lake"), tracking_uri=f"sqlite:///{folder}/mlflow.db")
    list(exported_traces(settings, experiments=["Default"]))  # lays the store's file quickly
    subprocess.run([sys.executable, "-c", MAKE, settings.tracking_uri], check=True, cwd=folder, timeout=300)
    return settings


def test_a_judged_trace_comes_back_with_prompt_model_judge_and_reviewer(store):
    (line,) = exported_traces(store, experiments=["rooms"])
    record = json.loads(line)
    assert MlflowTraces().recognises(record)
    (row,) = MlflowTraces().read(record)
    assert [(each["role"], each["content"]) for each in row["messages"]] == [
        ("system", "Be brief."),
        ("user", "Is room 4 free?"),
    ]
    assert (row["response"], row["finish_reason"]) == ("Room 4 is free.", "stop")
    assert (row["prompt_name"], row["prompt_version"]) == ("rooms", "1")
    assert (row["model_requested"], row["model_answered"]) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert (row["scorer"], row["score"], row["verdict"]) == ("openai:/gpt-4o", 1.0, "fail")
    assert (row["review"], row["reviewer"], row["correction"]) == ("overridden", "ann", "It is taken.")
    assert (row["input_tokens"], row["output_tokens"]) == (12, 5)
    trace_id, span_id = row["trace_key"].split("/")
    assert trace_id == record["info"]["trace_id"]
    assert span_id == record["info"]["assessments"][0]["span_id"]


def test_all_pages_come_in_the_order_of_time_and_id_and_are_the_same_bytes_again(store):
    lines = list(exported_traces(store, experiments=["many", "rooms"]))
    assert len(lines) == 105
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    infos = [json.loads(line)["info"] for line in lines]
    keys = [(info["request_time"], info["trace_id"]) for info in infos]
    assert keys == sorted(keys)
    assert len({info["trace_id"] for info in infos}) == 105
    assert list(exported_traces(store, experiments=["rooms", "many"])) == lines
    answers = Counter(row["response"] for line in lines for row in MlflowTraces().read(json.loads(line)))
    assert answers == Counter([f"pong {number}" for number in range(104)] + ["Room 4 is free."])


def test_another_store_and_a_filter_may_be_named(store, tmp_path: Path):
    elsewhere = Settings(str(tmp_path / "lake"), tracking_uri="")
    found = exported_traces(
        elsewhere, experiments=["many"], tracking_uri=store.tracking_uri, where="attributes.status = 'ERROR'"
    )
    assert list(found) == []


def test_an_experiment_that_is_not_there_is_named(store):
    with pytest.raises(RegistryError, match="experiment 'roms' is not there"):
        list(exported_traces(store, experiments=["roms"]))
    with pytest.raises(RegistryError, match="no experiment is named"):
        list(exported_traces(store, experiments=[]))


def test_an_experiment_is_a_source_like_any_other(store, ray_session):
    runtime = Runtime(store)
    first = ingest(runtime, IngestConfig(sources=("mlflow:rooms",)))
    assert (first.counts["in"], first.counts["out"]) == (1, 1)
    assert ingest(runtime, IngestConfig(sources=("mlflow:rooms",))).again
    (row,) = tables.read(store, TRACE).to_pylist()
    assert (
        json.loads(source_bytes(row, origins=sources.origins(store)))["info"]["trace_id"]
        == row["trace_key"].partition("/")[0]
    )
    with pytest.raises(RegistryError, match="experiment 'none' is not there"):
        ingest(runtime, IngestConfig(sources=("mlflow:none",)))
