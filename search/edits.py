"""What may change in a recipe: its dimensions, each a path into the recipe and a range of values.

    dimensions = (
        Categorical("data.hard_share", (0.0, 0.25, 0.5)),
        LogUniform("hyperparameters.learning_rate", 1e-4, 1e-2),
    )
    check(dimensions, base)    # before anything expensive

A dimension speaks to Optuna in parameters and to a recipe in values. Drawn floats are rounded to three
significant digits, so that a recipe stays readable and two draws that mean the same are one recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice, product
from typing import TYPE_CHECKING, Any

from lineage.recipe import Recipe, RecipeError
from search.space import SearchError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True)
class Categorical:
    """One of a few values, of any JSON type; they are taken as they stand."""

    path: str
    choices: Sequence[Any]

    def __post_init__(self) -> None:
        """Check the range."""
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices or len(set(map(_identity, self.choices))) < len(self.choices):
            raise SearchError(
                f"'{self.path}' has the choices {list(self.choices)}; expected one or more, each once"
            )

    def distribution(self) -> BaseDistribution:
        """What Optuna draws from: the position of the choice, for Optuna itself only knows plain values."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(range(len(self.choices)))

    def value(self, parameter: Any) -> Any:
        """The recipe's value for a parameter that Optuna drew."""
        return self.choices[parameter]

    def parameter(self, value: Any) -> Any | None:
        """Optuna's parameter for a value of a recipe, or None where the value is outside the range."""
        identities = [_identity(choice) for choice in self.choices]
        return identities.index(_identity(value)) if _identity(value) in identities else None

    def values(self) -> Iterable[Any] | None:
        """All values, or None where they cannot be listed."""
        return self.choices


@dataclass(frozen=True)
class Integer:
    """A whole number from low to high, both included; `log` makes each doubling equally likely."""

    path: str
    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        """Check the range."""
        _check_range(self, positive=self.log)

    def distribution(self) -> BaseDistribution:
        """What Optuna draws from."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log)

    def value(self, parameter: Any) -> Any:
        """The recipe's value for a parameter that Optuna drew."""
        return int(parameter)

    def parameter(self, value: Any) -> Any | None:
        """Optuna's parameter for a value of a recipe, or None where the value is outside the range."""
        return (
            value if isinstance(value, int) and _is_number(value) and self.low <= value <= self.high else None
        )

    def values(self) -> Iterable[Any] | None:
        """All values, or None where they cannot be listed."""
        return range(self.low, self.high + 1)


@dataclass(frozen=True)
class Uniform:
    """A number from low to high, both included."""

    path: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the range."""
        _check_range(self)

    def distribution(self) -> BaseDistribution:
        """What Optuna draws from."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high)

    def value(self, parameter: Any) -> Any:
        """The recipe's value for a parameter that Optuna drew: rounded, but never out of the range."""
        return _rounded(parameter, self.low, self.high)

    def parameter(self, value: Any) -> Any | None:
        """Optuna's parameter for a value of a recipe, or None where the value is outside the range."""
        return float(value) if _is_number(value) and self.low <= value <= self.high else None

    def values(self) -> Iterable[Any] | None:
        """All values, or None where they cannot be listed."""
        return None


@dataclass(frozen=True)
class LogUniform:
    """A number from low to high, both included, each doubling equally likely."""

    path: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Check the range."""
        _check_range(self, positive=True)

    def distribution(self) -> BaseDistribution:
        """What Optuna draws from."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=True)

    def value(self, parameter: Any) -> Any:
        """The recipe's value for a parameter that Optuna drew: rounded, but never out of the range."""
        return _rounded(parameter, self.low, self.high)

    def parameter(self, value: Any) -> Any | None:
        """Optuna's parameter for a value of a recipe, or None where the value is outside the range."""
        return float(value) if _is_number(value) and self.low <= value <= self.high else None

    def values(self) -> Iterable[Any] | None:
        """All values, or None where they cannot be listed."""
        return None


Dimension = Categorical | Integer | Uniform | LogUniform


def check(dimensions: Sequence[Dimension], base: Recipe) -> None:
    """Raise SearchError unless each dimension changes something the base recipe has, no two the same."""
    if not dimensions:
        raise SearchError("the search has no dimensions, so nothing may change; name at least one")
    for dimension in dimensions:
        try:
            found = base.at(dimension.path)
        except RecipeError as error:
            raise SearchError(f"dimension '{dimension.path}': {error}") from error
        if not isinstance(dimension, Categorical) and not _is_number(found):
            kind = type(dimension).__name__
            raise SearchError(
                f"dimension '{dimension.path}' is {kind}, but the recipe has {found!r}; expected a number"
            )
    for one, other in combinations(sorted(f"{dimension.path}." for dimension in dimensions), 2):
        if other.startswith(one):
            raise SearchError(
                f"dimensions '{one[:-1]}' and '{other[:-1]}' change the same thing; keep one of them"
            )


def apply(dimensions: Sequence[Dimension], parameters: Mapping[str, Any], base: Recipe) -> Recipe:
    """The base recipe with the values that these parameters (path -> what Optuna drew) stand for."""
    return base.edit(
        {dimension.path: dimension.value(parameters[dimension.path]) for dimension in dimensions}
    )


def parameters_of(recipe: Recipe, dimensions: Sequence[Dimension]) -> dict[str, Any] | None:
    """Optuna's parameters (path -> parameter) of a recipe, or None where a value is outside its range."""
    found = {dimension.path: dimension.parameter(recipe.at(dimension.path)) for dimension in dimensions}
    return None if None in found.values() else found


def first_unknown(dimensions: Sequence[Dimension], base: Recipe, known: Mapping[str, Any]) -> Recipe | None:
    """The first recipe, in the order of the dimensions' values, whose key is not known.

    None where all are known, and where the recipes cannot be listed.
    """
    listed: list[list[Any]] = []
    for dimension in dimensions:
        values = dimension.values()
        if values is None:
            return None
        listed.append(
            list(islice(values, len(known) + 1))
        )  # one more than is known: enough to find an unknown one
    for combination in product(*listed):
        recipe = base.edit(
            {dimension.path: value for dimension, value in zip(dimensions, combination, strict=True)}
        )
        if recipe.key not in known:
            return recipe
    return None


def describe(dimension: Dimension) -> dict[str, Any]:
    """The dimension as JSON: what a run's identity and record hold of it."""
    return {"kind": type(dimension).__name__, **asdict(dimension)}


def _check_range(dimension: Integer | Uniform | LogUniform, *, positive: bool = False) -> None:
    if positive and dimension.low <= 0:
        raise SearchError(
            f"'{dimension.path}' is drawn on a log scale from {dimension.low}; expected more than 0"
        )
    if not dimension.low < dimension.high:
        raise SearchError(
            f"'{dimension.path}' ranges from {dimension.low} to {dimension.high}; expected low < high"
        )


def _rounded(drawn: float, low: float, high: float) -> float:
    return min(max(float(f"{drawn:.{SIGNIFICANT_DIGITS}g}"), low), high)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _identity(value: Any) -> str:
    try:
        return Recipe(data={"value": value}).text
    except RecipeError as error:
        raise SearchError(f"a choice is {value!r}; expected a JSON value") from error
