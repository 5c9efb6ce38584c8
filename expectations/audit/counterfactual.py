"""Which rows another threshold would flip, from what is stored: no model is asked for a score again.

    what_if(settings, "max_bigram_repetition=0.3")    a name of Thresholds; `max_` and `min_` may be left out
    what_if(settings, "answer_characters.max=200")    a column of a suite's frame, and which end of its range
    what_if(settings, "threshold=0.7")                what the stored scores of examples are held against

Only the rules that the change touches are held anew, against the rows of every batch that a gate judged, and
each batch starts from the thresholds that it was judged by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.dataset as pads
from pydantic import ValidationError

from expectations.audit.coverage import rules_of
from expectations.audit.fates import Held, Judged, hold, judged, moved, then
from expectations.suites import SUITES, Suite
from expectations.thresholds import DEFAULTS, Thresholds, chosen
from infra.settings import Settings
from lineage import tables
from lineage.rows import without_ids
from lineage.schemas import EXAMPLE, REJECTED
from lineage.tables import TableError
from lineage.verdicts import Severity

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite

STORED_THRESHOLD = "threshold"
_ENDS = {"min": "min_value", "max": "max_value"}
_TEXT = 80  # characters of a row that are told


class WhatIfError(TableError):
    """The question names nothing that could be changed; the message says what there is."""


@dataclass(frozen=True)
class Flip:
    """A row that would fare otherwise."""

    batch: str
    row_id: str
    rule: str
    would: Literal["break", "keep"]
    """What the row would do to the rule."""

    severity: Severity
    """Whether the rule refuses what breaks it."""

    value: Any
    """What the rule looks at."""

    text: str = ""

    def as_json(self) -> dict[str, Any]:
        """Stable keys: batch, row_id, rule, would, severity, value, text."""
        return asdict(self)


@dataclass(frozen=True)
class WhatIf:
    """What a change would do."""

    question: str
    was: Any
    """What the batches were judged by: one value where all agree, else a sorted list; the default where none
    was judged. Of a column, that of each end of each rule."""

    would_be: Any
    rules: tuple[str, ...]
    """The rules it touches, as TABLE.RULE."""

    flips: tuple[Flip, ...] = ()
    batches: tuple[Mapping[str, Any], ...] = ()
    """Judged batches whose outcome, or a touched rule's, would be another: batch, was, would_be, rules."""

    looked_at: int = 0
    unreadable: tuple[str, ...] = field(default=())
    """Batches that could not be held anew, each with the reason."""

    def as_json(self) -> dict[str, Any]:
        """Stable keys: question, was, would_be, rules, broken, kept, batches, looked_at, unreadable."""
        return {
            "question": self.question,
            "was": self.was,
            "would_be": self.would_be,
            "rules": list(self.rules),
            "broken": [flip.as_json() for flip in self.flips if flip.would == "break"],
            "kept": [flip.as_json() for flip in self.flips if flip.would == "keep"],
            "batches": [dict(batch) for batch in self.batches],
            "looked_at": self.looked_at,
            "unreadable": list(self.unreadable),
        }


@dataclass(frozen=True)
class _Change:
    """The rules that a change touches, as they were and as they would be."""

    rules: tuple[str, ...]
    before: ExpectationSuite
    after: ExpectationSuite
    was: Any
    """The threshold; of a column, TABLE.RULE -> end -> value of every rule that is meant."""


