"""Judge rows by a suite under a config and waivers, and say which rows would have to go. Writes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from expectations import routing
from expectations.evaluation import Result, name_of, overall, rules_of, validate
from expectations.failing import failing
from lineage.verdicts import OnFail, Rule, RuleOutcome

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite

    from expectations.suites import Admitted, Suite


@dataclass(frozen=True)
class Judgement:
    """How a batch came out."""

    rules: tuple[Rule, ...]
    broken: Mapping[str, Sequence[str]]
    """Rule -> the ids (hex) of all rows that broke it, as many as the rule counts."""

    moved: Mapping[bytes, str]
    """Row id -> why the row is to lie in `rejected`; empty where the batch is refused."""

    result: Result
    """Great Expectations' own, on all rows."""

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
    """Holds batches of one table against its suite."""

    suite: Suite
    rules: ExpectationSuite
    admitted: Admitted
    waivers: Mapping[str, str]
    """Rule -> the waiver in force that covers it."""

    on_fail: OnFail
    batch: str
    run: str
    at: dt.datetime

    def judge(self, rows: pa.Table, before: Moved) -> Judgement:
        """The batch as a whole or, where that fails and rows may go, without those that broke a rule.

        Rows are moved only where the others hold every rule by themselves; else the whole batch is refused.
        """
        whole = self._held(routing.without(rows, before.by_others) if before.by_others else rows)
        broken = {rule.name: self._broken(rule, whole.frame) for rule in whole.rules}
        going = dict(before.by_this)
        if overall(whole.rules) == "fail" and self.on_fail == "reject_rows":
            going = routing.reasons(whole.rows, whole.rules, broken) | going
        if not going:
            passed = overall(whole.rules) == "pass"
            return Judgement(whole.rules, broken, before.by_others if passed else {}, whole.result)
        rest = self._held(routing.without(whole.rows, going))
        passed = overall(rest.rules) == "pass"
        rules: list[Rule] = []
        for rule, left in zip(whole.rules, rest.rules, strict=True):
            if passed and not rule.refuses:
                rules.append(left)
                broken[rule.name] = self._broken(left, rest.frame)
            elif passed:
                told = f"{rule.sentence}, and lie in 'rejected'"
                rules.append(replace(left, sentence=told, failing=rule.failing, examples=rule.examples))
            elif rule.outcome == "pass" != left.outcome:
                rules.append(replace(left, sentence=f"{left.sentence}, of the rows that would be left"))
                broken[rule.name] = self._broken(left, rest.frame)
            else:
                rules.append(rule)
        return Judgement(tuple(rules), broken, {**before.by_others, **going} if passed else {}, whole.result)

    def _held(self, rows: pa.Table) -> _Held:
        frame = self.suite.frame(rows, self.admitted)
        result = validate(frame, self.rules, batch=self.batch, run=self.run, at=self.at)
        rules = tuple(
            replace(rule, waived=self.waivers.get(rule.name, ""))
            if rule.refuses and rule.outcome == "fail"
            else rule
            for rule in rules_of(result, self.rules)
        )
        return _Held(rows, frame, result, rules)

    def _broken(self, rule: Rule, frame: pd.DataFrame) -> list[str]:
        if not rule.failing:
            return []
        named = (each for each in self.rules.expectations if _name(each) == rule.name)
        return failing(frame, next(named))


@dataclass(frozen=True)
class _Held:
    rows: pa.Table
    frame: pd.DataFrame
    result: Result
    rules: tuple[Rule, ...]


def _name(expectation: object) -> str:
    return name_of({"expectation_config": expectation.configuration.to_json_dict()})  # type: ignore[attr-defined]
