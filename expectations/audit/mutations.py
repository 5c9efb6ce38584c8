"""Which damage a suite notices: every corruption of the frozen list planted into sound rows, one at a time.

    found = mutations(("examples",))    ->  one Mutant each, and the scores

A corruption is caught when a rule that holds on the sound rows does not hold on the damaged ones, be it by a
refusal or a warning. What crashes the suite is not caught: nobody decided anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from expectations.audit.corruptions import CORRUPTIONS, VERSION
from expectations.audit.coverage import rules_of
from expectations.audit.planting import Corruption, NotPlanted
from expectations.audit.sample import Sample, toy
from expectations.evaluation import evaluate
from expectations.suites import SUITES, Suite
from expectations.thresholds import DEFAULTS, Thresholds
from lineage.verdicts import Rule

if TYPE_CHECKING:
    import pandas as pd

Fate = Literal["caught", "slipped", "crashed", "not planted", "no suite"]


@dataclass(frozen=True)
class Mutant:
    """What became of one corruption."""

    corruption: Corruption
    fate: Fate
    rules: tuple[str, ...] = ()
    """The rules that noticed; of those that only warn with ` (warns)` behind the name."""

    told: str = ""
    """Why it was not planted, or what the suite died of."""

    def as_json(self) -> dict[str, Any]:
        """Stable keys: corruption, table, family, does, rate, expected, why_not, fate, rules, told."""
        entry = self.corruption
        return {
            "corruption": entry.name,
            "table": entry.table,
            "family": entry.family,
            "does": entry.does,
            "rate": entry.rate,
            "expected": entry.expected,
            "why_not": entry.why_not,
            "fate": self.fate,
            "rules": list(self.rules),
            "told": self.told,
        }


@dataclass(frozen=True)
class Mutations:
    """What became of all of them."""

    mutants: tuple[Mutant, ...]
    samples: Mapping[str, str]
    """Table -> where its sound rows come from."""

    blind: Mapping[str, tuple[str, ...]]
    """Table -> rules that do not even hold on the sound rows, and so cannot notice anything."""

    idle: Mapping[str, tuple[str, ...]]
    """Table -> rules that noticed nothing of all that was planted."""

    @property
    def score(self) -> float | None:
        """Share caught of what was planted and can be expected to be noticed; None where nothing was."""
        return _share(m for m in self.mutants if m.corruption.expected)

    @property
    def raw_score(self) -> float | None:
        """Share caught of all that was planted."""
        return _share(self.mutants)

    @property
    def missing(self) -> list[Mutant]:
        """What slipped through, or crashed the suite, though a gate can be expected to notice."""
        return [m for m in self.mutants if m.corruption.expected and m.fate not in ("caught", "not planted")]

    def by_table(self) -> list[dict[str, Any]]:
        """Per table: planted, expected, caught, score, raw_score."""
        found = []
        for table in dict.fromkeys(m.corruption.table for m in self.mutants):
            mine = [m for m in self.mutants if m.corruption.table == table and m.fate != "not planted"]
            wanted = [m for m in mine if m.corruption.expected]
            found.append(
                {
                    "table": table,
                    "sample": self.samples[table],
                    "planted": len(mine),
                    "expected": len(wanted),
                    "caught": sum(m.fate == "caught" for m in wanted),
                    "score": _share(wanted),
                    "raw_score": _share(mine),
                }
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """Stable keys: version, score, raw_score, tables, blind, idle, mutants."""
        return {
            "version": VERSION,
            "score": self.score,
            "raw_score": self.raw_score,
            "tables": self.by_table(),
            "blind": {table: list(rules) for table, rules in self.blind.items()},
            "idle": {table: list(rules) for table, rules in self.idle.items()},
            "mutants": [mutant.as_json() for mutant in self.mutants],
        }


def mutations(
    names: Sequence[str] | None = None,
    *,
    sample_of: Callable[[str], Sample] = toy,
    suites: Mapping[str, Suite] = SUITES,
    thresholds: Thresholds = DEFAULTS,
    corruptions: Iterable[Corruption] = CORRUPTIONS,
) -> Mutations:
    """Plant every corruption of these tables (default: of all) into its table's sample; 0.1 s each."""
    wanted = [each for each in corruptions if names is None or each.table in names]
    mutants: list[Mutant] = []
    samples: dict[str, str] = {}
    blind: dict[str, tuple[str, ...]] = {}
    idle: dict[str, tuple[str, ...]] = {}
    for table in dict.fromkeys(each.table for each in wanted):
        mine, sample = [each for each in wanted if each.table == table], sample_of(table)
        samples[table] = sample.origin
        if table not in suites:
            mutants += [Mutant(each, "no suite") for each in mine]
            continue
        held = _Holder(suites[table], thresholds, sample)
        sound = held.sound
        blind[table] = tuple(name for name, outcome in sound.items() if outcome != "pass")
        found = [held.mutant(each) for each in mine]
        mutants += found
        noticed = {name.removesuffix(_WARNS) for mutant in found for name in mutant.rules}
        idle[table] = tuple(name for name in sound if name not in noticed and name not in blind[table])
    return Mutations(tuple(mutants), samples, blind, idle)


