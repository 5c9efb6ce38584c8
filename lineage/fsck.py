"""Check what is stored against what must hold.

Each check is a function from the lake to the sentences it found wrong.

files          every file of every version of a table is as it was written; no commit that a run made is lost
balance        rows in (+ created) = rows out + merged + rejected + quarantined, for every finished run
closure        every parent, consumed row and curriculum member is a row that is stored, or was recalled
exactly_once   no row id, row number or source span is stored twice
admitted       no curriculum or checkpoint was built from a batch without a passing verdict
ledger         what a checkpoint ate is what was planned, each slot once
roots          every curriculum, plan and consumption digest, and every adapter, recomputes
aliases        every alias names a registered version whose checkpoint is there, here and in MLflow
recalls        nothing that was recalled is stored, nor what fell with it; no alias stands on what ate it
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.models import ModelError, adapter_digest
from infra.settings import Settings
from lineage import bans, models, registry, tables, verdicts
from lineage.consumption import Checkpoint, checkpoints, consumption_root, eaten_by, plan_digest
from lineage.curricula import curriculum_root
from lineage.impact import impact
from lineage.schemas import (
    CURRICULUM,
    EXAMPLE,
    PLAN,
    QUARANTINE,
    REJECTED,
    ROW_TABLES,
    RUN,
    TABLES,
    TableSpec,
)
from lineage.tables import TableError


@dataclass(frozen=True)
class Check:
    """One invariant, and what breaks it; empty: it holds."""

    name: str
    looked_at: int
    """How many things were checked: a check that looked at nothing proves nothing."""

    found: tuple[str, ...]


def fsck(settings: Settings) -> list[Check]:
    """Run every check. A check that cannot be carried out counts as broken."""
    done: list[Check] = []
    for name, check in CHECKS.items():
        try:
            looked_at, found = check(settings)
        except TableError as error:
            looked_at, found = 0, [f"could not be checked: {error}"]
        except Exception as error:  # a lake that cannot be read is not sound
            sentence = " ".join(str(error).split())[:300]
            looked_at, found = 0, [f"could not be checked: {type(error).__name__}: {sentence}"]
        done.append(Check(name, looked_at, tuple(found)))
    return done


Findings = tuple[int, list[str]]


def files(settings: Settings) -> Findings:
    """Every table reads back whole, and no commit that a run made is lost."""
    looked_at, found = 0, []
    newest: dict[str, int] = {}
    for spec in TABLES.values():
        count, damaged = tables.damage(settings, spec)
        looked_at += count
        found += damaged
        version = None if damaged else tables.current(settings, spec)
        newest |= {} if damaged else {spec.name: version.version if version else -1}
    if RUN.name not in newest:
        return looked_at, found
    for run in tables.read(settings, RUN, columns=["run_id", "outputs"]).to_pylist():
        for output in json.loads(run["outputs"]):
            table, _, number = output.partition("@")
            if table in newest and int(number) > newest[table]:
                state = f"the newest is {table}@{newest[table]}" if newest[table] >= 0 else "there is no log"
                found.append(f"run {run['run_id']} wrote {output}, but {state}; restore the table's log")
    return looked_at, found


def balance(settings: Settings) -> Findings:
    """Counts of every finished run balance, and its losses lie in their books."""
    found: list[str] = []
    rejected = _rows_per_work(settings, REJECTED)
    quarantined = _rows_per_work(settings, QUARANTINE)
    runs = [run for run in _complete_runs(settings) if "created" in run["counts"]]
    for run in runs:
        counts, work = run["counts"], run["run_id"].rpartition("-")[0]
        left = counts["in"] + counts["created"]
        right = counts["out"] + counts["merged"] + counts["rejected"] + counts.get("quarantined", 0)
        if left != right:
            found.append(f"run {run['run_id']}: {left} rows in and created, {right} accounted for")
        lost = (counts["rejected"], counts.get("quarantined", 0))
        if lost != (rejected[work], quarantined[work]):
            found.append(
                f"run {run['run_id']}: counted {lost} rejected and quarantined rows, the books hold others"
            )
    return len(runs), found


def closure(settings: Settings) -> Findings:
    """Nothing names a row that is not stored."""
    stored: dict[bytes, int] = {}
    named: list[tuple[str, bytes]] = []
    for spec in ROW_TABLES:
        rows = tables.read_ever(settings, spec, columns=["row_id", "row_no", "parents"])
        stored.update(zip(rows["row_id"].to_pylist(), rows["row_no"].to_pylist(), strict=True))
        named += [
            (f"a row of {spec.name}", parent) for parent in pc.list_flatten(rows["parents"]).to_pylist()
        ]
    members = tables.read(settings, CURRICULUM, columns=["row_id"])["row_id"].to_pylist()
    named += [("a curriculum", row_id) for row_id in members]
    found = [
        f"{who} names {row_id.hex()}, which is not stored" for who, row_id in named if row_id not in stored
    ]
    numbers = set(stored.values())
    for checkpoint in checkpoints(settings):
        eaten = eaten_by(settings, checkpoint)["row_no"].to_pylist()
        named += [("a checkpoint", b"")] * len(eaten)
        strangers = sorted({number for number in eaten if number not in numbers})
        if strangers:
            found.append(f"checkpoint {checkpoint.name} ate rows {strangers[:5]}, which are not stored")
    return len(named), found


def exactly_once(settings: Settings) -> Findings:
    """No identity and no span stands twice."""
    found: list[str] = []
    looked_at = 0
    for spec in ROW_TABLES:
        rows = tables.read(settings, spec, columns=["row_id", "row_no"])
        looked_at += rows.num_rows
        for column in ("row_id", "row_no"):
            found += [
                f"{spec.name}: {column} {_shown(value)} is stored {n} times"
                for value, n in _repeated(rows[column])
            ]
    numbers = [
        n
        for spec in ROW_TABLES
        for n in tables.read(settings, spec, columns=["row_no"])["row_no"].to_pylist()
    ]
    found += [f"row_no {number} is used in two tables" for number, n in Counter(numbers).items() if n > 1]
    return looked_at, found


def admitted(settings: Settings) -> Findings:
    """Curricula hold rows of admitted batches only, and are admitted wherever a checkpoint used them."""
    examples = tables.read(settings, EXAMPLE, columns=["row_id", "run_id"])
    batch_of = dict(zip(examples["row_id"].to_pylist(), examples["run_id"].to_pylist(), strict=True))
    allowed = verdicts.admitted(settings, EXAMPLE)
    members = tables.read(settings, CURRICULUM, columns=["curriculum", "row_id"]).to_pylist()
    found = [
        f"curriculum {row['curriculum'][:12]} holds {row['row_id'].hex()} of a batch that was not admitted"
        for row in members
        if row["row_id"] in batch_of and batch_of[row["row_id"]] not in allowed
    ]
    roots = _roots_of(settings, verdicts.admitted(settings, CURRICULUM))
    made = checkpoints(settings)
    found += [
        f"checkpoint {checkpoint.name} was made from curriculum {checkpoint.curriculum[:12]}, not admitted"
        for checkpoint in made
        if checkpoint.curriculum not in roots
    ]
    return len(members) + len(made), found


def ledger(settings: Settings) -> Findings:
    """Each planned slot was eaten exactly once, by every checkpoint."""
    found: list[str] = []
    looked_at = 0
    for checkpoint in checkpoints(settings):
        plan = tables.read(settings, PLAN, where=pads.field("run_id") == checkpoint.run_id)
        planned = Counter(_slots(plan.filter(pc.less(plan["step"], checkpoint.step))))
        eaten = Counter(_slots(eaten_by(settings, checkpoint)))
        looked_at += sum(planned.values())
        if planned != eaten:
            missing, extra = sum((planned - eaten).values()), sum((eaten - planned).values())
            found.append(
                f"checkpoint {checkpoint.name}: {missing} planned slots were not eaten, "
                f"{extra} were not planned"
            )
        times = Counter((step, slot) for step, slot, _ in eaten.elements())
        found += [
            f"checkpoint {checkpoint.name}: step {step} slot {slot} was eaten {n} times"
            for (step, slot), n in times.items()
            if n > 1
        ][:5]
    return looked_at, found


def roots(settings: Settings) -> Findings:
    """Every digest recomputes from what is stored."""
    found: list[str] = []
    members = tables.read(
        settings, CURRICULUM, columns=["curriculum", "row_id", "slice", "weight"]
    ).to_pylist()
    by_root: dict[str, list[tuple[bytes, str, float]]] = {}
    for row in members:
        by_root.setdefault(row["curriculum"], []).append((row["row_id"], row["slice"], row["weight"]))
    for root, rows in by_root.items():
        if curriculum_root(rows) != root:
            found.append(f"curriculum {root[:12]} no longer hashes to its root")
    made = checkpoints(settings)
    examples = tables.read_ever(settings, EXAMPLE, columns=["row_id", "row_no"])
    ids = dict(zip(examples["row_no"].to_pylist(), examples["row_id"].to_pylist(), strict=True))
    for checkpoint in made:
        plan = tables.read(settings, PLAN, where=pads.field("run_id") == checkpoint.run_id)
        if plan_digest(plan) != checkpoint.plan_digest:
            found.append(
                f"checkpoint {checkpoint.name}: its plan no longer hashes to {checkpoint.plan_digest[:12]}"
            )
        if consumption_root(eaten_by(settings, checkpoint), ids) != checkpoint.consumption_root:
            found.append(f"checkpoint {checkpoint.name}: its consumption no longer hashes to its root")
        if settings.is_local:
            found += [f"checkpoint {checkpoint.name}: {wrong}" for wrong in _adapter(checkpoint)]
    return len(by_root) + len(made), found


def aliases(settings: Settings) -> Findings:
    """Every alias resolves down to a checkpoint, and stands in MLflow where we set it."""
    found: list[str] = []
    standing = [f"{name}@{alias}" for name, moved in models.aliases(settings).items() for alias in moved]
    for reference in standing:
        try:
            models.resolve(settings, reference)
        except models.ModelError as error:
            found.append(f"{reference}: {error}")
    for name in models.aliases(settings):
        registry.mirror(lambda name=name: found.extend(_astray(settings, name)))
    return len(standing), found


def recalls(settings: Settings) -> Findings:
    """What was called back is out of reach, and every recall was carried out to its end."""
    found: list[str] = []
    gone = bans.banned(settings)
    refused, ordered_at = bans.standing(settings), {each.id: each.at for each in bans.recalls(settings)}
    for spec in ROW_TABLES:
        rows = tables.read(settings, spec)
        numbers, times = rows["row_no"].to_pylist(), rows["extracted_at"].to_pylist()
        by_itself = replace(refused, by_payload={}).refused(rows, spec)
        found += [
            f"{spec.name}: row {row_no} is banned by recall {gone[row_no]} and still stored; "
            "finish the recall: give its command again"
            for row_no in numbers
            if row_no in gone
        ]
        for position, recall in refused.refused(rows, spec).items():
            if numbers[position] in gone:
                continue
            if position not in by_itself and times[position] < ordered_at[recall]:
                continue  # an equal row from elsewhere that was stored before: a clean copy stays
            found.append(
                f"{spec.name}: row {numbers[position]} is banned by recall {recall} and stored again"
            )
    for name, standing in models.aliases(settings).items():
        reached = models.recalled_versions(settings, name)
        found += [
            f"alias '{alias}' of '{name}' stands on version {version}, which ate rows that were recalled"
            for alias, version in standing.items()
            if version in reached
        ]
    for recall in bans.recalls(settings):
        fallen = impact(settings, recall.selector).rows
        if recall.selector.on_values() is None:  # what came later and is like it, nobody has recalled
            fallen = fallen.filter(pc.less_equal(fallen["extracted_at"], pa.scalar(recall.at)))
        missed = [row_no for row_no in fallen["row_no"].to_pylist() if row_no not in gone]
        if missed:
            found.append(f"recall {recall.id} reaches {len(missed)} rows that are not banned; give it again")
    return len(gone), found


def repair(settings: Settings) -> list[str]:
    """Mend what can be mended without a choice; a sentence per repair.

    Aliases in MLflow that were moved by hand, or not mirrored, are put where the lake's log says they stand.
    """
    done: list[str] = []
    for name in models.aliases(settings):
        if _astray(settings, name):
            models.set_back(settings, name)
            done.append(f"aliases of '{name}' in MLflow stand again where the lake's log says")
    return done


CHECKS: dict[str, Callable[[Settings], Findings]] = {
    "files": files,
    "balance": balance,
    "closure": closure,
    "exactly_once": exactly_once,
    "admitted": admitted,
    "ledger": ledger,
    "roots": roots,
    "aliases": aliases,
    "recalls": recalls,
}


def _astray(settings: Settings, name: str) -> list[str]:
    """What is wrong with a model's aliases in MLflow. Raises RegistryError when it cannot be asked."""
    return models.moved_by_hand(settings, name) + models.behind(settings, name)


