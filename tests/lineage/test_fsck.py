"""Each invariant, broken on purpose in a copy of a sound lake: fsck names it, and it alone."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from mlflow.tracking import MlflowClient
from pyroaring import BitMap64

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables, verdicts
from lineage.bans import recall_id
from lineage.consumption import checkpoints
from lineage.fsck import CHECKS, commits, fsck, reports, roots, sources
from lineage.recall import recall
from lineage.runs import Run
from lineage.schemas import (
    CHECKPOINT,
    CONSUMPTION,
    CURRICULUM,
    EVENT,
    EXAMPLE,
    MODEL,
    PREDICTION,
    RECALL,
    REPORT,
    RUN,
    TRACE,
    VERDICT,
    TableSpec,
)
from lineage.selectors import Selector
from lineage.waivers import grant


def broken(settings: Settings) -> set[str]:
    return {check.name for check in fsck(settings) if check.found}


def test_a_lake_in_which_all_went_well_is_sound_and_every_check_looked_at_something(trained_lake):
    done = fsck(trained_lake.settings)
    assert [check.name for check in done] == [*CHECKS, "leftovers"]
    assert not [check for check in done if check.found or check.remarks]
    # Of recalls there are none in this lake.
    assert [check.name for check in done if not check.looked_at] == ["recalls"]


def test_a_copy_of_a_sound_lake_is_sound(trained_lake, tmp_path: Path):
    assert broken(trained_lake.copied(tmp_path / "lake")) == set()


def test_a_lake_with_a_recall_is_sound_and_says_how_many_rows_are_banned(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    called_back(settings)
    assert broken(settings) == set()
    assert next(check for check in fsck(settings) if check.name == "recalls").looked_at == 1


def delta(settings: Settings, name: str) -> DeltaTable:
    return DeltaTable(settings.path("tables", name))


def eaten(settings: Settings) -> int:
    """The number of a row that the champion ate."""
    return min(tables.read(settings, CONSUMPTION)["row_no"].to_pylist())


def lose_an_example(settings: Settings) -> None:
    delta(settings, "examples").delete(f"row_no = {eaten(settings)}")


def lose_a_trace(settings: Settings) -> None:
    parent = tables.read(settings, EXAMPLE, columns=["parent_nos"])["parent_nos"][0].as_py()[0]
    delta(settings, "traces").delete(f"row_no = {parent}")


def weigh_a_member_otherwise(settings: Settings) -> None:
    delta(settings, "curricula").update({"weight": "2.0"}, predicate=f"row_no = {eaten(settings)}")


def store_a_batch_twice(settings: Settings) -> None:
    batch = next(iter(tables.batches(settings, TRACE).values()))
    file = tables.write_file(settings, tables.read_batch(settings, batch), into=TRACE, name="again")
    run_id = tables.stored_by(settings, batch)
    tables.commit(settings, [file], into=TRACE, run_id=run_id, keys=["another key"])


def change_the_adapter(settings: Settings) -> None:
    file = Path(checkpoints(settings)[0].uri, "adapter_model.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def change_beside_the_adapter(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """What one of the JSON files says beside the tensors."""

    def mutate(settings: Settings) -> None:
        file = Path(checkpoints(settings)[0].uri, name)
        said = json.loads(file.read_text())
        file.write_text(json.dumps(said | change(said)))

    return mutate


def lose_a_slot(settings: Settings) -> None:
    delta(settings, "consumption").delete("step = 0 AND slot = 0")


def eat_a_slot_twice(settings: Settings) -> None:
    slot = tables.read(settings, CONSUMPTION).slice(0, 1)
    tables.record(settings, slot.to_pylist(), into=CONSUMPTION)


def plan_otherwise(settings: Settings) -> None:
    delta(settings, "plans").update({"n_loss_tokens": "7"}, predicate="step = 0 AND slot = 0")


def refuse(spec: TableSpec) -> Callable[[Settings], None]:
    def mutate(settings: Settings) -> None:
        for run_id, batch in tables.batches(settings, spec).items():
            given = verdicts.latest(settings, batch)
            assert given is not None
            refusal = dataclasses.replace(given, outcome="fail")
            verdicts.record(Runtime(settings), refusal, batch_run=run_id, run_id="gate-2")

    return mutate


def move_an_alias_to_nowhere(settings: Settings) -> None:
    last = models.events(settings, "router")[-1]
    moved = dataclasses.replace(
        last, alias="champion", from_version=1, to_version=7, at=dt.datetime.now(dt.UTC)
    )
    tables.record(settings, [vars(moved)], into=EVENT)


def lose_the_checkpoint(settings: Settings) -> None:
    delta(settings, "checkpoints").delete()


def count_otherwise(job: str) -> Callable[[Settings], None]:
    def mutate(settings: Settings) -> None:
        done = [
            e for e in tables.read(settings, RUN).to_pylist() if (e["job"], e["status"]) == (job, "COMPLETE")
        ]
        counts = json.loads(done[0]["counts"])
        changed = json.dumps(counts | {"out": counts["out"] + 1})
        where = f"run_id = '{done[0]['run_id']}' AND status = 'COMPLETE'"
        delta(settings, "runs").update({"counts": f"'{changed}'"}, predicate=where)

    return mutate


def lose(book: str) -> Callable[[Settings], None]:
    return lambda settings: delta(settings, book).delete() and None


def called_back(settings: Settings) -> None:
    """The champion ate a row that was recalled, and is none any more."""
    recall(Runtime(settings), Selector(where=f"row_no = {eaten(settings)}"), reason="wrong")


def put_a_banned_row_back(settings: Settings) -> None:
    held = tables.read(settings, EXAMPLE)
    called_back(settings)
    numbers = tables.read(settings, EXAMPLE)["row_no"].to_pylist()
    lost = held.filter(pc.invert(pc.is_in(held["row_no"], pa.array(numbers))))
    file = tables.write_file(settings, lost, into=EXAMPLE, name="back")
    tables.commit(settings, [file], into=EXAMPLE, run_id=lost["run_id"][0].as_py(), keys=["back"])


def crown_a_recalled_model(settings: Settings) -> None:
    called_back(settings)
    with_run = Run("00", 1, "by hand")
    moves = {"champion": 1}
    models.move_aliases(
        Runtime(settings), moves, name="router", kind="promotion", reason="", evidence=[], run=with_run
    )
    models.mirror_aliases(settings, "router")


def order_a_recall_without_carrying_it_out(settings: Settings) -> None:
    selector = Selector(where=f"row_no = {eaten(settings)}")
    ordered = {
        "recall": recall_id(selector),
        "selector": selector.encode(),
        "reason": "wrong",
        "orders": "[]",
    }
    ordered |= {"actor": "ann", "run_id": "00-1", "at": dt.datetime.now(dt.UTC)}
    tables.record(settings, [ordered], into=RECALL)


def spoil_an_old_file(spoiler: Callable[[Path], object]) -> Callable[[Settings], None]:
    """One that only an earlier version of its table names."""

    def mutate(settings: Settings) -> None:
        stored = {path.name: path for path in Path(settings.path("tables", "checkpoints")).glob("*.parquet")}
        now = pa.table(delta(settings, "checkpoints").get_add_actions())["path"].to_pylist()
        (old,) = stored.keys() - set(now)
        spoiler(stored[old])

    return mutate


def forget(book: str) -> Callable[[Settings], None]:
    """The newest commit is lost with its entry in the log, as after a bad copy."""
    return lambda settings: max(Path(settings.path("tables", book, "_delta_log")).glob("*.json")).unlink()


def remove(book: str) -> Callable[[Settings], None]:
    return lambda settings: shutil.rmtree(settings.path("tables", book))


def after_a_recall(mutate: Callable[[Settings], None]) -> Callable[[Settings], None]:
    def both(settings: Settings) -> None:
        called_back(settings)
        mutate(settings)

    return both


def write(book: str, column: str, value: str, where: str | None = None) -> Callable[[Settings], None]:
    """By hand, in SQL."""
    return lambda settings: delta(settings, book).update({column: value}, predicate=where) and None


def rewrite(settings: Settings, spec: TableSpec, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """By hand, the whole table, row by row."""
    rows = [row | change(row) for row in tables.read(settings, spec).to_pylist()]
    write_deltalake(
        delta(settings, spec.name), pa.Table.from_pylist(rows, schema=spec.schema), mode="overwrite"
    )


def update_and_restore_curricula(settings: Settings) -> None:
    write("curricula", "answer", "'nonsense'")(settings)
    delta(settings, "curricula").restore(1)


def lose_events(where: str) -> Callable[[Settings], None]:
    return lambda settings: delta(settings, "events").delete(where) and None


def mistake_a_prediction(settings: Settings) -> None:
    rows = tables.read(settings, PREDICTION).to_pylist()
    right = next(row["row_no"] for row in rows if row["answer"] == row["prediction"])
    write("predictions", "prediction", "'nonsense'", f"row_no = {right}")(settings)


def forget_a_row_in_the_bitmap(settings: Settings) -> None:
    gone = eaten(settings)

    def change(row: dict[str, Any]) -> dict[str, Any]:
        return {"row_bitmap": (BitMap64.deserialize(row["row_bitmap"]) - BitMap64([gone])).serialize()}

    rewrite(settings, CHECKPOINT, change)


def name_another_parent(settings: Settings) -> None:
    rewrite(settings, EXAMPLE, lambda row: {"parent_nos": [number + 1 for number in row["parent_nos"]]})


def turn_the_parents_round(settings: Settings) -> None:
    several = [len(parents) for parents in tables.read(settings, EXAMPLE)["parents"].to_pylist()]
    assert max(several) > 1
    rewrite(settings, EXAMPLE, lambda row: {"parent_nos": row["parent_nos"][::-1]})


def name_a_parent_too_many(settings: Settings) -> None:
    rewrite(settings, EXAMPLE, lambda row: {"parent_nos": row["parent_nos"] * 2})


def derive_two_examples_from_each_other(settings: Settings) -> None:
    """And from nothing else: every parent is stored, under its own number."""
    one, other = tables.read(settings, EXAMPLE).slice(0, 2).to_pylist()
    turned = {
        one["row_no"]: {"parents": [other["row_id"]], "parent_nos": [other["row_no"]]},
        other["row_no"]: {"parents": [one["row_id"]], "parent_nos": [one["row_no"]]},
    }
    rewrite(settings, EXAMPLE, lambda row: turned.get(row["row_no"], {}))


def swap_two_spans(settings: Settings) -> None:
    one, other = tables.read(settings, TRACE).slice(0, 2).to_pylist()
    spans = {one["row_no"]: other["source_span"], other["row_no"]: one["source_span"]}
    rewrite(settings, TRACE, lambda row: {"source_span": spans.get(row["row_no"], row["source_span"])})


def read_a_span_twice(settings: Settings) -> None:
    """A batch comes again under other ids, numbers and another run: nothing but its place is the same."""
    batch = min(tables.batches(settings, TRACE).values())
    rows = tables.read_batch(settings, batch).slice(0, 2).to_pylist()
    run_id = next(e["run_id"] for e in tables.read(settings, RUN).to_pylist() if e["job"] == "gate")
    first = tables.reserve(settings, 2, run_id=run_id)
    again = [
        row | {"row_id": bytes([250, n]) * 8, "row_no": first + n, "run_id": run_id}
        for n, row in enumerate(rows)
    ]
    table = pa.Table.from_pylist(again, schema=TRACE.schema)
    file = tables.write_file(settings, table, into=TRACE, name="again")
    tables.commit(settings, [file], into=TRACE, run_id=run_id, keys=["another key"])


def bring_back_a_copy(**changes: Any) -> Callable[[Settings], None]:
    """A trace is recalled; later one comes of another id, number and run, with the same words or place."""

    def mutate(settings: Settings) -> None:
        parent = tables.read(settings, EXAMPLE, columns=["parents"])["parents"][0].as_py()[0]
        held = next(row for row in tables.read(settings, TRACE).to_pylist() if row["row_id"] == parent)
        recall(Runtime(settings), Selector(rows=(parent.hex(),)), reason="wrong", anyway=True)
        run_id = next(e["run_id"] for e in tables.read(settings, RUN).to_pylist() if e["job"] == "gate")
        new = {"row_id": b"\xfe" * 16, "row_no": tables.reserve(settings, 1, run_id=run_id), "run_id": run_id}
        back = held | new | changes | {"extracted_at": dt.datetime.now(dt.UTC)}
        table = pa.Table.from_pylist([back], schema=TRACE.schema)
        file = tables.write_file(settings, table, into=TRACE, name="back")
        tables.commit(settings, [file], into=TRACE, run_id=run_id, keys=["back"])

    return mutate


def forget_how_a_run_began(settings: Settings) -> None:
    held = tables.read(settings, RUN)
    left = [row for row in held.to_pylist() if (row["job"], row["status"]) != ("curate", "START")]
    assert len(left) < held.num_rows
    rows = pa.Table.from_pylist(left, schema=RUN.schema)
    write_deltalake(delta(settings, "runs"), rows, mode="overwrite")


def register_what_leads_nowhere(settings: Settings) -> None:
    """A version on which no alias stands, of a checkpoint that nobody made."""
    (known,) = tables.read(settings, MODEL).to_pylist()
    tables.record(settings, [known | {"version": 2, "run_id": "0123456789abcdef-1"}], into=MODEL)


def vacuum_what_a_recall_needs(settings: Settings) -> None:
    """With our own words in the log, and without asking what is pinned."""
    called_back(settings)
    entry = next(e for e in tables.commits(settings, EXAMPLE) if "stemma.recall" in e)
    run_id = entry["stemma.run_id"]
    files = tables.spare(settings, EXAMPLE, keep_versions=[], keep_hours=0)
    assert tables.vacuum(settings, EXAMPLE, files, run_id=run_id) == files != {}


def say_of_a_rule(**changes: Any) -> Callable[[Settings], None]:
    """By hand, in the verdicts: the first rule of each came out otherwise."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        first, *others = json.loads(row["rules"])
        return {"rules": json.dumps([first | changes, *others])}

    return lambda settings: rewrite(settings, VERDICT, change)