_WARNS = " (warns)"


class _Holder:
    """Holds damaged batches of one table against its suite: the rules that the damage can have reached.

    A rule sees the columns that it names; where rows came or went it may see that, whatever it names.
    """

    def __init__(self, suite: Suite, thresholds: Thresholds, sample: Sample):
        self._suite, self._rules, self._sample = suite, suite.build(thresholds), sample
        self._frame = suite.frame(sample.batch, sample.lake)
        self.sound = {rule.name: rule.outcome for rule in evaluate(self._frame, self._rules)}

    def mutant(self, corruption: Corruption) -> Mutant:
        try:
            damaged = corruption.planted(self._sample)
        except NotPlanted as reason:
            return Mutant(corruption, "not planted", told=str(reason))
        try:
            rules = self._held(self._suite.frame(damaged, self._sample.lake))
        except Exception as error:  # whatever a suite dies of; it is told, and counts as not caught
            return Mutant(corruption, "crashed", told=f"{type(error).__name__}: {error}")
        broken = [rule for rule in rules if rule.outcome == "fail" and self.sound[rule.name] == "pass"]
        if broken:
            return Mutant(corruption, "caught", tuple(_told(rule) for rule in broken))
        died = [f"{rule.name}: {rule.sentence}" for rule in rules if rule.outcome == "error"]
        return Mutant(corruption, "crashed" if died else "slipped", told="; ".join(died))

    def _held(self, frame: pd.DataFrame) -> list[Rule]:
        from great_expectations import ExpectationSuite

        if len(frame) != len(self._frame) or list(frame.columns) != list(self._frame.columns):
            return evaluate(frame, self._rules)
        changed = {name for name in frame.columns if not frame[name].equals(self._frame[name])}
        reached = [
            expectation
            for rule, expectation in zip(rules_of(self._rules), self._rules.expectations, strict=True)
            if not (named := _named(rule.kwargs, frame.columns)) or named & changed
        ]
        return evaluate(frame, ExpectationSuite(self._suite.name, expectations=reached)) if reached else []


def _named(kwargs: Mapping[str, Any], columns: Iterable[Any]) -> set[str]:
    """The columns that a rule's arguments name; none where a condition may name any."""
    if kwargs.get("row_condition"):
        return set()
    said = [each for value in kwargs.values() for each in (value if isinstance(value, list) else [value])]
    return {name for name in columns if name in [each for each in said if isinstance(each, str)]}


def _told(rule: Rule) -> str:
    return rule.name + (_WARNS if rule.severity == "warn" else "")


def _share(mutants: Iterable[Mutant]) -> float | None:
    planted = [mutant for mutant in mutants if mutant.fate != "not planted"]
    return round(sum(m.fate == "caught" for m in planted) / len(planted), 4) if planted else None