def _adapter(checkpoint: Checkpoint) -> list[str]:
    """What is wrong with the files of a checkpoint."""
    try:
        found = adapter_digest(checkpoint.uri)
    except (ModelError, OSError) as error:
        return [f"its adapter cannot be read: {error}"]
    is_whole = found == checkpoint.adapter_digest
    return [] if is_whole else [f"the adapter at {checkpoint.uri} is not the one that was committed"]


def _complete_runs(settings: Settings) -> list[dict[str, Any]]:
    rows = tables.read(settings, RUN, where=pads.field("status") == "COMPLETE").to_pylist()
    return [row | {"counts": json.loads(row["counts"])} for row in rows]


def _rows_per_work(settings: Settings, book: TableSpec) -> Counter[str]:
    """Rows of a book per run identity, whatever the attempt."""
    ids = tables.read(settings, book, columns=["run_id"])["run_id"].to_pylist()
    return Counter(run_id.rpartition("-")[0] for run_id in ids)


def _roots_of(settings: Settings, batches: Iterable[str]) -> set[str]:
    rows = tables.read(settings, CURRICULUM, columns=["curriculum", "run_id"])
    return set(
        rows.filter(pc.is_in(rows["run_id"], pa.array(list(batches), pa.string())))["curriculum"].to_pylist()
    )


def _slots(rows: pa.Table) -> list[tuple[int, int, int]]:
    return list(zip(*(rows[name].to_pylist() for name in ("step", "slot", "row_no")), strict=True))


def _repeated(column: pa.ChunkedArray) -> list[tuple[Any, int]]:
    return [(value, n) for value, n in Counter(column.to_pylist()).items() if n > 1][:5]


def _shown(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
