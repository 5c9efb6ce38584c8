"""Judge rows by a suite under a config and waivers, and say which rows would have to go. Writes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from expectations import routing
from expectations.blocks import Batch, Measuring
from expectations.evaluation import Result, as_result, overall, rules_of
from infra.runtime import Runtime
from lineage.verdicts import OnFail, Rule, RuleOutcome

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

    from expectations.suites import Admitted


@dataclass(frozen=True)
class Judgement:
    """How a batch came out."""

    rules: tuple[Rule, ...]
    broken: Mapping[str, pa.Array]
    """Rule -> the ids of all rows that broke it, as many as the rule counts."""

    moved: Mapping[bytes, str]
    """Row id -> why the row is to lie in `rejected`; empty where the batch is refused."""

    result: Result
    """Great Expectations' own, on all rows."""

    keys: pa.Table
    """Of all rows of the batch, whether or not they are judged; of row tables with `row_id` and `row_no`."""

    @property
    def outcome(self) -> RuleOutcome:
        """Of the rows that are not moved."""
        return overall(self.rules)


@dataclass(frozen=True)
class Moved:
    """What earlier gates of the batch have taken out of its table, each row with the reason."""

    by_others: Mapping[bytes, str] = field(default_factory=dict)
    """They stay out, and are judged no more."""

    by_this: Mapping[bytes, str] = field(default_factory=dict)
    """A killed go of this very gate: judged anew, and out in any case."""


@dataclass(frozen=True)
class Judge:
    """Holds a batch against its table's suite."""

    runtime: Runtime
    batch: Batch
    rules: ExpectationSuite
    admitted: Admitted
    waivers: Mapping[str, str]
    """Rule -> the waiver in force that covers it."""

    on_fail: OnFail
    run: str
    at: dt.datetime

    def judge(self, before: Moved) -> Judgement:
        """The batch as a whole or, where that fails and rows may go, without those that broke a rule.

        Rows are moved only where the others hold every rule by themselves; else the whole batch is refused.
        """
        whole = self._held(before.by_others)
        keys = self._measuring({}).keys if before.by_others else whole.keys
        broken = whole.broken([rule.name for rule in whole.rules])
        going = dict(before.by_this)
        if overall(whole.rules) == "fail" and self.on_fail == "reject_rows":
            going = routing.reasons(whole.keys, whole.rules, broken) | going
        if not going:
            passed = overall(whole.rules) == "pass"
            return Judgement(whole.rules, broken, before.by_others if passed else {}, whole.result, keys)
        rest = self._held({**before.by_others, **going})
        passed = overall(rest.rules) == "pass"
        rules: list[Rule] = []
        anew: list[str] = []  # what they are broken by is another set of rows now
        for rule, left in zip(whole.rules, rest.rules, strict=True):
            if passed and not rule.refuses:
                rules.append(left)
                anew.append(left.name)
            elif passed:
                told = f"{rule.sentence}, and lie in 'rejected'"
                moved = {"failing": rule.failing, "examples": rule.examples, "moved": True}
                rules.append(replace(left, sentence=told, **moved))
            elif rule.outcome == "pass" != left.outcome:
                rules.append(replace(left, sentence=f"{left.sentence}, of the rows that would be left"))
                anew.append(left.name)
            else:
                rules.append(rule)
        broken |= rest.broken(anew)
        moved = {**before.by_others, **going} if passed else {}
        return Judgement(tuple(rules), broken, moved, whole.result, keys)

    def _measuring(self, without: Mapping[bytes, str]) -> Measuring:
        return Measuring(self.runtime, replace(self.batch, without=frozenset(without)), self.admitted)

    def _held(self, without: Mapping[bytes, str]) -> _Held:
        measuring = self._measuring(without)
        result = as_result(
            self.batch.plan(),
            measuring.measured,
            self.rules,
            batch=str(self.batch.version),
            run=self.run,
            at=self.at,
        )
        rules = tuple(
            replace(rule, waived=self.waivers.get(rule.name, ""))
            if rule.refuses and rule.outcome == "fail"
            else rule
            for rule in rules_of(result, self.rules)
        )
        return _Held(measuring, result, rules)


@dataclass(frozen=True)
class _Held:
    measuring: Measuring
    result: Result
    rules: tuple[Rule, ...]

    @property
    def keys(self) -> pa.Table:
        return self.measuring.keys

    def broken(self, names: Sequence[str]) -> dict[str, pa.Array]:
        """Of each of these rules the ids of all rows that break it, among those that were held."""
        return {
            rule.name: self.measuring.failing(place)
            for place, rule in enumerate(self.rules)
            if rule.name in names
        }
