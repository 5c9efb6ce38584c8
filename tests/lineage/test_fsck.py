"""Each invariant, broken on purpose in a copy of a sound lake: fsck names it, and it alone."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables, verdicts
from lineage.consumption import checkpoints
from lineage.fsck import CHECKS, fsck
from lineage.schemas import CONSUMPTION, CURRICULUM, EVENT, EXAMPLE, RUN, TRACE, TableSpec


def broken(settings: Settings) -> set[str]:
    return {check.name for check in fsck(settings) if check.found}


def test_a_lake_in_which_all_went_well_is_sound_and_every_check_looked_at_something(trained_lake):
    done = fsck(trained_lake.settings)
    assert [check.name for check in done] == list(CHECKS)
    assert not [check for check in done if check.found]
    assert all(check.looked_at > 0 for check in done)


def test_a_copy_of_a_sound_lake_is_sound(trained_lake, tmp_path: Path):
    assert broken(trained_lake.copied(tmp_path / "lake")) == set()


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
    assert {"closure", "exactly_once", "admitted"} <= found.keys()
    assert found["closure"][0].startswith("could not be checked")
