"""Lift: a recall that was wrong, or is over, ends; what falls by no other comes back.

    lift on record -> bans of other recalls end -> rows back into the tables -> MLflow

Another recall may have banned a row of alternatives because this one had taken the others: it falls no more
when one of them is back, whichever of the two is lifted.

The lift comes first, so that from then on no ban of this recall refuses anything; a lift that was cut off is
finished by calling it again. Aliases stay where they are: what serves is for a person to decide, by promotion
or rollback. Nothing is taken from the record, and the same selector may be recalled again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from pyroaring import BitMap64

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, mirror, models, runs, tables, verdicts
from lineage.bans import Recall
from lineage.impact import fallen_now
from lineage.recall import RecallError, end_bans
from lineage.rows import LEAST_PREFIX
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import BAN, LIFT, RECALL, ROW_TABLES, TableSpec

log = logging.getLogger("stemma.lift")


def lift(runtime: Runtime, reference: str, *, reason: str) -> Outcome:
    """End a standing recall, named by its id or the start of it, and put its rows back.

    Rows stay out that fall by another standing recall, whose batch was withdrawn meanwhile, or whose id
    another row bears by now. The counts hold `rows`, those that it had banned, and of these `back`, the
    stored ones, and `still_banned`; where there are any, `others_back`: rows that only other recalls had
    banned. The facets hold `recall`, and `may_serve`: the versions of fallen champions that now ate no banned
    row. Raises RecallError without a reason, for an unknown or ambiguous id, and for one that was lifted;
    RunError while another process works on the lake.
    """
    settings = runtime.settings
    if not reason.strip():
        raise RecallError("a lift needs a reason, which stands in its record; give --reason TEXT")
    runs.require_idle(settings, to="lift a recall")
    recall = _named(settings, reference)
    config = {"recall": recall.id, "lifts": recall.lifts}
    if any(done == config for done, _ in runs.completed(settings, "lift")):
        mirror.show_recalls(settings)  # MLflow may have been away then
        raise RecallError(_lifted_already(recall))

    def work(run: Run) -> Outcome:
        runs.require_idle(settings, to="lift a recall", run=run)  # two that began at once see each other here
        if recall.lift is None:
            _record(runtime, recall, reason, run)
        stands = pads.field("recall").isin(
            pa.array([each.id for each in bans.recalls(settings)], pa.string())
        )
        end_bans(settings, stands, but=fallen_now(settings), run=run)
        freed = {spec: _freed(settings, recall, spec) for spec in ROW_TABLES}
        versions = [
            tables.put_back(settings, numbers, of=spec, recall=recall.id, run_id=run.id)
            for spec, numbers in freed.items()
        ]
        mirror.show_recalls(settings)
        counts = _counts(settings, recall, run)
        log.info("recall %s lifted: %d of %d rows are back", recall.id, counts["back"], counts["rows"])
        facets = {"recall": recall.id, "may_serve": _may_serve(settings, recall)}
        return Outcome(tuple(str(version) for version in versions if version), counts, facets)

    return carry_out(runtime, "lift", config=config, inputs=[f"recall:{recall.id}"], work=work)


def not_back(settings: Settings, recall: Recall) -> int:
    """How many rows of a lifted recall are still out of their tables, though nothing speaks against them."""
    return sum(
        tables.could_stand(settings, _freed(settings, recall, spec), of=spec).num_rows for spec in ROW_TABLES
    )


def _named(settings: Settings, reference: str) -> Recall:
    known = {recall.id: recall for recall in bans.all_recalls(settings)}
    if reference in known:
        return known[reference]
    if len(reference) < LEAST_PREFIX:
        found = []
    else:
        found = [recall for recall in known.values() if recall.id.startswith(reference)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecallError(f"'{reference}' could be any of: {_listed(found)}")
    standing = [recall for recall in known.values() if recall.lift is None]
    raise RecallError(
        f"no recall's id starts with '{reference}' (at least {LEAST_PREFIX} hex digits are needed); "
        f"standing: {_listed(standing) or 'none'}"
    )


def _listed(recalls: Sequence[Recall]) -> str:
    return ", ".join(f"{recall.id} ({recall.selector})" for recall in recalls)


def _lifted_already(recall: Recall) -> str:
    assert recall.lift is not None  # a lift that came to its end is on record
    return (
        f"recall {recall.id} was lifted already, at {recall.lift.at:%Y-%m-%d %H:%M} by {recall.lift.actor}: "
        f"{recall.lift.reason}; to order it again: stemma recall {recall.selector} --reason TEXT"
    )


def _record(runtime: Runtime, recall: Recall, reason: str, run: Run) -> None:
    row = {
        "recall": recall.id,
        "reason": reason,
        "actor": runs.agent().user,
        "run_id": run.id,
        "at": tables.after_all(runtime.settings, runtime.now(), RECALL, LIFT),
    }
    tables.record(runtime.settings, [row], into=LIFT)


def _in_bans(settings: Settings, where: pads.Expression, spec: TableSpec) -> BitMap64:
    rows = tables.read(settings, BAN, columns=["row_no"], where=where & (pads.field("table") == spec.name))
    return BitMap64(rows["row_no"].to_numpy().astype(np.uint64))


def _freed(settings: Settings, recall: Recall, spec: TableSpec) -> pa.Int64Array:
    """The rows of a table that this lifted recall had banned, or whose ban was ended, and none bans now.

    Not those that a gate has moved to `rejected`: they were never admitted.
    """
    over = (pads.field("recall") == recall.id) | pads.field("ends").is_valid()
    found = _in_bans(settings, over, spec) - bans.banned_numbers(settings)
    return _as_array(found - verdicts.all_routed(settings, spec) if found else found)


def _counts(settings: Settings, recall: Recall, run: Run) -> dict[str, int]:
    still, counts = bans.banned_numbers(settings), {"rows": 0, "back": 0, "still_banned": 0}
    others = 0
    for spec in ROW_TABLES:
        mine = _in_bans(settings, pads.field("recall") == recall.id, spec)
        counts["rows"] += len(mine)
        counts["back"] += _standing(settings, mine, spec)
        counts["still_banned"] += mine.intersection_cardinality(still)
        ended = runs.of_any_attempt(run.identity) & pads.field("ends").is_valid()
        others += _standing(settings, _in_bans(settings, ended, spec) - mine, spec)
    return counts | ({"others_back": others} if others else {})


def _standing(settings: Settings, row_nos: BitMap64, spec: TableSpec) -> int:
    """How many of the rows are in their table's newest version."""
    here = pads.field("row_no").isin(_as_array(row_nos))
    return tables.read(settings, spec, columns=["row_no"], where=here).num_rows


def _as_array(row_nos: BitMap64) -> pa.Int64Array:
    return pa.array(np.asarray(row_nos.to_array()).astype(np.int64), pa.int64())


def _may_serve(settings: Settings, recall: Recall) -> list[str]:
    """The champions that fell by this recall or a standing one, are none now, and ate no banned row."""
    serving = models.aliases(settings)
    orders = [order for each in (recall, *bans.recalls(settings)) for order in each.orders]
    return [
        f"{order.name}@{order.version}"
        for order in dict.fromkeys(orders)
        if order.version not in models.recalled_versions(settings, order.name)
        and serving.get(order.name, {}).get("champion") != order.version
    ]
