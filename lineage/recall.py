"""Recall: ban what a selector reaches, quarantine it, and move aliases to the last clean models.

    impact -> order and ban on record -> rows out of the tables -> aliases -> MLflow

The ban comes first, so that from then on no job brings the rows back; each later part finds what is still to
do, so that a recall that was killed is finished by calling it again. Nothing is deleted: earlier versions of
the tables still hold the rows, and what ate them stays on record.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, mirror, models, runs, tables
from lineage.bans import Order, Recall, recall_id
from lineage.graph import graph
from lineage.impact import details, impact
from lineage.reached import Impact, of_table
from lineage.rows import canonical_json, rows_digest
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import BAN, CONSUMPTION, LIFT, RECALL, ROW_TABLES, RUN, TABLES
from lineage.selectors import Selector
from lineage.tables import TableError

log = logging.getLogger("stemma.recall")

_PLACE = ("source_revision", "source_span")
_AT_ONCE = 50_000  # rows whose text is in memory while its digests are made


class RecallError(TableError):
    """A recall was not begun; the message says why, and what to do."""


def recall(runtime: Runtime, selector: Selector, *, reason: str, anyway: bool = False) -> Outcome:
    """Call back what the selector reaches. Called again, it finishes what was cut off, or changes nothing.

    The facets hold `recall`, its id; `moved`, the aliases that it moved as [alias, from, to] (0: none); and
    `orders`, the models whose champion is to be trained again. Raises SelectorError where nothing is meant,
    RunError while another process works on the lake, ModelError where an alias was moved by hand in MLflow,
    and RecallError, unless `anyway`, where every row would fall or nothing is gained (`changes_nothing`).
    """
    settings = runtime.settings
    require_reason(reason)
    runs.require_idle(settings, to="recall rows")
    radius = reached_by(settings, selector)
    found, lifts = find(settings, radius.selector), _lifts(settings, radius.selector)
    if not anyway and (found is None or _not_banned(settings, radius).num_rows):
        _require_sense(settings, radius)
    for name in sorted(models.aliases(settings)):
        models.require_untouched(settings, name)

    config = {"selector": radius.selector.as_json(), "lifts": lifts}  # lifted, it is ordered anew

    def work(run: Run) -> Outcome:
        runs.require_idle(settings, to="recall rows", run=run)  # two that began at once see each other here
        ordered = _order(runtime, radius, reason, run)
        new = _ban(settings, radius, run)
        versions = _quarantine(settings, radius, run)
        _move_aliases(runtime, ordered, run)
        mirror.show_recalls(settings)
        moved = _moves_of(settings, config)
        told = ", ".join(f"{alias} -> {to or 'nothing'}" for alias, _, to in moved) or "no alias moved"
        log.info("recall %s: %d rows; %s", ordered.id, radius.rows.num_rows, told)
        counts = {"rows": radius.rows.num_rows, "banned_now": new, **radius.by_table}
        if radius.words:
            counts["words"] = sum(radius.words.values())
        orders = [asdict(order) for order in ordered.orders]
        facets = {"recall": ordered.id, "moved": moved, "orders": orders}
        return Outcome(versions, counts, facets)

    reached = [f"rows:{rows_digest(radius.rows['row_id'])}"]
    outcome = carry_out(runtime, "recall", config=config, inputs=reached, work=work)
    if outcome.again and found is not None:
        mirror.show_recalls(settings)  # MLflow may have been away then
    return outcome


def require_reason(reason: str) -> None:
    """Raise RecallError for a recall that nobody gives a reason for."""
    if not reason.strip():
        raise RecallError("a recall needs a reason, which stands in its record; give --reason TEXT")


def reached_by(settings: Settings, selector: Selector) -> Impact:
    """What a recall of this reaches, as `impact` says it.

    Kept for as long as nobody commits: it is shown before it is carried out.
    """
    # What was eaten changes with the checkpoints, whose bitmaps suffice where that record is damaged.
    asked = [spec for spec in TABLES.values() if spec is not CONSUMPTION]
    newest = tuple(filter(None, (tables.snapshot(settings, spec) for spec in asked)))
    return _reached_by(newest, selector) if newest else impact(settings, selector)


@lru_cache(maxsize=1)
def _reached_by(newest: tuple[tables.Snapshot, ...], selector: Selector) -> Impact:
    return impact(newest[0].settings, selector)


def find(settings: Settings, selector: Selector) -> Recall | None:
    """The standing recall of exactly this selector."""
    wanted = recall_id(selector)
    return next((each for each in bans.recalls(settings) if each.id == wanted), None)


def _lifts(settings: Settings, selector: Selector) -> int:
    """How often the recall of exactly this selector was lifted."""
    wanted = recall_id(selector)
    same = (each for each in bans.all_recalls(settings) if each.id == wanted)
    return next((each.lifts + (each.lift is not None) for each in same), 0)


def _require_sense(settings: Settings, radius: Impact) -> None:
    if radius.is_everything:
        raise RecallError(
            f"{radius.selector} reaches every row of the lake ({radius.rows.num_rows:,}); "
            "add --yes if everything is meant"
        )
    if changes_nothing(settings, radius):
        rows = ", ".join(f"{number} rows of {name}" for name, number in radius.by_table.items())
        raise RecallError(
            f"nothing that serves ate what {radius.selector} reaches ({rows}), so no alias would move; "
            "add --yes to ban and quarantine the rows all the same"
        )


def _order(runtime: Runtime, radius: Impact, reason: str, run: Run) -> Recall:
    """Put the recall on record, with the champions that fall now: what is to be trained again."""
    settings = runtime.settings
    known = find(settings, radius.selector)
    champions = [each for each in radius.models if "champion" in each.aliases]
    orders = [Order(each.name, each.version, each.run_id) for each in champions]
    new = [order for order in orders if known is None or order not in known.orders]
    if known is None:  # what it banned before its lift counts with the order
        before = pads.field("recall") == recall_id(radius.selector)
        end_bans(settings, before, but=radius.rows["row_no"].to_numpy(), run=run)
    if known is None or new:
        row = {
            "recall": recall_id(radius.selector),
            "selector": radius.selector.encode(),
            "reason": reason,
            "orders": json.dumps([asdict(order) for order in new]),
            "actor": runs.agent().user,
            "run_id": run.id,
            "at": tables.after_all(settings, runtime.now(), RECALL, LIFT),
        }
        tables.record(settings, [row], into=RECALL)
    ordered = find(settings, radius.selector)
    assert ordered is not None  # recorded now, or before
    return ordered


def end_bans(settings: Settings, of: pads.Expression, *, but: np.ndarray, run: Run) -> None:
    """End those of some bans whose rows do not fall any more; `but` holds the numbers of the rows that do.

    A row whose batch was withdrawn stays banned: nobody can tell what it would come from.
    """
    rows = bans.not_ended(settings, where=of)
    numbers = rows["row_no"].to_numpy()
    over = rows.filter(pa.array((graph(settings).positions(numbers) >= 0) & ~np.isin(numbers, but)))
    if over.num_rows:
        ended = {"run_id": pa.repeat(run.id, over.num_rows), "ends": pa.repeat(True, over.num_rows)}
        columns = [ended.get(name, over[name]) for name in BAN.schema.names]
        tables.record(settings, pa.table(columns, schema=BAN.schema), into=BAN)


def _not_banned(settings: Settings, radius: Impact) -> pa.Table:
    """The reached rows that this recall has not banned yet."""
    mine = pads.field("recall") == recall_id(radius.selector)
    known = bans.not_ended(settings, columns=["row_no"], where=mine)["row_no"].combine_chunks()
    return radius.rows.filter(pc.invert(pc.is_in(radius.rows["row_no"], known)))


def _ban(settings: Settings, radius: Impact, run: Run) -> int:
    """Ban the reached rows that are not banned by this recall yet; how many."""
    new = details(settings, _not_banned(settings, radius), ["row_id", "parent_nos", *_PLACE])
    if not new.num_rows:
        return 0
    one_by_one = radius.selector.on_values() is None
    is_read = pc.equal(pc.list_value_length(new["parent_nos"]), 0)
    # Of a derived row these would name its source's record, which is not what is wrong.
    revision, span = (pc.if_else(is_read, new[name], "") for name in _PLACE)
    banned = {
        "recall": pa.repeat(recall_id(radius.selector), new.num_rows),
        "table": new["table"],
        "row_id": new["row_id"],
        "row_no": new["row_no"],
        # Derived under a banned value, it cannot come back but under another value, judged anew.
        "refused_by_id": pa.repeat(True, new.num_rows) if one_by_one else is_read,
        "payload_digest": _digests(settings, new, radius),
        "source_revision": revision,
        "source_span": span,
        "run_id": pa.repeat(run.id, new.num_rows),
        "ends": pa.nulls(new.num_rows, pa.bool_()),
    }
    tables.record(settings, pa.table(banned, schema=BAN.schema), into=BAN)
    return new.num_rows


def _digests(settings: Settings, new: pa.Table, radius: Impact) -> pa.Array:
    """Per new row its payload digest, or null where another fallen row explains it.

    None does so for those read from a source; nor for derived ones that were meant themselves, one by one,
    not by a value which they share: by another scorer the same words may be judged anew.
    """
    named = new["parent_nos"].combine_chunks()
    is_wanted = pc.equal(pc.list_value_length(named), 0).to_numpy(zero_copy_only=False)
    if radius.selector.on_values() is None:
        meant = radius.rows.filter(radius.rows["meant"])["row_no"].combine_chunks()
        fallen = pc.is_in(pc.list_flatten(named), radius.rows["row_no"].combine_chunks())
        is_explained = np.zeros(new.num_rows, bool)
        is_explained[pc.list_parent_indices(named).filter(fallen).to_numpy()] = True
        is_wanted = is_wanted | (pc.is_in(new["row_no"], meant).to_numpy() & ~is_explained)
    wanted = new.filter(pa.array(is_wanted)).select(["table", "row_no"])
    numbers, digests = [pa.array([], pa.int64())], [pa.array([], pa.binary())]
    for spec in ROW_TABLES:
        for some in of_table(wanted, spec.name).to_batches(max_chunksize=_AT_ONCE):
            mine = pads.field("row_no").isin(some["row_no"])
            rows = tables.read_ever(settings, spec, columns=["row_no", *bans.TAUGHT[spec.name]], where=mine)
            numbers.append(rows["row_no"].combine_chunks())
            digests.append(
                pa.array([bans.payload_digest(row, spec) for row in rows.to_pylist()], pa.binary())
            )
    at = pc.index_in(new["row_no"].combine_chunks(), pa.concat_arrays(numbers))
    return pa.concat_arrays(digests).take(at)


def _quarantine(settings: Settings, radius: Impact, run: Run) -> tuple[str, ...]:
    """Take the rows out of the newest version of their tables; returns the versions without them."""
    recall = recall_id(radius.selector)
    for name in radius.by_table:
        numbers = radius.rows.filter(pc.equal(radius.rows["table"], name))["row_no"].combine_chunks()
        tables.take_out(settings, numbers, of=TABLES[name], recall=recall, run_id=run.id)
    return tuple(str(tables.current(settings, TABLES[name])) for name in radius.by_table)


def _move_aliases(runtime: Runtime, ordered: Recall, run: Run) -> None:
    """Move the aliases that stand on recalled versions."""
    settings = runtime.settings
    for name in sorted(models.aliases(settings)):
        moves = _moves(settings, name, models.recalled_versions(settings, name))
        evidence = [{"recall": ordered.id, "lifts": ordered.lifts, "selector": ordered.selector.as_json()}]
        reason = f"recall {ordered.id}: {ordered.reason}"
        models.move_aliases(
            runtime, moves, name=name, kind="recall", reason=reason, evidence=evidence, run=run
        )


def _moves(settings: Settings, name: str, reached: Collection[int]) -> dict[str, int]:
    """Where a model's aliases must go when these versions are recalled; those that may stay are left out."""
    standing = models.aliases(settings).get(name, {})
    clean = models.last_clean(settings, name, but=reached)
    moves = {alias: 0 for alias, version in standing.items() if version in reached}
    if "champion" in moves:
        moves |= {"champion": clean[-1] if clean else 0, "previous": clean[-2] if clean[1:] else 0}
    elif "previous" in moves:
        moves["previous"] = clean[-2] if clean[1:] else 0
    return {alias: to for alias, to in moves.items() if standing.get(alias, 0) != to}


