"""Impact: what a bad value, source or row reaches: rows, curricula, runs, checkpoints, models and aliases.

    seeds (what the selector means) --derivation--> rows that fall --eaten--> checkpoints --named--> aliases

A row falls when one of its joint parents falls, or all of its alternatives do: of equal copies a clean one
suffices, unless another recall has banned it. What reached models wrote, and what came of that, is told apart
(lineage.generations).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from pyroaring import BitMap64

from infra.settings import Settings
from lineage import models, review, tables
from lineage.bans import not_ended, recall_id, recalls
from lineage.consumption import bitmaps, checkpoints, ledger_of
from lineage.generations import Reach, follow
from lineage.graph import Edges, RowGraph, graph
from lineage.membership import members
from lineage.reached import (
    Impact,
    ReachedCheckpoint,
    ReachedCurriculum,
    ReachedModel,
    ReachedRun,
    Written,
    of_table,
)
from lineage.rows import ID_BYTES
from lineage.schemas import CURRICULUM, PREDICTION, ROW_TABLES, RUN
from lineage.selectors import Selector, SelectorError, check_sql, known_values, matching, resolved


def impact(settings: Settings, selector: Selector) -> Impact:
    """The blast radius, over all rows that were ever stored: what was recalled before is still shown.

    Raises SelectorError where the selector means no row, and no word of a reviewer.
    """
    if selector.where is not None:
        check_sql(settings, selector.where)
    selector = resolved(settings, selector)
    rows = graph(settings)
    every, direct, meant, generations = _fallen(settings, selector, rows)
    words = review.words(settings, selector)
    if not every.any() and not words:
        raise SelectorError(_nothing(settings, selector))
    fallen = every if selector.through_models else direct
    numbers = _numbers(rows, fallen)
    held = _holders(settings, numbers)
    written = None
    listed = _listed(rows, every, meant=meant, direct=direct)
    if generations:
        others = _holders(settings, _numbers(rows, direct if selector.through_models else every))
        by_all, by_direct = (held, others) if selector.through_models else (others, held)
        written = _written(settings, listed, by_all, by_direct, generations)
    wrote = held.selected + _writers(rows, fallen) + _scored_on(settings, numbers)
    wrote += Counter({each.run_id: each.rows for each in held.checkpoints})
    ever = np.bincount(rows.tables, minlength=len(ROW_TABLES)).tolist()
    return Impact(
        selector,
        listed if selector.through_models else listed.filter(pc.invert(listed["written"])),
        {spec.name: count for spec, count in zip(ROW_TABLES, ever, strict=True) if count},
        int(rows.standing.sum()),
        held.curricula,
        _runs(settings, wrote),
        held.checkpoints,
        _models(settings, held.checkpoints),
        words,
        written,
    )


def falls(seeds: np.ndarray, edges: Edges, *, beside: np.ndarray | None = None) -> np.ndarray:
    """Which rows fall with the seeds: bool (rows). Pure; `seeds` is bool (rows).

    `beside`: rows that are gone anyway, bool (rows): some of a row's alternatives, but not all, may be among
    them. Cycles cannot be stored, and would do no harm.
    """
    fallen = seeds.copy()
    joint_children, joint_parents = edges.children[edges.joint], edges.parents[edges.joint]
    merged, member_of = np.unique(edges.children[~edges.joint], return_inverse=True)
    any_of = edges.parents[~edges.joint]
    needed = np.bincount(member_of, minlength=len(merged))
    gone_anyway = np.zeros(len(seeds), bool) if beside is None else beside
    before, now = -1, int(np.count_nonzero(fallen))
    while now != before:
        fallen[joint_children[fallen[joint_parents]]] = True
        mine = np.bincount(member_of[fallen[any_of]], minlength=len(merged))
        gone = np.bincount(member_of[(fallen | gone_anyway)[any_of]], minlength=len(merged))
        fallen[merged[(gone == needed) & (mine > 0)]] = True
        before, now = now, int(np.count_nonzero(fallen))
    return fallen


def details(settings: Settings, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """What the lake says of reached rows (as `Impact.rows` lists them): table, row_no and these columns."""
    parts: list[pa.Table] = []
    for spec in ROW_TABLES:
        mine = pads.field("row_no").isin(of_table(rows, spec.name)["row_no"].combine_chunks())
        found = tables.read_ever(settings, spec, columns=["row_no", *columns], where=mine)
        parts.append(found.append_column("table", pa.array([spec.name] * found.num_rows, pa.string())))
    return pa.concat_tables(parts).sort_by("row_no")


def _fallen(
    settings: Settings, selector: Selector, rows: RowGraph
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """What falls, through models too; what falls without them; what is meant: bool (rows); generations."""
    mine, others = _banned(settings, selector, rows)
    if all(each.id != recall_id(selector) for each in recalls(settings)):
        mine = _for_itself(selector, mine, rows.edges)  # lifted: what fell then is asked anew
    meant = matching(settings, selector, rows)
    if not selector.through_models:  # else it may have fallen through models before
        meant |= mine
    reach, direct = _reach(settings, meant, rows, beside=others)
    return reach.fallen | mine, direct, meant, reach.generations


def _reach(
    settings: Settings, meant: np.ndarray, rows: RowGraph, *, beside: np.ndarray
) -> tuple[Reach, np.ndarray]:
    """What falls with the rows that are meant, through models too; and what without them: bool (rows)."""

    def fall(written: np.ndarray) -> np.ndarray:
        return falls(meant | written, rows.edges, beside=beside)

    direct = fall(np.zeros(len(meant), bool))
    return follow(settings, rows, direct, fall), direct


def _for_itself(selector: Selector, banned: np.ndarray, edges: Edges) -> np.ndarray:
    """Those of a recall's banned rows that no stored derivation of them explains: bool (rows)."""
    found = np.zeros(len(banned), bool)
    found[edges.lacking] = True
    if not selector.through_models:  # else they may be what a model wrote
        explained = np.zeros(len(banned), bool)
        explained[edges.children[banned[edges.parents]]] = True
        found |= ~explained
    return found & banned


