"""How a suite went: who changed what and when, and whose fate the present one would change.

changes(settings, suite)   from the lake's verdicts: suite digests, thresholds and outcomes over time
commits(suite)             from git, where this code lies in a repository: rules and arguments per commit
replayed(settings, suite)  old batches under the present suite: outcomes that differ, rows that flip
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.audit.fates import Judged, hold, judged, known_failing, moved, then, who
from expectations.suites import SUITES, Suite, digest
from expectations.thresholds import DEFAULTS, Thresholds, chosen
from infra.settings import Settings
from lineage import tables
from lineage.rows import without_ids

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

_SNAPSHOTS = Path(__file__).parents[1] / "suites" / "snapshots"
_TIMEOUT_S = 20


def changes(settings: Settings, table: str) -> list[dict[str, Any]]:
    """One entry per stretch of verdicts under one suite, oldest first.

    suite_digest, since, until, by (who gated first), verdicts, outcomes, and against the stretch before:
    rules_added, rules_removed, thresholds_changed (rule -> [before, after]).
    """
    found: list[dict[str, Any]] = []
    before: Judged | None = None
    for each in judged(settings, table, every=True):
        if before is None or each.suite_digest != before.suite_digest:
            found.append(
                {
                    "suite_digest": each.suite_digest,
                    "since": each.at,
                    "until": each.at,
                    "by": who(settings, each.run_id),
                    "verdicts": 0,
                    "outcomes": {},
                    **_differences(_rules(before) if before else {}, _rules(each)),
                }
            )
        now = found[-1]
        now["until"], now["verdicts"] = each.at, now["verdicts"] + 1
        now["outcomes"][each.outcome] = now["outcomes"].get(each.outcome, 0) + 1
        before = each
    return found


def commits(table: str) -> list[dict[str, Any]]:
    """The commits that changed a suite's reviewed JSON, newest first: commit, at, by, subject, and the rules.

    Empty where this code lies in no git repository, or git cannot be asked.
    """
    path = _SNAPSHOTS / f"{table}.json"
    told = _git("log", "--format=%H%x1f%aI%x1f%an%x1f%s", "--", path.name)
    found = []
    for line in told.splitlines():
        commit, at, by, subject = line.split("\x1f", 3)
        before, after = (_snapshot(f"{each}:./{path.name}") for each in (f"{commit}^", commit))
        changed = {"commit": commit, "at": at, "by": by, "subject": subject}
        found.append(changed | _differences(before, after))
    return found


def replayed(
    settings: Settings,
    table: str,
    *,
    suites: Mapping[str, Suite] = SUITES,
    versions: int = 20,
) -> list[dict[str, Any]]:
    """The newest judged batches of a table under the present suite, where something differs; oldest first.

    Each is held by the thresholds that its own verdict recorded, without the rows that were moved to
    `rejected`: what differs is the suite's doing.

    batch, rows, was and would_be (outcomes), rules (name -> [outcome then, outcome now]), refused and passed
    (rule -> row ids, hex: newly broken, no longer broken), all_known (false: the verdict named only twenty of
    the rows that broke a rule, so `refused` may hold some that were broken then). Set rules see what was
    admitted before that batch. Raises nothing for a batch whose rows cannot be framed: its
    entry has `error`.
    """
    suite = suites[table]
    rules: dict[Thresholds, ExpectationSuite] = {}
    found = []
    for each in judged(settings, table)[-versions:]:
        entry: dict[str, Any] = {"batch": str(each.batch), "rows": each.rows, "was": each.outcome}
        try:
            thresholds = chosen(each.thresholds)
            if thresholds not in rules:
                rules[thresholds] = suite.build(thresholds)
            gone = moved(settings, each)
            rows = without_ids(tables.read_batch(settings, each.batch), gone)
            held = hold(suite.frame(rows, then(settings, each)), rules[thresholds])
        except Exception as error:  # an old batch may not have what a new suite reads: that is the answer
            found.append(entry | {"would_be": "error", "error": f"{type(error).__name__}: {error}"})
            continue
        known, whole = known_failing(settings, each, held.failing)
        was = {rule["name"]: rule["outcome"] for rule in each.rules}
        now = {rule.name: rule.outcome for rule in held.rules}
        differing = {
            name: [was.get(name, "no such rule"), now.get(name, "no such rule")]
            for name in [*was, *(name for name in now if name not in was)]
            if was.get(name, "pass") != now.get(name, "pass")  # to hold and not to be there is the same fate
        }
        refused = {
            name: sorted(set(ids) - known.get(name, frozenset())) for name, ids in held.failing.items()
        }
        out = {row_id.hex() for row_id in gone}
        passed = {name: sorted(ids - out - set(held.failing.get(name, ()))) for name, ids in known.items()}
        entry |= {
            "would_be": held.outcome,
            "rules": differing,
            "refused": {name: ids for name, ids in refused.items() if ids},
            "passed": {name: ids for name, ids in passed.items() if ids},
            "all_known": whole,
        }
        if differing or entry["refused"] or entry["passed"]:
            found.append(entry)
    return found


def present(table: str, thresholds: Thresholds = DEFAULTS, suites: Mapping[str, Suite] = SUITES) -> str:
    """The digest of the suite as it is now."""
    return digest(suites[table].build(thresholds))


def _rules(verdict: Judged) -> dict[str, Any]:
    return {rule["name"]: rule.get("threshold") for rule in verdict.rules}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    both = [name for name in after if name in before]
    return {
        "rules_added": [name for name in after if name not in before],
        "rules_removed": [name for name in before if name not in after],
        "thresholds_changed": {
            name: [before[name], after[name]] for name in both if before[name] != after[name]
        },
    }


def _snapshot(reference: str) -> dict[str, Any]:
    """Rule -> its arguments, of a suite's JSON in git; empty where it is not there."""
    content = _git("show", reference)
    if not content:
        return {}
    entries = json.loads(content)["expectations"]
    return {entry["meta"].get("rule", entry["type"]): entry["kwargs"] for entry in entries}


def _git(*words: str) -> str:
    """What git answers in the folder of the snapshots; nothing where it cannot."""
    try:
        done = subprocess.run(
            ["git", "--no-pager", *words],
            cwd=_SNAPSHOTS,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or one that does not answer: no history
        return ""
    return done.stdout if done.returncode == 0 else ""