def waive(rule: str) -> Callable[[Settings], None]:
    """And by a waiver that was given after the verdicts that name it."""

    def mutate(settings: Settings) -> None:
        day = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=9)
        given = grant(Runtime(settings), table="traces", rule=rule, reason="late", until=day)
        say_of_a_rule(name=rule, outcome="fail", waived=given.id)(settings)

    return mutate


def lose_the_waivers(settings: Settings) -> None:
    day = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=9)
    grant(Runtime(settings), table="traces", rule="judgement_whole", reason="old judge", until=day)
    lose("waivers")(settings)


def edit_in_mlflow(edit: Callable[[MlflowClient], object]) -> Callable[[Settings], None]:
    return lambda settings: edit(MlflowClient(settings.tracking_uri, settings.tracking_uri)) and None


MUTATIONS: dict[str, tuple[Callable[[Settings], None], set[str]]] = {
    "an example is gone": (lose_an_example, {"closure", "roots", "commits"}),
    "a trace is gone": (lose_a_trace, {"closure", "commits"}),
    "a member weighs otherwise": (weigh_a_member_otherwise, {"roots", "commits"}),
    "a batch is stored twice": (store_a_batch_twice, {"exactly_once"}),
    "the adapter is another": (change_the_adapter, {"roots"}),
    "the adapter is scaled otherwise": (
        change_beside_the_adapter(
            "adapter_config.json", lambda said: {"lora_alpha": 100 * said["lora_alpha"]}
        ),
        {"roots"},
    ),
    "the adapter's answers have other names": (
        change_beside_the_adapter("stemma.json", lambda said: {"labels": said["labels"][::-1]}),
        {"roots"},
    ),
    "a place in a source is read twice": (read_a_span_twice, {"exactly_once", "sources"}),
    "the plan is gone": (lose("plans"), {"ledger", "roots", "books"}),
    "another row was eaten": (
        write("consumption", "row_no", "0", "step = 0 AND slot = 0"),
        {"ledger", "roots"},
    ),
    "a worker tells of a row too many": (write("steps", "rows", "rows + 1", "step = 0"), {"ledger"}),
    "a run has another config": (
        lambda settings: rewrite(
            settings, RUN, lambda row: {"config": "{}"} if row["job"] == "finetune" else {}
        ),
        {"runs"},
    ),
    "a run has other inputs": (
        lambda settings: rewrite(
            settings, RUN, lambda row: {"inputs": "[]"} if row["job"] == "curate" else {}
        ),
        {"runs"},
    ),
    "a run never began": (forget_how_a_run_began, {"runs"}),
    "MLflow says that another curriculum was eaten": (
        edit_in_mlflow(lambda client: client.set_model_version_tag("router", "1", "stemma.root", "0" * 64)),
        {"mirrored"},
    ),
    "a version leads nowhere": (register_what_leads_nowhere, {"pins"}),
    "a vacuum took what a recall needs": (
        vacuum_what_a_recall_needs,
        {"pins", "books", "closure", "roots", "recalls"},
    ),
    "a copy of a banned row is back": (
        bring_back_a_copy(source_revision="sha256:" + "ef" * 32, source_span="bytes:0-1"),
        {"recalls"},
    ),
    "a banned place is read again": (bring_back_a_copy(response="another"), {"recalls", "sources"}),
    "a slot was not eaten": (lose_a_slot, {"ledger", "roots", "books"}),
    "a slot was eaten twice": (eat_a_slot_twice, {"ledger", "roots"}),
    "the plan is another": (plan_otherwise, {"roots"}),
    "examples were refused": (refuse(EXAMPLE), {"admitted"}),
    "the curriculum was refused": (refuse(CURRICULUM), {"admitted"}),
    "a verdict passes over a rule that failed": (say_of_a_rule(outcome="fail"), {"admitted"}),
    "a verdict passes over a rule that crashed": (say_of_a_rule(outcome="error"), {"admitted"}),
    "a verdict names a waiver of nobody": (
        say_of_a_rule(outcome="fail", waived="0123456789ab"),
        {"admitted"},
    ),
    "a rule was waived afterwards": (waive("batch_not_empty"), {"admitted"}),
    "a rule was broken by more rows than are on record": (say_of_a_rule(failing=3), {"admitted"}),
    "waivers are gone": (lose_the_waivers, {"books"}),
    "an alias stands on nothing": (move_an_alias_to_nowhere, {"aliases"}),
    "the checkpoint is gone": (lose_the_checkpoint, {"aliases", "books", "pins"}),
    "ingest counted otherwise": (count_otherwise("ingest"), {"balance"}),
    "curate counted otherwise": (count_otherwise("curate"), {"balance"}),
    "rejected rows are gone": (lose("rejected"), {"balance"}),
    "quarantined lines are gone": (lose("quarantine"), {"balance"}),
    "a file that no check reads is gone": (spoil_an_old_file(Path.unlink), {"files"}),
    "a file that no check reads is cut": (
        spoil_an_old_file(lambda path: os.truncate(path, 100)),
        {"files"},
    ),
    "a banned row is back": (put_a_banned_row_back, {"recalls"}),
    "a recalled model is champion": (crown_a_recalled_model, {"recalls"}),
    "a recall was cut off": (order_a_recall_without_carrying_it_out, {"recalls"}),
    "a commit is forgotten": (forget("reports"), {"files", "books"}),
    "a commit is empty": (
        lambda settings: os.truncate(
            max(Path(settings.path("tables/exclusions/_delta_log")).glob("*.json")), 0
        ),
        {"files", "books"},
    ),
    "the bitmap lacks a row": (forget_a_row_in_the_bitmap, {"ledger"}),
    "parents have other numbers": (name_another_parent, {"closure", "commits"}),
    "parents stand in another order": (turn_the_parents_round, {"closure", "commits"}),
    "parents have too many numbers": (name_a_parent_too_many, {"closure", "commits"}),
    "two rows come from each other": (derive_two_examples_from_each_other, {"closure", "commits"}),
    "a member has another number": (
        lambda settings: rewrite(settings, CURRICULUM, lambda row: {"row_no": row["row_no"] + 1}),
        {"closure", "commits"},
    ),
    "a member has another answer": (write("curricula", "answer", "'nonsense'"), {"closure", "commits"}),
    "a member has another text": (write("curricula", "text", "'nonsense'"), {"closure", "commits"}),
    "traces were updated by hand": (write("traces", "reviewer", "'bob'"), {"commits"}),
    "examples were updated by hand": (write("examples", "reviewer", "'bob'"), {"commits"}),
    "examples were compacted": (
        lambda settings: delta(settings, "examples").optimize.compact() and None,
        {"commits"},
    ),
    "curricula were updated and restored": (update_and_restore_curricula, {"commits"}),
    "the bytes at a span are another row's": (swap_two_spans, {"sources", "commits"}),
    "an accuracy is another": (write("reports", "value", "0.99", "metric = 'accuracy'"), {"reports"}),
    "an F1 is another": (write("reports", "value", "0.99", "metric = 'macro_f1'"), {"reports"}),
    "an interval is another": (write("reports", "low", "0.01", "metric = 'ece'"), {"reports"}),
    "a prediction is another": (mistake_a_prediction, {"reports"}),
    "predictions are gone": (lose("predictions"), {"books", "reports"}),
    "reports are gone": (lose("reports"), {"books"}),
    "the table of reports is gone": (remove("reports"), {"books", "files"}),
    "reports are of another condition": (
        lambda settings: rewrite(settings, REPORT, lambda row: {"condition": "noisy"}),
        {"reports"},
    ),
    "events are gone": (lose("events"), {"books", "mirrored"}),
    "the table of events is gone": (remove("events"), {"books", "mirrored"}),
    "an event is gone": (lose_events("alias = 'candidate'"), {"books"}),
    "models are gone": (lose("models"), {"aliases", "books"}),
    "the table of checkpoints is gone": (remove("checkpoints"), {"aliases", "books", "pins"}),
    "verdicts are gone": (lose("verdicts"), {"admitted", "books"}),
    "curricula are gone": (lose("curricula"), {"admitted", "books", "commits", "pins"}),
    "leases are gone": (lose("leases"), {"books"}),
    "runs are gone": (lose("runs"), {"books"}),
    "recalls are gone": (after_a_recall(lose("recalls")), {"books", "mirrored"}),
    "the table of recalls is gone": (after_a_recall(remove("recalls")), {"books", "mirrored"}),
    "bans are gone": (after_a_recall(lose("bans")), {"books", "mirrored", "recalls"}),
    "recalls and bans are gone": (
        after_a_recall(lambda settings: [remove(book)(settings) for book in ("recalls", "bans")] and None),
        {"books", "mirrored"},
    ),
    "the events of a recall are gone": (
        after_a_recall(lose_events("kind = 'recall'")),
        {"aliases", "books", "recalls"},
    ),
}