def fallen_now(settings: Settings) -> np.ndarray:
    """The numbers of the rows that fall by the standing recalls together, ascending.

    What they mean and have not banned yet does not count. A row of alternatives was banned by the recall that
    took the last of them; it falls no more when another is lifted that took the first.
    """
    rows = graph(settings)
    seeds: list[tuple[Selector, np.ndarray]] = []
    for recall in recalls(settings):
        if recall.selector.where is not None:
            check_sql(settings, recall.selector.where)
        banned, _ = _banned(settings, recall.selector, rows)
        meant = matching(settings, recall.selector, rows) & banned
        seeds.append((recall.selector, meant | _for_itself(recall.selector, banned, rows.edges)))
    fallen, before = np.zeros(len(rows.numbers), bool), -1
    while before != np.count_nonzero(fallen):
        before = np.count_nonzero(fallen)
        for selector, meant in seeds:
            reach, direct = _reach(settings, meant, rows, beside=fallen)
            fallen = fallen | (reach.fallen if selector.through_models else direct)
    return rows.numbers[fallen]


def _banned(settings: Settings, selector: Selector, rows: RowGraph) -> tuple[np.ndarray, np.ndarray]:
    """What the same selector felled before, if it was called back, and what other recalls did: bool (rows).

    The first is still reached, whatever SQL says now. Of the others, those that stand. None that was ended.
    """
    found = np.zeros((2, len(rows.numbers)), bool)
    book = not_ended(settings, columns=["row_no", "recall"])
    own = pc.equal(book["recall"], recall_id(selector)).to_numpy()
    stands = pc.is_in(
        book["recall"], pa.array([each.id for each in recalls(settings)], pa.string())
    ).to_numpy()
    positions = rows.positions(book["row_no"].to_numpy())
    for each, chosen in zip(found, (own, ~own & stands), strict=True):
        each[positions[chosen & (positions >= 0)]] = True
    return found[0], found[1]


def _numbers(rows: RowGraph, chosen: np.ndarray) -> BitMap64:
    return BitMap64(rows.numbers[chosen].astype(np.uint64))


def _listed(rows: RowGraph, fallen: np.ndarray, *, meant: np.ndarray, direct: np.ndarray) -> pa.Table:
    names = pa.array([spec.name for spec in ROW_TABLES], pa.string())
    ids = pa.py_buffer(rows.ids[fallen].tobytes())
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), int(fallen.sum()), [None, ids])
    listed = {
        "table": names.take(pa.array(rows.tables[fallen])),
        "row_id": fixed.cast(pa.binary()),
        "row_no": pa.array(rows.numbers[fallen], pa.int64()),
        "meant": pa.array(meant[fallen]),
        "stored": pa.array(rows.standing[fallen]),
        "written": pa.array(~direct[fallen]),
    }
    return pa.table(listed)


@dataclass(frozen=True)
class _Holders:
    """What holds some rows, and which runs selected them."""

    curricula: tuple[ReachedCurriculum, ...]
    checkpoints: tuple[ReachedCheckpoint, ...]
    selected: Counter[str]
    """Run -> members that it put into a curriculum."""


def _holders(settings: Settings, numbers: BitMap64) -> _Holders:
    curricula, selected = _curricula(settings, numbers)
    return _Holders(curricula, _checkpoints(settings, numbers), selected)


def _written(
    settings: Settings, listed: pa.Table, by_all: _Holders, by_direct: _Holders, generations: int
) -> Written:
    """What every reached row leads to, and those that are reached directly do not."""
    holding = {each.curriculum for each in by_direct.curricula}
    ate = {(each.run_id, each.step) for each in by_direct.checkpoints}
    curricula = tuple(each for each in by_all.curricula if each.curriculum not in holding)
    eaten = tuple(each for each in by_all.checkpoints if (each.run_id, each.step) not in ate)
    only = listed.filter(listed["written"])
    return Written(only, curricula, eaten, _models(settings, eaten), generations)


