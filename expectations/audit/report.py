"""An audit put together: per suite everything that can be said of it, as one value that JSON can hold.

    found = audit(settings, ("examples",))        settings None: no lake, so what needs none

Stable keys, for programs: `suites`, a list; each has name, suite_digest, rules, is_judged, history, commits,
replayed, uncovered, vacuous, contradictory, duplicates, drift, waivers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from expectations.audit import coverage, drift, history, standing
from expectations.audit.fates import judged
from expectations.audit.sample import toy
from expectations.gx import quiet
from expectations.suites import SUITES, Suite, digest
from expectations.thresholds import DEFAULTS, Thresholds
from infra.screen import plain
from infra.settings import Settings
from lineage.waivers import all_waivers


def audit(
    settings: Settings | None,
    names: Sequence[str],
    *,
    now: dt.datetime,
    thresholds: Thresholds = DEFAULTS,
    suites: Mapping[str, Suite] = SUITES,
    versions: int = 20,
) -> dict[str, Any]:
    """What is to be said of these suites; of each table the newest `versions` batches are held anew."""
    found = [
        _suite(settings, suites[name], now=now, thresholds=thresholds, suites=suites, versions=versions)
        for name in names
    ]
    return {"lake": settings.shown_lake if settings else None, "at": plain(now), "suites": found}


def _suite(
    settings: Settings | None,
    suite: Suite,
    *,
    now: dt.datetime,
    thresholds: Thresholds,
    suites: Mapping[str, Suite],
    versions: int,
) -> dict[str, Any]:
    built = suite.build(thresholds)
    rules = coverage.rules_of(built)
    verdicts = judged(settings, suite.name) if settings else []
    with quiet():
        sample = toy(suite.name)
        frame = suite.frame(sample.batch, sample.lake)
        uncovered = coverage.uncovered(suite, rules, sample)
    found = {
        "name": suite.name,
        "suite_digest": digest(built),
        "rules": [{"rule": rule.name, "type": rule.type, "columns": list(rule.columns)} for rule in rules],
        "is_judged": len(verdicts),
        "history": history.changes(settings, suite.name) if settings else [],
        "commits": history.commits(suite.name),
        "replayed": history.replayed(settings, suite.name, suites=suites, versions=versions)
        if settings and verdicts
        else [],
        "uncovered": [{"column": column, **told} for column, told in uncovered.items()],
        "vacuous": coverage.vacuous(rules, verdicts, frame),
        "contradictory": coverage.quarrels(rules),
        "duplicates": coverage.twins(rules),
        "drift": drift.drifts(drift.series(verdicts)),
        "waivers": standing.in_force(all_waivers(settings), suite.name, now) if settings else [],
    }
    return plain(found)