def what_if(
    settings: Settings,
    question: str,
    *,
    names: Sequence[str] | None = None,
    suites: Mapping[str, Suite] = SUITES,
) -> WhatIf:
    """What NAME=VALUE would change for the batches of these tables (default: all). Raises WhatIfError."""
    name, value = _asked(question)
    wanted = {table: suites[table] for table in suites if names is None or table in names}
    if name == STORED_THRESHOLD:
        return _stored(settings, question, _number(value), names)
    threshold = _threshold(name)
    would_be = _number(value) if threshold is None else getattr(_with(DEFAULTS, threshold, value), threshold)
    by_default = {table: _change(suite, DEFAULTS, name, value) for table, suite in wanted.items()}
    if threshold is None and not any(change.was for change in by_default.values()):
        raise WhatIfError(_known(name, wanted))
    flips: list[Flip] = []
    batches: list[Mapping[str, Any]] = []
    unreadable: list[str] = []
    looked_at = 0
    changes: dict[str, list[_Change]] = {}  # by table, one for each set of thresholds in use
    for table, suite in wanted.items():
        built = {DEFAULTS.model_dump_json(): by_default[table]}
        used: dict[str, _Change] = {}
        for each in judged(settings, table):
            try:
                thresholds = chosen(each.thresholds)
                key = thresholds.model_dump_json()
                if key not in built:
                    built[key] = _change(suite, thresholds, name, value)
                used[key] = built[key]
                if not used[key].rules:
                    continue
                flipped, outcomes = _held(settings, each, suite, used[key])
            except Exception as error:  # a batch that can be read no more: told, not counted
                unreadable.append(f"{each.batch}: {type(error).__name__}: {error}")
                continue
            looked_at += 1
            flips += flipped
            batches += outcomes
        changes[table] = list(used.values()) or [by_default[table]]
    touched = {
        table: dict.fromkeys(rule for change in each for rule in change.rules)
        for table, each in changes.items()
    }
    meant = [table for table, rules in touched.items() if rules] or list(wanted)
    found = [change.was for table in meant for change in changes[table]]
    was = _ends_of(found) if threshold is None else _one_or_all(found)
    listed = tuple(f"{table}.{rule}" for table, rules in touched.items() for rule in rules)
    return WhatIf(question, was, would_be, listed, tuple(flips), tuple(batches), looked_at, tuple(unreadable))


def _held(
    settings: Settings, batch: Judged, suite: Suite, change: _Change
) -> tuple[list[Flip], list[dict[str, Any]]]:
    """The rows of a batch that flip, with those that were moved to `rejected`, and what becomes of it."""
    rows, lake, gone = tables.read_batch(settings, batch.batch), then(settings, batch), moved(settings, batch)
    frame = suite.frame(rows, lake)
    one, other = hold(frame, change.before), hold(frame, change.after)
    flips = list(_flips(batch, frame, rows.to_pylist(), change.after, one, other))
    if gone:  # they decide nothing of the batch
        left = suite.frame(without_ids(rows, gone), lake)
        one, other = hold(left, change.before), hold(left, change.after)
    return flips, list(_outcomes(batch, one, other))


def _asked(question: str) -> tuple[str, str]:
    name, equals, value = question.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise WhatIfError(f"--what-if '{question}' is no NAME=VALUE; for example max_bigram_repetition=0.3")
    return name.strip(), value.strip()


def _threshold(name: str) -> str | None:
    """The field of Thresholds that is meant, where one is."""
    known = list(Thresholds.model_fields)
    found = [each for each in known if name in (each, re.sub("^(min|max)_", "", each))]
    if len(found) > 1:
        raise WhatIfError(f"'{name}' could be any of: {', '.join(found)}; give the whole name")
    return found[0] if found else None


def _with(thresholds: Thresholds, name: str, value: str) -> Thresholds:
    parts: Any = [part.strip() for part in value.strip("()[]").split(",")]
    given = parts if len(parts) > 1 else value
    try:
        changed = Thresholds.model_validate(thresholds.model_dump() | {name: given})
    except ValidationError as error:
        told = "; ".join(each["msg"] for each in error.errors())
        raise WhatIfError(f"{name} cannot be '{value}': {told}") from error
    found = getattr(changed, name)
    for number in found if isinstance(found, tuple) else (found,):
        _finite(number, value)
    return changed


