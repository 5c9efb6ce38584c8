from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pyarrow as pa
import pytest

from expectations.audit import standing
from expectations.audit.page import audit_html
from expectations.gate import admit
from expectations.thresholds import Thresholds
from infra import cli
from lineage import models, tables
from lineage.consumption import find_checkpoint, offer, record_checkpoint
from lineage.curricula import root_of
from lineage.models import ModelError
from lineage.review import review
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import CURRICULUM, EXAMPLE, TRACE, VERDICT
from lineage.waivers import Waiver

EARLIER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def trained(lake, toy):
    """A champion that ate three examples of a curriculum of six, all of one batch, gated with care."""
    for rows, into, key in ((toy.traces(), TRACE, "a"), (toy.examples(), EXAMPLE, "b")):
        admit(lake.runtime, lake.store(rows, into, key=key), thresholds=Thresholds(min_rows=2))
    examples = toy.examples()
    members = toy.curriculum(examples)
    root = root_of(members)
    members = toy.curriculum(examples, curriculum=root)
    admit(lake.runtime, lake.store(members, CURRICULUM, key="c"))
    ids = {row["row_no"]: row["row_id"] for row in examples.to_pylist()}

    def work(run: Run) -> Outcome:
        eaten = pa.table(
            {
                "step": pa.array(range(3), pa.int32()),
                "rank": pa.array([0] * 3, pa.int16()),
                "slot": pa.array([0] * 3, pa.int32()),
                "row_no": pa.array(list(ids)[:3], pa.int64()),
                "loss_tokens": pa.array([1] * 3, pa.int32()),
            }
        )
        record_checkpoint(
            lake.runtime,
            run,
            eaten=eaten,
            ids=ids,
            step=3,
            uri="nowhere",
            adapter_digest="a",
            adapter_config_digest="b",
            base_model="tiny",
            base_digest="c",
            curriculum=root,
            plan=offer(list(ids), ids),
        )
        return Outcome()

    done = carry_out(lake.runtime, "finetune", config={}, inputs=[], work=work)
    version = models.register(lake.runtime, find_checkpoint(lake.settings, done.run_id), name="router")
    promoted = {"kind": "promotion", "reason": "best of three", "evidence": []}
    run = Run("0" * 16, 1, "promote")
    models.move_aliases(lake.runtime, {"champion": version.version}, name="router", run=run, **promoted)
    return lake


def test_a_model_names_the_suites_and_thresholds_that_admitted_its_rows_and_who_approved(trained):
    found = standing.of_model(trained.settings, "champion")
    assert (found["model"], found["rows"]) == ("router@1", 3)
    assert sorted(batch["batch"] for batch in found["batches"]) == ["curricula@1", "examples@1", "traces@1"]
    by_table = {batch["table"]: batch for batch in found["batches"]}
    assert by_table["examples"]["outcome"] == "pass"
    assert by_table["examples"]["gated_by"] not in ("", "unstated")
    is_present = {suite["table"]: suite["is_present"] for suite in found["suites"]}
    assert is_present == {"examples": False, "traces": False, "curricula": True}
    assert found["unadmitted"] == []
    assert [(move["alias"], move["reason"]) for move in found["moves"]] == [("champion", "best of three")]


def test_a_batch_that_no_gate_saw_is_told(trained):
    gated = standing.of_model(trained.settings, "champion")
    assert gated["unadmitted"] == []
    tables.replace(
        trained.settings,
        VERDICT.schema.empty_table(),
        into=VERDICT,
        run_id=next(b["gate"] for b in gated["batches"] if b["table"] == "examples"),
    )
    found = standing.of_model(trained.settings, "champion")
    assert [each["table"] for each in found["unadmitted"]] == ["examples"]


def test_what_people_said_of_its_rows_is_told_and_of_no_others(trained, toy):
    eaten, other = (toy.examples()["row_id"][place].as_py().hex() for place in (0, 5))
    for row in (eaten, other):
        review(trained.runtime, [row], "approved", reason="read it", reviewer="ada")
    found = standing.of_model(trained.settings, "champion")
    assert [(each["row_id"], each["reviewer"]) for each in found["reviews"]] == [(eaten, "ada")]


def test_of_a_waiver_the_last_entry_counts_until_its_end():
    day = dt.timedelta(days=1)
    given = [Waiver("w", "traces", "r", "late fix", "ada", EARLIER, EARLIER + 9 * day)]
    ended = EARLIER + 3 * day
    revoked = [replace(given[0], revoked=replace(given[0], at=ended, until=ended))]
    assert [each["id"] for each in standing.in_force(given, "traces", EARLIER + 5 * day)] == ["w"]
    assert standing.in_force(given, "traces", EARLIER + 9 * day) == []
    assert standing.in_force(given, "examples", EARLIER + 5 * day) == []
    assert standing.in_force(revoked, "traces", EARLIER + 5 * day) == []
    assert len(standing.in_force(revoked, "traces", EARLIER + 2 * day)) == 1


def test_the_verb_tells_a_models_rules_as_lines_json_and_page(trained, capsys):
    assert cli.run("audit", ["--model", "champion", "--lake", trained.settings.lake]) == 0
    shown = capsys.readouterr().out
    assert "router@1: 3 rows from 3 batches" in shown
    assert "promotion to champion" in shown
    assert cli.run("audit", ["--model", "champion", "--json", "--lake", trained.settings.lake]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suites"] is None
    assert found["model"].keys() == {
        "model", "run_id", "step", "rows", "batches", "suites", "waivers", "unadmitted", "reviews", "moves",
    }  # fmt: skip
    assert "best of three" in audit_html(found)
    assert cli.run("audit", ["--model", "nobody", "--lake", trained.settings.lake]) == 2
    assert "'nobody' is no alias, version or run" in capsys.readouterr().err


def test_a_name_of_no_model_is_refused(lake):
    with pytest.raises(ModelError, match="no alias"):
        standing.of_model(lake.settings, "nobody")
