"""Curation for each task: what its config may say, and from logs to admitted examples and a curriculum."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pytest

from expectations.gate import admit
from infra.config import ConfigError, read_config
from infra.runtime import Runtime
from lineage import curricula, fsck, tables, verdicts
from lineage.curricula import DataRecipe
from lineage.review import Reviews
from lineage.schemas import EXAMPLE, REJECTED
from pipelines.curate import CurateConfig, curate, steps_of
from pipelines.ingest import IngestConfig, ingest

CALLS = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
OTHERS = ("generation", "preference", "tagging")


def steps(**config: Any) -> list[str]:
    wanted = CurateConfig.model_validate(config)
    return [step.name for step in steps_of(wanted, elsewhere=frozenset(), reviews=Reviews())]


@pytest.mark.parametrize("task", OTHERS)
def test_neighbours_are_asked_about_labels_alone(task):
    assert steps(task=task) == [
        "example_from_trace",
        "keep_splits_apart",
        "exclude_poison",
        "merge_duplicates",
    ]
    assert CurateConfig().scorer_base_model == "all-MiniLM-L6-v2"
    refused = f"'scorer_base_model' is 'other': neighbours agree on labels, which examples of {task} have not"
    with pytest.raises(ConfigError, match=refused):
        read_config(CurateConfig, None, [f"task={task}", "scorer_base_model=other"])


@pytest.mark.parametrize("task", OTHERS)
def test_to_switch_the_scorer_off_says_nothing_new_and_a_resolved_config_is_one(task):
    config = CurateConfig.model_validate({"task": task})
    assert CurateConfig.model_validate({"task": task, "scorer_base_model": "none"}) == config
    assert CurateConfig.model_validate(config.model_dump()) == config
    assert CurateConfig.model_validate_json(CurateConfig().model_dump_json()) == CurateConfig()


def test_the_examples_of_configs_can_be_read():
    files = sorted((Path(__file__).parents[2] / "examples").rglob("curate*.toml"))
    assert {file.parent.name for file in files} == {"arithmetic", "gsm8k"}
    for file in files:
        assert read_config(CurateConfig, file).task == tomllib.loads(file.read_text())["task"]


@pytest.fixture
def admitted(runtime: Runtime, tmp_path: Path, toys) -> Runtime:
    """Ten exchanges answered with spans, every other one corrected; and one answered by a tool call."""
    lines = []
    for n in range(10):
        name = f"Ada{n} lives in the old town of Graz"
        spans = [
            {"start": 0, "end": 4, "label": "person"},
            {"start": len(name) - 4, "end": len(name), "label": "city"},
        ]
        right = json.dumps(spans[: 1 + n % 2])
        wrong = {"verdict": "fail", "correction": right} if n % 2 else {}
        lines.append(toys.exchange(name, "[]" if wrong else right, **wrong))
    called = toys.exchange("what is the weather in Graz today?", "")
    called["response"]["choices"][0]["message"] |= {"content": None, "tool_calls": CALLS}
    stored = ingest(
        runtime, IngestConfig(sources=(str(toys.write_lines(tmp_path / "log.jsonl", [*lines, called])),))
    )
    assert admit(runtime, stored.outputs[0]).passed
    return runtime


def test_one_log_teaches_every_task_what_it_can(admitted: Runtime):
    made, lost = {}, {}
    for task in OTHERS:
        outcome = curate(admitted, CurateConfig(task=task))
        assert admit(admitted, outcome.outputs[0]).passed, task
        mine = pads.field("run_id") == outcome.run_id
        made[task] = tables.read(admitted.settings, EXAMPLE, where=mine).to_pylist()
        lost[task] = tables.read(admitted.settings, REJECTED, where=mine)["reason"].to_pylist()
    assert {task: len(rows) for task, rows in made.items()} == {
        "generation": 11,
        "preference": 5,
        "tagging": 10,
    }
    assert lost == {"generation": [], "preference": ["no_rejected_answer"] * 6, "tagging": ["no_answer"]}
    (call,) = [row for row in made["generation"] if row["answer_tool_calls"]]
    assert (call["answer"], json.loads(call["answer_tool_calls"])) == ("", CALLS)
    assert {row["rejected"] for row in made["preference"]} == {"[]"}
    assert {row["rejected"] for row in made["tagging"]} == {None}
    taken = curricula.build(admitted, DataRecipe(tasks=("preference",)))
    members = curricula.load(admitted.settings, taken.facets["curriculum"]).members
    assert sorted(members["row_id"].to_pylist()) == sorted(row["row_id"] for row in made["preference"])
    assert admit(admitted, taken.outputs[0]).passed
    verdicts.require(admitted.settings, tables.resolve(admitted.settings, taken.outputs[0]))
    assert [sentence for check in fsck.fsck(admitted.settings) for sentence in check.found] == []