def _writers(rows: RowGraph, fallen: np.ndarray) -> Counter[str]:
    """Run -> reached rows that it wrote."""
    runs = rows.column("run_id")
    counts = np.bincount(runs.codes[fallen], minlength=len(runs.values)).tolist()
    return Counter({run: count for run, count in zip(runs.values, counts, strict=True) if count})


def _curricula(settings: Settings, numbers: BitMap64) -> tuple[tuple[ReachedCurriculum, ...], Counter[str]]:
    found: list[ReachedCurriculum] = []
    wrote: Counter[str] = Counter()
    for (root, run_id), rows in members(settings, CURRICULUM, ("curriculum", "run_id")).items():
        count = rows.intersection_cardinality(numbers)
        if count:
            found.append(ReachedCurriculum(root, count, len(rows)))
            wrote[run_id] += count
    return tuple(sorted(found, key=lambda each: -each.rows)), wrote


def _scored_on(settings: Settings, numbers: BitMap64) -> Counter[str]:
    """Evaluation run -> reached rows among the items that it scored."""
    scored = members(settings, PREDICTION, ("run_id",))
    counts = {run_id: rows.intersection_cardinality(numbers) for (run_id,), rows in scored.items()}
    return Counter({run_id: count for run_id, count in counts.items() if count})


def _checkpoints(settings: Settings, numbers: BitMap64) -> tuple[ReachedCheckpoint, ...]:
    ate, made = bitmaps(settings), checkpoints(settings)
    if not numbers:
        return ()
    steps: dict[str, list[int]] = {}
    for each in made:
        steps.setdefault(each.run_id, []).append(each.step)
    is_reached = np.zeros(numbers.max() + 1 if numbers else 0, bool)
    is_reached[numbers.to_array()] = True
    found: list[ReachedCheckpoint] = []
    for each in made:
        eaten = ate[each.run_id, each.step]
        rows = eaten.intersection_cardinality(numbers)
        if not rows:
            continue
        try:
            slots = ledger_of(settings, each)
        except tables.Damaged as error:  # that it ate them the bitmap tells: no recall waits for a repair
            found.append(ReachedCheckpoint(each.run_id, each.step, rows, len(eaten), damaged=str(error)))
            continue
        reached = np.take(is_reached, slots.row_nos, mode="clip")  # beyond the end: a reached row's own place
        reached &= slots.row_nos < len(is_reached)
        if not reached.any():
            damaged = "'consumption' does not hold that it ate them; restore it from a copy of the lake"
            found.append(ReachedCheckpoint(each.run_id, each.step, rows, len(eaten), damaged=damaged))
            continue
        contact = slots.step_of(int(np.argmax(reached))) - (len(slots.starts) - 1 - each.step)
        found.append(
            ReachedCheckpoint(
                each.run_id,
                each.step,
                rows=rows,
                of=len(eaten),
                slots=int(np.count_nonzero(reached)),
                of_slots=len(reached),
                loss_tokens=int(slots.loss_tokens[reached].sum()),
                of_loss_tokens=int(slots.loss_tokens.sum()),
                first_contact=contact,
                clean_before=max((step for step in steps[each.run_id] if step <= contact), default=0),
            )
        )
    return tuple(found)


def _models(settings: Settings, reached: Sequence[ReachedCheckpoint]) -> tuple[ReachedModel, ...]:
    standing = models.aliases(settings)
    states = {(each.run_id, each.step) for each in reached}
    return tuple(
        ReachedModel(
            version.name,
            version.version,
            version.run_id,
            version.step,
            tuple(a for a, n in sorted(standing.get(version.name, {}).items()) if n == version.version),
        )
        for version in models.versions(settings)
        if (version.run_id, version.step) in states
    )


def _runs(settings: Settings, wrote: Counter[str]) -> tuple[ReachedRun, ...]:
    where = pads.field("run_id").isin(pa.array(sorted(wrote), pa.string()))
    events = (
        tables.read(settings, RUN, columns=["run_id", "job", "at"], where=where).sort_by("at").to_pylist()
    )
    jobs = {event["run_id"]: event["job"] for event in events}
    return tuple(ReachedRun(run_id, job, wrote[run_id]) for run_id, job in jobs.items())


def _nothing(settings: Settings, selector: Selector) -> str:
    """What to say where nothing is meant: what could have been."""
    named, rows = selector.named, graph(settings)
    sentence = f"no row is meant by {selector}"
    if len(named) > 1:
        parts = [Selector(**{name: getattr(selector, name)}) for name in named]
        alone = ", ".join(
            f"{part} alone means {int(matching(settings, part, rows).sum()) or 'no'} rows" for part in parts
        )
        return f"{sentence} together: {alone}"
    only = next(iter(named))
    if only not in ("rows", "where"):
        known = known_values(settings, only)
        if only == "reviewer":
            known += sorted({each.reviewer for each in review.history(settings)} - set(known))
        return f"{sentence}; known: {', '.join(known[:12]) or 'none'}{' ...' if len(known) > 12 else ''}"
    return sentence