def _number(value: str) -> float:
    try:
        return _finite(float(value), value)
    except ValueError as error:
        raise WhatIfError(f"'{value}' is no number") from error


def _finite(number: float, value: str) -> float:
    """Nothing compares with NaN, and everything with infinity: neither is an answer."""
    if isinstance(number, float) and not math.isfinite(number):
        raise WhatIfError(f"'{value}' is no finite number; give one, for example 0.7")
    return number


def _change(suite: Suite, thresholds: Thresholds, name: str, value: str) -> _Change:
    """What was asked for, moved from these thresholds and nothing else."""
    threshold = _threshold(name)
    if threshold is not None:
        was = getattr(thresholds, threshold)
        before, after = suite.build(thresholds), suite.build(_with(thresholds, threshold, value))
    else:
        before, after, was = _column(suite, thresholds, name, _number(value))
    rules = _touched(before, after)
    return _Change(tuple(rules), _only(before, rules), _only(after, rules), was)


def _column(
    suite: Suite, thresholds: Thresholds, name: str, value: float
) -> tuple[ExpectationSuite, ExpectationSuite, dict[str, dict[str, Any]]]:
    """The suite, the same with an end moved of the ranges of a column of its frame, and their ends before."""
    column, _, end = name.partition(".")
    if end and end not in _ENDS:
        raise WhatIfError(f"'{name}': a range has the ends min and max, as in {column}.max=200")
    before, after = suite.build(thresholds), suite.build(thresholds)
    were: dict[str, dict[str, Any]] = {}
    for rule, expectation in zip(rules_of(after), after.expectations, strict=True):
        ends = [key for key in _ENDS.values() if rule.kwargs.get(key) is not None]
        if column not in rule.columns or not ends:
            continue
        if not end and len(ends) > 1:
            raise WhatIfError(f"rule '{rule.name}' has two ends; say {column}.min or {column}.max")
        were[f"{suite.name}.{rule.name}"] = {
            key: rule.kwargs[key] for key in _ENDS.values() if key in rule.kwargs
        }
        setattr(expectation, _ENDS[end] if end else ends[0], value)
    return before, after, were


def _touched(before: ExpectationSuite, after: ExpectationSuite) -> list[str]:
    pairs = zip(rules_of(before), rules_of(after), strict=True)
    return [one.name for one, other in pairs if one.kwargs != other.kwargs]


def _only(suite: ExpectationSuite, rules: Sequence[str]) -> ExpectationSuite:
    from great_expectations import ExpectationSuite

    named = zip(rules_of(suite), suite.expectations, strict=True)
    return ExpectationSuite(suite.name, expectations=[each for rule, each in named if rule.name in rules])


def _one_or_all(values: Iterable[Any]) -> Any:
    """The value where there is but one, else all of them, sorted; None, an end that is open, first."""
    found = sorted(set(values), key=lambda value: (value is not None, value or 0))
    return found[0] if len(found) == 1 else found


