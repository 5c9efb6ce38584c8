"""A person lets batches of a table break a rule: for a reason, until a day, and on record.

A waiver counts at the moment of judging. It neither brings a refused batch back nor takes an admitted one
away when it ends: what was judged while it was in force says so in its verdict for ever.

    WaiverError   what was asked for cannot be waived, or there is no such waiver; the message says why
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow.dataset as pads

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import runs, tables
from lineage.ancestry import runs_beneath
from lineage.consumption import Checkpoint, eaten_by
from lineage.rows import LEAST_PREFIX, canonical_json
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import CURRICULUM, VERDICT, WAIVER
from lineage.tables import TableError

State = Literal["in force", "expired", "revoked"]

LONGEST = dt.timedelta(days=90)
"""How far ahead a waiver may end, unless a longer one is asked for: a quarter, after which somebody looks."""

_NAMES = "recall names rows by it: with it broken, taking one row back would miss it or hit another"
_ORIGIN = "without it nobody can say where the row came from, so nothing bad could be called back"
_ONCE = "what is stored twice counts twice, and a recall of one copy leaves the other"
_MEMBERS = "a model would eat what no gate passed, or something else than its record says"
_PARENTS = "a row that stands on what no gate passed is not found when what it stands on is taken back"
_SCORED = "a report would rest on rows that no gate passed, and no recall would reach its numbers"
_NULLS = "all other rules pass what is null, so a row that says nothing would break none of them"
NEVER = {
    "provenance_complete": _ORIGIN,
    "derivation_known": _ORIGIN,
    "parents_fit_derivation": _ORIGIN,
    "source_span_well_formed": _ORIGIN,
    "source_revision_is_digest": _ORIGIN,
    "code_revision_is_digest": _ORIGIN,
    "origin_stated": _ORIGIN,
    "no_column_empty": _NULLS,
    "parents_admitted": _PARENTS,
    "row_id_has_16_bytes": _NAMES,
    "row_id_unique": _NAMES,
    "row_no_leased": _NAMES,
    "row_no_unique": _NAMES,
    "row_no_new": _NAMES,
    "row_id_new": _ONCE,
    "source_span_new": _ONCE,
    "members_unique": _ONCE,
    "members_admitted": _MEMBERS,
    "members_quoted": _MEMBERS,
    "root_is_of_members": _MEMBERS,
    "rows_admitted": _SCORED,
}
"""Rule -> why nobody may waive it, or leave it out of a suite: lineage, recall and reproduction rest on it.
Quality people may judge."""


class WaiverError(TableError):
    """A waiver cannot be given or found."""


@dataclass(frozen=True)
class Waiver:
    """Leave to break one rule of one table's suite."""

    id: str
    """12 hex digits."""

    table: str
    rule: str
    reason: str
    by: str
    at: dt.datetime
    until: dt.datetime
    """The first moment at which it is in force no more."""

    revoked: Waiver | None = None
    """The row that ended it early: who, when and why."""

    def state(self, now: dt.datetime) -> State:
        """Does it count at this time?"""
        if self.revoked is not None and self.revoked.at <= now:
            return "revoked"
        return "in force" if now < self.until else "expired"


def grant(
    runtime: Runtime, *, table: str, rule: str, reason: str, until: dt.date, by: str = "", long: bool = False
) -> Waiver:
    """Let batches of a table break a rule through a day (UTC). By whom: by default who runs this process.

    Given again, one that stands is returned as it is. Raises WaiverError for a rule of NEVER, without a
    reason, and for a day that is over or, unless `long`, more than LONGEST ahead. That the table's suite has
    the rule is for the caller to know.
    """
    if rule in NEVER:
        raise WaiverError(
            f"rule '{rule}' cannot be waived: {NEVER[rule]}; correct the rows and store them again"
        )
    if not reason.strip():
        raise WaiverError("a waiver needs a reason, which stands in its record; give --reason TEXT")
    now = runtime.now()
    end = dt.datetime.combine(until, dt.time(), dt.UTC) + dt.timedelta(days=1)
    if end <= now:
        raise WaiverError(f"--until {until} is over; a waiver ends in the future, so give a later day")
    if not long and end > now + LONGEST + dt.timedelta(days=1):
        latest = (now + LONGEST).date()
        raise WaiverError(
            f"--until {until} is more than {LONGEST.days} days ahead; give {latest} or an earlier day, or "
            "add --long if it is meant"
        )
    settings = runtime.settings
    told = {"table": table, "rule": rule, "reason": reason, "by": by or runs.agent().user, "until": f"{end}"}
    given = [each for each in all_waivers(settings) if _told(each) == told]
    name = _name(told, sum(each.revoked is not None for each in given))

    def work(run: Run) -> Outcome:
        if all(each.id != name for each in all_waivers(settings)):
            _record(runtime, Waiver(name, table, rule, reason, told["by"], now, end), run)
        return Outcome(facets={"waiver": name})

    carry_out(runtime, "waive", config={"waiver": name, **told}, inputs=[], work=work)
    return find(settings, name)