def test_the_mutations_reach_every_invariant():
    assert set().union(*(names for _, names in MUTATIONS.values())) == set(CHECKS)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_invariant_is_named_and_no_other(name: str, trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    mutate, expected = MUTATIONS[name]
    mutate(settings)
    assert broken(settings) == expected


@pytest.mark.parametrize(("now", "is_looked_at"), [("gone", False), ("rewritten", False), ("longer", True)])
def test_a_source_that_is_gone_or_changed_says_nothing_about_its_rows(
    now: str, is_looked_at: bool, trained_lake, tmp_path: Path
):
    settings = trained_lake.copied(tmp_path / "lake")
    content = {"rewritten": b"{}\n" * 99, "longer": trained_lake.log.read_bytes() + b"{}\n"}
    moved = tmp_path / "log.jsonl"
    if now in content:
        moved.write_bytes(content[now])
    before = sources(settings)[0]
    log = trained_lake.log.as_uri()
    write("traces", "source_uri", f"'{moved.as_uri()}'", f"source_uri = '{log}'")(settings)
    looked_at, found = sources(settings)
    assert found == []
    assert (looked_at == before) == is_looked_at
    assert looked_at > 0


def test_a_commit_by_hand_is_named_with_its_version_and_operation(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    version = delta(settings, "traces").version()
    delta(settings, "traces").update({"reviewer": "'bob'"})
    _, (sentence,) = commits(settings)
    assert sentence.startswith(f"traces@{version + 1} (UPDATE) was made by no run")


def test_a_config_on_which_nothing_is_on_record_is_no_finding(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    rewrite(settings, CHECKPOINT, lambda row: {"adapter_config_digest": None})
    change_beside_the_adapter("adapter_config.json", lambda said: {"lora_alpha": 1})(settings)
    assert roots(settings)[1] == []


def test_an_evaluation_that_was_cut_off_breaks_nothing(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    delta(settings, "runs").delete("job = 'evaluate' AND status = 'COMPLETE'")
    lose("predictions")(settings)
    assert reports(settings) == (0, [])