def _ends_of(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Rule -> end -> what it was in these."""
    values: dict[str, dict[str, list[Any]]] = {}
    for were in found:
        for rule, ends in were.items():
            for key, value in ends.items():
                values.setdefault(rule, {}).setdefault(key, []).append(value)
    return {rule: {key: _one_or_all(given) for key, given in ends.items()} for rule, ends in values.items()}


def _known(name: str, wanted: Mapping[str, Suite]) -> str:
    columns = sorted(
        {
            column
            for suite in wanted.values()
            for rule in rules_of(suite.build(DEFAULTS))
            for column in rule.columns
            if rule.range
        }
    )
    return (
        f"'{name}' is no threshold and no column with a range; "
        f"thresholds: {', '.join(Thresholds.model_fields)}; columns: {', '.join(columns)}; "
        f"or '{STORED_THRESHOLD}', which the scores of examples are held against"
    )


def _flips(
    batch: Judged,
    frame: pd.DataFrame,
    rows: Sequence[Mapping[str, Any]],
    suite: ExpectationSuite,
    one: Held,
    other: Held,
) -> Iterator[Flip]:
    at = {row_id: place for place, row_id in enumerate(frame["row_id"])}
    severities: dict[str, Severity] = {rule.name: rule.severity for rule in one.rules}
    for rule in rules_of(suite):
        before, after = (set(held.failing.get(rule.name, ())) for held in (one, other))
        column = next(iter(rule.columns), None)
        for row_id in sorted(before ^ after, key=lambda each: at[each]):
            value = None if column is None else _plain(frame[column].iloc[at[row_id]])
            would = "break" if row_id in after else "keep"
            told = _told(rows[at[row_id]])
            yield Flip(str(batch.batch), row_id, rule.name, would, severities[rule.name], value, told)


def _outcomes(batch: Judged, one: Held, other: Held) -> Iterator[dict[str, Any]]:
    """What becomes of the batch, where a touched rule comes out otherwise and all others as they did."""
    before = {rule.name: rule.outcome for rule in one.rules}
    after = {rule.name: rule.outcome for rule in other.rules}
    differing = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
    if not differing:
        return
    warns = {rule.name for rule in other.rules if rule.severity == "warn"}
    warns |= {rule["name"] for rule in batch.rules if rule.get("waived")}
    outcomes = {rule["name"]: rule["outcome"] for rule in batch.rules} | after
    refusing = {outcome for name, outcome in outcomes.items() if name not in warns or outcome == "error"}
    would_be = "fail" if "fail" in refusing else "error" if "error" in refusing else "pass"
    yield {
        "batch": str(batch.batch),
        "rows": batch.rows,
        "was": batch.outcome,
        "would_be": would_be,
        "rules": differing,
    }


def _stored(settings: Settings, question: str, value: float, names: Sequence[str] | None) -> WhatIf:
    """Examples whose stored score falls short of another threshold, and rejected rows that would reach it."""
    if names is not None and EXAMPLE.name not in names:
        raise WhatIfError(
            f"'{STORED_THRESHOLD}' was asked of {', '.join(names)}, and stored scores are those of "
            f"{EXAMPLE.name}; run: stemma audit {EXAMPLE.name} --what-if {question}"
        )
    scored = pads.field("score").is_valid() & (pads.field("split") == "train")
    columns = ["row_id", "score", "threshold", "text", "run_id"]
    stands = tables.read(settings, EXAMPLE, columns=columns, where=scored & (pads.field("score") < value))
    batches = tables.batches(settings, EXAMPLE)
    flips = [
        Flip(
            str(batches.get(row["run_id"], EXAMPLE.name)),
            row["row_id"].hex(),
            "score reaches threshold",
            "break",
            "fail",
            row["score"],
            _clip(row["text"]),
        )
        for row in stands.to_pylist()
        if row["threshold"] is not None and row["score"] >= row["threshold"]
    ]
    lacking = pads.field("score").is_valid() & (pads.field("score") >= value)
    rejected = tables.read(
        settings, REJECTED, where=lacking & (pads.field("score") < pads.field("threshold"))
    )
    flips += [
        Flip(
            f"rejected by {row['step']}",
            row["row_id"].hex(),
            row["reason"],
            "keep",
            "fail",
            row["score"],
        )
        for row in rejected.to_pylist()
    ]
    held_against = sorted(
        {
            row["threshold"]
            for rows in (stands, rejected)
            for row in rows.select(["threshold"]).to_pylist()
            if row["threshold"] is not None
        }
    )
    return WhatIf(question, held_against, value, ("examples.score reaches threshold",), tuple(flips))


def _told(row: Mapping[str, Any]) -> str:
    return _clip(row.get("text") or row.get("response") or row.get("answer") or "")


def _clip(text: str | None) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= _TEXT else flat[: _TEXT - 1] + "…"


def _plain(value: Any) -> Any:
    """A value of a frame as JSON can say it."""
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value