def would_move(settings: Settings, radius: Impact) -> list[tuple[str, int, int]]:
    """(name@alias, from, to) of each alias that a recall of this would move; 0: none. Changes nothing."""
    found: list[tuple[str, int, int]] = []
    for name, standing in sorted(models.aliases(settings).items()):
        reached = {each.version for each in radius.models if each.name == name}
        moves = _moves(settings, name, reached | models.recalled_versions(settings, name))
        found += [(f"{name}@{alias}", standing.get(alias, 0), to) for alias, to in moves.items()]
    return found


def changes_nothing(settings: Settings, radius: Impact) -> bool:
    """Would neither an alias move nor a person's word fall?"""
    return not radius.words and not would_move(settings, radius)


def _moves_of(settings: Settings, config: Mapping[str, Any]) -> list[list[Any]]:
    """The moves that this recall made, in this run or one that was cut off: [name@alias, from, to].

    Runs with one config are runs of one recall, though they may differ in the rows that were there to reach.
    """
    same = (pads.field("job") == "recall") & (pads.field("config") == canonical_json(config).decode())
    mine = set(tables.read(settings, RUN, columns=["run_id"], where=same)["run_id"].to_pylist())
    return [
        [f"{event.name}@{event.alias}", event.from_version, event.to_version]
        for event in models.events(settings)
        if event.kind == "recall" and event.run_id in mine
    ]
