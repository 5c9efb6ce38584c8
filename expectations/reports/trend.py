"""How what a rule observes went over the versions of a table, as a small picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lineage.registry.pedigree.marks import text
from lineage.verdicts import Given, Rule

VERSIONS = 40
"""The newest versions that a trend is drawn over."""

_WIDTH, _HIGH, _EDGE = 150, 30, 4  # px
_LINES = ("line", "line c1", "line c2", "line c3")

Trend = Sequence[Mapping[str, float]]
"""What was observed on each version, oldest first, by name; of one number the name is empty."""


def trends(past: Sequence[Given]) -> dict[str, Trend]:
    """Rule -> what it observed on each of these verdicts, oldest first; on some it may have been nothing."""
    names = dict.fromkeys(rule.name for given in past for rule in given.verdict.rules)
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for given in past:
        rules = {rule.name: rule for rule in given.verdict.rules}
        for name, observed in found.items():
            observed.append(_numbers(rules[name].observed) if name in rules else {})
    return {name: observed for name, observed in found.items()}


def sparkline(trend: Trend, rule: Rule) -> str:
    """The trend as SVG, the rule's limits dashed, its last point marked; empty where there is none to see."""
    known = [numbers for numbers in trend if numbers]
    if len(known) < 2:
        return ""
    limits = [limit for limit in _limits(rule) if limit is not None]
    values = [value for numbers in known for value in numbers.values()]
    low, high = min([*values, *limits]), max([*values, *limits])
    if high == low:  # a flat line lies in the middle
        low, high = low - 1, high + 1
    span = high - low
    drawn = [
        f'<path class=limit d="M{_EDGE} {_y(limit, low, span):.1f}H{_WIDTH - _EDGE}"/>' for limit in limits
    ]
    series = list(dict.fromkeys(name for numbers in known for name in numbers))[: len(_LINES)]
    for name, line in zip(series, _LINES, strict=False):
        points = [
            (_x(place, len(trend)), _y(numbers[name], low, span))
            for place, numbers in enumerate(trend)
            if name in numbers
        ]
        drawn.append(f'<path class="{line}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')
        bad = "" if rule.outcome == "pass" else " bad"
        drawn.append(f'<circle class="dot{bad}" cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.6"/>')
    said = f"{len(known)} versions, between {min(values):,.4g} and {max(values):,.4g}"
    said += f": {', '.join(series)}" if series != [""] else ""
    return (
        f'<svg class=spark viewBox="0 0 {_WIDTH} {_HIGH}" role="img"><title>{text(said)}</title>'
        f"{''.join(drawn)}</svg>"
    )


def strip(past: Sequence[Given]) -> str:
    """One small block per verdict, oldest first."""
    blocks = "".join(
        f'<rect class={given.verdict.outcome} x="{8 * place}" y="1" width="6" height="14" rx="1.5">'
        f"<title>{text(given.verdict.batch)}: {given.verdict.outcome}</title></rect>"
        for place, given in enumerate(past)
    )
    wide = max(8 * len(past), 8)
    return f'<svg class=past viewBox="0 0 {wide} 16" width="{wide}" role="img">{blocks}</svg>'


def _numbers(observed: object) -> Mapping[str, float]:
    if isinstance(observed, Mapping):
        return {str(name): float(each) for name, each in observed.items() if _is_number(each)}
    return {"": float(observed)} if _is_number(observed) else {}  # pyright: ignore[reportArgumentType]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # not NaN


def _limits(rule: Rule) -> list[float | None]:
    limit = rule.threshold
    if isinstance(limit, Mapping):
        ends = (limit.get(name) for name in ("min_value", "max_value", "max_ratio"))
        return [float(each) if _is_number(each) else None for each in ends]  # pyright: ignore[reportArgumentType]
    return [float(limit)] if _is_number(limit) else []


def _x(place: int, of: int) -> float:
    return _EDGE + (_WIDTH - 2 * _EDGE) * place / max(of - 1, 1)


def _y(value: float, low: float, span: float) -> float:
    return _HIGH - _EDGE - (_HIGH - 2 * _EDGE) * (value - low) / span