def revoke(runtime: Runtime, reference: str, *, reason: str, by: str = "") -> Waiver:
    """End a waiver now, named by its id or the start of it.

    Raises WaiverError without a reason, and for one that is unknown, ambiguous or in force no more.
    """
    settings, now = runtime.settings, runtime.now()
    if not reason.strip():
        raise WaiverError("revoking needs a reason, which stands in the record; give --reason TEXT")
    waiver = find(settings, reference)
    if waiver.state(now) != "in force":
        raise WaiverError(f"waiver {waiver.id} is {waiver.state(now)} already; nothing was changed")

    def work(run: Run) -> Outcome:
        if find(settings, waiver.id).revoked is None:
            at = tables.after_all(settings, runtime.now(), WAIVER)
            ended = replace(waiver, reason=reason, by=by or runs.agent().user, at=at, until=at)
            _record(runtime, ended, run)
        return Outcome(facets={"waiver": waiver.id})

    carry_out(runtime, "revoke", config={"waiver": waiver.id}, inputs=[], work=work)
    return find(settings, waiver.id)


def all_waivers(settings: Settings) -> list[Waiver]:
    """Every waiver that was ever given, oldest first."""
    found: dict[str, Waiver] = {}
    for row in tables.read(settings, WAIVER).sort_by("at").to_pylist():
        del row["run_id"]
        told = Waiver(**row)
        given = found.get(told.id)
        found[told.id] = told if given is None else replace(given, revoked=told)
    return list(found.values())


def in_force(settings: Settings, table: str, at: dt.datetime) -> dict[str, Waiver]:
    """Rule -> the waiver that covers it at a time; of several the one that was given first."""
    given = [each for each in all_waivers(settings) if each.table == table and each.rule not in NEVER]
    return {each.rule: each for each in reversed(given) if each.state(at) == "in force"}


def find(settings: Settings, reference: str) -> Waiver:
    """The waiver whose id starts so. Raises WaiverError."""
    known = all_waivers(settings)
    found = [each for each in known if len(reference) >= LEAST_PREFIX and each.id.startswith(reference)]
    if len(found) != 1:
        listed = ", ".join(f"{each.id} ({each.table}: {each.rule})" for each in found or known) or "none"
        what = "several waivers" if found else "no waiver"
        raise WaiverError(f"'{reference}' names {what}; known: {listed}")
    return found[0]


def behind(settings: Settings, checkpoint: Checkpoint) -> list[Waiver]:
    """The waivers under which a checkpoint's curriculum, its rows, and what those came from were admitted.

    Of each batch every verdict that passed counts: a later one may need a waiver no more.
    """
    known = all_waivers(settings)
    if not known:
        return []
    passed = (pads.field("outcome") == "pass") & (pads.field("at") <= checkpoint.at)
    judged = tables.read(settings, VERDICT, columns=["table", "batch", "rules"], where=passed).to_pylist()
    used: dict[tuple[str, str], set[str]] = {}
    for each in judged:
        used.setdefault((each["table"], each["batch"]), set()).update(_waived(each["rules"]))
    if not any(used.values()):
        return []
    rows = np.unique(eaten_by(settings, checkpoint)["row_no"].to_numpy()).astype(np.int64)
    mine = pads.field("curriculum") == checkpoint.curriculum
    selected = (
        tables.read(settings, CURRICULUM, columns=["run_id"], where=mine)["run_id"].unique().to_pylist()
    )
    batches = runs_beneath(settings, rows) | {(CURRICULUM.name, run_id) for run_id in selected}
    ids = {waiver for batch in batches for waiver in used.get(batch, ())}
    return [each for each in known if each.id in ids]


def _waived(rules: str) -> set[str]:
    return {rule["waived"] for rule in json.loads(rules) if rule.get("waived")}


def _told(waiver: Waiver) -> dict[str, str]:
    until = f"{waiver.until.astimezone(dt.UTC)}"
    told = {name: getattr(waiver, name) for name in ("table", "rule", "reason", "by")}
    return {**told, "until": until}


def _name(told: dict[str, str], revoked: int) -> str:
    """What the same waiver is called each time it is given, until it is revoked."""
    return hashlib.sha256(b"stemma.waiver.v1" + canonical_json([told, revoked])).hexdigest()[:12]


def _record(runtime: Runtime, waiver: Waiver, run: Run) -> None:
    names = ("id", "table", "rule", "reason", "by", "at", "until")
    row = {name: getattr(waiver, name) for name in names} | {"run_id": run.id}
    tables.record(runtime.settings, [row], into=WAIVER)
