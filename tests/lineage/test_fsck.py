"""Each invariant, broken on purpose in a copy of a sound lake: fsck names it, and it alone."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables, verdicts
from lineage.bans import recall_id
from lineage.consumption import checkpoints
from lineage.fsck import CHECKS, fsck
from lineage.recall import recall
from lineage.runs import Run
from lineage.schemas import CONSUMPTION, CURRICULUM, EVENT, EXAMPLE, RECALL, RUN, TRACE, TableSpec
from lineage.selectors import Selector


def broken(settings: Settings) -> set[str]:
    return {check.name for check in fsck(settings) if check.found}


def test_a_lake_in_which_all_went_well_is_sound_and_every_check_looked_at_something(trained_lake):
    done = fsck(trained_lake.settings)
    assert [check.name for check in done] == list(CHECKS)
    assert not [check for check in done if check.found]
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
    tables.commit(settings, [file], into=TRACE, run_id="again-1", keys=["another key"])


def change_the_adapter(settings: Settings) -> None:
    file = Path(checkpoints(settings)[0].uri, "adapter_model.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


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
    moved = dataclasses.replace(last, alias="champion", to_version=7, at=last.at + dt.timedelta(seconds=1))
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


def spoil(book: str, spoiler: Callable[[Path], object]) -> Callable[[Settings], None]:
    return lambda settings: spoiler(next(Path(settings.path("tables", book)).glob("*.parquet"))) and None


def forget(book: str) -> Callable[[Settings], None]:
    """The newest commit is lost with its entry in the log, as after a bad copy."""
    return lambda settings: max(Path(settings.path("tables", book, "_delta_log")).glob("*.json")).unlink()


MUTATIONS: dict[str, tuple[Callable[[Settings], None], set[str]]] = {
    "an example is gone": (lose_an_example, {"closure", "roots"}),
    "a trace is gone": (lose_a_trace, {"closure"}),
    "a member weighs otherwise": (weigh_a_member_otherwise, {"roots"}),
    "a batch is stored twice": (store_a_batch_twice, {"exactly_once"}),
    "the adapter is another": (change_the_adapter, {"roots"}),
    "a slot was not eaten": (lose_a_slot, {"ledger", "roots"}),
    "a slot was eaten twice": (eat_a_slot_twice, {"ledger", "roots"}),
    "the plan is another": (plan_otherwise, {"roots"}),
    "examples were refused": (refuse(EXAMPLE), {"admitted"}),
    "the curriculum was refused": (refuse(CURRICULUM), {"admitted"}),
    "an alias stands on nothing": (move_an_alias_to_nowhere, {"aliases"}),
    "the checkpoint is gone": (lose_the_checkpoint, {"aliases"}),
    "ingest counted otherwise": (count_otherwise("ingest"), {"balance"}),
    "curate counted otherwise": (count_otherwise("curate"), {"balance"}),
    "rejected rows are gone": (lose("rejected"), {"balance"}),
    "quarantined lines are gone": (lose("quarantine"), {"balance"}),
    "a file that no check reads is gone": (spoil("reports", Path.unlink), {"files"}),
    "a file that no check reads is cut": (spoil("reports", lambda path: os.truncate(path, 100)), {"files"}),
    "a banned row is back": (put_a_banned_row_back, {"recalls"}),
    "a recalled model is champion": (crown_a_recalled_model, {"recalls"}),
    "a recall was cut off": (order_a_recall_without_carrying_it_out, {"recalls"}),
    "a commit is forgotten": (forget("reports"), {"files"}),
    "a commit is empty": (
        lambda settings: os.truncate(max(Path(settings.path("tables/reports/_delta_log")).glob("*.json")), 0),
        {"files"},
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


def test_a_lake_that_cannot_be_read_is_not_sound(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    lost = [path for path in Path(settings.path("tables", "examples")).glob("*.parquet")]
    lost[0].unlink()
    found = {check.name: check.found for check in fsck(settings) if check.found}
    assert {"files", "closure", "exactly_once", "admitted"} <= found.keys()
    assert found["closure"][0].startswith("could not be checked")
    assert all(str(lost[0]) in found[name][0] for name in ("files", "closure", "exactly_once", "admitted"))
    assert found.keys() & {"balance", "ledger", "aliases"} == set()


@pytest.mark.parametrize("damage", ["gone", "cut", "no header"])
def test_a_damaged_adapter_is_named_and_the_other_digests_are_still_checked(
    damage: str, trained_lake, tmp_path: Path
):
    settings = trained_lake.copied(tmp_path / "lake")
    file = Path(checkpoints(settings)[0].uri, "adapter_model.safetensors")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000] if damage == "cut" else b"\xff" * 100)
    plan_otherwise(settings)
    found = {check.name: check.found for check in fsck(settings) if check.found}
    assert found.keys() == {"roots"}
    assert len(found["roots"]) == 2
    assert file.parent.name in found["roots"][1]
    assert "adapter" in found["roots"][1]
